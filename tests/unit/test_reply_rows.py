"""A row that is no vector, usage that is none, and bodies that are no embeddings."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import InvalidReplyError, MalformedReplyError

from .replying import VECTORS, bits, body, item, packed, read, reply

# Rows that are no vectors


@pytest.mark.parametrize(
    ("embedding", "reason"),
    [
        ([None, 1.0, 2.0], "a number that is not finite"),
        ([1.0, 2.0, None], "a number that is not finite"),
        ([None, None, None], "a number that is not finite"),
        ([1e39, 1.0, 2.0], "a number that is not finite"),
        (packed([np.inf, 1, 2]), "a number that is not finite"),
        (packed([1, 2, -np.inf]), "a number that is not finite"),
        (packed([1, np.nan, 2]), "a number that is not finite"),
        ([0.0, 0.0, 0.0], "nothing but zeros"),
        ([0, -0.0, 1e-60], "nothing but zeros"),
        (packed([0, 0, 0]), "nothing but zeros"),
        (packed([-0.0, 0, -0.0]), "nothing but zeros"),
        ([], "an empty vector"),
        ("", "an empty vector"),
        (None, "'null': Expected `array`, got `null`"),
        (5, "'5': Expected `array`, got `int`"),
        (True, "'true': Expected `array`, got `bool`"),
        ({"a": 1}, "Expected `array`, got `object`"),
        ([[1.0, 2.0, 3.0]], "got `array`"),
        (["1.0", "2", "3"], "got `str`"),
        ([True, False, True], "got `bool`"),
        ("AAAAAAA=", "not a whole number of float32 numbers"),
        ("AAAAAAA", "Non-base64 digit found"),
        ("not base64!!", "Non-base64 digit found"),
        ("_-__AAAA", "Non-base64 digit found"),
        ("ÄÖÜß", "Non-base64 digit found"),
        ("AAAA\nAAAA", "Non-base64 digit found"),
    ],
)
@pytest.mark.parametrize("dimensions", [None, 3])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_row_is_reported_and_costs_no_other(
    embedding: Any, reason: str, dimensions: int | None, place: int
) -> None:
    """One row of three that is no vector is in bad_rows, under the position of its input; the other two are kept."""
    index = (place + 1) % 3  # of the bad row: not its place in the body
    data = [item(packed(VECTORS[(other + 1) % 3]), index=(other + 1) % 3) for other in range(3)]
    data[place] = item(embedding, index=index)

    decoded = read(body(data), 3, dimensions)

    assert list(decoded.bad_rows) == [index]
    assert reason in decoded.bad_rows[index]
    good = [row for row in range(3) if row != index]
    assert bits(decoded.vectors[good]) == bits(VECTORS[good])


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400])
def test_a_number_that_no_float_holds_is_a_bad_row(number: str) -> None:
    """1e400 is JSON, and no float: the row is bad."""
    data = body([item("?"), item([1, 2])]).replace(b'"?"', f"[1.0, {number}]".encode())

    assert list(read(data, 2).bad_rows) == [0]


@given(st.lists(st.sampled_from(["good", "nan", "zeros", "inf", "empty", "null"]), min_size=1, max_size=8))
def test_exactly_the_bad_rows_are_reported(kinds: list[str]) -> None:
    """In any mixture of good and bad rows the bad ones are listed, all of them and no other."""
    embeddings = {
        "good": packed([1, 2]),
        "nan": [1.0, None],
        "zeros": [0.0, 0.0],
        "inf": packed([1, np.inf]),
        "empty": "",
        "null": None,
    }
    decoded = read(body([item(embeddings[kind], index=index) for index, kind in enumerate(kinds)]), len(kinds))

    assert sorted(decoded.bad_rows) == [row for row, kind in enumerate(kinds) if kind != "good"]
    assert len(decoded.vectors) == len(kinds)


def test_a_reply_of_nothing_but_bad_rows_has_no_size() -> None:
    """Where no row is a vector and no size is known, the vectors have shape (2, 0), and both rows are bad."""
    decoded = read(body([item(None), item("")]), 2)

    assert decoded.vectors.shape == (2, 0)
    assert list(decoded.bad_rows) == [0, 1]


def test_a_vector_may_begin_with_a_zero() -> None:
    """Zeros are suspicious only where there is nothing else."""
    assert not read(reply([[0, 0, 1e-45], [-0.0, 1, 0]]), 2).bad_rows


def test_a_bad_row_is_quoted_in_part() -> None:
    """The reason quotes at most 80 bytes of a row of thousands."""
    (reason,) = read(body([item("!" * 9_000)])).bad_rows.values()

    assert len(reason) < 200


# Usage


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "total_tokens": 7}, (5, 7)),
        ({"prompt_tokens": 5}, (5, 5)),
        ({"total_tokens": 7}, (7, 7)),
        ({"prompt_tokens": 0, "total_tokens": 7}, (7, 7)),
        ({"prompt_tokens": 5, "total_tokens": 0}, (5, 5)),
        ({"prompt_tokens": None, "total_tokens": 7}, (7, 7)),
        ({"prompt_tokens": 5.0, "total_tokens": 7.9}, (5, 7)),
        ({"prompt_tokens": 0, "total_tokens": 0}, (None, None)),
        ({"prompt_tokens": -1, "total_tokens": -1}, (None, None)),
        ({"prompt_tokens": -1, "total_tokens": 7}, (7, 7)),
        ({"prompt_tokens": 0.5}, (None, None)),
        ({"prompt_tokens": 2**53 - 1}, (2**53 - 1, 2**53 - 1)),
        ({"prompt_tokens": 2**53}, (None, None)),
        ({"prompt_tokens": 10**400, "total_tokens": 7}, (7, 7)),
        ({"prompt_tokens": 1e300}, (None, None)),
        ({"prompt_tokens": "5", "total_tokens": "7"}, (None, None)),
        ({"prompt_tokens": True}, (None, None)),
        ({"prompt_tokens": {}}, (None, None)),
        ({}, (None, None)),
        (None, (None, None)),
        ([], (None, None)),
        ("5", (None, None)),
        (5, (None, None)),
    ],
)
def test_usage_is_believed_where_it_says_something(usage: Any, expected: tuple[int | None, int | None]) -> None:
    """Positive counts are taken, one stands in for the other; null, 0, strings and 2⁵³ are unknown, not errors."""
    decoded = read(reply([[1, 2]], usage=usage))

    assert (decoded.prompt_tokens, decoded.total_tokens) == expected
    assert decoded.vectors.tolist() == [[1.0, 2.0]]


def test_usage_may_be_missing() -> None:
    """Without usage both counts are unknown, and the vectors are there."""
    decoded = read(reply([[1, 2]]))

    assert (decoded.prompt_tokens, decoded.total_tokens) == (None, None)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999"])
def test_a_usage_that_no_float_holds_is_unknown(number: bytes) -> None:
    """A count of 1e999 is unknown."""
    data = reply([[1, 2]], usage={"prompt_tokens": "?"}).replace(b'"?"', number)

    assert read(data).prompt_tokens is None


# Bodies that are no embeddings


GOOD = reply([[1, 2]])
DEEP = 100_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"text"',
        b"<html><body>502 Bad Gateway</body></html>",
        b"{}",
        b'{"data": {}}',
        b'{"data": "x"}',
        b'{"data": [null]}',
        b'{"data": [[1.0, 2.0]]}',
        b'{"data": [{}]}',
        b'{"data": [{"index": 0}]}',
        b'{"error": {"message": "upstream", "code": 500}}',
        GOOD[:-1],
        GOOD[: len(GOOD) // 2],
        GOOD[:1],
        GOOD + GOOD,
        GOOD + b"x",
        b'data: {"data": []}',
        b"\xef\xbb\xbf" + GOOD,
        b"\xff\xfe" + GOOD,
        GOOD.replace(b'"data"', b'"\xff"'),
        GOOD.decode().encode("utf-16"),
        b"\x1f\x8b\x08\x00",
        b"\x00" * 100,
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        GOOD[:-1] + b', "x": ' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"data": [{"embedding": ' + b"[" * DEEP + b"]" * DEEP + b"}]}",
        GOOD[:-1] + b', "usage": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    ],
    ids=range(32),
)
def test_a_body_that_is_no_embeddings_reply_is_malformed(data: bytes) -> None:
    """HTML, half a body, two bodies, a missing "data", UTF-16 or 100,000 brackets raise MalformedReplyError."""
    with pytest.raises(MalformedReplyError, match=r"^expected an embeddings reply, got ") as raised:
        read(data)
    assert (raised.value.status, raised.value.request_id) == (200, "req_1")
    assert len(str(raised.value)) < 500


def test_nesting_below_the_limit_is_read_or_malformed() -> None:
    """Wherever the depth of nesting begins to be too much, the answer is a MalformedReplyError or the vectors."""
    outcomes = set()
    for depth in range(1, sys.getrecursionlimit() + 50, 7):
        for name in (b"usage", b"x"):
            data = GOOD[:-1] + b', "' + name + b'": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
            try:
                outcomes.add(read(data).vectors.tolist() == [[1.0, 2.0]])
            except MalformedReplyError:
                outcomes.add("malformed")
    assert outcomes == {True, "malformed"}


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Whatever a body holds, decoding raises InvalidReplyError or one of its kinds, and nothing else."""
    with pytest.raises(InvalidReplyError):
        read(data)


@given(st.data())
def test_no_damage_raises_anything_else(data: st.DataObject) -> None:
    """A good body with any stretch of it replaced gives vectors, bad rows or an InvalidReplyError."""
    good = reply(VECTORS, usage={"prompt_tokens": 3, "total_tokens": 3})
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 20)))
    damage = data.draw(
        st.binary(max_size=8) | st.sampled_from([b"null", b"1e999", b"[", b'"', b"\\u0000", b"{}", b"-1"])
    )
    try:
        decoded = read(good[:start] + damage + good[end:], 3)
    except InvalidReplyError:
        return
    assert len(decoded.vectors) == 3
    rows = [row for row in range(3) if row not in decoded.bad_rows]
    assert np.isfinite(decoded.vectors[rows]).all()
    assert all(decoded.vectors[row].any() for row in rows)
