"""Where the result of a job goes: a file or a folder, or a table of a database."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ...errors import ConfigurationError, DestinationError
from ..disk import Disk
from ..dtypes import Dtype
from ..parts import Division
from ..segments import Room
from ..sources import IdType
from .origin import Origin
from .result import Sink

JOURNAL, FAILURES = ".journal", ".failures.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowType:
    """
    What a row of a result has: an id, a vector of numbers of *dtype*, the text if it is kept, and other *columns*.

    Of these there is an Arrow type for each, or a kind of :mod:`embedbatch.jobs.columns`. *dimensions* is ``None``
    as long as nobody knows.
    """

    id_type: IdType
    keep_text: bool
    dtype: Dtype
    columns: Mapping[str, Any]
    dimensions: int | None


class Destination(Protocol):
    """
    Where the result of a job goes. ``str()`` tells it without secrets, and *name* in a word.

    *identity* binds a job to it, where the place of the journal does not. *journal* is the job's folder, *failures*
    the file that lists what has failed. The methods are called in worker threads, by one call at a time.
    """

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> Mapping[str, str]: ...
    @property
    def journal(self) -> Path: ...
    @property
    def failures(self) -> Path: ...

    def check(self, *, dtype: Dtype, columns: Iterable[str]) -> None:
        """Raise :class:`ConfigurationError` if nothing can be written to it, or not with these *columns*."""

    def prepare(self, rows: RowType, run: str) -> int | None:
        """
        Make ready for *rows* of that *run*; return the size of vectors that it has room for, if it takes no other.

        Called before anything is sent. Raises :class:`ConfigurationError` if it has no room for them.
        """

    def holds(self, documents: int, run: str) -> bool:
        """True if the result of *run*, which is finished and has so many *documents*, is there."""

    def room_for(self, folder: Path, *, division: Division, dimensions: int, dtype: Dtype) -> Room | None:
        """Where vectors of that size stand from the first, if its sink takes no others."""

    def open_sink(
        self, disk: Disk, folder: Path, origin: Origin, rows: RowType, *, division: Division, run: str
    ) -> Sink:
        """What takes the parts. What is not complete yet is in *folder*."""


FileName: TypeAlias = "str | os.PathLike[str]"


OWN_COLUMNS = frozenset({"run", "row", "id", "embedding", "tokens", "text"})
"""What a table of a database has of its own, besides the columns of the source."""


def check_key(key: str | None) -> None:
    """Raise :class:`ConfigurationError` for what cannot be the key of a table."""
    if key not in (None, "id"):
        raise ConfigurationError(f"key: expected 'id' or nothing, got {key!r}")


def check_size(table: Destination, rows: RowType) -> None:
    """Raise :class:`DestinationError` if *table* cannot take *rows*, for want of the size of their vectors."""
    if not rows.dimensions:
        raise DestinationError(
            "no document was embedded, so nobody knows the size of the vectors, which a table needs. Say it with "
            "dimensions",
            destination=str(table),
        )


def place_of(table: str, journal: FileName | None) -> tuple[Path, Path]:
    """
    The journal of a job that writes to *table*, and its list of failures.

    In the working directory and named after the table, unless *journal* says where. The list stands beside it.
    """
    folder = Path(re.sub(r"[^\w.-]", "_", table) + JOURNAL if journal is None else journal).absolute()
    return folder, folder.with_name(folder.name.removesuffix(JOURNAL) + FAILURES)


def check_place(journal: Path) -> None:
    """Raise :class:`ConfigurationError` if there can be no *journal*."""
    if not journal.parent.is_dir():
        raise ConfigurationError(f"journal: there is no directory {journal.parent}")
    if not os.access(journal.parent, os.W_OK):
        raise ConfigurationError(f"journal: the directory {journal.parent} cannot be written to")
    if journal.is_dir() and any(journal.iterdir()) and not (journal / "ledger.sqlite").exists():
        raise ConfigurationError(f"journal: there is something else in the directory {journal}")
