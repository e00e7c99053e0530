"""Of what kind the values of a column are: what holds all of them, without a loss."""

from __future__ import annotations

import json
import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import ConfigurationError
from embedbatch.jobs.columns import JSON, Kinds, check_names, cleaned, encode, joined
from embedbatch.jobs.sinks.parquet import fields_of

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda it: st.lists(it, max_size=3) | st.dictionaries(st.text(), it, max_size=2))
KINDS = st.sampled_from(["null", "bool", "int", "long", "float", "text", JSON, "null[]", "float[]", "text[][]"])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None], "null"),
        ([True, None], "bool"),
        ([1, None, -(2**53)], "int"),
        ([1, 2**53 + 1], "long"),
        ([2**63], JSON),
        ([1, 0.5], "float"),
        ([2**53 + 1, 0.5], JSON),
        ([True, 1], JSON),
        (["a", None], "text"),
        (["a", 1], JSON),
        ([[], None], "null[]"),
        ([[], [1], [None, 0.5]], "float[]"),
        ([[["a"]], [[]]], "text[][]"),
        ([[[[[1]]]]], "int[][][][]"),
        ([[[[[[1]]]]]], JSON),
        ([["a", 1]], JSON),
        ([[1], ["a"]], JSON),
        ([[1], 1], JSON),
        ([{"a": 1}], JSON),
        ([[{"a": 1}]], JSON),
    ],
)
def test_a_column_is_of_the_kind_that_holds_all_of_its_values(values: list[Any], kind: str) -> None:
    """In any order."""
    for order in (values, values[::-1]):
        kinds = Kinds()
        for value in order:
            kinds.add({"a": value})
        assert kinds.columns == {"a": kind}


@given(KINDS, KINDS, KINDS)
def test_kinds_are_joined_in_any_order(one: str, two: str, three: str) -> None:
    """What comes first does not matter."""
    assert joined(one, two) == joined(two, one)
    assert joined(joined(one, two), three) == joined(one, joined(two, three))
    assert joined(one, one) == one


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_arrow_has_room_for_what_a_kind_stands_for(values: list[Any]) -> None:
    """Every value that is not written as JSON comes back equal from the Arrow type of the kind of all."""
    kinds = Kinds(["a"])
    for value in values:
        kinds.add({"a": value})
    (kind,) = kinds.columns.values()

    (field,) = fields_of(kinds.columns)

    if kind != JSON:
        texts = [cleaned(value) for value in values]
        assert pa.array(texts, field.type).to_pylist() == texts


@given(VALUES.filter(lambda value: "Infinity" not in json.dumps(value)))
def test_what_is_written_as_json_is_read_as_it_was(value: Any) -> None:
    """Whatever JSON can hold."""
    assert json.loads(encode(value)) == cleaned(value)


def test_what_json_has_no_name_for_is_text() -> None:
    """Bytes are base64, times ISO 8601, numbers that are not finite null; a lone surrogate is U+FFFD, anywhere."""

    class Stamp(datetime):
        """As that of pandas, of which msgspec knows nothing."""

    assert encode([b"\xff", date(2026, 1, 2), Stamp(2026, 1, 2), Decimal("1.10"), math.nan, 1j]) == (
        b'["/w==","2026-01-02","2026-01-02T00:00:00","1.10",null,"1j"]'
    )
    assert encode({"\ud800": ["a\udfff", ("b", 1)]}) == '{"\ufffd":["a\ufffd",["b",1]]}'.encode()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a", "a"], "columns: 'a' is named twice"),
        (["a", "vector"], "columns: 'vector' is one of the result's own columns, id, vector"),
        (["a\ud800"], "cannot be the name of a column"),
        ([1], "columns: 1 cannot be the name of a column"),
    ],
)
def test_a_name_that_a_result_cannot_have_is_refused(names: list[Any], reason: str) -> None:
    """Nothing else is."""
    check_names(["a", "", "ä b"], taken={"id"})

    with pytest.raises(ConfigurationError, match=reason):
        check_names(names, taken={"id", "vector"})


def test_a_list_in_a_list_in_a_list_ends_nothing() -> None:
    """However deep it goes: JSON."""
    value: list[Any] = []
    for _ in range(10_000):
        value = [value]
    kinds = Kinds()
    kinds.add({"a": value})

    assert kinds.columns == {"a": JSON}


def test_a_name_that_cannot_be_written_is_found_in_the_scan() -> None:
    """JSON can have it as a key."""
    with pytest.raises(ConfigurationError, match="cannot be the name of a column"):
        Kinds().add({"\udc00": 1})
