"""
What of a job is durable, in SQLite: never the vectors, but where they are and how to tell that they are whole.

Every statement is committed when it returns. A commit survives the end of the process; a loss of power may take the
last ones, never the order, and what they had said is found out by digests.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..errors import ConfigurationError, JournalError, SourceError
from ..values import Id, Usage

_VERSION = 2
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE parts (number INTEGER PRIMARY KEY, line INTEGER NOT NULL, offset INTEGER NOT NULL,
    is_complete INTEGER NOT NULL DEFAULT 0, embedded INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    digest INTEGER);
CREATE TABLE runs_of_rows (part INTEGER NOT NULL, first INTEGER NOT NULL, rows INTEGER NOT NULL,
    digest INTEGER NOT NULL);
CREATE INDEX runs_of_part ON runs_of_rows (part);
CREATE TABLE chunks (part INTEGER NOT NULL, row INTEGER NOT NULL, number INTEGER NOT NULL, slot INTEGER NOT NULL,
    digest INTEGER NOT NULL, PRIMARY KEY (part, row, number)) WITHOUT ROWID;
CREATE TABLE failures (position INTEGER PRIMARY KEY, line INTEGER NOT NULL, id BLOB NOT NULL, error TEXT NOT NULL,
    reason TEXT NOT NULL, attempts INTEGER NOT NULL, is_skipped INTEGER NOT NULL, is_final INTEGER NOT NULL,
    file TEXT);
CREATE TABLE bad_rows (number INTEGER PRIMARY KEY, line INTEGER, reason TEXT NOT NULL, file TEXT NOT NULL);
CREATE TABLE runs (number INTEGER PRIMARY KEY, usage BLOB NOT NULL, seconds REAL NOT NULL);
"""


class Mark(NamedTuple):
    """Where a part begins in the source: the *line*, and how far into the source it is (see ``Source.rows``)."""

    line: int
    offset: int


class CompletePart(NamedTuple):
    """
    A part that is in the result: documents that were *embedded*, *bytes* of the source.

    *digest* is that of what was written, as its sink tells it.
    """

    embedded: int
    bytes: int
    digest: int


class RowRun(NamedTuple):
    """Rows *first* to *first* + *rows* of a part, which are one piece of its segment."""

    first: int
    rows: int
    digest: int


class ChunkRow(NamedTuple):
    """A chunk of a document that has several: the document's *row* in its part, and the chunk's *number* in it."""

    row: int
    number: int
    slot: int
    digest: int


class FailureRow(NamedTuple):
    """
    A document without a vector.

    *is_skipped* where the policy passes over it; *is_final* where asking again would not help.
    """

    position: int
    line: int
    id: Id
    error: str
    reason: str
    attempts: int
    is_skipped: bool
    is_final: bool
    file: str | None = None


class Ledger:
    """
    The ledger in *path*, for one process at a time, and for any of its threads.

    Raises :class:`ConfigurationError` if another process has it open, :class:`JournalError` if it is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._named():
            self._file = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
            try:
                # An exclusive lock is held until the file is closed, by whatever end of the process.
                self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._file.execute("PRAGMA journal_mode = WAL")
                self._file.execute("PRAGMA synchronous = NORMAL")
                version = self._file.execute("PRAGMA user_version").fetchone()[0]
                self._file.execute("BEGIN IMMEDIATE")
                if version == 0:
                    for statement in _SCHEMA.split(";"):
                        self._file.execute(statement)
                    self._file.execute(f"PRAGMA user_version = {_VERSION}")
                self._file.execute("COMMIT")
            except sqlite3.OperationalError as error:
                self._file.close()
                if "locked" in str(error):
                    raise ConfigurationError(f"another run is writing to {path.parent}") from None
                raise
            if version not in (0, _VERSION):
                self._file.close()
                raise JournalError(f"was written by another version of embedbatch (format {version})", path=str(path))
            damage = self._file.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                self._file.close()
                raise JournalError(damage, path=str(path))

    def clear(self) -> None:
        """Forget everything."""
        with self._transaction():
            for (table,) in self._rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
                self._file.execute(f"DELETE FROM {table}")

    def fact(self, name: str) -> Any:
        """The fact *name*, ``None`` if it is not known."""
        with self._named():
            found = self._file.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else msgspec.json.decode(found[0])

    def state(self, **facts: Any) -> None:
        """Keep *facts*, which are anything that JSON can carry."""
        rows = [(name, msgspec.json.encode(value)) for name, value in facts.items()]
        with self._transaction():
            self._file.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def mark(self, number: int, mark: Mark) -> None:
        """Note where part *number* begins."""
        with self._transaction():
            self._file.execute("INSERT OR IGNORE INTO parts (number, line, offset) VALUES (?, ?, ?)", (number, *mark))

    def marks(self) -> dict[int, Mark]:
        """Where each part begins, as far as the source was read."""
        return {row[0]: Mark(*row[1:]) for row in self._rows("SELECT number, line, offset FROM parts")}

    def complete_parts(self) -> dict[int, CompletePart]:
        """The parts that are complete, in order."""
        query = "SELECT number, embedded, bytes, digest FROM parts WHERE is_complete ORDER BY number"
        return {row[0]: CompletePart(*row[1:]) for row in self._rows(query)}

    def note(
        self, rows: Iterable[tuple[int, RowRun]], chunks: Iterable[tuple[int, ChunkRow]], number: int, usage: Usage
    ) -> None:
        """Note what a reply brought: runs of rows and chunks, each with its part; and the *usage* of run *number*."""
        with self._transaction():
            self._file.executemany("INSERT INTO runs_of_rows VALUES (?, ?, ?, ?)", [(p, *run) for p, run in rows])
            self._file.executemany("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?)", [(p, *c) for p, c in chunks])
            self._note_usage(number, usage)

    def row_runs(self, part: int) -> list[RowRun]:
        """The runs of rows of *part* that have their vectors, in the order they came."""
        query = "SELECT first, rows, digest FROM runs_of_rows WHERE part = ? ORDER BY rowid"
        return [RowRun(*row) for row in self._rows(query, part)]

    def chunks(self, part: int) -> list[ChunkRow]:
        """The chunks of *part* that have their vectors."""
        query = "SELECT row, number, slot, digest FROM chunks WHERE part = ?"
        return [ChunkRow(*row) for row in self._rows(query, part)]

    def forget(self, part: int, runs: Iterable[RowRun], chunks: Iterable[ChunkRow]) -> None:
        """Take back what was noted of *part* and turned out not to be so."""
        with self._transaction():
            self._file.executemany(
                "DELETE FROM runs_of_rows WHERE part = ? AND first = ? AND rows = ? AND digest = ?",
                [(part, *run) for run in runs],
            )
            self._file.executemany(
                "DELETE FROM chunks WHERE part = ? AND row = ? AND number = ?",
                [(part, chunk.row, chunk.number) for chunk in chunks],
            )

    def complete(
        self, number: int, part: CompletePart, failures: Iterable[FailureRow], embedded: Iterable[int] = ()
    ) -> None:
        """
        Note that part *number* is in the result, with all its rows; it is certain when this returns.

        Of the positions *embedded*, failures were noted before.
        """
        with self._transaction():
            self._note_failures(failures)
            self._file.executemany("DELETE FROM failures WHERE position = ?", [(each,) for each in embedded])
            update = "UPDATE parts SET is_complete = 1, embedded = ?, bytes = ?, digest = ? WHERE number = ?"
            self._file.execute(update, (*part, number))
            self._forget_part(number)
        self.sync()  # before anybody removes what the part was made of

    def begin_again(self, **facts: Any) -> None:
        """Take all parts back out of the result, and keep *facts*. What is ``None`` is a fact no more."""
        kept = [(name, msgspec.json.encode(value)) for name, value in facts.items() if value is not None]
        with self._transaction():
            self._file.execute("UPDATE parts SET is_complete = 0")
            self._file.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", kept)
            gone = [(name,) for name, value in facts.items() if value is None]
            self._file.executemany("DELETE FROM facts WHERE name = ?", gone)
        self.sync()

    def reopen(self, part: int) -> None:
        """Take *part* back out of the result: it has to be made again."""
        with self._transaction():
            self._file.execute("UPDATE parts SET is_complete = 0 WHERE number = ?", (part,))
            self._forget_part(part)

    def note_failures(self, failures: Collection[FailureRow]) -> None:
        """Note documents that have failed."""
        if failures:
            with self._transaction():
                self._note_failures(failures)

    def forget_failures(self, first: int, end: int, *, final_too: bool) -> None:
        """Forget the failures of the positions *first* to *end*, of documents that may be asked for again."""
        with self._transaction():
            self._file.execute(
                "DELETE FROM failures WHERE position >= ? AND position < ? AND (? OR NOT is_final)",
                (first, end, final_too),
            )

    def failures(self, first: int, end: int) -> Iterator[FailureRow]:
        """The failures of the positions *first* to *end*, in order."""
        query = "SELECT * FROM failures WHERE position >= ? AND position < ? ORDER BY position"
        for row in self._rows(query, first, end):
            position, line, id, error, reason, attempts, is_skipped, is_final, file = row
            yield FailureRow(
                position, line, msgspec.json.decode(id), error, reason, attempts, bool(is_skipped), bool(is_final), file
            )

    def note_bad_rows(self, rows: Iterable[SourceError]) -> None:
        """Note rows of the source that were passed over, in place of all that were noted before."""
        with self._transaction():
            self._file.execute("DELETE FROM bad_rows")
            values = [(number, row.line, row.reason, row.path) for number, row in enumerate(rows)]
            self._file.executemany("INSERT INTO bad_rows VALUES (?, ?, ?, ?)", values)

    def bad_rows(self) -> list[SourceError]:
        """The rows of the source that were passed over, in order."""
        rows = self._rows("SELECT line, reason, file FROM bad_rows ORDER BY number")
        return [SourceError(reason, path=file, line=line) for line, reason, file in rows]

    def count_failures(self) -> tuple[int, int]:
        """How many documents have failed, and how many were skipped."""
        (row,) = self._rows("SELECT COALESCE(SUM(NOT is_skipped), 0), COALESCE(SUM(is_skipped), 0) FROM failures")
        return row[0], row[1]

    def begin_run(self) -> int:
        """Begin another run of this job; return its number, from 1."""
        with self._transaction():
            encoded = msgspec.json.encode(Usage())
            cursor = self._file.execute("INSERT INTO runs (usage, seconds) VALUES (?, 0)", (encoded,))
        return cursor.lastrowid or 0

    def end_run(self, number: int, usage: Usage, seconds: float) -> None:
        """Note what run *number* has used and how long it took."""
        with self._transaction():
            self._note_usage(number, usage)
            self._file.execute("UPDATE runs SET seconds = ? WHERE number = ?", (seconds, number))

    def usage(self) -> Usage:
        """What all runs of this job have used."""
        used = [msgspec.json.decode(row[0], type=Usage) for row in self._rows("SELECT usage FROM runs ORDER BY number")]
        return sum(used, start=Usage())

    def runs(self) -> tuple[int, float]:
        """How many runs this job had, and how many seconds they took."""
        (row,) = self._rows("SELECT COUNT(*), COALESCE(SUM(seconds), 0) FROM runs")
        return row[0], row[1]

    def is_empty(self) -> bool:
        """True if nothing was paid for that is worth keeping."""
        query = "SELECT EXISTS (SELECT 1 FROM runs_of_rows), EXISTS (SELECT 1 FROM chunks), EXISTS (SELECT 1 FROM parts"
        (row,) = self._rows(f"{query} WHERE is_complete)")
        return not any(row)

    def sync(self) -> None:
        """Return when everything that was committed would survive a loss of power."""
        with self._named():
            self._file.execute("PRAGMA wal_checkpoint(FULL)")

    def close(self) -> None:
        """Close the file: others may use it."""
        self._file.close()

    def _note_usage(self, number: int, usage: Usage) -> None:
        self._file.execute("UPDATE runs SET usage = ? WHERE number = ?", (msgspec.json.encode(usage), number))

    def _note_failures(self, failures: Iterable[FailureRow]) -> None:
        rows = [(*each[:2], msgspec.json.encode(each.id), *each[3:]) for each in failures]
        self._file.executemany("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _forget_part(self, part: int) -> None:
        self._file.execute("DELETE FROM runs_of_rows WHERE part = ?", (part,))
        self._file.execute("DELETE FROM chunks WHERE part = ?", (part,))

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._named():
            return self._file.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._named():
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._file.execute("COMMIT")
            except BaseException:
                if self._file.in_transaction:  # SQLite may have ended it by itself, as it does on a full disk
                    self._file.execute("ROLLBACK")
                raise

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Give what SQLite raises the file's name: a full disk and a broken file are no faults of the program."""
        with self._lock:
            try:
                yield
            except sqlite3.DatabaseError as error:
                raise JournalError(str(error), path=str(self.path)) from error
