"""
The flow, top to bottom:

    read → plan (count, chunk, pack) ┃→ N workers (wait for capacity → send → judge → decode) → store → assemble

``┃`` is a memory stream with buffer 0: a worker takes a batch only when it can begin with it. What has been read
and not yet handed out is bounded by the window; a document is charged when it enters and released when its
result goes out. (Charging on delivery would deadlock: an ordered output can wait for a document that cannot enter.)
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .assemble.reassembler import Block, Reassembler
from .dispatch.work import Answer
from .errors import EmbedbatchError, NotAttemptedError, RunStoppedError, SpendLimitError
from .events import DocumentCut, DocumentFailed, DocumentRepaired, RunStopped
from .parts import Parts
from .plan.documents import Plan, Source, source_of
from .plan.packer import Packer
from .settings import LINGER, MAX_LINGER
from .tasks import task_group
from .values import Batch, Chunks, Document, Failure, Id, Vectors
from .window import Window, size, size_of_text

SLAB = 256  # documents that are planned at once, at most
SLAB_EFFORT = 500_000  # characters to tokenize (about 50 ms) after which a slab is large enough
INLINE = 20_000  # characters to tokenize (about 2 ms) up to which a slab is not worth a thread
TICK = 64  # documents of a source that never waits, for which the clock is read once: it costs as much as one of them
BLOCK = 256  # documents that are handed out at once, at most


@asynccontextmanager
async def run(source: Iterable[Any] | AsyncIterable[Any], parts: Parts) -> AsyncIterator[Run]:
    """
    Embed what *source* yields: documents, texts or token arrays. The block's value iterates over the results.

    The iteration ends with what stopped the run, if anything did: :class:`RunStoppedError`, or the source's own
    exception. Leaving the block early cancels what is in flight.
    """
    flow = Run(source, parts)
    async with task_group() as tasks:
        tasks.start_soon(flow.read)
        tasks.start_soon(flow.plan, tasks)
        try:
            yield flow
        finally:
            tasks.cancel_scope.cancel()
            flow.leave()


class Run:
    """One run: its tasks are *read*, *plan*, and *work* as many times as there are batches to send at once."""

    def __init__(self, source: Iterable[Any] | AsyncIterable[Any], parts: Parts) -> None:
        self._source = source
        self._parts = parts
        self._window = Window(parts.limits.max_window_rows, parts.limits.max_window_bytes)
        self._reassembler = Reassembler(ordered=parts.ordered, row_per_chunk=parts.chunker.long_input == "chunks")
        self._entered = 0
        self._now = 0.0  # when the last documents entered
        self._arrived: deque[Source] = deque()
        self._begun_at = math.inf  # when the oldest chunk began to wait in an unfinished batch, or a little later
        self._all_read = False
        self._in_hand = False  # a document waits to enter
        self._reading = anyio.CancelScope()
        self._window_is_full = False
        self._news = anyio.Event()  # for the planner: documents arrived, or none will, or none can
        self._taken = anyio.Event()  # for the reader: the planner has taken what arrived
        self._progress = anyio.Event()  # for whoever iterates over the results
        self._workers = 0
        self._busy = 1  # tasks that may bring results: the planner, the workers, a reader with a document in hand
        self._is_left = False
        self._stopped: EmbedbatchError | None = None
        self._source_error: Exception | None = None

    # read -----------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        """Let documents in, as fast as the window allows, until there are no more or the run stops."""
        try:
            with self._reading:
                await self._read_all()
        except Exception as error:
            # The caller's own iterator failed. What it gave before is embedded first.
            self._source_error = error
        finally:
            if isinstance(self._source, AsyncGenerator):
                # Nobody else may hold it; left open it would be ended by the garbage collector, which trio resents.
                with anyio.CancelScope(shield=True):
                    await self._source.aclose()
        self._all_read = True
        self._news.set()

    async def _read_all(self) -> None:
        account = self._parts.account
        if isinstance(self._source, AsyncIterable):
            async for item in self._source:
                self._now = anyio.current_time()
                if not self._try_to_enter(item):
                    await self._enter(item)
                if account.closed:
                    return
        elif type(self._source) is list:  # of which many can be taken at once
            items = iter(self._source)
            while not account.closed:
                if len(self._arrived) + TICK > SLAB:
                    await self._wait_for_planner()
                    continue
                if not (some := list(islice(items, TICK))):
                    return
                self._now = anyio.current_time()
                if not self._try_to_enter_together(some):
                    await self._read_some(some)
        else:
            await self._read_some(self._source)

    async def _read_some(self, items: Iterable[Any]) -> None:
        for number, item in enumerate(items):
            if number % TICK == 0:
                self._now = anyio.current_time()
            if not self._try_to_enter(item):
                await self._enter(item)
            if self._parts.account.closed:
                return

    def _try_to_enter_together(self, items: list[Any]) -> bool:
        """Let *items* in, if all are texts and there is room for all: in less than half the time of one by one."""
        if set(map(type, items)) != {str}:
            return False
        sizes = list(map(size_of_text, items))
        may_enter = self._window.has_room(sum(sizes), len(items))
        if may_enter:
            positions = range(self._entered, self._entered + len(items))
            self._entered += len(items)
            self._window.charge(len(items), sum(sizes))
            self._reassembler.enter_together(positions, sizes, self._now)
            if not self._arrived:
                self._news.set()
            self._arrived.extend(map(source_of, zip(positions, positions, items, strict=True)))
        return may_enter

    def _try_to_enter(self, item: Any) -> bool:
        """Let *item* in, if there is room and the planner keeps up."""
        id, content = (item.id, item.content) if isinstance(item, Document) else (None, item)
        nbytes = size(content)
        may_enter = self._window.has_room(nbytes) and len(self._arrived) < SLAB
        if may_enter:
            self._admit(id, content, nbytes)
        return may_enter

    async def _enter(self, item: Any) -> None:
        """Let *item* in as soon as it may. It has left its source: the run does not end without accounting for it."""
        document = item if isinstance(item, Document) else Document(item)
        nbytes = size(document.content)
        self._busy += 1
        self._in_hand = True
        await self._wait_to_enter(nbytes)
        self._in_hand = False
        self._now = anyio.current_time()
        self._admit(document.id, document.content, nbytes)
        self._leave()

    async def _wait_to_enter(self, nbytes: int) -> None:
        """Return once the planner keeps up and the window has room, or the run has stopped."""
        account = self._parts.account
        while len(self._arrived) >= SLAB and not account.closed:
            await self._wait_for_planner()
        while not self._window.has_room(nbytes) and not account.closed:
            self._window_is_full = True
            self._news.set()
            await self._window.wait_for_change()
        self._window_is_full = False

    async def _wait_for_planner(self) -> None:
        """Return once it has taken some of what arrived, or the run has stopped."""
        self._taken = anyio.Event()
        await self._taken.wait()

    def _admit(self, id: Id | None, content: Any, nbytes: int) -> None:
        position = self._entered
        self._entered += 1
        id = position if id is None else id
        self._window.charge(1, nbytes)
        self._reassembler.enter(position, id, nbytes, self._now)
        if not self._arrived:
            self._news.set()
        self._arrived.append(source_of((position, id, content)))

    # plan -----------------------------------------------------------------------------------------------------

    async def plan(self, tasks: TaskGroup) -> None:
        """Make batches of what arrived; hand each to a worker that can begin with it."""
        # 0: a worker takes a batch only when it can begin with it, so no more than the workers hold exists.
        give, take = anyio.create_memory_object_stream[Batch](0)
        packer = self._parts.packer
        with give, take:
            while not self._parts.account.closed:
                if self._arrived:
                    batches = packer.add(await self._plan_slab())
                elif self._all_read:
                    break
                elif (packer and self._window_is_full) or not await self._wait_for_news(self._patience(packer)):
                    # Nothing more can come, or nothing came for a while: what is there does not wait for it.
                    batches = packer.flush()
                    self._begun_at = math.inf
                else:
                    continue
                await self._hand_over(batches, give, take, tasks)
            await self._hand_over(packer.flush(), give, take, tasks)
        self._leave()

    def _patience(self, packer: Packer) -> float | None:
        """How long an unfinished batch waits for more; ``None`` if there is none."""
        if not packer:
            self._begun_at = math.inf
            return None
        now = anyio.current_time()
        self._begun_at = min(self._begun_at, now)
        return max(0.0, min(LINGER, self._begun_at + MAX_LINGER - now))

    async def _wait_for_news(self, seconds: float | None) -> bool:
        with anyio.move_on_after(seconds):
            await self._news.wait()
        came = self._news.is_set()
        self._news = anyio.Event()
        return came

    async def _plan_slab(self) -> Chunks:
        """Chunk some of what arrived; keep what needs no sending, return the rest."""
        chunker = self._parts.chunker
        plan = chunker.plan_short(self._arrived)
        if plan is not None:
            self._arrived.clear()
            self._taken.set()
        else:
            slab: list[Source] = []
            effort = 0
            while self._arrived and effort < SLAB_EFFORT:
                slab.append(self._arrived.popleft())
                effort += chunker.effort(slab[-1].content)
            self._taken.set()
            plan = chunker.plan(slab) if effort <= INLINE else await self._parts.in_thread(chunker.plan, slab)
            self._note(plan)
        known = await self._parts.store.known(plan.chunks)
        if not known:
            return plan.chunks
        rows = sorted(known)
        self._deliver(plan.chunks.select(rows), np.stack([known[row] for row in rows]))
        return plan.chunks.select([row for row in range(len(plan.chunks)) if row not in known])

    def _note(self, plan: Plan) -> None:
        """Tell the reassembler and the observer what became of the documents."""
        observe = self._parts.observe
        for position, (spans, weights) in plan.parts.items():
            self._window.charge(self._reassembler.expect(position, spans, weights), 0)
        for failure in plan.failures:
            self._fail([failure.position], failure.error, 0, skipped=failure.skipped)
        for cut in plan.cuts:
            observe(DocumentCut(cut))
        for source in plan.repaired:
            observe(DocumentRepaired(source.id, source.position))
        if plan.cut_by_bytes:
            warnings.warn(
                f"the tokenizer of this model is not known: documents above {self._parts.chunker.max_input_tokens:,} "
                "bytes are cut as if every byte were a token. Pass tokenizer= to cut them by their tokens.",
                stacklevel=2,
            )

    async def _hand_over(
        self,
        batches: Iterable[Batch],
        give: MemoryObjectSendStream[Batch],
        take: MemoryObjectReceiveStream[Batch],
        tasks: TaskGroup,
    ) -> None:
        for batch in batches:
            try:
                give.send_nowait(batch)
            except anyio.WouldBlock:
                if self._workers < self._parts.workers:
                    self._workers += 1
                    self._busy += 1
                    tasks.start_soon(self._work, take.clone())
                await give.send(batch)

    # work -----------------------------------------------------------------------------------------------------

    async def _work(self, batches: MemoryObjectReceiveStream[Batch]) -> None:
        """Send batches and keep what comes back, until there are no more."""
        batch: Batch | None
        with batches:
            while True:
                try:
                    batch = batches.receive_nowait()  # which saves a turn of the event loop
                except (anyio.WouldBlock, anyio.EndOfStream):
                    batch = await anext(batches, None)
                if batch is None:
                    break
                if not self._parts.account.closed:
                    await self._keep(await self._parts.send(batch, self._parts.account, self._rows_for))
        self._leave()

    def _rows_for(self, positions: Sequence[int]) -> Vectors | None:
        """Where the vectors of whole documents may be written; those of parts of one would meet there."""
        return None if self._reassembler.has_parts(positions) else self._parts.rows_for(positions)

    async def _keep(self, answer: Answer) -> None:
        stopped = answer.stopped or self._parts.account.closed_by  # which may be another run's news
        if stopped is not None:
            self._stop(stopped)  # at first: the store may take its time
        for batch, vectors in answer.done:
            await self._parts.store.put(batch, vectors)
            self._deliver(batch, vectors)
        for batch, error, attempts in answer.failed:
            self._fail(batch.documents, error, attempts)
        self._progress.set()

    def _deliver(self, batch: Batch, vectors: Vectors) -> None:
        self._tell(self._reassembler.deliver(batch, vectors))

    def _fail(self, positions: Iterable[int], error: EmbedbatchError, attempts: int, *, skipped: bool = False) -> None:
        self._tell(self._reassembler.fail(positions, error, attempts, skipped=skipped))

    def _tell(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            self._parts.observe(DocumentFailed(failure))
        self._progress.set()

    def stop(self) -> None:
        """Send nothing more. What is in flight is paid for, so it is waited for."""
        self._parts.account.close()
        self._news.set()
        self._taken.set()
        self._window.release(0, 0)
        if not self._in_hand:
            self._reading.cancel()

    def _stop(self, error: EmbedbatchError) -> None:
        if self._stopped is None:
            self._stopped = error
            self.stop()
            self._parts.observe(RunStopped(error))

    def _leave(self) -> None:
        """A task that brings results has ended. After the last one, what has none will get none."""
        self._busy -= 1
        if not self._busy and self._parts.account.closed:
            error = NotAttemptedError("the run stopped before this document was embedded")
            self._fail(self._reassembler.unfinished(), error, 0)
        self._progress.set()

    # results --------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Block]:
        return self

    async def __anext__(self) -> Block:
        while True:
            block = self._reassembler.take(BLOCK)
            if block is not None:
                self._window.release(block.rows, block.bytes)
                self._parts.observe(block.report(anyio.current_time()))
                return block
            if not self._busy:
                self._raise_error()
                raise StopAsyncIteration
            if self._is_left:
                raise RuntimeError("the block of this stream was left")
            if self._progress.is_set():
                self._progress = anyio.Event()
            await self._progress.wait()

    def leave(self) -> None:
        """The block is left: whoever goes on iterating gets an error instead of waiting for ever."""
        self._is_left = True

    def _raise_error(self) -> None:
        """Raise, once, what ended the run early."""
        stopped, self._stopped = self._stopped, None
        if isinstance(stopped, SpendLimitError):
            raise stopped
        if stopped is not None:
            raise RunStoppedError(f"the run stopped: {stopped}") from stopped
        source_error, self._source_error = self._source_error, None
        if source_error is not None:
            raise source_error
