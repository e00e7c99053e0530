"""What a source is: a corpus that is read row by row, more than once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import anyio.lowlevel

from ...errors import ConfigurationError, SourceError
from ...values import Id
from ..columns import Kinds
from ..identity import Fingerprint

IdType: TypeAlias = Literal["int", "str"]

Columns: TypeAlias = Sequence[str] | Literal["all"]
"""Columns by their names, or all but those of the text and the id."""

BadRowHandler: TypeAlias = Callable[[SourceError], object]

NO_EXTRA: Mapping[str, Any] = MappingProxyType({})

_INT64 = range(-(2**63), 2**63)
_SCAN_BYTES = 1_000_000  # read between two checkpoints of a scan: a few milliseconds


class Row(NamedTuple):
    """
    One document of a source.

    *line* is counted from 1, in *file* where the source has several; in Parquet and tables it is the number of the
    row. *bytes* is the room the line takes, in Parquet and tables that of the text. *line* and *offset* with the
    position of the document are the :class:`Place` where it begins. *extra* has the columns that were asked for.
    """

    id: Id
    content: Any
    line: int
    bytes: int
    offset: int
    file: str | None = None
    extra: Mapping[str, Any] = NO_EXTRA


row_of: Callable[[tuple[Id, Any, int, int, int, str | None, Mapping[str, Any]]], Row] = partial(tuple.__new__, Row)
"""The row with all these fields. What a named tuple makes of arguments is made in Python, in twice the time."""


class Place(NamedTuple):
    """
    Where to begin reading: the *position* of a document, and the line and the offset of its row.

    *offset* is the bytes before the row, decompressed; with several files, those of its file, and the number of the
    file times 2**42. In Parquet and tables it is the rows before it, of all files.
    """

    position: int
    line: int
    offset: int


BEGINNING = Place(0, 1, 0)


class Source(Protocol):
    """A corpus that can be read more than once."""

    @property
    def path(self) -> Path:
        """Where it is: a file, or a folder or a pattern of files. Of a table it is the name."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    @property
    def columns(self) -> Columns:
        """What was asked for of its other columns."""

    def schema(self) -> Any:
        """
        The names and types of these columns, as a ``pyarrow.Schema``; ``None`` where the format has no types.

        Raises :class:`SourceError` if there are none that fit all of its files.
        """

    def rows(self, start: Place = BEGINNING) -> Iterator[Row]:
        """Its documents, in order, from *start* on. Raises :class:`SourceError` at the first that cannot be read."""

    def stamp(self) -> str:
        """What changes when it is written to, found out without reading it."""

    def fingerprint(self) -> Fingerprint:
        """What it holds. All of it is read."""

    def has_grown(self, before: Fingerprint) -> bool:
        """True if its first rows are all that it had *before*, and more follow; False where that cannot be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSource(ABC):
    """
    What all sources can be told.

    *columns* go into ``Row.extra``. With *skip_bad_rows*, rows that cannot be read are passed over: they get no
    position, and *on_bad_row* is called with the error, each time that the row is met.
    """

    columns: Columns = ()
    skip_bad_rows: bool = False
    on_bad_row: BadRowHandler | None = None

    def __post_init__(self) -> None:
        if isinstance(self.columns, str) and self.columns != "all":
            raise ConfigurationError(f'columns: expected names of columns or "all", got {self.columns!r}')

    @abstractmethod
    def rows(self, start: Place = BEGINNING) -> Iterator[Row]:
        """See :class:`Source`."""

    def schema(self) -> Any:
        """See :class:`Source`."""
        return None

    def pass_over(self, error: SourceError) -> None:
        """Tell of a row that cannot be read. Raises *error* unless such rows are to be skipped."""
        if not self.skip_bad_rows:
            raise error
        if self.on_bad_row is not None:
            self.on_bad_row(error)

    def chosen(self, names: Iterable[str], *, but: Iterable[str | None]) -> list[str]:
        """Which of the columns *names* go into ``Row.extra``: not those of *but*, unless they are called by name."""
        return [name for name in names if name not in but] if self.columns == "all" else list(self.columns)


@dataclass(frozen=True, slots=True)
class Scan:
    """
    What a source holds. *id_type* is ``"int"`` if all ids are integers of 64 bits.

    *columns* are those that were asked for, and of what kind each is where the format has no types: see
    :mod:`embedbatch.jobs.columns`.
    """

    documents: int
    bytes: int
    id_type: IdType
    columns: Mapping[str, str] = field(default_factory=dict)


async def scan(source: Source, see: Callable[[Any], object] = lambda content: None) -> Scan:
    """
    Read all of *source* once, so that a row that cannot be read is found before anything is sent.

    *see* is handed the content of each document.
    """
    documents = nbytes = 0
    checkpoint = _SCAN_BYTES
    all_ints = True
    schema = source.schema() if source.columns else None
    kinds = Kinds(() if source.columns == "all" else source.columns)
    # In the loop, as the second reading is too: a line takes microseconds, a hop to a thread fifty of them.
    for row in source.rows():
        documents += 1
        nbytes += row.bytes
        all_ints = all_ints and isinstance(row.id, int) and row.id in _INT64
        see(row.content)
        if row.extra and schema is None:
            kinds.add(row.extra)
        if nbytes >= checkpoint:
            checkpoint = nbytes + _SCAN_BYTES
            await anyio.lowlevel.checkpoint()
    return Scan(documents, nbytes, "int" if all_ints else "str", kinds.columns)


def no_column(column: str, columns: Iterable[str]) -> str:
    """The reason of an error about a *column* that is not among *columns*."""
    return f"no column {column!r}; the columns are {', '.join(map(repr, columns)) or 'none'}"


def invalid_utf8(error: UnicodeDecodeError) -> str:
    """The reason of an error about bytes that are no text."""
    return f"invalid UTF-8 at byte {error.start + 1:,}: 0x{error.object[error.start]:02x}"
