"""What every format of a destination can do: take parts while a job runs, and answer queries afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...values import Id, Vectors
from .origin import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """
    Rows of a result, as parallel columns.

    *vectors* is float32, shape (rows, dimensions), and a document that failed is a row of NaN; it is ``None`` where the
    vectors are in their :class:`~embedbatch.jobs.segments.Room` already. *texts* is ``None``
    unless they are kept, and holds ``None`` for what was no text. *extra* has other columns, by their names.
    """

    ids: Sequence[Id]
    vectors: Vectors | None
    tokens: Sequence[int | None]
    texts: Sequence[str | None] | None
    extra: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class Sink(Protocol):
    """Where the parts of a job go. Used in a worker thread, by one call at a time."""

    def write_part(self, number: int, blocks: Iterable[Block]) -> int:
        """
        Keep the rows of part *number*; return a digest of what was written.

        When it returns they would survive a loss of power. A part may be written again, with the same rows.
        """

    def digest(self, number: int) -> int:
        """The digest of what is there of part *number*. Raises ``FileNotFoundError`` if there is nothing."""

    def assemble(self, numbers: Sequence[int]) -> list[tuple[Path, Path]]:
        """
        Make the result of all parts, which have these *numbers*: what there is under another name, and the name that
        each is to have. The destination itself is the last.
        """


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

    def rows(self, first: int) -> Iterator[tuple[Vectors, Sequence[int | None]]]:
        """The same from row *first* on, with the numbers of tokens."""

    def entries(self, rows: Sequence[int]) -> dict[int, Entry]:
        """The entries of the given *rows*, by row."""
