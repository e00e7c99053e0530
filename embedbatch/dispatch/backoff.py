"""How long to wait before the next attempt. Pure."""

from __future__ import annotations

from random import Random

from ..settings import Retries


def backoff(attempt: int, retry_after: float | None, rng: Random, retries: Retries) -> float:
    """
    Return the seconds to wait after failed attempt number *attempt* (the first is 1).

    Full jitter: uniform between 0 and min(max_wait, initial_wait · 2^(attempt − 1)), so with the defaults up to
    0.5 s after the first failure and never above 30 s. The time the server asked for, *retry_after*, is a
    minimum; the jitter comes on top of it, so that those who were told the same do not return together.
    """
    # The exponent is bounded because 2.0 ** 1024 overflows.
    ceiling = min(retries.max_wait, retries.initial_wait * 2.0 ** min(attempt - 1, 64))
    return (retry_after or 0.0) + rng.uniform(0.0, ceiling)
