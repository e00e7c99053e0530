"""What the tests of pace share: waiting as the limiter does, and the law that no window gets too much."""

from __future__ import annotations

import itertools
import math
from typing import Protocol

from hypothesis import strategies as st

from embedbatch.dispatch.pace import ROUNDING

Grant = tuple[float, float]
"""When, and how much."""

rates = st.floats(1e-3, 1e9)
ceilings = st.floats(1, 1e9)
shares = st.floats(1e-6, 3) | st.just(1.0)  # amounts as shares of the ceiling, also above it
gaps = st.floats(0, 5) | st.just(0.0)  # between arrivals, in times it takes to fill the bucket
origins = st.sampled_from([0.0, 1e-3, 1e6, 1e9])  # where the clock begins
arrivals = st.lists(st.tuples(gaps, shares), min_size=1, max_size=30)


class Rule(Protocol):
    """A bucket, a throttle or a pace."""

    def ready_at(self, amount: float, now: float, /) -> float: ...
    def take(self, amount: float, now: float, /) -> None: ...


def when_ready(rule: Rule, amount: float, now: float, *, most: int = 12) -> float:
    """Wait as the limiter does: until the moment it was told, and then it asks again, *most* times."""
    for _ in range(most):
        at = rule.ready_at(amount, now)
        if at <= now:
            return now
        now = at
    raise AssertionError(f"still not ready at {now!r}")


def grants(rule: Rule, requests: list[Grant], now: float) -> list[Grant]:
    """When each of *requests*, (seconds after the one before, amount), is granted."""
    granted = []
    for gap, amount in requests:
        now = when_ready(rule, amount, now + gap)
        rule.take(amount, now)
        granted.append((now, amount))
    return granted


def assert_no_window_has_more(granted: list[Grant], most: float, per_second: float) -> None:
    """Fail if between any two grants, both counted, more went than *most*, or the largest, and *per_second* allow."""
    most = max(most, *(amount for _, amount in granted)) if granted else most
    for first, last in itertools.combinations_with_replacement(range(len(granted)), 2):
        window = granted[last][0] - granted[first][0]
        total = sum(amount for _, amount in granted[first : last + 1])
        # What the clock cannot tell apart: a moment has an error of one part in 2**52.
        error = per_second * 4 * math.ulp(granted[last][0]) * len(granted)
        assert total <= (most + per_second * window) * (1 + 1e-9) + ROUNDING * len(granted) + error
