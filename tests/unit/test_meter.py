"""How much went in the last minute, by what was noted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.meter import BIN, KEPT, Meter


@given(st.floats(1, 1e6), st.floats(0.01, 2), st.floats(1, KEPT), st.floats(0, 20))
def test_a_steady_rate_is_measured(amount: float, gap: float, seconds: float, ago: float) -> None:
    """What goes at a steady rate is measured as that, but for one amount and a bin, also as of a while ago."""
    meter = Meter()
    steps = int(90 / gap)
    for step in range(steps + 1):
        meter.add(amount, step * gap)
    now = steps * gap - min(ago, KEPT - seconds)
    if now < seconds + 2 * gap:
        return
    span = max(1.0, seconds - gap - BIN)

    assert amount * (span - gap) / gap / seconds * 0.8 <= meter.rate(now, seconds) + amount
    assert meter.rate(now, seconds) <= amount * (1 / gap + 2 + BIN / gap) * 1.2
    assert meter.count == steps + 1


def test_nothing_went_before_anything_did() -> None:
    """Before the first amount, and after a minute without one, the rate is zero."""
    meter = Meter()
    assert meter.rate(5.0, 10.0) == 0
    meter.add(100, 10.0)

    assert meter.rate(9.0, 10.0) == 0
    assert meter.rate(10.0, 10.0) == 100
    assert meter.rate(100.0, 10.0) == 0


def test_what_was_a_minute_ago_is_forgotten() -> None:
    """Of 100 amounts, one a second, those of the last minute are remembered."""
    meter = Meter()
    for second in range(100):
        meter.add(1, float(second))

    assert meter.rate(99.0, 1_000.0) == pytest.approx(1, rel=0.05)
    assert meter.rate(30.0, 5.0) == 0
    assert meter.total(99.0) == KEPT + 1
    assert meter.total(200.0) == 0
    assert meter.count == 100


def test_what_goes_at_nearly_one_moment_is_one() -> None:
    """A thousand amounts within a tenth of a second count together, over the second that is looked at at least."""
    meter = Meter()
    for number in range(1_000):
        meter.add(2, number * BIN / 2_000)

    assert meter.rate(1.0, 5.0) == 2_000
    assert meter.rate(0.05, 5.0) == 2_000
