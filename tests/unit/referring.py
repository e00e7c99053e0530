"""
What a reply means, read in the plainest way: the standard library's JSON and base64, nothing taken out beforehand.

It knows the rules that the docstrings of `embedbatch.wire.reply` state, and nothing of how they are carried out.
"""

from __future__ import annotations

import binascii
import json
from typing import Any

import numpy as np

from embedbatch.errors import DimensionsError, InvalidReplyError, MalformedReplyError

Rows = dict[int, list[int]]
"""The bits of each row that is a vector, by its place in the batch."""


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON, with every key that stands there: the last one of a name counts."""

    def every(self, name: str) -> list[Any]:
        return [value for key, value in self if key == name]


def refer(body: bytes, *, inputs: int, dimensions: int | None, strict: bool = True) -> Rows | type[InvalidReplyError]:
    """
    The good rows of *body*, or the type of the error.

    Without *strict* the characters that no JSON string may hold are let through, as a parser may that skips it.
    """
    try:
        return _rows(_parse(body, strict), inputs, dimensions)
    except InvalidReplyError as error:
        return type(error)


def _parse(body: bytes, strict: bool) -> Any:
    def refuse(constant: str) -> float:
        raise ValueError(constant)

    try:
        text = body.decode("utf-8", "strict" if strict else "replace")
        return json.loads(text, strict=strict, object_pairs_hook=_pairs, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise MalformedReplyError(str(error)) from error


def _pairs(pairs: list[tuple[str, Any]]) -> _Pairs:
    for text in (part for pair in pairs for part in pair if isinstance(part, str)):
        text.encode()  # half of a surrogate pair is no text
    return _Pairs(pairs)


def _rows(body: Any, inputs: int, dimensions: int | None) -> Rows:
    lists = body.every("data") if isinstance(body, _Pairs) else []
    if not lists or not all(_is_data(data) for data in lists):
        raise MalformedReplyError("no embeddings")
    items = lists[-1] or []  # null: none came
    if len(items) != inputs:
        raise InvalidReplyError("another number of embeddings")
    order = _order([([None, *item.every("index")])[-1] for item in items])
    rows = [_row(item.every("embedding")[-1]) for item in items]
    size = dimensions or next((len(row) for row in rows if row is not None), 0)
    if any(row is not None and len(row) != size for row in rows):
        raise DimensionsError("another size")
    return {
        at: row.view(np.uint32).tolist()
        for at, row in zip(order, rows, strict=True)
        if row is not None and np.isfinite(row).all() and row.any()
    }


def _is_data(data: Any) -> bool:
    if data is None:
        return True
    return isinstance(data, list) and not isinstance(data, _Pairs) and all(_is_item(item) for item in data)


def _is_item(item: Any) -> bool:
    return (
        isinstance(item, _Pairs)
        and bool(item.every("embedding"))
        and all(index is None or type(index) is int for index in item.every("index"))
    )


def _order(indexes: list[int | None]) -> list[int]:
    if all(index is None for index in indexes):
        return list(range(len(indexes)))
    order = [index for index in indexes if index is not None]
    if sorted(order) != list(range(len(indexes))):
        raise InvalidReplyError("no permutation")
    return order


def _row(embedding: Any) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """The numbers of one vector, ``None`` if it is none."""
    if isinstance(embedding, str):
        try:
            packed = binascii.a2b_base64(embedding.encode("ascii"), strict_mode=True)
        except ValueError:
            return None
        return np.frombuffer(packed, "<f4").astype(np.float32) if packed and len(packed) % 4 == 0 else None
    if not isinstance(embedding, list) or isinstance(embedding, _Pairs) or not embedding:
        return None
    if not all(number is None or type(number) in (int, float) for number in embedding):
        return None
    with np.errstate(over="ignore"):
        return np.array([np.nan if number is None else float(number) for number in embedding], np.float32)
