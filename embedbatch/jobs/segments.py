"""Where the vectors of a part stand while a job runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from ..values import Vectors
from .rows import RowFile, digest

DIGEST_BYTES = 8
_AT_ONCE = 16 * 2**20  # bytes that are read


@dataclass(frozen=True, slots=True)
class Room:
    """
    A file in which the vectors of all documents stand in order, from *begin* on: float32, little-endian.

    Where a result has such a file, or is made of it, vectors are written to their place in it when they arrive.
    """

    path: Path
    begin: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """
    The *vectors* of a part, whose first row is row *first* of that file, and the digests of the *inputs* they are of.
    """

    vectors: RowFile
    first: int
    inputs: RowFile

    def write(self, row: int, vectors: Vectors, inputs: npt.NDArray[np.int64]) -> int:
        """Write *vectors* and the digests of their *inputs* from *row* of the part on; return the digest of both."""
        return digest(
            self.vectors.write(self.first + row, vectors.astype("<f4", copy=False)),
            self.inputs.write(row, inputs.astype("<i8", copy=False)),
        )

    def read(self, row: int, count: int) -> Vectors:
        """The vectors of *count* rows from *row* on, whatever they hold: float32, shape (count, dimensions)."""
        return self.vectors.read(self.first + row, count).view("<f4").astype(np.float32, copy=False)

    def known(self, row: int, input: int) -> Vectors | None:
        """The vector of *row*, shape (1, dimensions), if it is that of an input with this digest."""
        return self.read(row, 1) if self.inputs.read(row, 1).view("<i8")[0, 0] == input else None

    def is_whole(self, row: int, count: int, known: int) -> bool:
        """True if rows from *row* on are those whose digest is *known*."""
        vectors, inputs = self.vectors.read(self.first + row, count), self.inputs.read(row, count)
        return digest(vectors.reshape(-1).data, inputs.reshape(-1).data) == known

    def digest(self, rows: int, width: int) -> int:
        """The digest of the first *rows* vectors, of *width* bytes each."""
        hasher = xxhash.xxh3_64()
        step = max(1, _AT_ONCE // max(1, width))
        for row in range(0, rows, step):
            hasher.update(self.vectors.read(self.first + row, min(step, rows - row)).reshape(-1).data)
        return hasher.intdigest() - 2**63

    def sync(self) -> None:
        """Return when what was written is on the disk."""
        self.vectors.sync()
        self.inputs.sync()
