"""Folders of a cache, and the files in them that hold vectors: float32, little-endian, one after the other."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..values import Vector, Vectors

VERSION = 1  # of the format; another one has folders of its own
PLACE = 2**32  # the number of a file and an offset in it, as one integer

_FOLDER = re.compile(rf"v{VERSION}-(\d{{6,}})")
_NEW = ".new-"


class DamagedError(Exception):
    """What stands in the folder *number* is not what was written."""

    number = 0


class Entry(NamedTuple):
    """What the index tells of a vector: where it begins, its key, its bytes and their checksum."""

    place: int
    key: bytes
    size: int
    checksum: int


class Found(NamedTuple):
    """The *vectors* that are there, by key, and how many of those in the files are *damaged*."""

    vectors: dict[bytes, Vector]
    damaged: int


def checksum(key: bytes, row: Any) -> int:
    """What tells that *row* is whole, and the vector of *key*."""
    return zlib.crc32(row, zlib.crc32(key))


# folders --------------------------------------------------------------------------------------------------------


def folder(directory: Path, number: int) -> Path:
    """The folder *number* of a cache."""
    return directory / f"v{VERSION}-{number:06}"


def latest(directory: Path) -> int:
    """The number of the newest folder, 0 if there is none."""
    return max(_numbers(directory), default=0)


def create(directory: Path, number: int, fill: Callable[[Path], None]) -> bool:
    """
    Make the folder *number*, with what *fill* puts into it. False if another process was faster.

    It appears whole, and once.
    """
    directory.mkdir(parents=True, exist_ok=True)
    prepared = directory / f"{_NEW}{secrets.token_hex(8)}"
    prepared.mkdir()
    try:
        fill(prepared)
        prepared.rename(folder(directory, number))  # which fails if it is there: it is not empty
    except Exception:
        shutil.rmtree(prepared, ignore_errors=True)
        if folder(directory, number).exists():
            return False
        raise
    for left in directory.glob(f"{_NEW}*"):  # by those that were killed, or are slower
        shutil.rmtree(left, ignore_errors=True)
    return True


def set_aside(directory: Path, number: int) -> None:
    """Remove the vectors of the folder *number*, and all that was set aside before it."""
    remove(folder(directory, number), lambda _: True)
    for earlier in _numbers(directory):
        if earlier < number:
            shutil.rmtree(folder(directory, earlier), ignore_errors=True)


def _numbers(directory: Path) -> list[int]:
    try:
        matches = map(_FOLDER.fullmatch, os.listdir(directory))
    except FileNotFoundError:
        return []
    return [int(match[1]) for match in matches if match]


# files ----------------------------------------------------------------------------------------------------------


def write(inside: Path, place: int, rows: Vectors) -> None:
    """Write *rows* to *place*; the file is made if there is none."""
    number, offset = divmod(place, PLACE)
    # O_CREAT, not a mode of open(): none of them creates, keeps what is there, and writes where it is told to.
    handle = os.open(_path(inside, number), os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(handle, "wb", buffering=0) as file:
        file.seek(offset)
        left = rows.data.cast("B")
        while left:
            left = left[file.write(left) :]


def read(inside: Path, entries: Sequence[Entry]) -> Found:
    """Read the vectors of *entries*, which are in order of their places and have one size."""
    if not entries:
        return Found({}, 0)
    size = entries[0].size
    rows = np.zeros((len(entries), size // 4), "<f4")
    view = rows.data.cast("B")
    end = missing = 0
    for number, some in groupby(entries, key=lambda entry: entry.place // PLACE):
        offsets = [entry.place % PLACE for entry in some]
        begin, end = end, end + len(offsets)
        try:
            # Opened each time: a file that stays open keeps its room on the disk when another process removes it.
            with open(_path(inside, number), "rb", buffering=0) as file:
                _read(file, offsets, size, view[begin * size : end * size])
        except FileNotFoundError:  # another process has just dropped it
            missing += len(offsets)
    vectors = rows.astype(np.float32, copy=False)
    whole = {
        entry.key: vector
        for entry, row, vector in zip(entries, rows, vectors, strict=True)
        if checksum(entry.key, row) == entry.checksum
    }
    return Found(whole, len(entries) - len(whole) - missing)


def _read(file: Any, offsets: Sequence[int], size: int, view: memoryview) -> None:
    """Read what is at *offsets*, *size* bytes each; what follows each other in one go."""
    begin = 0
    for end in range(1, len(offsets) + 1):
        if end == len(offsets) or offsets[end] != offsets[end - 1] + size:
            file.seek(offsets[begin])
            file.readinto(view[begin * size : end * size])
            begin = end


def remove(inside: Path, which: Callable[[int], bool]) -> None:
    """Remove the files for whose number *which* is true."""
    for path in inside.glob("*.f32"):
        if path.stem.isdecimal() and which(int(path.stem)):
            with suppress(OSError):
                path.unlink()


def _path(inside: Path, number: int) -> Path:
    return inside / f"{number:08}.f32"
