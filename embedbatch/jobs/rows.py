"""A file of rows, each in its place."""

from __future__ import annotations

import contextlib
import io
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import xxhash

from .disk import Disk

_BLOCK = 2**20  # bytes that are read at once

Bytes = npt.NDArray[np.uint8]
"""uint8, shape (rows, bytes of a row)."""


class RowFile:
    """
    Rows of *width* bytes in *path*, *begin* bytes from its beginning, written and read by their number.

    There is room for *rows* from the first, and there may be more. What was written stays when the process ends; after
    a loss of power only what was synced is certain.
    """

    def __init__(self, disk: Disk, path: Path, *, rows: int, width: int, begin: int = 0) -> None:
        self.path = path
        self.width = width
        self._begin = begin
        self._disk = disk
        self._is_dirty = False
        self._lock = threading.Lock()  # of the place in the file: one thread may read while another writes
        self._syncing = threading.Lock()
        # A buffer's flush, in the thread that syncs, would move the place beneath a write: vectors in others' rows.
        self._file = disk.open(path, buffering=0)
        try:
            disk.allocate(self._file, begin + rows * width)
        except BaseException:
            self._file.close()
            raise

    def write(self, first: int, rows: npt.NDArray[np.generic]) -> memoryview:
        """Write *rows* from row *first* on; return their bytes. Any array is taken whose rows have the width."""
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        with self._lock:
            self._file.seek(self._begin + first * self.width)
            written = 0
            while written < len(data):
                written += self._file.write(data[written:])
            self._is_dirty = True
        return data

    def read(self, first: int, count: int) -> Bytes:
        """*count* rows from row *first* on. Rows behind the end of the file are zeros."""
        return self.read_into(np.empty((count, self.width), np.uint8), first)

    def read_into(self, rows: Bytes, first: int) -> Bytes:
        """Fill *rows* with those from row *first* on, and return them."""
        data = rows.reshape(-1)
        there = 0
        with self._lock:
            self._file.seek(self._begin + first * self.width)
            while some := self._file.readinto(data[there:].data):  # type: ignore[attr-defined]
                there += some
        data[there:] = 0
        return rows

    def sync(self) -> None:
        """Return when what was written is on the disk. Writing goes on meanwhile."""
        with self._syncing:  # it is not closed meanwhile
            with self._lock:
                if not self._is_dirty or self._file.closed:
                    return
                self._is_dirty = False
            try:
                self._disk.sync(self._file)
            except BaseException:
                self._is_dirty = True
                raise

    def close(self) -> None:
        """Close the file."""
        with self._syncing, self._lock, contextlib.suppress(OSError):
            self._file.close()


class Hashed(io.RawIOBase):
    """Writes to *file*, and knows the *digest* of what it has written: the same that :func:`digest_of` finds there."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self._hasher = xxhash.xxh3_64()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hasher.update(data)
        return self.file.write(data)

    @property
    def digest(self) -> int:
        return self._hasher.intdigest() - 2**63


def digest_of(file: BinaryIO, size: int | None = None) -> int:
    """The digest of the rest of *file*, or of *size* bytes of it."""
    hasher = xxhash.xxh3_64()
    while block := file.read(_BLOCK if size is None else min(_BLOCK, size)):
        hasher.update(block)
        size = None if size is None else size - len(block)
    return hasher.intdigest() - 2**63


def digest(*data: bytes | memoryview) -> int:
    """64 bits that tell whether *data* is what it was. Signed, as SQLite has them."""
    if len(data) == 1:
        return xxhash.xxh3_64_intdigest(data[0]) - 2**63
    hasher = xxhash.xxh3_64()
    for block in data:
        hasher.update(block)
    return hasher.intdigest() - 2**63
