"""
The store of a job: vectors are written once, each in its place, and the ledger says which are there.

A document's row is its place in its part's segment. Chunks of a document that has several are kept beside it until
they have become its vector.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import numpy.typing as npt

from ..errors import DimensionsError, JournalError
from ..values import Batch, Chunks, Usage, Vector, Vectors
from .disk import Disk, naming
from .ledger import ChunkRow, Ledger, RowRun
from .parts import Division
from .rows import RowFile, digest
from .segments import DIGEST_BYTES, Check, Room, Segment

SYNC_AFTER = 5.0  # seconds of what came in that a loss of power may take

_SEGMENT, _INPUTS, _CHUNKS = "segment-{:06}.rows", "inputs-{:06}.rows", "chunks-{:06}.rows"


class Journal:
    """
    The vectors of the parts of one job that are not in the result yet, in *folder*.

    *division* says what the parts are, and *room*, which is called with the size of the vectors, where they go if it is
    not a segment for each part. *positions* says which document of the source stands at a position of the run,
    and *several* which of these have several chunks. *usage* tells what the run has used so far; *run* is its number in
    the ledger.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        ledger: Ledger,
        *,
        division: Division,
        dimensions: int | None,
        room: Callable[[int], Room | None] = lambda dimensions: None,
        sync_after: float = SYNC_AFTER,
        in_thread: Callable[..., Awaitable[Any]] = anyio.to_thread.run_sync,
    ) -> None:
        self.positions: dict[int, int] = {}
        self.several: set[int] = set()
        self.dimensions = dimensions
        self.run = 0
        self.usage: Callable[[], Usage] = Usage
        self._disk = disk
        self._folder = folder
        self._ledger = ledger
        self._division = division
        self._room = room
        self._part_rows = division.part_rows
        self._sync_after = sync_after
        self._in_thread = in_thread
        self._one_at_a_time = anyio.Lock()
        self._files: dict[str, RowFile] = {}
        self._lock = threading.Lock()  # of these: parts are written in one thread, replies put in another
        self._putting = threading.Lock()  # of a whole put: what it looked up is there until its end
        self._durable: dict[int, npt.NDArray[np.bool_]] = {}
        self._chunks: dict[tuple[int, int, int], int] = {}
        self._slots: dict[int, int] = {}  # of chunks that are taken, by part
        self._pooled: dict[int, list[RowRun]] = {}  # by part: the ledger has their chunks
        self._synced_at = -math.inf

    def recover(self, parts: Iterable[int]) -> int:
        """
        Look at what is there of *parts*; return how many rows and chunks are whole.

        What has not the digest that the ledger has of it is forgotten, and will be asked for again.
        """
        return sum(self._recover(part) for part in parts) if self.dimensions else 0

    async def known(self, chunks: Chunks, /) -> Mapping[int, Vector]:
        several = {document for document, number in zip(chunks.documents, chunks.parts, strict=True) if number}
        self.several |= several
        known: dict[int, Vector] = {}
        if not self._durable and not self._chunks:
            return known
        for row, (document, number) in enumerate(zip(chunks.documents, chunks.parts, strict=True)):
            if document not in self.positions:
                continue  # it has failed meanwhile
            part, place = divmod(self.positions[document], self._part_rows)
            if document in several:
                slot = self._chunks.get((part, place, number))
                if slot is None:
                    continue
                record = self._chunk_file(part).read(slot, 1)
                is_known = record[:, -DIGEST_BYTES:].view("<i8")[0, 0] == digest(chunks.inputs[row])
                vector = record[:, :-DIGEST_BYTES].view("<f4") if is_known else None
            elif part in self._durable and self._durable[part][place]:
                vector = self._segment(part).known(place, digest(chunks.inputs[row]))
            else:
                continue
            if vector is not None:  # the source may have held another text when it came
                known[row] = vector[0]
        return known

    async def put(self, batch: Batch, vectors: Vectors, /) -> None:
        now = anyio.current_time()
        # In a thread: where the page cache is full, a write is as slow as the disk. And it is waited for also when the
        # run is cancelled: what was paid for is kept.
        with anyio.CancelScope(shield=True):
            with naming(self._folder):
                async with self._one_at_a_time:
                    await self._in_thread(partial(self._put, batch, vectors))
                if now - self._synced_at >= self._sync_after:
                    is_first, self._synced_at = self._synced_at == -math.inf, now
                    if not is_first:
                        await self._in_thread(self.sync)  # the others go on meanwhile

    def pooled(self, document: int, vector: Vector) -> None:
        """Take the *vector* of the document at that position of the run, which was made of those of its chunks."""
        self.several.discard(document)
        part, row = divmod(self.positions[document], self._part_rows)
        written = self._segment(part).write(row, vector[np.newaxis], np.zeros(1, np.int64))
        self._pooled.setdefault(part, []).append(RowRun(row, 1, written))

    def vectors(self, part: int, rows: Sequence[int] | slice, check: Check | None = None) -> Vectors:
        """
        The vectors of those *rows* of *part*, whatever they hold: float32, shape (rows, dimensions).

        With a *check*, which is fed with a slice, :class:`JournalError` as of :meth:`digest`.
        """
        segment = self._segment(part)
        if not isinstance(rows, slice):
            return np.concatenate([segment.read(row, 1) for row in rows])
        vectors = segment.read(rows.start, rows.stop - rows.start, check)
        if check is not None:
            self._refuse(part, check.wrong)
        return vectors

    @property
    def is_in_place(self) -> bool:
        """True if the vectors are where the result has them, or is made of them."""
        return self.dimensions is not None and self._room(self.dimensions) is not None

    def overwrite(self, part: int, row: int, vectors: Vectors) -> None:
        """Write *vectors* from *row* of *part* on that did not come from the endpoint."""
        segment = self._segment(part)
        segment.vectors.write(segment.first + row, vectors.astype("<f4", copy=False))

    def check(self, part: int, put: npt.NDArray[np.bool_]) -> Check:
        """
        What compares the vectors of *part* with those that were put, which *put* tells of each row.

        Raises :class:`JournalError` if nothing is known of one of them.
        """
        runs = self._ledger.row_runs(part) + self._pooled.get(part, [])
        check = Check(runs, self._segment(part).inputs.read(0, self._division.rows(part)))
        self._refuse(part, [], int(np.count_nonzero(put & ~check.covered)))
        return check

    def digest(self, part: int, check: Check | None = None) -> int:
        """
        The digest of all vectors of *part*.

        Raises :class:`JournalError` if the *check* finds others than were put: the next run asks for them again.
        """
        found = self._segment(part).digest(self._division.rows(part), check)
        if check is not None:
            self._refuse(part, check.wrong)
        return found

    def sync_part(self, part: int) -> None:
        """Return when the vectors of *part* would survive a loss of power."""
        self._segment(part).vectors.sync()

    def sync(self) -> None:
        """Return when all that was put would survive a loss of power."""
        with self._lock:
            files = list(self._files.values())
        for file in files:
            file.sync()
        self._disk.sync_directory(self._folder)
        self._ledger.sync()

    def drop(self, part: int) -> None:
        """Remove what is there of *part*: it is in the result."""
        with self._putting:  # it may have a chunk of a document of this part, which another chunk has made fail
            self._drop(part)

    def _drop(self, part: int) -> None:
        self._durable.pop(part, None)
        self._slots.pop(part, None)
        self._pooled.pop(part, None)
        for key in [key for key in self._chunks if key[0] == part]:
            del self._chunks[key]
        for name in (_SEGMENT.format(part), _INPUTS.format(part), _CHUNKS.format(part)):
            with self._lock:
                file = self._files.pop(name, None)
            if file is not None:
                file.close()
            self._disk.remove(self._folder / name)

    def close(self) -> None:
        """Close all files. What cannot be written any more was not counted as done."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _put(self, batch: Batch, vectors: Vectors) -> None:
        with self._putting:
            self._check_dimensions(vectors)
            rows, chunks = self._write(batch, vectors)
            self._ledger.note(rows, chunks, self.run, self.usage())

    def _write(self, batch: Batch, vectors: Vectors) -> tuple[list[tuple[int, RowRun]], list[tuple[int, ChunkRow]]]:
        # A document that has failed meanwhile, with another of its chunks, has no place any more.
        places = [self.positions.get(document, -1) for document in batch.documents]
        positions = np.array(places, np.int64)
        several = np.array([document in self.several for document in batch.documents], bool)
        inputs = np.array([digest(wire) for wire in batch.inputs], np.int64)
        alone = np.flatnonzero(~several & (positions >= 0))
        rows: list[tuple[int, RowRun]] = []
        for run in _runs(positions[alone], self._part_rows):
            picked = alone[run]
            part, first = divmod(places[picked[0]], self._part_rows)
            # Rows that follow each other, of documents that follow each other, need no copy.
            follow = picked[-1] - picked[0] < len(picked)
            block = slice(picked[0], picked[-1] + 1) if follow else picked
            written = self._segment(part).write(first, vectors[block], inputs[block])
            rows.append((part, RowRun(first, len(picked), written)))
        chunks = [
            self._put_chunk(places[at], batch.parts[at], vectors[at], inputs[at : at + 1])
            for at in np.flatnonzero(several & (positions >= 0)).tolist()
        ]
        return rows, chunks

    def _check_dimensions(self, vectors: Vectors) -> None:
        if self.dimensions is None:
            self._ledger.state(dimensions=vectors.shape[1])
            self.dimensions = vectors.shape[1]
        if vectors.shape[1] != self.dimensions:
            raise DimensionsError(
                f"this job has vectors of {self.dimensions:,} numbers, and the endpoint has sent {vectors.shape[1]:,}"
            )

    def _put_chunk(
        self, position: int, number: int, vector: Vector, input: npt.NDArray[np.int64]
    ) -> tuple[int, ChunkRow]:
        part, row = divmod(position, self._part_rows)
        slot = self._slots.get(part, 0)
        self._slots[part] = slot + 1
        record = np.concatenate([vector.astype("<f4").view(np.uint8), input.astype("<i8").view(np.uint8)])
        return part, ChunkRow(row, number, slot, digest(self._chunk_file(part).write(slot, record)))

    def _recover(self, part: int) -> int:
        durable = np.zeros(self._part_rows, bool)
        lost_rows: list[RowRun] = []
        for run in self._ledger.row_runs(part):
            if self._segment(part).is_whole(run.first, run.rows, run.digest):
                durable[run.first : run.first + run.rows] = True
            else:
                lost_rows.append(run)
        lost_chunks: list[ChunkRow] = []
        chunks = self._ledger.chunks(part)
        for chunk in chunks:
            if digest(self._chunk_file(part).read(chunk.slot, 1).reshape(-1).data) == chunk.digest:
                self._chunks[part, chunk.row, chunk.number] = chunk.slot
            else:
                lost_chunks.append(chunk)
        if chunks:
            self._slots[part] = 1 + max(chunk.slot for chunk in chunks)
        self._ledger.forget(part, lost_rows, lost_chunks)
        if durable.any():
            self._durable[part] = durable
        return int(durable.sum()) + len(chunks) - len(lost_chunks)

    def _refuse(self, part: int, wrong: Sequence[RowRun], missing: int = 0) -> None:
        """Raise :class:`JournalError` if rows of *part* are not what was put, and forget them."""
        rows = missing + sum(run.rows for run in wrong)
        if rows:
            self._ledger.forget(part, wrong, [])
            reason = f"{rows:,} vectors are not there as they were put. The next run asks for them again"
            raise JournalError(reason, path=str(self._segment(part).vectors.path))

    def _segment(self, part: int) -> Segment:
        room = self._room(self.dimensions or 0)
        inputs = self._open(_INPUTS.format(part), self._division.rows(part), DIGEST_BYTES)
        if room is None:
            return Segment(self._open(_SEGMENT.format(part), self._division.rows(part), self._width), 0, inputs)
        vectors = self._open(room.path.name, self._division.documents, self._width, room.begin)
        return Segment(vectors, self._division.first(part), inputs)

    def _chunk_file(self, part: int) -> RowFile:
        """The same of chunks, of which nobody knows how many there will be: both in one row."""
        return self._open(_CHUNKS.format(part), 0, self._width + DIGEST_BYTES)

    @property
    def _width(self) -> int:
        """The bytes of a vector."""
        return 4 * (self.dimensions or 0)

    def _open(self, name: str, rows: int, width: int, begin: int = 0) -> RowFile:
        with self._lock:
            if name not in self._files:
                self._files[name] = RowFile(self._disk, self._folder / name, rows=rows, width=width, begin=begin)
            return self._files[name]


def _runs(positions: npt.NDArray[np.int64], part_rows: int) -> list[slice]:
    """The stretches of *positions* that follow each other within one part."""
    if not len(positions):
        return []
    breaks = np.flatnonzero((np.diff(positions) != 1) | (positions[1:] % part_rows == 0)) + 1
    edges = [0, *breaks.tolist(), len(positions)]
    return [slice(begin, end) for begin, end in pairwise(edges)]
