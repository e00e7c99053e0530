"""How long to wait before the next attempt: within its bounds, and not the same for everyone."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.backoff import backoff
from embedbatch.settings import Retries

waits = st.floats(1e-6, 1e6)


class Fixed(Random):
    """Draws one share of every range."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self.share = share

    def random(self) -> float:
        return self.share


@given(st.integers(1, 10_000), waits, waits, st.randoms(use_true_random=False))
def test_the_wait_stays_within_its_bounds(attempt: int, initial_wait: float, max_wait: float, rng: Random) -> None:
    """The wait is at least nothing, and at most min(max_wait, initial_wait · 2^(k−1))."""
    retries = Retries(initial_wait=initial_wait, max_wait=max_wait)
    jitter = min(max_wait, initial_wait * 2.0 ** min(attempt - 1, 900))

    assert 0 <= backoff(attempt, rng, retries) <= jitter


@pytest.mark.parametrize(
    ("attempt", "most"), [(1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (10_000, 30)]
)
def test_the_defaults_double_from_half_a_second_to_thirty(attempt: int, most: float) -> None:
    """After the first failure up to 0.5 s, after the second 1 s, …, from the seventh on 30 s; at least nothing."""
    assert backoff(attempt, Fixed(0.0), Retries()) == 0
    assert backoff(attempt, Fixed(0.5), Retries()) == most / 2
    assert backoff(attempt, Fixed(math.nextafter(1, 0)), Retries()) == pytest.approx(most)


def test_those_who_failed_together_part_ways() -> None:
    """Fifty whose first attempts failed at the same time wait fifty different times."""
    assert len({backoff(1, Random(seed), Retries()) for seed in range(50)}) == 50


@pytest.mark.parametrize("retries", [Retries(max_wait=1e308), Retries(initial_wait=1e308), Retries(max_wait=math.inf)])
def test_no_setting_makes_the_ten_thousandth_wait_overflow(retries: Retries) -> None:
    """At attempt 10,000 the wait is a number, also with max_wait=1e308 or without an end."""
    assert 0 <= backoff(10_000, Fixed(0.5), retries) <= retries.max_wait
