"""The work of a job: documents in, vectors into the journal, parts that are complete into the result."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream

from ..assemble.reassembler import Block
from ..embedder import Embedder
from ..errors import InputError, NotAttemptedError, RequestRefusedError, SourceError, VectorRangeError
from ..results import Results
from ..tasks import task_group
from ..values import Document, Failure, Id, Usage
from .columns import writable
from .disk import naming
from .dtypes import Dtype, rows_that_fit
from .job import Job
from .journal import Journal
from .ledger import FailureRow, Mark
from .part_writer import PartWriter
from .parts import EARLIER, EMBEDDED, FAILED, OpenPart
from .sources import Row

_FAILURES = 64  # that are noted together


# A plain tuple of plain values, and no Row: the garbage collector would look at each of those again and again.
_Place: TypeAlias = "tuple[Id, int, int, str | None]"
"""Of a document on its way: its id, and the line, the bytes and the file of its row."""


class Work:
    """
    Embeds the parts of *job* that are to be done, with *journal* as the store; *writer* puts them into the result.

    *documents*, *bytes*, *embedded* and *failures* are done, by this run or one before. A vector that *dtype* has no
    room for is a failure. *tell* is called whenever there are more.
    """

    def __init__(
        self,
        job: Job,
        journal: Journal,
        writer: PartWriter,
        *,
        dtype: Dtype,
        tell: Callable[[Work, Usage], object],
    ) -> None:
        self.documents = self.bytes = self.embedded = self.failures = 0
        self._job = job
        self._journal = journal
        self._writer = writer
        self._dtype = dtype
        self._tell = tell
        self._awaited: deque[_Place] = deque()  # of what is on its way: bounded by the embedder's window
        self._taken = 0  # of them, by this run
        self._open: deque[OpenPart] = deque()
        self._failures: list[FailureRow] = []
        self._todo = job.parts_to_do()
        self._all_read = False

    async def embed(self, embedder: Embedder, stop: anyio.Event | None, options: dict[str, Any]) -> Usage:
        """Embed what is to be done; return what it took. When *stop* is set, what is in flight is the last."""
        for number, part in self._job.ledger.complete_parts().items():
            self.documents += self._job.division.rows(number)
            self.embedded += part.embedded
            self.bytes += part.bytes
        await anyio.to_thread.run_sync(self._recover)
        give, take = anyio.create_memory_object_stream[OpenPart](1)
        finished = anyio.Event()
        try:
            async with task_group() as tasks:
                tasks.start_soon(self._finish_parts, take, finished)
                async with give, embedder.stream(self._read(), **options) as results:
                    self._journal.usage = lambda: results.usage
                    if stop is not None:
                        tasks.start_soon(_stop, stop, results)
                    self._tell(self, results.usage)
                    async for block in results.blocks():
                        self._take(block)
                        self._tell(self, results.usage)
                        await self._hand_on(give.send)
                    is_over = self._all_read and all(part.is_ready for part in self._open)
                    await self._hand_on(give.send, even_unknown=is_over)
                await finished.wait()
                tasks.cancel_scope.cancel()
        finally:
            with contextlib.suppress(SourceError):
                self._note_failures()
        return results.usage

    def _recover(self) -> None:
        division = self._job.division
        for part in self._todo if self._job.earlier is None else ():
            self._job.ledger.forget_failures(division.first(part), division.end(part), final_too=False)
        asked_again = sum(map(self._asks_again, self._job.ledger.failures(0, division.documents)))
        self.failures = self._job.ledger.count_failures()[0] - asked_again
        self._journal.recover(self._todo)

    def _read(self) -> Iterator[Document]:
        """The documents that have to be embedded."""
        division, positions = self._job.division, self._journal.positions
        rows: Iterator[Row] = iter(())
        reached = -1  # the position that *rows* gives next
        in_run = 0
        for number in self._todo:
            first, end = division.first(number), division.end(number)
            if reached != first:
                rows = self._job.rows_from(first)
            part = OpenPart(number, first, end - first)
            self._open.append(part)
            settled, again = self._settled(first, end)
            earlier = self._job.earlier.documents if self._job.earlier else 0
            for position in range(first, end):
                row = next(rows)
                part.bytes += row.bytes
                if position == first:
                    self._job.check_source()  # up to here it was read as it is
                    self._job.ledger.mark(number, Mark(row.line, row.offset))
                if position in settled:
                    part.states[position - first] = FAILED  # what a duplicate is is found out when the part is written
                    self._count(row.bytes)
                    continue
                if position < earlier and position not in again:
                    part.states[position - first] = EARLIER
                    self._count(row.bytes)
                    continue
                part.awaited += 1
                positions[in_run] = position
                self._awaited.append((row.id, row.line, row.bytes, row.file))
                in_run += 1
                yield Document(row.content, row.id)
            part.is_read = True
            reached = end
        self._all_read = True

    def _settled(self, first: int, end: int) -> tuple[set[int], set[int]]:
        """
        The positions from *first* to *end* that are not to be sent, being duplicates or known to fail; and those that
        have failed and are.
        """
        failures = list(self._job.ledger.failures(first, end))
        again = {failure.position for failure in failures if self._asks_again(failure)}
        failed = {failure.position for failure in failures} - again
        return failed | self._job.duplicates.within(first, end).keys(), again

    def _asks_again(self, failure: FailureRow) -> bool:
        earlier = self._job.earlier
        return earlier is not None and not failure.is_skipped and (earlier.failures or not failure.is_final)

    def _take(self, block: Block) -> None:
        """Note what became of the next documents."""
        if not block.documents:
            return
        self._pool(block)
        failures = {failure.position: failure for failure in block.failures}
        tokens = iter(block.tokens)
        narrow = self._that_do_not_fit(block)
        parts = iter(self._open)  # those that are handed on before were ready
        part = next(parts)
        for in_run in range(self._taken, self._taken + block.documents):
            id, line, nbytes, file = self._awaited.popleft()
            position = self._journal.positions.pop(in_run)
            while position >= part.first + part.rows:
                part = next(parts)
            failure = failures.get(in_run)
            counted = None if failure else next(tokens)
            if in_run in narrow:
                error = VectorRangeError(f"{self._dtype} has no room for its vector")
                failure = Failure(id, position, error, attempts=1)
            if failure is None:
                part.take(position - part.first, EMBEDDED, counted)
                self.embedded += 1
                self._count(nbytes)
            elif not isinstance(failure.error, NotAttemptedError):
                part.take(position - part.first, FAILED, None)
                self._failures.append(_failure_row(position, id, line, file, failure))
                self.failures += not failure.skipped
                self._count(nbytes)
        self._taken += block.documents
        if len(self._failures) >= _FAILURES:
            self._note_failures()

    def _that_do_not_fit(self, block: Block) -> set[int]:
        """The positions in the run of vectors that the result has no room for."""
        if self._dtype == "float32":
            return set()
        return {
            in_run
            for in_run, fits in zip(block.positions, rows_that_fit(block.vectors, self._dtype), strict=True)
            if not fits
        }

    def _pool(self, block: Block) -> None:
        """Keep the vectors that were made of several."""
        several = self._journal.several.intersection(block.positions)
        if several:
            vectors = dict(zip(block.positions, block.vectors, strict=True))
            with naming(self._job.folder):
                for document in several:
                    self._journal.pooled(document, vectors[document])

    def _count(self, nbytes: int) -> None:
        self.documents += 1
        self.bytes += nbytes

    def _note_failures(self) -> None:
        failures, self._failures = self._failures, []
        if failures:
            self._job.check_source()  # what was read, and failed, is what stands there
            self._job.ledger.note_failures(failures)

    async def _hand_on(self, give: Callable[[OpenPart], Awaitable[None]], *, even_unknown: bool = False) -> None:
        """Hand the parts that are ready on, in order; not before the size of the vectors is known, if it ever is."""
        while self._open and self._open[0].is_ready and (even_unknown or self._journal.dimensions):
            self._note_failures()
            with contextlib.suppress(anyio.BrokenResourceError):  # the other end has failed, and says why
                await give(self._open.popleft())

    async def _finish_parts(self, take: MemoryObjectReceiveStream[OpenPart], finished: anyio.Event) -> None:
        """Put parts into the result, one after the other, while the next are embedded."""
        async with take:
            async for part in take:
                with naming(self._job.folder):
                    await anyio.to_thread.run_sync(self._writer.write, part)
        finished.set()


async def _stop(stop: anyio.Event, results: Results) -> None:
    await stop.wait()
    results.stop()


def _failure_row(position: int, id: Id, line: int, file: str | None, failure: Failure) -> FailureRow:
    """What the ledger keeps of a *failure*."""
    return FailureRow(
        position=position,
        line=line,
        id=id,
        error=type(failure.error).__name__,
        reason=writable(str(failure.error)),
        attempts=failure.attempts,
        is_skipped=failure.skipped,
        is_final=isinstance(failure.error, InputError | RequestRefusedError),
        file=file,
    )
