"""Every input form of the contract becomes a list of documents; everything else is a TypeError that says where."""

from __future__ import annotations

import array
import enum
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import InvalidInputError
from embedbatch.plan.inputs import read_input, read_inputs
from embedbatch.values import Document


class Label(enum.StrEnum):
    ONE = "one"


class Texts:
    """An async iterable."""

    def __aiter__(self) -> AsyncIterator[str]:
        raise AssertionError("asked to iterate")


def test_one_text_is_one_document() -> None:
    """ "abc" is a document of three characters, not three documents; so is "", and so are other kinds of str."""
    assert read_inputs("abc") == ["abc"]
    assert read_inputs("") == [""]
    assert read_inputs(np.str_("abc")) == ["abc"]
    assert read_inputs(Label.ONE) == ["one"]


@pytest.mark.parametrize("document", [Document("a text", id="x"), Document([1, 2]), Document(np.array([1, 2]))])
def test_one_document_is_one_document(document: Document) -> None:
    """A Document, of a text or of tokens, is taken as it is."""
    assert read_inputs(document) == [document]


@pytest.mark.parametrize(
    "tokens",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        deque([1, 2, 3]),
        array.array("L", [1, 2, 3]),
        np.array([1, 2, 3]),
        np.array([1, 2, 3], np.uint16),
        np.array([1, 2, 3], object),
        list(np.array([1, 2, 3])),
        (token for token in (1, 2, 3)),
    ],
)
def test_ints_are_one_token_array(tokens: Any) -> None:
    """Three ints, in whatever holds them, are one document of three tokens."""
    assert read_inputs(tokens) == [[1, 2, 3]]


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "b"],
        ("a", "b"),
        deque(["a", "b"]),
        {"x": "a", "y": "b"}.values(),
        (text for text in ("a", "b")),
        map(str, ("a", "b")),
        np.array(["a", "b"]),
        np.array(["a", "b"], object),
        list(np.array(["a", "b"])),
    ],
)
def test_texts_come_in_any_iterable(texts: Any) -> None:
    """Lists, tuples, generators, views and numpy arrays of two texts are two documents, in order."""
    assert read_inputs(texts) == ["a", "b"]


def test_token_arrays_come_in_any_iterable() -> None:
    """Lists, tuples, array.array, numpy rows and a matrix are documents of tokens, each left as it came."""
    arrays: list[Any] = [[1, 2], (3,), range(2), array.array("i", [4]), np.array([5, 6]), list(np.array([7]))]

    assert all(got is came for got, came in zip(read_inputs(arrays), arrays, strict=True))
    assert read_inputs(np.array([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
    assert read_inputs([[]]) == [[]]


def test_kinds_of_documents_may_be_mixed() -> None:
    """Texts, token arrays and Documents stand side by side; only a list that begins with an int is one array."""
    mixed = ["a", [1, 2], Document("b", id=7), Document((3,)), ""]

    assert read_inputs(mixed) == mixed


@pytest.mark.parametrize("nothing", [[], (), iter([]), np.array([]), np.empty((0, 4), int), {}.values()])
def test_no_texts_are_no_documents(nothing: Any) -> None:
    """An empty iterable of any kind is a list of 0 documents, not an error and not an empty token array."""
    assert read_inputs(nothing) == []


@given(st.lists(st.text() | st.lists(st.integers(0), min_size=1), max_size=5).filter(lambda items: items != [[]]))
def test_documents_keep_their_order_and_identity(documents: list[str | list[int]]) -> None:
    """What is read is what was given: the same objects, in the same order."""
    got = read_inputs(documents)

    assert len(got) == len(documents)
    assert all(one is other for one, other in zip(got, documents, strict=True))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "expected texts, got None"),
        (5, "expected texts, got int"),
        (1.5, "expected texts, got float"),
        (True, "expected texts, got bool"),
        (b"bytes", "expected texts, got bytes"),
        (bytearray(b"bytes"), "expected texts, got bytearray"),
        (memoryview(b"bytes"), "expected texts, got memoryview"),
        (np.bytes_(b"bytes"), "expected texts, got bytes_"),
        ({"a": 1}, "expected texts, got dict"),
        ({"a", "b"}, "expected texts, got set"),
        (frozenset("a"), "expected texts, got frozenset"),
        (np.array("abc"), "expected texts, got ndarray of one str"),
        (np.array(b"abc"), "expected texts, got ndarray of one bytes"),
        (np.array(5), "expected texts, got ndarray of one int"),
        (np.int64(5), "expected texts, got int64"),
        (object(), "expected texts, got object"),
        (pa.table({"a": ["b"]}), "expected texts, got a Table: pass the column .* or the whole to embedbatch.jobs"),
        (Texts(), r"embed\(\) needs all texts at once; an async iterable goes to stream\(\)"),
    ],
)
def test_what_holds_no_texts_is_refused(inputs: Any, message: str) -> None:
    """A number, bytes, a dict, a set, None or an async iterable is a TypeError that says what came."""
    with pytest.raises(TypeError, match=f"^{message}$") as raised:
        read_inputs(inputs)
    assert isinstance(raised.value, InvalidInputError)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, r"expected a text or a token array, got None - at \[1\]"),
        (5, r"expected a text or a token array, got int - at \[1\]"),
        (2.5, r"expected a text or a token array, got float - at \[1\]"),
        (float("nan"), r"expected a text or a token array, got float - at \[1\]"),
        (True, r"expected a text or a token array, got bool - at \[1\]"),
        (b"bytes", r"expected a text or a token array, got bytes - at \[1\]"),
        (bytearray(b"bytes"), r"expected a text or a token array, got bytearray - at \[1\]"),
        (memoryview(b"bytes"), r"expected a text or a token array, got memoryview - at \[1\]"),
        ({"a": 1}, r"expected a text or a token array, got dict - at \[1\]"),
        ({1, 2}, r"expected a text or a token array, got set - at \[1\]"),
        (iter([1]), r"expected a text or a token array, got list_iterator - at \[1\]"),
        (np.int64(5), r"expected a text or a token array, got int64 - at \[1\]"),
        (np.float64(5), r"expected a text or a token array, got float64 - at \[1\]"),
        (np.array("abc"), r"expected a text or a token array, got ndarray - at \[1\]"),
        (Texts(), r"expected a text or a token array, got Texts - at \[1\]"),
        (Document(None), r"expected a text or a token array, got None - at \[1\]"),  # type: ignore[arg-type]
        (Document(Document("a")), r"expected a text or a token array, got Document - at \[1\]"),  # type: ignore[arg-type]
        (["text"], r"expected a token id, got str - at \[1\]\[0\]"),
        ([1, True], r"expected a token id, got bool - at \[1\]\[1\]"),
        ([1, 2, None], r"expected a token id, got None - at \[1\]\[2\]"),
        ((1, 2.0), r"expected a token id, got float - at \[1\]\[1\]"),
        ([[1]], r"expected a token id, got list - at \[1\]\[0\]"),
        (np.array([1.5]), r"expected a token id, got float - at \[1\]\[0\]"),
        (np.array([True]), r"expected a token id, got bool - at \[1\]\[0\]"),
        (np.array([[1]]), r"expected a token id, got list - at \[1\]\[0\]"),
        (Document([1, "a"]), r"expected a token id, got str - at \[1\]\[1\]"),  # type: ignore[list-item]
    ],
)
def test_an_item_that_is_no_document_is_named(item: Any, message: str) -> None:
    """The TypeError has the position, counted from 0, and the type of the first item that is no document."""
    with pytest.raises(TypeError, match=f"^{message}$") as raised:
        read_inputs(["fine", item, None])
    assert isinstance(raised.value, InvalidInputError)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([1, "a"], r"expected a token id, got str - at \[1\]"),
        ([1, 2, True], r"expected a token id, got bool - at \[2\]"),
        ([1, 2.0], r"expected a token id, got float - at \[1\]"),
        ([1, None], r"expected a token id, got None - at \[1\]"),
        ([1, [2]], r"expected a token id, got list - at \[1\]"),
        (np.array([1, "a"], object), r"expected a token id, got str - at \[1\]"),
    ],
)
def test_a_flat_token_array_holds_only_ints(tokens: Any, message: str) -> None:
    """A list that begins with an int is one token array; what is no int in it is a TypeError with its place."""
    with pytest.raises(TypeError, match=f"^{message}$"):
        read_inputs(tokens)


@pytest.mark.parametrize("inputs", [[True, False], [2.5], np.array([0.5, 1.5]), np.array([True])])
def test_bools_and_floats_are_no_tokens(inputs: Any) -> None:
    """A list of bools or floats is not a token array: the first of them is refused as a document."""
    with pytest.raises(TypeError, match=r"expected a text or a token array, got (bool|float) - at \[0\]"):
        read_inputs(inputs)


@pytest.mark.parametrize("tokens", [[1, 2], (1, 2), range(1, 3), array.array("L", [1, 2]), np.array([1, 2])])
def test_one_input_is_equal_to_others_with_the_same_content(tokens: Any) -> None:
    """Read as one document, token arrays of every kind are equal and have one hash; so are texts; the id is 0."""
    assert {read_input(tokens), read_input(Document(tokens))} == {Document((1, 2), 0)}
    assert {read_input("1"), read_input(np.str_("1"))} == {Document("1", 0)}
    assert read_input(Document("1", id="x")) == Document("1", "x")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "expected a text or a token array, got None"),
        (5, "expected a text or a token array, got int"),
        (b"bytes", "expected a text or a token array, got bytes"),
        (["text"], r"expected a token id, got str - at \[0\]"),
        (Document([1, True]), r"expected a token id, got bool - at \[1\]"),
    ],
)
def test_one_input_that_is_no_document_is_refused(item: Any, message: str) -> None:
    """The TypeError says what came, and where in a token array."""
    with pytest.raises(TypeError, match=f"^{message}$") as raised:
        read_input(item)
    assert isinstance(raised.value, InvalidInputError)
