"""Rows of a result as JSON, an object in each line: beside the vectors of a ``.npy`` file, and all of a ``.jsonl``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..columns import encode
from .result import Block


def lines(block: Block, embeddings: Iterable[Any] | None = None) -> Iterator[bytes]:
    """A line for each row of *block*: id, the one of *embeddings* if there are any, tokens, text, other columns."""
    columns: dict[str, Iterable[Any]] = {"id": block.ids}
    if embeddings is not None:
        columns["embedding"] = embeddings
    columns["tokens"] = block.tokens
    if block.texts is not None:
        columns["text"] = block.texts
    columns |= block.extra
    for values in zip(*columns.values(), strict=True):
        yield encode(dict(zip(columns, values, strict=True))) + b"\n"
