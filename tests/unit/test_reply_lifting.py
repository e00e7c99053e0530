"""
Base64 is taken out of a reply as it comes in. It must not matter: not for any body, nor for the parts it comes in.

Every body here is read twice, by the library and by `referring`, which takes nothing out.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedbatch.errors import InvalidReplyError, MalformedReplyError
from embedbatch.wire.body import Body
from embedbatch.wire.reply import decode, is_slow

from .referring import Rows, refer
from .replying import VECTORS, bits, body, item, packed, reply

MUCH = settings(max_examples=300)

# What may stand where a vector is expected, or anywhere else: pieces of vectors, of keys and of marks.
TRAPS = [
    '"embedding":"AAAA',
    'x","embedding":"AACAPw==","y":"',
    '\n0","embedding":"AACAPw==',
    "embedding",
    '"embedding":"',
    "\n0",
    "\n1",
    "\\n0",
    '"\\n0"',
    '"',
    "\\",
    "AACAPw==",
    "AACAP/==",
    "",
    "/",
    "é🌊",
    "x" * 1_100,
]
BROKEN = ["AAAA\n", " AACAPw==", "AACAPw=", "AACAPw", "AACA", "AA==AAAA", "AACAPw====", "_-__", "====", "é", "AAAAAAA="]


def numbers(size: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=size, max_size=size)


@st.composite
def vectors(draw: st.DrawFn, size: int, *, tame: bool = False) -> Any:
    """Something that stands under "embedding": mostly a vector of *size* numbers, as base64 or as a list."""
    odd = ["list", "trap", "broken", "nulls", "odd", "nested"]
    kind = draw(st.sampled_from(["base64"] * (9 if tame else 3) + (["list"] if tame else odd)))
    if kind == "base64":
        return packed(draw(numbers(size)))
    if kind == "list":
        return draw(numbers(size))
    if kind in ("trap", "broken"):
        return draw(st.sampled_from(TRAPS if kind == "trap" else BROKEN))
    if kind == "nulls":
        return draw(st.lists(st.none() | st.integers(-9, 9), max_size=3))
    if kind == "nested":
        return {"embedding": packed(draw(numbers(size)))}
    return draw(st.none() | st.booleans() | st.just([True]) | st.just(["1"]) | st.just(packed([1.0] * (size + 1))))


@st.composite
def write(draw: st.DrawFn, value: Any, space: str | None = None) -> str:
    """*value* as JSON, its objects given as pairs; with *space* everywhere, or in any of the ways there are."""
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=space is None and draw(st.booleans()))
        return text.replace("/", "\\/") if space is None and draw(st.booleans()) else text
    gap = draw(st.sampled_from(["", "", "", " ", "\n\t", "  \r\n"])) if space is None else space
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, tuple):
        fields = [f"{json.dumps(name)}{gap}:{gap}{draw(write(field, space))}" for name, field in value]
        return "{" + gap + f"{gap},{gap}".join(fields) + gap + "}"
    if isinstance(value, list):
        return "[" + gap + f",{gap}".join(draw(write(each, space)) for each in value) + "]"
    return json.dumps(value)


@st.composite
def extras(draw: st.DrawFn, size: int, *, tame: bool) -> list[tuple[str, Any]]:
    """Other fields of an object: some that look like vectors, and are none."""
    other = {"embedding": packed(draw(numbers(size)))}
    values: list[tuple[str, Any]] = [("object", "embedding"), ("meta", other), ("more", [other, other]), ("n", 1.5)]
    if not tame:
        values += [("note", text) for text in TRAPS] + [("meta", {"embedding": text}) for text in TRAPS]
    return draw(st.lists(st.sampled_from(values), max_size=2))


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, int]:
    """
    A reply that is JSON, in any order and with anything else in it; and how many vectors were asked for.

    Every other one is tame: there is nothing to escape, and nearly every vector can be taken out.
    """
    tame = draw(st.booleans())
    count, size = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    order = draw(st.permutations(range(count)))
    indexed = draw(st.sampled_from(["all", "all", "none"] if tame else ["all", "none", "some", "wrong"]))
    items = []
    for number in range(count):
        fields = [("embedding", draw(vectors(size, tame=tame))), *draw(extras(size, tame=tame))]
        if indexed == "all" or (indexed == "some" and draw(st.booleans())):
            fields.append(("index", order[number]))
        elif indexed == "wrong":
            fields.append(("index", draw(st.integers(-1, count) | st.just(0.0) | st.just("0"))))
        if draw(st.integers(0, 9)) == 0:
            fields.append(("embedding", draw(vectors(size, tame=tame))))
        items.append(tuple(draw(st.permutations(fields))))
    top = [("data", items), *draw(extras(size, tame=tame))]
    top += draw(st.lists(st.tuples(st.just("embedding"), vectors(size, tame=tame)), max_size=1))
    if not tame and draw(st.integers(0, 9)) == 0:
        top.append(("data", draw(st.sampled_from([[], None, [{"embedding": "AACAPw=="}]]))))
    text = draw(write(tuple(draw(st.permutations(top))), draw(st.sampled_from(["", " "])) if tame else None))
    return text.encode(), count + (0 if tame else draw(st.sampled_from([0, 0, 0, 0, 0, 1, -1])))


def came(body: bytes, inputs: int, cuts: list[int]) -> Body:
    """*body* as it comes in, in the parts that begin at *cuts*."""
    begins = sorted({0, *(cut % (len(body) + 1) for cut in cuts)})
    taken = Body(inputs)
    for begin, end in zip(begins, [*begins[1:], len(body)], strict=True):
        taken.feed(body[begin:end])
    taken.close()
    return taken


def take(body: bytes, inputs: int, dimensions: int | None, cuts: list[int]) -> Rows | type[InvalidReplyError]:
    """What the library makes of *body*."""
    try:
        decoded = decode(came(body, inputs, cuts), dimensions=dimensions)
    except InvalidReplyError as error:
        return type(error)
    assert decoded.vectors.shape[0] == inputs
    return {row: bits(decoded.vectors[[row]])[0] for row in range(inputs) if row not in decoded.bad_rows}


def assert_same(body: bytes, inputs: int, dimensions: int | None, cuts: list[int]) -> None:
    """
    Assert that the library reads *body* as the reference does.

    A character that no JSON string may hold makes a body malformed, or a row bad: the library may do either.
    """
    read = take(body, inputs, dimensions, cuts)
    strictly = refer(body, inputs=inputs, dimensions=dimensions)
    if read != strictly:
        assert strictly is MalformedReplyError
        assert read == refer(body, inputs=inputs, dimensions=dimensions, strict=False)


cutting = st.lists(st.integers(0, 10**6), max_size=6)
sizes = st.none() | st.integers(1, 3)


@pytest.mark.slow
@MUCH
@given(bodies(), sizes, cutting)
def test_any_reply_is_read_as_if_nothing_had_been_taken_out(
    reply: tuple[bytes, int], size: int | None, cuts: list[int]
) -> None:
    """The same vectors to the bit, in the same rows, the same bad rows, or the same type of error."""
    assert_same(reply[0], reply[1], size, cuts)


@pytest.mark.slow
@MUCH
@given(bodies(), st.data())
def test_a_damaged_reply_is_read_as_if_nothing_had_been_taken_out(
    reply: tuple[bytes, int], data: st.DataObject
) -> None:
    """Cut short, with something put in, doubled or left out at any place: never a vector that is not there."""
    body, inputs = reply
    first = data.draw(st.integers(0, len(body)))
    last = data.draw(st.integers(first, min(len(body), first + 30)))
    pieces = [b"", b'"', b"\\", b",", b'"embedding":"', b'"\\n0"', b"\n", b"\x00", b"\xff", b"{", b"]", body[:first]]
    damaged = body[:first] + data.draw(st.sampled_from(pieces)) + data.draw(st.sampled_from([body[last:], b""]))

    assert_same(damaged, inputs, None, data.draw(cutting))


@MUCH
@given(
    st.lists(
        st.sampled_from(
            ['"embedding":"', '"embedding": "', '"', "\\", "AACAPw==", "{", "}", "[", "]", ",", ":", '{"data":[', "0"]
        ),
        max_size=24,
    ),
    cutting,
)
@example(['{"data":[', "{", '"embedding":"', "AACAPw==", '"embedding":"', "AACAPw==", '"', "}", "]", "}"], [])
def test_pieces_of_a_reply_in_any_order_are_no_vectors(pieces: list[str], cuts: list[int]) -> None:
    """Quotes that open what they should close, keys in the middle of texts: what is no JSON gives no vector."""
    for text in ("".join(pieces), '{"data":[{' + "".join(pieces) + "}]}"):
        assert_same(text.encode(), 1, None, cuts)


@given(st.lists(numbers(2), min_size=1, max_size=4), st.sampled_from(["", " ", "\r\n "]))
def test_a_reply_may_come_byte_by_byte(rows: list[list[float]], space: str) -> None:
    """Wherever the parts begin, in a key, in a vector or in a mark: the vectors are the same."""
    items = ",".join(f'{{"index":{at},"embedding"{space}:{space}"{packed(row)}"}}' for at, row in enumerate(rows))
    body = f'{{"data":[{items}]}}'.encode()

    assert_same(body, len(rows), 2, list(range(len(body))))
    for cut in range(len(body)):
        assert take(body, len(rows), 2, [cut]) == take(body, len(rows), 2, [])


@pytest.mark.parametrize("escaped", ['"\\n1"', '"\\n0"', '"\\u000a0"', '"\\n1","embedding":"\\n0"'])
def test_no_text_of_the_server_stands_for_a_vector(escaped: str) -> None:
    """A server that sends what the library puts in the place of a vector gets a bad row, and no other's vector."""
    body = f'{{"data":[{{"embedding":"{packed([1, 2])}"}},{{"embedding":{escaped}}}]}}'.encode()

    for cut in range(len(body)):
        assert take(body, 2, None, [cut]) == {0: bits(np.array([[1, 2]], np.float32))[0]}


def test_vectors_far_behind_the_head_and_far_apart_are_read() -> None:
    """More than a kilobyte before the first vector, or between two of them, changes nothing."""
    for far in ([0], [1], [0, 1, 2], []):
        items = [
            f'{{"note":"{"x" * 5_000 if at in far else ""}","embedding":"{packed([at + 1, 7])}","index":{at}}}'
            for at in range(3)
        ]
        body = f'{{"data":[{",".join(items)}]}}'.encode()
        for cuts in ([], list(range(0, len(body), 100)), list(range(len(body)))):
            assert take(body, 3, 2, cuts) == refer(body, inputs=3, dimensions=2)


def test_an_embedding_beside_numbers_is_not_taken_for_them() -> None:
    """As many texts as inputs, and one of them belongs to no item, whose own vector is a list of numbers."""
    texts = [packed([1, 2]), packed([3, 4])]
    body = (
        f'{{"data":[{{"embedding":[5,6],"was":{{"embedding":"{texts[0]}"}}}},{{"embedding":"{texts[1]}"}}]}}'.encode()
    )

    for cut in range(len(body)):
        assert take(body, 2, None, [cut]) == dict(enumerate(bits(np.array([[5, 6], [3, 4]], np.float32))))


@pytest.mark.parametrize("where", ["before", "after", "between"])
def test_other_keys_of_the_same_name_are_not_the_vectors(where: str) -> None:
    """An "embedding" at the top, or in an object within an item, is not counted with the vectors of "data"."""
    other = f'"embedding":"{packed([9, 9])}"'
    items = [f'{{"embedding":"{packed([at + 1, 0.5])}","index":{2 - at}}}' for at in range(3)]
    if where == "between":
        items[1] = items[1].replace("{", f'{{"was":{{{other}}},')
    data = f'"data":[{",".join(items)}]'
    fields = {"before": [other, data], "after": [data, other], "between": [data]}[where]
    body = ("{" + ",".join(fields) + "}").encode()

    expected = bits(np.array([[3, 0.5], [2, 0.5], [1, 0.5]], np.float32))
    assert take(body, 3, None, []) == dict(enumerate(expected))
    assert take(body, 3, 2, list(range(len(body)))) == dict(enumerate(expected))


@given(st.binary(min_size=4, max_size=48).filter(lambda raw: len(raw) % 4 == 0), st.data())
def test_escaped_base64_is_read_like_plain_base64(raw: bytes, data: st.DataObject) -> None:
    """Slashes as \\/ and letters as \\u0041, in some of the vectors only, with and without anything else escaped."""
    text = base64.b64encode(raw).decode()
    escaped = "".join(
        data.draw(st.sampled_from([char, f"\\u{ord(char):04x}", "\\/" if char == "/" else char])) for char in text
    )
    body = f'{{"data":[{{"embedding":"{escaped}"}},{{"embedding":"{text}"}}]}}'.encode()

    assert_same(body, 2, None, data.draw(cutting))
    assert take(body, 2, None, []) == take(body.replace(escaped.encode(), text.encode()), 2, None, [])


def test_decoding_is_slow_where_much_is_left_to_parse() -> None:
    """Three megabytes of numbers as text are; as much base64, and as many numbers in base64, are not."""
    rows = np.random.default_rng(7).standard_normal((150, 1_024)).astype(np.float32)
    as_text = json.dumps({"data": [{"embedding": [float(number) for number in row]} for row in rows]}).encode()
    as_base64 = json.dumps({"data": [{"embedding": packed(row)} for row in rows] * 6}).encode()

    assert len(as_text) > 3_000_000
    assert len(as_base64) > 3_000_000
    assert is_slow(came(as_text, 150, []))
    assert not is_slow(came(as_base64, 900, []))
    assert is_slow(came(as_base64[:-1] + b',"note":"\\n"}', 900, []))  # nothing can be taken out of it
    np.testing.assert_array_equal(decode(came(as_text, 150, [1_000_000]), dimensions=None).vectors, rows)


def test_vectors_are_written_where_they_may_be() -> None:
    """Rows of the right size are filled, and are the reply's vectors; the part comes cut anywhere."""
    data = reply(VECTORS)
    for cut in range(len(data)):
        rows = np.empty_like(VECTORS)
        taken = Body(3, rows)
        taken.feed(data[:cut])
        taken.feed(data[cut:])
        taken.close()
        decoded = decode(taken, dimensions=3)
        assert np.shares_memory(decoded.vectors, rows)
        assert bits(rows) == bits(VECTORS)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3), (3, 2)])
def test_rows_of_another_size_are_not_touched(shape: tuple[int, int]) -> None:
    """Vectors of another size, or more or fewer of them, come in memory of their own."""
    rows = np.full(shape, 7, np.float32)
    taken = Body(3, rows)
    taken.feed(reply(VECTORS))
    taken.close()

    assert bits(decode(taken, dimensions=3).vectors) == bits(VECTORS)
    assert (rows == 7).all()


def test_a_reply_in_another_order_leaves_the_rows_for_an_array_of_its_own() -> None:
    """They were written as they came; the vectors in the order of the batch are elsewhere."""
    rows = np.empty_like(VECTORS)
    taken = Body(3, rows)
    taken.feed(body([item(packed(VECTORS[row]), index=row) for row in (2, 0, 1)]))
    taken.close()
    decoded = decode(taken, dimensions=3)

    assert bits(decoded.vectors) == bits(VECTORS)
    assert not np.shares_memory(decoded.vectors, rows)
