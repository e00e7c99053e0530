"""How long replies take, and how late is late. Pure."""

from __future__ import annotations

from collections import deque

MAX_OUT = 8  # hedges at the same time; there are as many connections more than places
REMEMBERED = 200  # replies
LEAST = 0.01  # seconds: what is quicker is not worth a copy
ENOUGH = 20  # replies, before anything is concluded
BUDGET = 0.045  # hedges per request: below the 5 % that are promised
KEPT = 5  # hedges for requests that are looked at a second time


class Hedges:
    """
    When a second copy of a request is worth sending: later than 95 % of the last replies, for 5 % of the requests.

    The seconds are those of whole attempts. The last 200 decide.
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._sorted: list[float] = []
        self._allowed = 0.0
        self._out = 0

    def note(self, seconds: float) -> None:
        """Take in how long a reply took."""
        self._seconds.append(seconds)
        self._sorted = []
        self._allowed = min(10.0, self._allowed + BUDGET)

    def delay(self) -> float | None:
        """Seconds after which a copy may be sent; ``None`` while too little is known."""
        if len(self._seconds) < ENOUGH:
            return None
        if not self._sorted:
            self._sorted = sorted(self._seconds)
        return max(LEAST, self._sorted[int(0.95 * len(self._sorted))])

    def may_spend(self, *, first: bool) -> bool:
        """True if the budget has a copy left; at the *first* look some are kept for what is much later."""
        return self._out < MAX_OUT and self._allowed >= (1 + KEPT if first else 1)

    def spend(self) -> None:
        """Take one copy from the budget; it is out until it :meth:`came_back`."""
        self._allowed -= 1
        self._out += 1

    def came_back(self) -> None:
        """A copy, or what it was a copy of, was answered or cancelled."""
        self._out -= 1
