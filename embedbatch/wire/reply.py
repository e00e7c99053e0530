"""
Bytes become vectors, proven aligned with the batch. No reply is trusted.

Vectors are decoded by their JSON type, never by what was asked for: servers that were asked for base64 answer
with lists of floats, and the reverse. A fault of the whole reply raises; a fault of single rows is reported, so
that the good rows, whose alignment is proven, are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from ..errors import DimensionsError, InvalidReplyError, MalformedReplyError
from ..values import Vectors
from .body import FLOAT32, Body, excerpt, unpack


class _Item(msgspec.Struct, gc=False):  # nothing in it can refer back to it
    embedding: msgspec.Raw
    index: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | float | None = None
    total_tokens: int | float | None = None


class _Body(msgspec.Struct):
    data: list[_Item] | None
    usage: msgspec.Raw = msgspec.Raw()


class _Bare(msgspec.Struct):
    """As Nomic puts it: vectors without numbers, in order."""

    embeddings: list[msgspec.Raw]
    usage: msgspec.Raw = msgspec.Raw()


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_bare = msgspec.json.Decoder(_Bare).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_floats = msgspec.json.Decoder(list[float]).decode
_decode_floats_and_nulls = msgspec.json.Decoder(list[float | None]).decode
_decode_text = msgspec.json.Decoder(str).decode

_MUCH = 2_000_000  # bytes of vectors as text, which take about 10 ms


@dataclass(frozen=True, slots=True)
class Decoded:
    """
    The vectors of one reply, float32 of shape (inputs, dimensions), in the order of the batch.

    *bad_rows* maps each row that holds no usable vector to the reason. Token counts are ``None`` where the
    server did not tell, or told what is no count. *whole* is the size of the vectors as they came, where they were
    made shorter since.
    """

    vectors: Vectors
    bad_rows: dict[int, str]
    prompt_tokens: int | None
    total_tokens: int | None
    whole: int | None = None

    @property
    def dimensions(self) -> int:
        """The size of the vectors as the server gives them."""
        return self.whole or self.vectors.shape[1]


def decode(body: Body, *, dimensions: int | None, request_id: str | None = None) -> Decoded:
    """
    Decode the *body* of a reply, which is closed.

    *dimensions* is the size every vector must have, ``None`` before it is known: the first one tells then.

    Raises :class:`MalformedReplyError` when the body is not the contract's, :class:`InvalidReplyError` when the
    number of vectors differs or their ``index`` values are not a permutation of 0…n−1 (or absent throughout),
    and :class:`DimensionsError` when the vectors have another size.
    """
    try:
        is_bare = b'"embeddings"' in body.text and b'"data"' not in body.text
        reply = _with_items(_decode_bare(body.text)) if is_bare else _decode_body(body.text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedReplyError(
            f"expected an embeddings reply, got {excerpt(body.text)}: {error}", status=200, request_id=request_id
        ) from error
    items = reply.data or []
    if len(items) != body.inputs:
        raise InvalidReplyError(
            f"expected {body.inputs:,} embeddings, got {len(items):,} - at $.data", status=200, request_id=request_id
        )
    order = _order([item.index for item in items], request_id)
    embeddings = [bytes(item.embedding) for item in items]
    vectors = body.vectors() if embeddings == body.marks else None
    if vectors is not None and vectors.shape[1] == (dimensions or vectors.shape[1]):
        bad_rows: dict[int, str] = {}
        vectors = _in_order(vectors, order)
    else:
        vectors, bad_rows = _read_rows(embeddings, body, order, dimensions, request_id)
    _check_numbers(vectors, bad_rows)
    prompt_tokens, total_tokens = _usage(reply.usage)
    return Decoded(vectors, bad_rows, prompt_tokens, total_tokens)


def _with_items(bare: _Bare) -> _Body:
    return _Body([_Item(embedding) for embedding in bare.embeddings], bare.usage)


def is_slow(body: Body) -> bool:
    """True if decoding *body* takes so long, some 10 ms or more, that an event loop should not wait for it."""
    return len(body.text) > _MUCH


def _order(indexes: Sequence[int | None], request_id: str | None) -> Sequence[int]:
    """Where each item belongs. By position only if no item carries an index."""
    expected = range(len(indexes))
    if all(index is None for index in indexes):
        return expected
    order = [index for index in indexes if index is not None]
    if order == list(expected):
        return expected
    if len(order) == len(indexes) and sorted(order) == list(expected):
        return order
    shown = ", ".join("none" if index is None else str(index) for index in indexes[:8])
    raise InvalidReplyError(
        f"expected every index from 0 to {len(indexes) - 1} once, got {shown}{', …' if len(indexes) > 8 else ''} "
        "- at $.data[*].index",
        status=200,
        request_id=request_id,
    )


def _in_order(vectors: Vectors, order: Sequence[int]) -> Vectors:
    if isinstance(order, range):
        return vectors
    arranged = np.empty_like(vectors)
    arranged[order] = vectors
    return arranged


def _read_rows(
    embeddings: Sequence[bytes], body: Body, order: Sequence[int], dimensions: int | None, request_id: str | None
) -> tuple[Vectors, dict[int, str]]:
    """The vectors one by one, in the order of the batch, NaN where one is bad; and what is bad."""
    numbers = {mark: number for number, mark in enumerate(body.marks)}
    with np.errstate(over="ignore"):  # a number too large for float32 becomes inf, which is found later
        rows = [body.vector(numbers[raw]) if raw in numbers else _read_row(raw) for raw in embeddings]
    nbytes = 4 * dimensions if dimensions else next((len(row) for row in rows if isinstance(row, bytes)), 0)
    for number, row in enumerate(rows):  # before memory is taken for as many rows of that size
        if isinstance(row, bytes) and len(row) != nbytes:
            raise DimensionsError(
                f"expected vectors of {nbytes // 4:,} numbers, got {len(row) // 4:,} - at $.data[{number}].embedding",
                status=200,
                request_id=request_id,
            )
    vectors = np.full((len(rows), nbytes // 4), np.nan, np.float32)
    bad_rows = {}
    for at, row in zip(order, rows, strict=True):
        if isinstance(row, str):
            bad_rows[at] = row
        else:
            vectors[at] = np.frombuffer(row, FLOAT32)
    return vectors, bad_rows


def _read_row(raw: bytes) -> bytes | str:
    """The bytes of one vector's float32 numbers, or what is wrong with it."""
    try:
        if raw[0] == 0x22:  # a quote: base64
            return unpack(_decode_text(raw).encode())
        numbers = _decode_numbers(raw)
        return np.array(numbers, FLOAT32).tobytes() if numbers else "an empty vector"
    except (msgspec.DecodeError, ValueError) as error:
        return f"{excerpt(raw)}: {error}"


def _decode_numbers(raw: bytes) -> list[float] | list[float | None]:
    try:
        return _decode_floats(raw)
    except msgspec.ValidationError:  # NaN reaches JSON as null
        return _decode_floats_and_nulls(raw)


def _check_numbers(vectors: Vectors, bad_rows: dict[int, str]) -> None:
    """Add to *bad_rows* the rows that are not finite, or nothing but zeros."""
    # Neither is a vector whose sum of squares is finite and above zero; to ask for that takes a third of the time of
    # asking each number. Where it is not, the squares may only be too large or too small.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.vecdot(vectors, vectors)
    for row in np.flatnonzero(~np.isfinite(squares)).tolist():
        if not np.isfinite(vectors[row]).all():
            bad_rows.setdefault(row, "a number that is not finite")
    for row in np.flatnonzero(squares == 0).tolist():
        if not vectors[row].any():
            bad_rows.setdefault(row, "nothing but zeros")


def _usage(raw: msgspec.Raw) -> tuple[int | None, int | None]:
    try:
        usage = _decode_usage(raw)
    except (msgspec.DecodeError, RecursionError):  # absent, null, or some shape of its own: unknown, not an error
        return None, None
    prompt, total = _count(usage.prompt_tokens), _count(usage.total_tokens)
    return prompt or total, total or prompt


def _count(tokens: float | None) -> int | None:
    return int(tokens) if tokens is not None and 1 <= tokens < 2**53 else None  # more is no count of anything
