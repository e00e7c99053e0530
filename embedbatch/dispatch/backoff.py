"""How long to wait before the next attempt. Pure."""

from __future__ import annotations

from random import Random

from ..settings import Retries


def backoff(attempt: int, rng: Random, retries: Retries) -> float:
    """
    Return the seconds to wait after failed attempt number *attempt* (the first is 1).

    Full jitter: uniform between 0 and min(max_wait, initial_wait · 2^(attempt − 1)), so with the defaults up to
    0.5 s after the first failure and never above 30 s. What the server asked for is the gate's to keep.
    """
    # The exponent is bounded because 2.0 ** 1024 overflows.
    ceiling = min(retries.max_wait, retries.initial_wait * 2.0 ** min(attempt - 1, 64))
    return rng.uniform(0.0, ceiling)
