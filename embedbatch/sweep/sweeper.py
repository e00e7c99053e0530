"""The sweep: one point after the other, until there is nothing more to learn or to spend."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from ..dispatch.pace import Pace
from ..endpoints import Endpoint
from ..errors import RunStoppedError
from ..settings import DEFAULT_LIMITS, Limits
from . import plan
from .lanes import Connect, Lane
from .ledger import Ledger
from .measurement import Answer, Log, Measurement, Trouble, summarize
from .plan import Prices, Reason
from .points import Budget, Grid, Point, Quota
from .texts import Batch, Texts
from .verdict import Verdict, judge

_OVERHEAD = 1_000  # bytes of a request beside its inputs
_WIRE = 1.05  # of its bytes takes a text in JSON, and
_QUOTES = 3  # bytes for its quotes and a comma


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A point that is about to be measured, with so many *requests*; *planned* points come after it."""

    point: Point
    requests: int
    planned: int


@dataclass(kw_only=True)
class Sweep:
    """
    Measures the points of *grid* with *texts*, within *budget*.

    *connect* makes an embedder: ``functools.partial(Embedder, model, base_url=…)``. *on_step* is told what is
    measured next, *on_measured* what came of it; *cpu_clock* is the processor time of this process, in seconds.
    *measured* has what is known so far, also after :meth:`run` was cancelled.
    """

    connect: Connect
    texts: Texts
    budget: Budget
    grid: Grid = field(default_factory=Grid)
    on_step: Callable[[Step], object] = lambda step: None
    on_measured: Callable[[Measurement], object] = lambda measurement: None
    cpu_clock: Callable[[], float] | None = None
    measured: dict[Point, Measurement] = field(default_factory=dict, init=False)
    ended: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._limits = Limits(max_batch_inputs=max(self.grid.batch_inputs), max_concurrent_requests=1)
        self._told = Pace(DEFAULT_LIMITS)
        self._lanes: list[Lane] = []
        self._known_sizes: set[int] = set()
        self._unaffordable: set[Point] = set()
        self._first = self._new_lane()
        self.base_url = self._first.base_url
        self._refused_sizes = self._too_large(self._first.endpoint)
        self.ledger = Ledger(self._most())
        self.quota = Quota()

    @property
    def at_most(self) -> Budget:
        """What will be sent at most."""
        return self.ledger.budget

    @property
    def not_measured(self) -> dict[Point, Reason]:
        """The points that were not measured, and why."""
        closed = plan.reasons(self.grid, self.measured, self._refused_sizes)
        rest = (point for point in self.grid.points() if point not in self.measured and point not in closed)
        return closed | dict.fromkeys(rest, Reason.BUDGET if self.ended is None else Reason.ENDED)

    @property
    def over_budget(self) -> list[Point]:
        """The points that would have cost too much."""
        return [point for point, reason in self.not_measured.items() if reason is Reason.BUDGET]

    def enough(self) -> Budget:
        """A budget that would have been enough for all that was left out."""
        requests, tokens = self._prices().cost({point: plan.least(point) for point in self.over_budget})
        return Budget(max_requests=self.ledger.requests + requests, max_tokens=self.ledger.tokens + math.ceil(tokens))

    def verdict(self) -> Verdict | None:
        """The knee of what was measured; ``None`` if nothing worked."""
        return judge(list(self.measured.values()), self.quota, self.grid, self.over_budget)

    async def run(self) -> None:
        """
        Measure. What ended the sweep early is in *ended*.

        Raises :class:`RunStoppedError` when no request could succeed any more: the key, the model, the credit, or
        an endpoint that did not answer the first request.
        """
        try:
            await self._open_first()
            while self.ended is None:
                points = plan.open_points(self.grid, self.measured, self._refused_sizes)
                points = [point for point in points if point not in self._unaffordable]
                allotment = plan.allot(points, self.ledger.left, self._prices())
                if not allotment:
                    break
                point, requests = next(iter(allotment.items()))
                self.on_step(Step(point=point, requests=requests, planned=len(allotment) - 1))
                await self._measure(point, requests)
        finally:
            for lane in self._lanes:
                await lane.aclose()

    # what may be sent -----------------------------------------------------------------------------------------

    def _too_large(self, endpoint: Endpoint) -> set[int]:
        """The batch sizes that do not fit into one request."""
        limits = self._limits
        max_bytes = min(limits.max_batch_bytes, endpoint.max_request_bytes) - _OVERHEAD
        max_tokens = min(limits.max_batch_tokens, endpoint.max_request_tokens)
        wire = self.texts.max_bytes * _WIRE + _QUOTES
        return {
            size
            for size in self.grid.batch_inputs
            # The embedder packs by what is proven, and does not count: every byte may be a token.
            if size > endpoint.max_inputs or size * wire > max_bytes or size * (self.texts.max_bytes + 1) > max_tokens
        }

    def _most(self) -> Budget:
        """The budget, or what the whole grid takes if that is less."""
        points = plan.open_points(self.grid, {}, self._refused_sizes)
        requests, tokens = self._prices().cost(plan.most(points))
        return Budget(
            max_requests=min(self.budget.max_requests, requests), max_tokens=min(self.budget.max_tokens, int(tokens))
        )

    def _prices(self) -> Prices:
        bound = self.texts.mean_bound
        expected = (self.ledger.tokens_per_input if self._lanes else None) or bound
        return Prices(
            expected=expected,
            bound=max(bound, expected),
            open_places=len(self._lanes),
            known_sizes=self._known_sizes,
        )

    # sending --------------------------------------------------------------------------------------------------

    def _new_lane(self) -> Lane:
        return Lane(self.connect, self._limits, self._told)

    async def _open_first(self) -> None:
        """Send the first request, a small one: if it fails, every other would."""
        log = Log()
        self._lanes.append(self._first)
        await self._send(self._first, self.texts.take(1), log)
        if log.faults:
            error = log.faults[0].error
            raise RunStoppedError(f"the first request failed, and nothing was measured: {error}") from error

    async def _measure(self, point: Point, requests: int) -> None:
        log = Log()
        await self._open_lanes(point.in_flight, log)
        if not log.is_over and point.batch_inputs not in self._known_sizes:
            await self._send(self._lanes[0], self.texts.take(point.batch_inputs), log)
            self._known_sizes.add(point.batch_inputs)
        log.answers.clear()
        batches = deque(self.texts.take(point.batch_inputs) for _ in range(requests))
        began_at, cpu = anyio.current_time(), self._cpu()
        try:
            if not log.is_over:
                async with anyio.create_task_group() as tasks:
                    for lane in self._lanes[: point.in_flight]:
                        tasks.start_soon(self._drive, lane, batches, log)
        except BaseException:
            if log.answers:  # the sweep is cancelled: what has come back is worth showing
                self.measured[point] = summarize(point, log, began_at)
            raise
        used = None if cpu is None else (self._cpu() or 0.0) - cpu
        if (fatal := log.first(Trouble.FATAL)) is not None:
            raise RunStoppedError(f"the sweep ended: {fatal}") from fatal
        measurement = summarize(point, log, began_at, used)
        if measurement.requests or log.faults:
            self.measured[point] = measurement
            self.on_measured(measurement)
        else:
            self._unaffordable.add(point)  # its texts turned out to be longer than most
        now = anyio.current_time()
        self.quota = Quota(*self._told.rates(now), self._told.batch_tokens(now))
        self.ended = plan.why_to_end(list(self.measured.values()), log.pause)
        if self.ended is None:
            await anyio.sleep(log.pause)

    async def _open_lanes(self, count: int, log: Log) -> None:
        """Have at least *count* places with an open connection."""
        async with anyio.create_task_group() as tasks:
            while len(self._lanes) < count:
                lane = self._new_lane()
                self._lanes.append(lane)
                tasks.start_soon(self._send, lane, self.texts.take(1), log)

    async def _drive(self, lane: Lane, batches: deque[Batch], log: Log) -> None:
        while batches and not log.is_over:
            if not await self._send(lane, batches.popleft(), log):
                batches.clear()

    async def _send(self, lane: Lane, batch: Batch, log: Log) -> bool:
        """Send one request, and log what became of it; False if the budget does not allow it."""
        # By its usage an endpoint may count more than the bytes prove, such as a prompt of its own.
        bound = max(batch.bound, math.ceil((self.ledger.tokens_per_input or 0) * len(batch.texts)))
        if not self.ledger.take(bound):
            return False
        tokens: int | None = None
        inputs = 0
        try:
            outcome = await lane.ask(batch.texts)
            if isinstance(outcome, Answer):
                tokens, inputs = outcome.tokens, outcome.inputs
                log.answers.append(outcome)
            else:
                tokens = 0 if outcome.was_free else None
                log.faults.append(outcome)
        finally:
            self.ledger.settle(bound, tokens, inputs)
        return True

    def _cpu(self) -> float | None:
        return None if self.cpu_clock is None else self.cpu_clock()
