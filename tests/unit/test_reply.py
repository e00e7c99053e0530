"""Bytes become vectors, at the right place, with every bit."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import DimensionsError, InvalidReplyError, MalformedReplyError

from .replying import VECTORS, bits, body, item, matrices, packed, read, reply, shortest, widened

# Every bit, every place


@given(matrices, st.sampled_from([packed, shortest, widened]), st.sampled_from([None, "right"]))
def test_decoding_keeps_every_bit(rows: list[list[float]], encode: Any, known: str | None) -> None:
    """base64, and decimals of any length, come back as the same float32 bits, with dimensions known or not."""
    dimensions = len(rows[0]) if known else None
    data = body([item(encode(row), index=index) for index, row in enumerate(rows)])

    decoded = read(data, len(rows), dimensions)

    assert bits(decoded.vectors) == bits(np.array(rows, np.float32))
    assert not decoded.bad_rows


@given(st.permutations(range(len(VECTORS))), st.sampled_from([packed, shortest]))
def test_any_order_of_items_gives_the_same_vectors(order: list[int], encode: Any) -> None:
    """Items are placed by their index, in whatever order the server wrote them."""
    decoded = read(body([item(encode(VECTORS[index]), index=index) for index in order]), 3)

    assert bits(decoded.vectors) == bits(VECTORS)


@pytest.mark.parametrize("more", [{}, {"index": None}])
def test_without_any_index_the_order_is_that_of_the_items(more: dict[str, Any]) -> None:
    """If no item of an equal count has an index, or all are null, items are taken in their order."""
    decoded = read(body([item(packed(row), **more) for row in VECTORS]), 3)

    assert bits(decoded.vectors) == bits(VECTORS)


def test_rows_are_decoded_by_what_they_are() -> None:
    """Floats where base64 was asked for, and both in one reply, are decoded by their JSON type."""
    data = body([item(packed(VECTORS[0]), index=0), item(shortest(VECTORS[1]), index=1), item([3, 1e38, 7], index=2)])
    decoded = read(data, 3, 3)

    assert bits(decoded.vectors[:2]) == bits(VECTORS[:2])
    assert decoded.vectors[2].tolist() == np.array([3, 1e38, 7], np.float32).tolist()


def test_escaped_slashes_in_base64_are_slashes() -> None:
    r"""PHP and others write "\/" for "/" in JSON; the vector is the same."""
    rows = np.array([[-1.7014117e38, 2.0, 1.0]], np.float32).view(np.uint32)
    rows[:] = 0x3FFFFFFF
    vector = rows.view(np.float32)
    text = packed(vector)
    assert "/" in text
    data = body([item("?")]).replace(b"?", text.replace("/", r"\/").encode())

    assert bits(read(data).vectors) == bits(vector)


def test_unknown_keys_are_passed_over() -> None:
    """Extra keys at every level, and keys in another order, change nothing."""
    data = body(
        [{"index": 0, "x": [1, {"y": None}], "embedding": packed([1, 2]), "truncated": True}],
        usage={"prompt_tokens": 3, "total_tokens": 4, "details": {"audio": [1]}},
        id="x",
        request_id=5,
    )
    decoded = read(data)

    assert (decoded.vectors.tolist(), decoded.prompt_tokens, decoded.total_tokens) == ([[1.0, 2.0]], 3, 4)


def test_white_space_between_tokens_is_nothing() -> None:
    """A body that is indented, or begins and ends with white space, is read like any other."""
    data = json.dumps({"data": [item(packed([1, 2])), item([3, 4])]}, indent=4).encode()

    assert read(b"\r\n " + data + b"\n\n", 2).vectors.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_bytes_that_are_not_utf8_are_passed_over_where_nobody_looks() -> None:
    """A model name that is no UTF-8 costs no vector."""
    assert read(reply([[1, 2]]).replace(b'"m"', b'"\xff\xfe"')).vectors.tolist() == [[1.0, 2.0]]


# Index


@pytest.mark.parametrize(
    "indexes",
    [[0, 0, 1], [0, 1, 1], [0, 0, 0], [0, 1, None], [None, None, 2], [0, 1, 3], [1, 2, 3], [-1, 0, 1], [0, 1, 2**80]],
)
def test_an_index_that_is_no_permutation_is_refused(indexes: list[int | None]) -> None:
    """Duplicate, missing, partly missing, negative and too large indexes raise; guessing could swap two vectors."""
    data = [
        item(packed(row), **({} if at is None else {"index": at})) for row, at in zip(VECTORS, indexes, strict=True)
    ]

    with pytest.raises(
        InvalidReplyError, match=r"expected every index from 0 to 2 once, got .* - at \$.data\[\*\].index"
    ):
        read(body(data), 3)


@given(st.lists(st.integers(-2, 6) | st.none(), min_size=3, max_size=3))
def test_only_permutations_and_no_index_at_all_are_accepted(indexes: list[int | None]) -> None:
    """Of all triples of indexes only the 6 permutations of 0, 1, 2 and three absent ones give vectors."""
    data = body([item(packed(row), index=index) for row, index in zip(VECTORS, indexes, strict=True)])

    if indexes == [None] * 3 or sorted(indexes, key=str) == [0, 1, 2]:
        places = [place if index is None else index for place, index in enumerate(indexes)]
        assert bits(read(data, 3).vectors[places]) == bits(VECTORS)
    else:
        with pytest.raises(InvalidReplyError):
            read(data, 3)


@pytest.mark.parametrize("index", ["0", 0.5, True, [0], {}])
def test_an_index_of_another_type_is_malformed(index: Any) -> None:
    """A string, a fraction, a bool or an array as index raises MalformedReplyError."""
    with pytest.raises(MalformedReplyError, match=r"\$.data\[0\].index"):
        read(body([item(packed([1, 2]), index=index)]))


def test_many_wrong_indexes_are_shown_in_part() -> None:
    """The message shows the first 8 of 256 indexes, and says which ones are missing."""
    data = [item(packed([1]), index=index // 2) for index in range(254)] + [item(packed([1]))] * 2

    with pytest.raises(InvalidReplyError, match=r"from 0 to 255 once, got 0, 0, 1, 1, 2, 2, 3, 3, …"):
        read(body(data), 256)


# Count and size


@pytest.mark.parametrize("count", [0, 1, 2, 4, 6])
def test_another_number_of_vectors_is_refused(count: int) -> None:
    """0, 1, 2, 4 or 6 vectors for 3 inputs raise InvalidReplyError, whatever their indexes are."""
    with pytest.raises(InvalidReplyError, match=rf"^expected 3 embeddings, got {count} - at \$.data$") as raised:
        read(reply([[1, 2]] * count), 3)
    assert not isinstance(raised.value, MalformedReplyError | DimensionsError)
    assert (raised.value.status, raised.value.request_id) == (200, "req_1")


@pytest.mark.parametrize("data", [b'{"data": null}', b'{"object": "", "data": null, "model": ""}', b'{"data": []}'])
def test_no_vectors_at_all_is_another_number(data: bytes) -> None:
    """Ollama's null, and the empty array of a server that lacks base64, are replies without vectors: 0 instead of 1."""
    with pytest.raises(InvalidReplyError, match="expected 1 embeddings, got 0 - at"):
        read(data)


def test_vectors_without_numbers_are_in_order() -> None:
    """Nomic's {"embeddings": [[…], …]} gives the rows as they stand; as many as there were inputs, or it is refused."""
    data = b'{"embeddings": [[1.0, 2.0], [3.0, 4.0]], "usage": {"prompt_tokens": 5, "total_tokens": 5}}'

    found = read(data, inputs=2)

    assert found.vectors.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert (found.prompt_tokens, found.bad_rows) == (5, {})
    with pytest.raises(InvalidReplyError, match="expected 3 embeddings, got 2"):
        read(data, inputs=3)


def test_vectors_of_another_size_are_refused() -> None:
    """Where 4 numbers are known, 3 raise DimensionsError with both numbers, the place and the request's id."""
    with pytest.raises(
        DimensionsError, match=r"^expected vectors of 4 numbers, got 3 - at \$.data\[0\].embedding$"
    ) as raised:
        read(reply(VECTORS), 3, 4)
    assert (raised.value.status, raised.value.request_id) == (200, "req_1")


def test_the_vectors_of_one_reply_have_one_size() -> None:
    """Where nothing is known the first vector tells; the place in the message is the place in the body."""
    data = body([item([1, 2], index=2), item([1, 2], index=1), item([1, 2, 3], index=0)])

    with pytest.raises(DimensionsError, match=r"^expected vectors of 2 numbers, got 3 - at \$.data\[2\].embedding$"):
        read(data, 3)


def test_one_huge_vector_takes_no_memory_for_all() -> None:
    """Where one of 256 vectors is 100,000 numbers long, the reply is refused before 100 MB are taken for such rows."""
    data = body([item(packed(np.ones(100_000)))] + [item([1.0])] * 255)
    tracemalloc.start()
    with pytest.raises(DimensionsError):
        read(data, 256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 10_000_000
