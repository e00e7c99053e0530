"""
What a cache keeps on the disk: vectors one after the other in files, and an index of them in SQLite.

    directory/v1-000001/index.sqlite     which vectors there are, by key, and where
    directory/v1-000001/00000001.f32     some of them

A vector is written once, to the end of the newest file, inside the transaction that puts it into the index. SQLite lets
one process at a time have such a transaction, so none writes where another does; whoever is killed in the middle of one
has written to where nobody looks, and the next writes over it. Vectors are never synced: one that a loss of power took,
or damage, has not its checksum any more, which covers its key too. Such a vector is not there.

Files are dropped whole, the one least recently used first. A damaged index is left where it is, and a folder with the
next number begun; whoever else uses the old one goes on to that.
"""

from __future__ import annotations

import operator
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from ..values import Vectors
from . import files
from .files import PLACE, DamagedError, Entry, Found

MAX_FILE_BYTES = 32_000_000  # vectors are dropped so many at once
MAX_LOG_BYTES = 16_000_000  # of SQLite's write-ahead log; at half of it, it is moved into the index
MIN_LOG_BYTES = 300_000
NOTED_AFTER = 3_600.0  # seconds for which the time of a file's last use stays as it is, also if it is used

_INDEX = "index.sqlite"
_PAGE = 4_096
_ROW = 70  # bytes of the index for a vector, about
_CACHED = 16_000_000  # bytes of the index in memory, at most
_TOGETHER = 512  # keys that are looked up in one query
_MAX_VECTOR = 2**24  # bytes
_SCHEMA = """
CREATE TABLE files (number INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, used REAL NOT NULL);
CREATE TABLE vectors (place INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
    checksum INTEGER NOT NULL);
CREATE TABLE recipes (recipe BLOB PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
"""
_IS_WAL = b"\2\2"  # at 18 in the header of such a database
_DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,  # our own statements are right, so the tables are not what they were
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
}
_UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}


class Index:
    """
    What a cache in *directory* has, for several threads and processes at once; opened when it is first needed.

    All its files together have at most *max_bytes*. Another process that writes is waited for, *patience* seconds at
    most.

    Raises :class:`DamagedError` where :meth:`begin_anew` helps, else ``OSError`` or ``sqlite3.Error``.
    """

    def __init__(self, directory: Path, *, max_bytes: int, patience: float) -> None:
        self.directory = directory
        self._max_log = max(MIN_LOG_BYTES, min(MAX_LOG_BYTES, max_bytes // 16))
        self._max_file = min(MAX_FILE_BYTES, max_bytes // 16)
        self._max_bytes = max_bytes - self._max_log
        self._patience = patience
        self._lock = threading.Lock()
        self._number = 0
        self._connection: sqlite3.Connection | None = None
        self._used: dict[int, float] = {}  # by file: when this process used it

    def find(self, recipe: bytes, keys: Sequence[bytes], now: float) -> Found:
        """The vectors of *keys* that are there, of the size that *recipe* has now."""
        entries: list[Entry] = []
        with self._lock, self._open() as index:
            size = _size(index, recipe)
            for begin in range(0, len(keys), _TOGETHER) if size else ():
                some = keys[begin : begin + _TOGETHER]
                marks = ",".join("?" * len(some))
                query = f"SELECT place, key, size, checksum FROM vectors WHERE key IN ({marks})"
                asked = set(some)  # where the index is damaged, other keys may come
                found = map(Entry._make, index.execute(query, some))
                entries += [entry for entry in found if entry.size == size and entry.key in asked]
            entries.sort()
            self._used |= dict.fromkeys([entry.place // PLACE for entry in entries], now)
            inside = self._folder
        return files.read(inside, entries)

    def keep(self, recipe: bytes, keys: Sequence[bytes], vectors: Vectors, now: float) -> int:
        """Keep *vectors*, one for each of *keys*; return how many others were dropped for them."""
        rows = np.ascontiguousarray(vectors, "<f4")
        together = max(1, self._max_file // (rows.nbytes // len(rows) + _ROW))
        dropped = 0
        for begin in range(0, len(rows), together):
            part = slice(begin, begin + together)
            dropped += self._keep(recipe, keys[part], rows[part], now)
        return dropped

    def begin_anew(self, number: int) -> None:
        """
        Leave the index of the folder *number*, which is damaged, where it is, and begin with nothing.

        Where another thread or process has done so, go on to that.
        """
        with self._lock:
            self._close()
            if files.latest(self.directory) == number:
                self._create(number + 1)
                files.set_aside(self.directory, number)

    def close(self) -> None:
        """Close the index. It is opened again when it is needed."""
        with self._lock:
            if self._connection is not None and self._used:
                with suppress(sqlite3.Error), self._transaction(self._connection):
                    self._note_use(self._connection)
            self._close()

    def hold(self) -> None:
        """Close the index, and let nobody use it until :meth:`let_go` is called."""
        self._lock.acquire()
        self._close()

    def let_go(self) -> None:
        """Let it be used again."""
        self._lock.release()

    @property
    def _folder(self) -> Path:
        return files.folder(self.directory, self._number)

    def _keep(self, recipe: bytes, keys: Sequence[bytes], rows: Vectors, now: float) -> int:
        size = rows.nbytes // len(rows)
        checksums = map(files.checksum, keys, rows)
        with self._lock:
            with self._open() as index, self._transaction(index):
                if _size(index, recipe) != size:
                    index.execute("INSERT OR REPLACE INTO recipes VALUES (?, ?)", (recipe, size))
                self._note_use(index)
                before, dropped = self._make_room(index, len(rows) * (size + _ROW))
                place = self._place(index, before, len(rows), size, now)
                files.write(self._folder, place, rows)
                index.executemany(
                    "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)",
                    zip(range(place, place + rows.nbytes, size), keys, [size] * len(rows), checksums, strict=True),
                )
                known = {number for (number,) in index.execute("SELECT number FROM files")}
            if dropped or place % PLACE == 0:
                # Not before the commit: until then the index tells of them. Those of whoever was killed here, too.
                files.remove(self._folder, lambda number: number < place // PLACE and number not in known)
        return dropped

    # opening ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The index of the newest folder. What SQLite finds damaged is a :class:`DamagedError`."""
        try:
            if self._connection is not None and files.folder(self.directory, self._number + 1).exists():
                self._close()
            if self._connection is None:
                if not files.latest(self.directory):
                    self._create(1)
                before, self._number = self._number, files.latest(self.directory)
                if before != self._number:
                    self._used = {}
                self._connection = self._connect(self._folder / _INDEX)
            yield self._connection
        except (sqlite3.Error, DamagedError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, sqlite3.Error) and _code(error) not in _DAMAGE:
                raise
            damaged = DamagedError(str(error))  # wrong types and values come from rows that are not what was written
            damaged.number = self._number
            raise damaged from error

    def _create(self, number: int) -> None:
        files.create(self.directory, number, _fill)

    def _connect(self, path: Path) -> sqlite3.Connection:
        try:
            with path.open("rb") as file:
                header = file.read(20)
        except FileNotFoundError:
            raise DamagedError("there is no index") from None
        if header[18:] != _IS_WAL:
            raise DamagedError("it does not begin as an index does")
        uri = path.absolute().as_uri()
        try:
            return self._prepare(f"{uri}?mode=rw")
        except sqlite3.OperationalError as error:
            if _code(error) not in _UNWRITABLE:
                raise
        # Without leave to write beside it a log can be read only if others have it open. Where there is none, the
        # index is all there is.
        log = path.with_name(f"{path.name}-wal")
        return self._prepare(f"{uri}?mode=ro" if log.exists() and log.stat().st_size else f"{uri}?immutable=1")

    def _prepare(self, uri: str) -> sqlite3.Connection:
        index = sqlite3.connect(uri, self._patience, isolation_level=None, check_same_thread=False, uri=True)
        try:
            index.execute("PRAGMA synchronous = NORMAL")
            index.execute(f"PRAGMA wal_autocheckpoint = {self._max_log // _PAGE // 2}")
            index.execute(f"PRAGMA journal_size_limit = {self._max_log}")
            index.execute(f"PRAGMA cache_size = {-_CACHED // 1_024}")
            index.execute("PRAGMA cell_size_check = ON")
            index.text_factory = bytes  # there is no text in it, unless it is damaged
            version = index.execute("PRAGMA user_version").fetchone()[0]
            if version != files.VERSION:
                raise DamagedError(f"it says it is of version {version}, not {files.VERSION}")
        except BaseException:
            index.close()
            raise
        return index

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    # writing ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, index: sqlite3.Connection) -> Iterator[None]:
        try:
            index.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            index.execute("PRAGMA busy_timeout = 0")  # whoever does not let go is waited for once
            raise
        try:
            yield
            index.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                index.execute("ROLLBACK")
            raise
        index.execute(f"PRAGMA busy_timeout = {round(1_000 * self._patience)}")

    def _note_use(self, index: sqlite3.Connection) -> None:
        """Tell the index which files were used, of those it has not heard of for a while."""
        used, self._used = self._used, {}
        index.executemany(
            "UPDATE files SET used = ? WHERE number = ? AND used < ?",
            [(now, number, now - NOTED_AFTER) for number, now in used.items()],
        )

    def _make_room(self, index: sqlite3.Connection, nbytes: int) -> tuple[int, int]:
        """Take files out of the index until there is room; return the newest there was, and how many vectors went."""
        (newest,) = index.execute("SELECT COALESCE(MAX(number), 0) FROM files").fetchone()
        gone = dropped = 0
        while (used := _used(index) + nbytes) > self._max_bytes:
            oldest = index.execute("SELECT number FROM files ORDER BY number = ?, used, number", (newest,)).fetchone()
            if oldest is None:
                break
            begin = oldest[0] * PLACE
            vectors = index.execute("DELETE FROM vectors WHERE place >= ? AND place < ?", (begin, begin + PLACE))
            index.execute("DELETE FROM files WHERE number = ?", oldest)
            gone, dropped = gone + 1, dropped + vectors.rowcount
        if gone:
            free = index.execute("PRAGMA freelist_count").fetchone()[0]
            for _ in range(min(free, free - (self._max_bytes - used) // _PAGE)):
                index.execute("PRAGMA incremental_vacuum(1)")  # of more than one page Python would do the first
        return newest, dropped

    def _place(self, index: sqlite3.Connection, before: int, rows: int, size: int, now: float) -> int:
        """Where the next *rows* of *size* bytes go: in the newest file, or in a new one, after *before*."""
        nbytes = rows * size
        newest = index.execute("SELECT number, bytes FROM files ORDER BY number DESC LIMIT 1").fetchone()
        number, end = newest or (0, 0)
        if number and (end + nbytes) * (size + _ROW) <= self._max_file * size:
            index.execute("UPDATE files SET bytes = ?, used = ? WHERE number = ?", (end + nbytes, now, number))
        else:
            number, end = before + 1, 0
            index.execute("INSERT INTO files VALUES (?, ?, ?)", (number, nbytes, now))
        if not 0 <= end < PLACE or not 0 < number < PLACE // 2:
            raise DamagedError(f"it tells of file {number} with {end} bytes")
        return int(number * PLACE + end)


def _fill(inside: Path) -> None:
    """Make an empty index."""
    index = sqlite3.connect(inside / _INDEX, isolation_level=None)
    try:
        index.execute(f"PRAGMA page_size = {_PAGE}")
        index.execute("PRAGMA auto_vacuum = INCREMENTAL")
        index.execute("PRAGMA journal_mode = WAL")
        index.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {files.VERSION}; COMMIT")
    finally:
        index.close()


def _size(index: sqlite3.Connection, recipe: bytes) -> int:
    """The bytes of a vector of *recipe*, 0 if there never was one."""
    known = index.execute("SELECT size FROM recipes WHERE recipe = ?", (recipe,)).fetchone()
    size = operator.index(known[0]) if known else 0
    if size % 4 or not 0 <= size <= _MAX_VECTOR:
        raise DamagedError(f"it tells of vectors of {size} bytes")
    return size


def _used(index: sqlite3.Connection) -> int:
    """How many bytes the vectors have, and the pages of the index that are in use."""
    vectors, pages, free = index.execute(
        "SELECT (SELECT COALESCE(SUM(bytes), 0) FROM files), page_count, freelist_count "
        "FROM pragma_page_count, pragma_freelist_count"
    ).fetchone()
    return int(vectors + _PAGE * (pages - free))


def _code(error: sqlite3.Error) -> int:
    """The primary code of an error of SQLite, 0 if it has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
