"""Bytes become vectors: every bit is kept, every vector is in its place, and nothing doubtful gets through."""

from __future__ import annotations

import base64
import json
import sys
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import DimensionsError, InvalidReplyError, MalformedReplyError
from embedbatch.wire.reply import Decoded, decode

Matrix = npt.NDArray[np.float32]

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
matrices = st.integers(1, 5).flatmap(
    lambda dimensions: st.lists(st.lists(finite, min_size=dimensions, max_size=dimensions).filter(any), min_size=1)
)
VECTORS = np.array([[0.1, -2.5, 3e-39], [1.0, 0.0, -0.0], [np.pi, 1e38, 7.0]], np.float32)


def packed(row: Any) -> str:
    return base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()


def shortest(row: Any) -> list[float]:
    """Each number as the shortest decimals that are this float32 and no other."""
    return [float(str(number)) for number in np.asarray(row, np.float32)]


def widened(row: Any) -> list[float]:
    """Each number with all the digits of the float64 it is."""
    return [float(number) for number in np.asarray(row, np.float32)]


def item(embedding: Any, **more: Any) -> dict[str, Any]:
    return {"object": "embedding", "embedding": embedding, **more}


def body(data: Any, **more: Any) -> bytes:
    return json.dumps({"object": "list", "data": data, "model": "m", **more}).encode()


def reply(rows: Any, **more: Any) -> bytes:
    return body([item(packed(row), index=index) for index, row in enumerate(rows)], **more)


def read(data: bytes, inputs: int = 1, dimensions: int | None = None) -> Decoded:
    return decode(data, inputs=inputs, dimensions=dimensions, request_id="req_1")


def bits(vectors: Matrix) -> list[list[int]]:
    assert vectors.dtype == np.float32
    return vectors.view(np.uint32).tolist()


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
        ("AAAAAAA=", "buffer size must be a multiple of element size"),
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
        b'{"data": null}',
        b'{"data": {}}',
        b'{"data": "x"}',
        b'{"data": [null]}',
        b'{"data": [[1.0, 2.0]]}',
        b'{"data": [{}]}',
        b'{"data": [{"index": 0}]}',
        b'{"object": "", "data": null, "model": ""}',
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
    ids=range(34),
)
def test_a_body_that_is_no_embeddings_reply_is_malformed(data: bytes) -> None:
    """HTML, half a body, two bodies, a missing or null "data", UTF-16 or 100,000 brackets raise MalformedReplyError."""
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
