"""Opens what a destination names: a file or a folder by its suffix, a table of a database by its URL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...errors import ConfigurationError
from ..disk import Disk
from ..dtypes import Dtype
from ..parts import Division
from ..segments import Room
from . import formats
from .destination import FAILURES, JOURNAL, Destination, FileName, RowType
from .lance import LanceTable
from .origin import Origin
from .postgres import Postgres
from .result import Result, Sink

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)  # also what has become of one as a path


class FileDestination:
    """A file or a folder, in a format that its suffix tells."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.identity: Mapping[str, str] = {}  # the journal stands beside it
        self.journal = path.with_name(path.name + JOURNAL)
        self.failures = path.with_name(path.name + FAILURES)

    def __str__(self) -> str:
        return str(self.path)

    def check(self, *, dtype: Dtype, columns: Iterable[str]) -> None:
        formats.check_destination(self.path, dtype=dtype, columns=columns)

    def prepare(self, rows: RowType, run: str) -> int | None:
        formats.check_columns(self.path, rows.columns)
        return None

    def holds(self, documents: int, run: str) -> bool:
        return self.path.exists()

    def room_for(self, folder: Path, *, division: Division, dimensions: int, dtype: Dtype) -> Room | None:
        return formats.room_for(folder, self.path, division=division, dimensions=dimensions, dtype=dtype)

    def open_sink(
        self, disk: Disk, folder: Path, origin: Origin, rows: RowType, *, division: Division, run: str
    ) -> Sink:
        return formats.open_sink(
            disk,
            folder,
            self.path,
            origin,
            division=division,
            id_type=rows.id_type,
            keep_text=rows.keep_text,
            dtype=rows.dtype,
            columns=rows.columns,
        )


def destination_of(destination: FileName | Destination, journal: FileName | None = None) -> Destination:
    """
    What *destination* names: a file, or a table where it is a URL. A *journal* somewhere else is for tables.

    Raises :class:`ConfigurationError` for a URL that names no table, and where a package is missing.
    """
    if not isinstance(destination, str | os.PathLike):
        return destination
    if not (scheme := _scheme(destination)):
        if journal is not None:
            raise ConfigurationError("journal: is for tables of databases; that of a file stands beside it")
        if not Path(destination).name:
            raise ConfigurationError(f"destination: expected a file or a folder, got {str(destination)!r}")
        return FileDestination(Path(destination))
    if scheme not in ("lancedb", "postgres", "postgresql"):
        raise ConfigurationError(f"destination: expected a file, or postgresql://… or lancedb://…, got {scheme}://…")
    if not isinstance(destination, str) or "://" not in destination:
        raise ConfigurationError(f"destination: a {scheme}:// URL is a text, not a path")
    if scheme == "lancedb":
        return LanceTable.from_url(destination, journal=journal)
    return Postgres.from_url(destination, journal=journal)


def open_result(destination: FileName) -> Result:
    """
    The result in *destination*. Raises :class:`SourceError` if it is none, or is not there.

    Raises :class:`ConfigurationError` for a table: its database has means of its own.
    """
    if not isinstance(destination, str | os.PathLike) or _scheme(destination):
        raise ConfigurationError(
            "a table is not read by embedbatch: ask its database. In PostgreSQL, for one: SELECT id FROM docs ORDER BY "
            "embedding <=> $1 LIMIT 5, with the vector of the query from the model of the run"
        )
    return formats.open_result(destination)


def read_origin(destination: FileName) -> Origin:
    """What made the vectors in *destination*. Raises :class:`SourceError` if it is no result of a job."""
    return open_result(destination).origin


def _scheme(destination: FileName) -> str:
    """That of a URL of a database; nothing for a path."""
    found = _URL.match(os.fspath(destination))
    return found[1].lower() if found else ""
