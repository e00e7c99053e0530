"""Single calls: each waits for its own vector, and those that go together share a run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TypeAlias, TypeVar

import anyio

from . import background, pipeline
from .assemble.collector import Collector
from .assemble.reassembler import Block
from .dispatch.account import Account
from .errors import ConnectionFailedError, EmbedbatchError, InputError, RunStoppedError
from .parts import Parts
from .rounds import Round, Rounds, Slot
from .values import Document, Failure, Usage, Vector

Error = TypeVar("Error", bound=EmbedbatchError)


@dataclass(slots=True, eq=False)
class _Call:
    """One caller, who waits until *answered* for a *vector* or an *error*."""

    answered: anyio.Event = field(default_factory=anyio.Event)
    vector: Vector | None = None
    error: Exception | None = None
    traceback: TracebackType | None = None

    def result(self) -> Vector:
        """A copy of the vector, or the error raised: what a caller does with either, the others do not see."""
        if self.vector is not None:
            return self.vector.copy()
        assert self.error is not None
        error = _copy(self.error) if isinstance(self.error, EmbedbatchError) else self.error
        raise error.with_traceback(self.traceback)  # without the frames of callers before


_Slot: TypeAlias = Slot[_Call]


class _Run:
    """The run of one round, from the first call that is in it to the last that has its answer."""

    def __init__(self, rounds: Rounds[_Call], round: Round[_Call]) -> None:
        self.round = round
        self.scope = anyio.CancelScope()
        self.patience = anyio.CancelScope()  # in which it waits for its turn
        self.account: Account | None = None  # since it went
        self.ended = anyio.Event()
        self._rounds = rounds
        self._slots: list[_Slot] = []
        self._failures: dict[_Slot, Failure] = {}
        self._answered: list[_Call] = []  # who do not know it yet

    @property
    def is_queued(self) -> bool:
        """True while it waits for capacity for its first request."""
        return self.account is not None and not self.account.usage.requests

    def depart(self) -> list[Document]:
        """What is asked for."""
        self._slots = self._rounds.depart(self.round)
        return [slot.document for slot in self._slots]

    def take(self, block: Block) -> None:
        """Answer those whose vector is there, or who can have none."""
        for position, vector in zip(block.positions, block.vectors, strict=True):
            for call in self._rounds.answer(self._slots[position]):
                call.vector = vector
                self._answered.append(call)
        for failure in block.failures:
            slot = self._slots[failure.position]
            self._failures[slot] = failure
            if isinstance(failure.error, InputError):
                self._fail(slot, failure.error)  # what the endpoint did not give may yet turn out to stop the run

    def finish(self) -> None:
        """Answer the others, each with its own failure: the run is over."""
        for slot in list(self.round.slots.values()):
            self._fail(slot, self._failures[slot].error)

    def stop(self, error: RunStoppedError, dimensions: int | None) -> None:
        """Answer the others with *error*; it tells each no more of the result than what became of its document."""
        usage = Usage() if self.account is None else self.account.usage
        for slot in list(self.round.slots.values()):
            collector = Collector([slot.document.id or 0], dimensions=dimensions, row_per_chunk=False)
            if slot in self._failures:
                collector.add(Block(failures=[replace(self._failures[slot], position=0)]))
            own = _copy(error)
            own.embeddings = collector.result(cut=(), repaired=(), usage=usage)
            self._fail(slot, own)

    def fail(self, error: Exception) -> None:
        """Answer the others with *error*, which is nobody's in particular."""
        for slot in list(self.round.slots.values()):
            self._fail(slot, error)

    def tell(self) -> None:
        """Let those go on who are answered."""
        for call in self._answered:
            call.answered.set()
        self._answered.clear()

    def _fail(self, slot: _Slot, error: Exception) -> None:
        for call in self._rounds.answer(slot):
            call.error, call.traceback = error, error.__traceback__
            self._answered.append(call)


class Singles:
    """
    Embeds single documents; those that come at nearly the same time share a run.

    *parts* makes the parts of a run. *dimensions* is the size of the vectors where it is known before.
    """

    def __init__(self, parts: Callable[[], Parts], *, dimensions: int | None) -> None:
        self._parts = parts
        self._dimensions = dimensions
        self._rounds: Rounds[_Call] = Rounds()
        self._runs: dict[Round[_Call], _Run] = {}
        self._is_closing = False

    async def embed(self, document: Document) -> Vector:
        """The vector of *document*: float32, shape (dimensions,). Raises its own error, or what stopped its run."""
        call = _Call()
        slot = self._rounds.join(call, document, anyio.current_time())
        run = self._runs.get(slot.round)
        if run is None:
            run = self._runs[slot.round] = _Run(self._rounds, slot.round)
            background.start(self._serve, run)  # not here: cancelled, this call must not take the others with it
        try:
            await call.answered.wait()
        except GeneratorExit:
            raise  # the event loop is gone
        except BaseException:
            if self._rounds.leave(slot, call):
                self._give_up(run)
                with anyio.CancelScope(shield=True):
                    await run.ended.wait()
            raise
        return call.result()

    async def aclose(self) -> None:
        """End the runs there are. Who still waits gets a :class:`RunStoppedError`."""
        self._is_closing = True
        with anyio.CancelScope(shield=True):
            while self._runs:
                runs = list(self._runs.values())
                for run in runs:
                    run.scope.cancel()
                for run in runs:
                    await run.ended.wait()

    async def _serve(self, run: _Run) -> None:
        try:
            with run.scope:
                await self._wait_for_turn(run)
                await self._embed(run)
        except Exception as error:
            run.fail(error)
        finally:
            # Nothing is awaited from here on: when the last callers go on, this task has ended.
            if run.round.slots:
                run.stop(_cancelled(closed=self._is_closing), self._dimensions)
            self._end(run)
            del self._runs[run.round]
            run.tell()
            run.ended.set()

    async def _wait_for_turn(self, run: _Run) -> None:
        while True:
            queued = any(other.is_queued for other in self._runs.values())
            seconds = self._rounds.wait(run.round, anyio.current_time(), queued=queued)
            if not seconds:
                return
            with anyio.move_on_after(seconds) as run.patience:
                await anyio.sleep_forever()

    async def _embed(self, run: _Run) -> None:
        documents = run.depart()
        if not documents:
            return
        parts = self._parts()
        run.account = parts.account
        async with pipeline.run(documents, parts) as blocks:
            try:
                async for block in blocks:
                    run.take(block)
                    if run.round.callers:
                        run.tell()
                    elif run.round.slots:  # whose callers have left
                        self._give_up(run)
            except RunStoppedError as error:
                run.stop(error, self._dimensions)
        run.finish()

    def _give_up(self, run: _Run) -> None:
        """Nobody waits for *run* any more."""
        run.scope.cancel()
        self._end(run)

    def _end(self, run: _Run) -> None:
        due = self._rounds.end(run.round)
        if due is not None:
            self._runs[due].patience.cancel()


def _cancelled(*, closed: bool) -> RunStoppedError:
    """What stopped a run that its callers did not give up."""
    if not closed:
        return RunStoppedError("the run stopped: its task was cancelled, as all tasks are when the event loop ends")
    error = RunStoppedError("the run stopped: the embedder is closed")
    error.__cause__ = ConnectionFailedError("the embedder is closed")
    return error


def _copy(error: Error) -> Error:
    """*error* for one of its callers: raised by several, it would gather the traceback and the context of each."""
    copied = copy.copy(error)
    copied.__cause__, copied.__context__ = error.__cause__, error.__context__
    copied.__suppress_context__ = error.__suppress_context__
    return copied
