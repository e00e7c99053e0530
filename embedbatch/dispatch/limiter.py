"""
The gate of one endpoint, key and model: pace, places in flight, one pause for all, and a fair queue.

One task at a time is at the head of the queue; it alone waits for the clock. Capacity is taken at the moment it
is used: a reservation made ahead could not be undone when a pause or a cancellation comes between.
"""

from __future__ import annotations

import heapq
import math
from itertools import count
from random import Random
from typing import TypeAlias

import anyio

from ..settings import Limits
from .pace import Pace

Ticket: TypeAlias = tuple[int, int]
"""A place in the queue: urgent calls before bulk work, then order of arrival."""


class Limiter:
    """
    Grants leases: a lease is the permission to have one request in flight.

    First come, first served. A request that is tried again keeps the ticket, and so the place, of its first
    attempt. Everything is decided in :meth:`_grant`, which is synchronous.
    """

    def __init__(self, limits: Limits, rng: Random) -> None:
        self.max_in_flight = limits.max_concurrent_requests
        self.in_flight = 0
        self._pace = Pace(limits, rng)
        self._queue: list[tuple[Ticket, _Waiter]] = []
        self._numbers = count()

    def __repr__(self) -> str:
        return f"<Limiter {self.in_flight} of {self.max_in_flight} in flight, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """Requests that wait for a lease."""
        return sum(not waiter.left for _, waiter in self._queue)

    def ticket(self, *, urgent: bool = False) -> Ticket:
        """A place behind everyone who has one of the same urgency."""
        return (0 if urgent else 1, next(self._numbers))

    async def acquire(self, tokens: float, ticket: Ticket) -> None:
        """Wait until a request of about *tokens* may go. The lease lasts until :meth:`release`."""
        waiter = _Waiter(tokens)
        heapq.heappush(self._queue, (ticket, waiter))
        try:
            self._grant()
            while not waiter.granted:
                with anyio.CancelScope(deadline=waiter.ready_at) as waiter.scope:
                    await waiter.changed.wait()
                waiter.ready_at = math.inf
                self._grant()
        except BaseException:
            waiter.left = True
            if waiter.granted:
                self.in_flight -= 1
            self._grant()
            raise

    def release(self) -> None:
        """Give a lease back: the reply is here, or will not come."""
        self.in_flight -= 1
        self._grant()

    def pause(self, seconds: float) -> float:
        """Let nothing go for *seconds*; return by how many that is longer than a pause that is on already."""
        return self._pace.pause(seconds, anyio.current_time())

    def _grant(self) -> None:
        """Let go whoever may go now; tell the head of the queue when to ask again."""
        now = anyio.current_time()
        while self._queue:
            _, head = self._queue[0]
            if head.left:
                heapq.heappop(self._queue)
                continue
            if self.in_flight >= self.max_in_flight:
                return  # whoever comes back grants again
            ready_at = self._pace.ready_at(head.tokens, now)
            if ready_at > now:
                head.wait_until(ready_at)
                return
            heapq.heappop(self._queue)
            self._pace.take(head.tokens, now)
            self.in_flight += 1
            head.granted = True
            head.changed.set()


class _Waiter:
    """One task in the queue."""

    def __init__(self, tokens: float) -> None:
        self.tokens = tokens
        self.granted = False
        self.left = False
        self.ready_at = math.inf
        self.changed = anyio.Event()
        self.scope: anyio.CancelScope | None = None

    def wait_until(self, ready_at: float) -> None:
        self.ready_at = ready_at
        if self.scope is not None:
            self.scope.deadline = ready_at
