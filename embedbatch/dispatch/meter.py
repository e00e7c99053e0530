"""How much went in the last minute. Pure."""

from __future__ import annotations

from collections import deque

KEPT = 60.0  # seconds
BIN = 0.1  # seconds: what goes within one is remembered as one


class Meter:
    """Remembers how much went when, for a minute."""

    def __init__(self) -> None:
        self.count = 0  # of all that ever went
        self._bins: deque[list[float]] = deque()  # when it began, and how much went

    def add(self, amount: float, now: float) -> None:
        """Note that *amount* goes now."""
        self.count += 1
        bins = self._bins
        if bins and now - bins[-1][0] < BIN:
            bins[-1][1] += amount
        else:
            bins.append([now, amount])
        while bins[0][0] < now - KEPT:
            bins.popleft()

    def correct(self, amount: float) -> None:
        """Note that what went last was *amount* more, or less."""
        if self._bins:
            self._bins[-1][1] += amount

    def total(self, now: float) -> float:
        """What went in the last minute."""
        return sum(amount for at, amount in self._bins if at >= now - KEPT)

    def rate(self, before: float, seconds: float) -> float:
        """Units per second that went in the *seconds* before that time; over a second at least."""
        gone = [(at, amount) for at, amount in self._bins if before - seconds <= at <= before]
        if not gone:
            return 0.0
        return sum(amount for _, amount in gone) / max(1.0, before - gone[0][0])
