"""
The limiter of one endpoint, key and model: pace, places in flight, one gate for all, and a fair queue.

One task at a time is at the head of the queue; it alone waits for the clock. Capacity is taken at the moment it
is used: a reservation made ahead could not be undone when a pause or a cancellation comes between. A task that could
go to any of several endpoints stands in each of their queues, and takes the first that is ready.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from random import Random

import anyio

from ..settings import DEFAULT_LIMITS, Limits
from ..wire.fault import Fault, Trouble
from ..wire.quota import QuotaHeaders
from .account import Account
from .chance import Chance
from .concurrency import Concurrency
from .gate import Gate
from .pace import Pace
from .tickets import Ticket, number

__all__ = ["Limiter"]

FIRST_PAUSE = 0.5  # seconds after a refusal for a rate that names no time; then twice as long each
MAX_PAUSE = 30.0
PATIENCE = 3  # refusals in spite of pauses, after which the server is taken to count by the minute


@dataclass(slots=True, eq=False)
class Lease:
    """
    The permission to have one request in flight at one endpoint, since *sent_at*, as one of *sent_with*.

    *probe* tells that it goes alone, to see whether the endpoint is back.
    """

    limiter: Limiter
    tokens: float
    sent_at: float
    sent_with: int
    probe: bool
    is_over: bool = False


class Limiter:
    """
    What may be sent to one endpoint with one key and model. Embedders that share these share one limiter.

    First come, first served; a request that is tried again keeps its place. *limits* are those of the key. It
    belongs to one event loop, like the embedders that use it.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, rng: Random | None = None) -> None:
        self.max_in_flight = limits.max_concurrent_requests
        self.in_flight = 0
        self.largest = 0.0  # tokens of a request that was answered
        self.accounts: Counter[Account] = Counter()  # of the runs that use it, by their batches on the way
        self._pace = Pace(limits)
        self._gate = Gate(limits.max_concurrent_requests, rng or Random())
        self._concurrency = Concurrency(limits.max_concurrent_requests, limits.initial_concurrent_requests)
        self._refused = 0  # in a row, for a reason that was not named
        self._refusals = 0  # for a rate, since something was accepted; what was in flight together counts once
        self._in_vain = 0  # of these, pauses that were too short for what is sent now
        self._refused_at = -math.inf
        self._chance = Chance()
        self._last: Lease | None = None
        self._full_at = -math.inf  # when the quota is all there again, by the last headers
        self._queue: list[tuple[Ticket, int, _Waiter, float]] = []

    def __repr__(self) -> str:
        state = "away" if self._gate.is_away else "open" if self._gate.is_open else "paused"
        return f"<Limiter {state}, {self.in_flight} of {self._concurrency.limit} in flight, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """Requests that wait for a lease."""
        return sum(waiter.waits for *_, waiter, _ in self._queue)

    @property
    def places(self) -> int:
        """Requests that may be in flight at the moment."""
        return self._concurrency.limit

    @property
    def is_away(self) -> bool:
        """True while the endpoint answers nothing but faults, and is only probed."""
        return self._gate.is_away

    @property
    def away_for(self) -> float:
        """Seconds since the endpoint went away; 0 if it has not."""
        return self._gate.away_for(self._time())

    @property
    def failed_probes(self) -> int:
        """How often the endpoint was tried in vain since it went away."""
        return self._gate.failed_probes

    def begin_anew(self) -> None:
        """What was refused is sent in smaller parts: pauses are short again."""
        self._refused = self._in_vain = 0

    def batch_tokens(self) -> float:
        """The tokens one request should hold at most, by the pace; infinite where no limit is known."""
        return self._pace.batch_tokens(anyio.current_time())

    def rates(self) -> tuple[float, float]:
        """Requests and tokens per second that may go at the moment; infinite where no limit is known."""
        return self._pace.rates(self._time())

    def _time(self) -> float:
        """Now; outside of the event loop the time at which something happened last."""
        try:
            return anyio.current_time()
        except RuntimeError:
            return self._last.sent_at if self._last else 0.0

    def try_acquire(self, tokens: float) -> Lease | None:
        """A lease above the number in flight, if nobody waits for the pace and nothing is wrong; else ``None``."""
        now = anyio.current_time()
        ahead = next((tokens for *_, waiter, tokens in self._queue if waiter.waits), 0.0)
        ready_at = max(self._gate.ready_at(now), self._pace.ready_at(ahead + tokens, now))
        if ready_at > now or not self._gate.is_open or self._concurrency.is_cold:
            return None
        return self._start(tokens, now)

    def correct(self, lease: Lease, tokens: float) -> None:
        """The request of *lease* has *tokens*, not what was asked for."""
        self._pace.correct(tokens - lease.tokens, anyio.current_time())
        lease.tokens = tokens

    # what became of a lease -----------------------------------------------------------------------------------

    def answer(self, lease: Lease, quota: QuotaHeaders) -> float | None:
        """
        The request was answered.

        Return the tokens that the endpoint's own limiter is seen to have counted for it, where that can be seen.
        """
        now = anyio.current_time()
        self._refused = self._refusals = self._in_vain = 0
        self._chance.accept()
        self._pace.grant(lease.tokens)
        self.largest = max(self.largest, lease.tokens)
        self._open(lease, now)
        counted = self._counted(lease, quota)
        self.hear(quota, now)
        self._concurrency.answer(lease.sent_with, lease.tokens, lease.sent_at, now, paced=self._pace.is_named)
        self._end(lease)
        return counted

    def _counted(self, lease: Lease, quota: QuotaHeaders) -> float | None:
        """What is missing from a quota that was full when this request went, alone."""
        tokens = quota.tokens
        alone = lease.sent_with == 1 and self._last is lease and lease.sent_at >= self._full_at
        return tokens.limit - tokens.remaining if alone and tokens and tokens.remaining is not None else None

    def hear(self, quota: QuotaHeaders, now: float) -> None:
        """Take in what the endpoint tells of its quota."""
        self._pace.hear(quota, now)
        tokens = quota.tokens
        if tokens is not None and tokens.remaining is not None:
            self._full_at = now + (tokens.limit - tokens.remaining) / tokens.per_second

    def fault(self, lease: Lease, fault: Fault, quota: QuotaHeaders) -> float:
        """The request brought a fault; return by how many seconds a pause became longer with it."""
        now = anyio.current_time()
        self.hear(quota, now)
        pause = fault.retry_after
        trouble = fault.trouble
        if trouble is Trouble.UNNAMED:
            trouble = self._name_trouble(lease)
        if trouble in (Trouble.RATE, Trouble.GROWTH):
            pause = self._slow_down(lease, fault, now, too_steep=trouble is Trouble.GROWTH)
        elif trouble is Trouble.OVERLOAD:
            self._concurrency.refuse(lease.sent_with, lease.sent_at, now)
        elif trouble is Trouble.SLOWNESS:
            self._concurrency.time_out(lease.sent_at, now)
        longer = 0.0 if pause is None else self._gate.pause(pause, now)
        if trouble is Trouble.NONE:
            self._open(lease, now)
        elif trouble is Trouble.RATE and pause is not None:
            self._gate.withdraw(probe=lease.probe)  # it is there, and has said when to come back
        else:
            self._gate.fault(now, probe=lease.probe)
        self._end(lease)
        return longer

    def _slow_down(self, lease: Lease, fault: Fault, now: float, *, too_steep: bool) -> float | None:
        """
        Lower the rate; return for how long nothing should go.

        What is refused counts too, so some capacity has to come back first. While nothing was accepted at a rate, that
        it is refused says nothing about it: a server that counts by the minute refuses everything to the minute's end.
        """
        if lease.sent_at < self._refused_at:
            return fault.retry_after  # it left before the last refusal came
        self._refused_at = now
        self._chance.refuse()
        says_when = fault.retry_after is not None and fault.overrun is None and not self._pace.is_named
        by_chance = says_when and not self._chance.is_limit
        if too_steep or (self._refusals == 0 and not by_chance):
            self._pace.refuse(lease.tokens, lease.sent_at, now, fault.overrun, too_steep=too_steep)
        elif self._refusals == PATIENCE:
            self._pace.suppose_a_minute(now)
        self._refusals += 1
        if fault.retry_after is not None:
            return fault.retry_after
        self._in_vain += 1
        return min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(16, self._in_vain - 1))

    def _name_trouble(self, lease: Lease) -> Trouble:
        """
        What a refusal for too much is about, that did not say so.

        Where too much at once is refused, others succeed meanwhile; where a rate is used up, nobody does. One request
        alone is not too much at once, and a limit that was met before is met again.
        """
        self._refused += 1
        is_rate = self._refused >= max(2, lease.sent_with / 2) or lease.sent_with == 1 or self._pace.is_cut
        return Trouble.RATE if is_rate else Trouble.OVERLOAD

    def withdraw(self, lease: Lease) -> None:
        """The request was cancelled, or never sent: nothing is known."""
        self._gate.withdraw(probe=lease.probe)
        self._end(lease)

    def _open(self, lease: Lease, now: float) -> None:
        """The endpoint works: go on where it was left, without what was saved up meanwhile."""
        was_away = self._gate.is_away
        if self._gate.answer(now, probe=lease.probe):
            self._pace.drain(now)
            if was_away:
                self._concurrency.restore(now)

    def _end(self, lease: Lease) -> None:
        if not lease.is_over:
            lease.is_over = True
            self.in_flight -= 1
        self.grant()

    # the queue ------------------------------------------------------------------------------------------------

    def enter(self, waiter: _Waiter, tokens: float, place: Ticket) -> None:
        """Let *waiter* stand in this queue."""
        heapq.heappush(self._queue, (place, number(), waiter, tokens))

    def grant(self) -> None:
        """Let go whoever may go now; tell the head of the queue when to ask again."""
        now = anyio.current_time()
        while self._queue:
            *_, head, tokens = self._queue[0]
            if not head.waits:
                heapq.heappop(self._queue)
                continue
            ready_at = max(self._gate.ready_at(now), self._pace.ready_at(tokens, now))
            if self.in_flight >= self._concurrency.limit:  # whoever comes back grants again
                self._concurrency.block(now, blocked=ready_at <= now)
                return
            if ready_at > now:
                head.wait_until(ready_at)
                break
            heapq.heappop(self._queue)
            head.go(self._start(tokens, now))
        self._concurrency.block(now, blocked=False)

    def _start(self, tokens: float, now: float) -> Lease:
        self._pace.take(tokens, now)
        self.in_flight += 1
        self._last = Lease(self, tokens, now, self.in_flight, self._gate.take(now))
        return self._last


class _Waiter:
    """One task, in the queues of all endpoints it could go to."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.waits = True
        self.changed: anyio.Event | None = None
        self.ask_again_at = math.inf
        self.scope: anyio.CancelScope | None = None

    def go(self, lease: Lease) -> None:
        self.lease = lease
        self.waits = False
        if self.changed is not None:
            self.changed.set()

    def wait_until(self, ready_at: float) -> None:
        self.ask_again_at = min(self.ask_again_at, ready_at)
        if self.scope is not None:
            self.scope.deadline = self.ask_again_at

    async def wait(self, offers: Sequence[tuple[Limiter, float, Ticket]]) -> None:
        while self.lease is None:
            self.changed = anyio.Event()
            with anyio.CancelScope(deadline=self.ask_again_at) as self.scope:
                await self.changed.wait()
            self.ask_again_at = math.inf
            _grant(offers)


async def acquire(
    offers: Sequence[tuple[Limiter, float, Ticket]],
    waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Lease | None:
    """
    Wait until a request may go to one of the limiters, with that many tokens and that place in its queue.

    If it has to wait, it does so in a block of *waiting*; ``None`` if that ended the wait.
    """
    waiter = _Waiter()
    lease: Lease | None = None
    try:
        for limiter, tokens, place in offers:
            limiter.enter(waiter, tokens, place)
        _grant(offers)
        if waiter.lease is None:
            with waiting():
                await waiter.wait(offers)
        lease, waiter.lease = waiter.lease, None
    finally:
        waiter.waits = False
        if waiter.lease is not None:
            waiter.lease.limiter.withdraw(waiter.lease)
        if lease is None or len(offers) > 1:  # one that was asked before has to tell the next in its queue when to ask
            _grant(offers)
    return lease


def _grant(offers: Sequence[tuple[Limiter, float, Ticket]]) -> None:
    for limiter, *_ in offers:
        limiter.grant()
