"""What every format of a destination can do: take blocks while a job runs, and answer queries afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..values import Id, Vectors
from .origin import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """
    Rows of a result, as parallel columns.

    *vectors* is float32, shape (rows, dimensions); a document that failed is a row of NaN. *texts* is ``None``
    unless they are kept, and holds ``None`` for what was no text.
    """

    ids: Sequence[Id]
    vectors: Vectors
    tokens: Sequence[int | None]
    texts: Sequence[str | None] | None


class Sink(Protocol):
    """Where the blocks of a job go. Used in a worker thread, by one call at a time."""

    def write(self, block: Block) -> None:
        """Append *block*."""

    def close(self) -> None:
        """Complete the file; it is published afterwards."""


class Entry(NamedTuple):
    """What is known of a row besides its vector."""

    id: Id
    text: str | None


class Result(Protocol):
    """A finished destination, to be read."""

    @property
    def origin(self) -> Origin:
        """What made the vectors."""

    def blocks(self) -> Iterator[Vectors]:
        """All vectors in order, some rows at a time; a document that failed is a row of NaN."""

    def entries(self, rows: Sequence[int]) -> dict[int, Entry]:
        """The entries of the given *rows*, by row."""
