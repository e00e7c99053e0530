"""How many requests and tokens may go, given `now`. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from ..settings import Limits


@dataclass(slots=True)
class Bucket:
    """
    Capacity that refills steadily up to a ceiling. The caller says what time it is.

    No window of time is granted more than max(*ceiling*, the largest grant) + *per_second* · window. An amount
    above the ceiling is granted from a full bucket, which then owes the rest.
    """

    ceiling: float
    per_second: float
    _level: float = -1.0
    _read_at: float = -math.inf

    def ready_at(self, amount: float, now: float) -> float:
        """The time from which *amount* may be taken, if nothing else is taken before."""
        missing = min(amount, self.ceiling) - self._level_at(now)
        return now if missing <= ROUNDING else now + missing / self.per_second

    def take(self, amount: float, now: float) -> None:
        """Spend *amount*; the caller has seen that it is ready."""
        self._level = self._level_at(now) - amount
        self._read_at = now

    def _level_at(self, now: float) -> float:
        # Before the first take this is infinity: full.
        return min(self.ceiling, self._level + max(0.0, now - self._read_at) * self.per_second)


class Pace:
    """
    Requests and tokens per minute of one endpoint and key, and the pause it asked for.

    A few seconds' worth may go at once, never a minute's: that would let twice the limit through in the first
    minute. After a pause, requests come back one by one over a little while instead of all together.
    """

    def __init__(self, limits: Limits, rng: Random) -> None:
        self._requests = _bucket(limits.max_requests_per_minute, limits.burst)
        self._tokens = _bucket(limits.max_tokens_per_minute, limits.burst)
        self._rng = rng
        self._max_concurrent_requests = limits.max_concurrent_requests
        self._reentry_gap = 0.0
        self._paused_until = -math.inf
        self._closed_until = -math.inf
        self._reentry_until = -math.inf

    def ready_at(self, tokens: float, now: float) -> float:
        """The time from which a request of *tokens* may go, if none goes before."""
        return max(
            self._closed_until,
            self._requests.ready_at(1, now) if self._requests else now,
            self._tokens.ready_at(tokens, now) if self._tokens else now,
        )

    def take(self, tokens: float, now: float) -> None:
        """Count a request of *tokens* that goes now. Failed attempts count as well."""
        if self._requests:
            self._requests.take(1, now)
        if self._tokens:
            self._tokens.take(tokens, now)
        if now < self._reentry_until:
            self._closed_until = now + self._rng.uniform(0.0, 2 * self._reentry_gap)

    def pause(self, seconds: float, now: float) -> float:
        """Let nothing go for *seconds*; return by how many that is longer than a pause that is on already."""
        longer = seconds if self._paused_until <= now else now + seconds - self._paused_until
        if longer <= 0:
            return 0.0
        self._paused_until = now + seconds
        # Coming back takes no longer than the pause itself, and no time where nobody else comes back.
        places = self._max_concurrent_requests
        reentry = min(REENTRY, seconds) if places > 1 else 0.0
        self._reentry_gap = reentry / places
        self._closed_until = self._paused_until + self._rng.uniform(0.0, self._reentry_gap)
        self._reentry_until = self._closed_until + reentry
        return longer


ROUNDING = 1e-6  # of a request or token: what floating-point time may lack at the moment it was promised for
REENTRY = 1.0  # seconds over which requests come back after a pause, at most


def _bucket(per_minute: float | None, burst: float) -> Bucket | None:
    if per_minute is None:
        return None
    per_second = per_minute / 60
    return Bucket(ceiling=max(1.0, per_second * burst), per_second=per_second)
