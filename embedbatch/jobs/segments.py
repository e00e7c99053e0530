"""Where the vectors of a part stand while a job runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from ..values import Vectors
from .ledger import RowRun
from .rows import Bytes, RowFile, digest

DIGEST_BYTES = 8
_AT_ONCE = 2**18  # bytes that are read: the processor's cache has room for them, and a write does not wait for long


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

    def read(self, row: int, count: int, check: Check | None = None) -> Vectors:
        """
        The vectors of *count* rows from *row* on, whatever they hold: float32, shape (count, dimensions).

        *check* is fed with them.
        """
        if check is None:
            found = self.vectors.read(self.first + row, count)
        else:
            found = np.empty((count, self.vectors.width), np.uint8)
            step = self._step
            for begin in range(0, count, step):
                check.feed(self.vectors.read_into(found[begin : begin + step], self.first + row + begin))
        return found.view("<f4").astype(np.float32, copy=False)

    def known(self, row: int, input: int) -> Vectors | None:
        """The vector of *row*, shape (1, dimensions), if it is that of an input with this digest."""
        return self.read(row, 1) if self.inputs.read(row, 1).view("<i8")[0, 0] == input else None

    def is_whole(self, row: int, count: int, known: int) -> bool:
        """True if rows from *row* on are those whose digest is *known*."""
        vectors, inputs = self.vectors.read(self.first + row, count), self.inputs.read(row, count)
        return digest(vectors.reshape(-1).data, inputs.reshape(-1).data) == known

    def digest(self, rows: int, check: Check | None = None) -> int:
        """The digest of the first *rows* vectors; *check* is fed with them."""
        hasher = xxhash.xxh3_64()
        step = self._step
        buffer = np.empty((step, self.vectors.width), np.uint8)
        for row in range(0, rows, step):
            block = self.vectors.read_into(buffer[: rows - row], self.first + row)
            hasher.update(block.reshape(-1).data)
            if check is not None:
                check.feed(block)
        return hasher.intdigest() - 2**63

    @property
    def _step(self) -> int:
        """The rows that are read at once."""
        return max(1, _AT_ONCE // max(1, self.vectors.width))


class Check:
    """
    Compares the vectors of a part, fed from its first row on, with what the ledger has of them.

    *runs* are in the order they came, and *inputs* the digests that stand beside the vectors: shape (rows, 8). A run of
    which some rows were written again has no digest any more that could be right: it is passed over.
    """

    def __init__(self, runs: Sequence[RowRun], inputs: Bytes) -> None:
        owners = np.full(len(inputs), -1, np.int64)
        for number, run in enumerate(runs):
            owners[run.first : run.first + run.rows] = number
        self.covered = owners >= 0
        """Of each row whether some run has it: bool, shape (rows,)."""
        whole = [run for number, run in enumerate(runs) if (owners[run.first : run.first + run.rows] == number).all()]
        self._runs: Iterator[RowRun] = iter(sorted(whole))
        self._run = next(self._runs, None)
        self._inputs = inputs
        self._hasher = xxhash.xxh3_64()
        self._row = 0
        self.wrong: list[RowRun] = []
        """What was fed and is not as it was written."""

    def feed(self, vectors: Bytes) -> None:
        """Take in the next rows: the bytes of one in each row."""
        first, end = self._row, self._row + len(vectors)
        self._row = end
        while self._run is not None and self._run.first < end:
            run, run_end = self._run, self._run.first + self._run.rows
            part = vectors[max(0, run.first - first) : run_end - first]
            self._hasher.update(part.reshape(-1).data)
            if run_end > end:
                return
            self._hasher.update(self._inputs[run.first : run_end].reshape(-1).data)
            if self._hasher.intdigest() - 2**63 != run.digest:
                self.wrong.append(run)
            self._hasher.reset()
            self._run = next(self._runs, None)
