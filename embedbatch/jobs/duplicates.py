"""
Which documents of a source are the same, so that each text is paid for once.

While the source is scanned 16 bytes are kept of each document; then they are sorted, a range of them at a time. Two
documents are the same if all 128 bits of a cryptographic hash are: nobody has found two that are and differ.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from .disk import Disk
from .rows import digest

_HASH_BYTES = 16
_TOGETHER = 1_000_000  # documents that are sorted at once: some 90 MB
_READ = 250_000  # hashes that are looked at in one go

Positions = npt.NDArray[np.int64]


class Hashes:
    """Collects a hash of each document in *file*."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._count = 0

    def add(self, content: Any) -> None:
        """Take in the next document. One that cannot be sent is like no other: it fails by itself."""
        data = _sent(content) or b"n" + self._count.to_bytes(8, "little")
        self._count += 1
        self._file.write(blake2b(data, digest_size=_HASH_BYTES).digest())


def _sent(content: Any) -> bytes | None:
    """What tells *content* from everything else; ``None`` if it cannot be sent."""
    if isinstance(content, str):
        return b"t" + content.encode("utf-8", "surrogatepass") if content and not content.isspace() else None
    if isinstance(content, list):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return b"i" + msgspec.json.encode(content)
    return None


def find_duplicates(hashes: Path, together: int = _TOGETHER) -> npt.NDArray[np.int64]:
    """
    The documents whose hash an earlier one has: int64, shape (duplicates, 2), in order of position.

    Each row is a position and that of the first document with the same hash. *together* is how many are sorted at once.
    """
    size = hashes.stat().st_size // _HASH_BYTES
    if not size:
        return np.empty((0, 2), np.int64)
    ranges = -(-size // together)
    bounds = [number * 2**64 // ranges for number in range(ranges + 1)]
    found = [_find_in(hashes, low, high) for low, high in pairwise(bounds)]
    pairs = np.concatenate(found)
    return pairs[np.argsort(pairs[:, 0])]


def _find_in(hashes: Path, low: int, high: int) -> npt.NDArray[np.int64]:
    """The duplicates among the hashes from *low* up to *high*."""
    picked: list[Positions] = []
    kept: list[npt.NDArray[np.uint64]] = []
    first = 0
    with hashes.open("rb") as file:
        while data := file.read(_READ * _HASH_BYTES):
            table = np.frombuffer(data, np.uint64).reshape(-1, 2)
            rows = np.flatnonzero((table[:, 0] >= np.uint64(low)) & (table[:, 0] <= np.uint64(high - 1)))
            picked.append(rows + first)
            kept.append(table[rows])
            first += len(table)
    positions, keys = np.concatenate(picked), np.concatenate(kept)
    order = np.argsort(keys[:, 0], kind="stable")  # of equals, the earlier position first
    positions, keys = positions[order], keys[order]
    begins = np.flatnonzero(np.r_[True, keys[1:, 0] != keys[:-1, 0]])  # of each group of equals
    firsts = np.repeat(begins, np.diff(np.r_[begins, len(keys)]))
    # Equal in 64 bits and not in 128: rather sent than mistaken.
    same = (firsts != np.arange(len(keys))) & (keys[:, 1] == keys[firsts, 1])
    return np.stack([positions[same], positions[firsts[same]]], axis=1)


class Duplicates:
    """The duplicates of a source, in the files *folder* has of them, or none."""

    def __init__(self, pairs: npt.NDArray[np.int64]) -> None:
        self._pairs = pairs
        self.originals: Positions = np.unique(pairs[:, 1])
        """The positions of documents that come again, in order."""

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def digest(self) -> int:
        """What tells that they are all there, and the same."""
        return digest(np.ascontiguousarray(self._pairs, "<i8").reshape(-1).data)

    @classmethod
    def load(cls, path: Path) -> Duplicates:
        """Those that :meth:`save` has written to *path*."""
        return cls(np.load(path, mmap_mode="r").reshape(-1, 2))

    def save(self, disk: Disk, path: Path) -> None:
        """Write them to *path*."""
        with disk.open(path) as file:
            file.truncate(0)
            np.save(file, self._pairs)
            disk.sync(file)

    def within(self, first: int, end: int) -> dict[int, int]:
        """The duplicates among the positions *first* to *end*: for each the position of the original."""
        begin, stop = np.searchsorted(self._pairs[:, 0], [first, end])
        return dict(map(tuple, self._pairs[begin:stop].tolist()))

    def originals_within(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """The originals among the positions *first* to *end*, each with its number among all originals."""
        begin, stop = np.searchsorted(self.originals, [first, end])
        yield from zip(self.originals[begin:stop].tolist(), range(begin, stop), strict=True)

    def number(self, original: int) -> int:
        """The number of *original* among all originals."""
        return int(np.searchsorted(self.originals, original))


NO_DUPLICATES = Duplicates(np.empty((0, 2), np.int64))
