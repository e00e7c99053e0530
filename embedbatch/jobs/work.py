"""The work of a job: documents in, vectors into the journal, parts that are complete into the result."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream

from ..assemble.reassembler import Block
from ..embedder import Embedder
from ..errors import InputError, NotAttemptedError, RequestRefusedError, SourceError
from ..results import Results
from ..tasks import task_group
from ..values import Document, Failure, Usage
from .disk import naming
from .job import Job
from .journal import Journal
from .ledger import FailureRow, Mark
from .part_writer import PartWriter, writable
from .parts import EMBEDDED, FAILED, OpenPart
from .sources import Row

_FAILURES = 64  # that are noted together


class _Awaited(NamedTuple):
    """A document on its way: its positions in the run and in the source, its part, and its row."""

    in_run: int
    position: int
    part: OpenPart
    row: Row


class Work:
    """
    Embeds the parts of *job* that are to be done, with *journal* as the store; *writer* puts them into the result.

    *documents*, *bytes*, *embedded* and *failures* are done, by this run or one before. *tell* is called whenever
    there are more.
    """

    def __init__(
        self, job: Job, journal: Journal, writer: PartWriter, *, tell: Callable[[Work, Usage], object]
    ) -> None:
        self.documents = self.bytes = self.embedded = self.failures = 0
        self._job = job
        self._journal = journal
        self._writer = writer
        self._tell = tell
        self._awaited: deque[_Awaited] = deque()  # bounded by the embedder's window
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
        for part in self._todo:
            self._job.ledger.forget_failures(division.first(part), division.end(part), final_too=False)
        self.failures = self._job.ledger.count_failures()[0]
        self._journal.recover(self._todo)

    def _read(self) -> Iterator[Document]:
        """The documents that have to be embedded."""
        division = self._job.division
        rows: Iterator[Row] = iter(())
        reached = -1  # the position that *rows* gives next
        in_run = 0
        for number in self._todo:
            first, end = division.first(number), division.end(number)
            if reached != first:
                rows = self._job.rows_from(first)
            part = OpenPart(number, end - first)
            self._open.append(part)
            settled = self._settled(first, end)
            for position in range(first, end):
                row = next(rows)
                part.bytes += row.bytes
                if position == first:
                    self._job.check_source()  # up to here it was read as it is
                    self._job.ledger.mark(number, Mark(row.line, row.offset))
                if position in settled:
                    part.states[position - first] = FAILED  # what a duplicate is is found out when the part is written
                    self._count(row)
                    continue
                part.awaited += 1
                self._journal.positions[in_run] = position
                self._awaited.append(_Awaited(in_run, position, part, _without_content(row)))
                in_run += 1
                yield Document(row.content, row.id)
            part.is_read = True
            reached = end
        self._all_read = True

    def _settled(self, first: int, end: int) -> set[int]:
        """The positions from *first* to *end* that are not to be sent: duplicates, and what is known to fail."""
        failed = {failure.position for failure in self._job.ledger.failures(first, end)}
        return failed | self._job.duplicates.within(first, end).keys()

    def _take(self, block: Block) -> None:
        """Note what became of the next documents."""
        failures = {failure.position: failure for failure in block.failures}
        embedded = zip(block.positions, block.tokens, block.vectors, strict=True)
        for _ in range(block.documents):
            awaited = self._awaited.popleft()
            row = awaited.position - self._job.division.first(awaited.part.number)
            failure = failures.get(awaited.in_run)
            if failure is None:
                in_run, tokens, vector = next(embedded)
                assert in_run == awaited.in_run
                with naming(self._job.folder):
                    self._journal.pooled(in_run, vector)
                awaited.part.take(row, EMBEDDED, tokens)
                self.embedded += 1
                self._count(awaited.row)
            elif not isinstance(failure.error, NotAttemptedError):
                awaited.part.take(row, FAILED, None)
                self._failures.append(failure_row(awaited.position, awaited.row, failure))
                self.failures += not failure.skipped
                self._count(awaited.row)
            del self._journal.positions[awaited.in_run]
        if len(self._failures) >= _FAILURES:
            self._note_failures()

    def _count(self, row: Row) -> None:
        self.documents += 1
        self.bytes += row.bytes

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


def _without_content(row: Row) -> Row:
    return Row(row.id, None, row.line, row.bytes, row.offset, row.file)


def failure_row(position: int, row: Row, failure: Failure) -> FailureRow:
    """What the ledger keeps of a *failure*."""
    return FailureRow(
        position=position,
        line=row.line,
        id=row.id,
        error=type(failure.error).__name__,
        reason=writable(str(failure.error)),
        attempts=failure.attempts,
        is_skipped=failure.skipped,
        is_final=isinstance(failure.error, InputError | RequestRefusedError),
        file=row.file,
    )
