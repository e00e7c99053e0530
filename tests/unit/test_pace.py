"""How many requests and tokens may go, by what was set: no window gets more than the burst and the rate."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.pace import BATCH, RAMP_FROM, RAMP_GROWTH, RAMP_PERIOD, Bucket, Pace, Ramp
from embedbatch.settings import Limits

from .pacing import (
    Grant,
    arrivals,
    assert_no_window_has_more,
    ceilings,
    gaps,
    grants,
    origins,
    rates,
    shares,
    when_ready,
)

limits_of_both = st.builds(
    Limits,
    max_requests_per_minute=st.none() | st.floats(0.5, 1e5),
    max_tokens_per_minute=st.none() | st.floats(10, 1e8),
    burst=st.floats(0.01, 60),
    ramp=st.booleans(),
)
steps = st.lists(
    st.tuples(st.sampled_from(["take", "take", "take", "give back", "drain", "change"]), gaps, st.floats(0.01, 1)),
    min_size=1,
    max_size=40,
)

# A bucket


@given(ceilings, rates, origins, arrivals)
def test_no_window_is_granted_more_than_the_ceiling_and_the_rate(
    ceiling: float, per_second: float, origin: float, requests: list[Grant]
) -> None:
    """In any window at most max(ceiling, largest amount) + rate × window goes, from a clock at 0 or at 10⁹."""
    fill = ceiling / per_second
    asked = [(gap * fill, share * ceiling) for gap, share in requests]

    assert_no_window_has_more(grants(Bucket(ceiling, per_second), asked, origin), ceiling, per_second)


@given(ceilings, rates, origins, steps)
def test_nor_when_it_is_given_back_drained_and_changed(
    ceiling: float, per_second: float, origin: float, events: list[tuple[str, float, float]]
) -> None:
    """
    Nor when a part of what was taken is given back at that moment, what was saved up is dropped, and the rate and the
    ceiling become smaller and larger again: then the largest count, for amounts that are below the smallest ceiling.
    """
    bucket = Bucket(ceiling, per_second)
    fill = ceiling / per_second
    now = origin
    granted: list[Grant] = []
    for kind, gap, share in events:
        now += gap * fill
        if kind == "drain":
            bucket.drain(now)
        elif kind == "change":
            bucket.change(per_second * share, ceiling * max(0.1, share), now)
        else:
            amount = 0.1 * ceiling * share
            now = when_ready(bucket, amount, now)
            bucket.take(amount, now)
            if kind == "give back":
                bucket.take(-amount / 2, now)
                amount /= 2
            granted.append((now, amount))
    assert_no_window_has_more(granted, ceiling, per_second)


@given(ceilings, rates, st.lists(st.tuples(gaps, st.sampled_from(["take", "give"]), st.floats(0, 1)), max_size=30))
def test_what_is_given_back_later_is_never_more_than_the_ceiling(
    ceiling: float, per_second: float, events: list[tuple[float, str, float]]
) -> None:
    """Whatever is given back when, no more than the ceiling goes at one moment after it."""
    bucket = Bucket(ceiling, per_second)
    now = 0.0
    for gap, kind, share in events:
        now += gap * ceiling / per_second
        if kind == "give":
            bucket.take(-share * ceiling, now)
        else:
            now = when_ready(bucket, share * ceiling, now)
            bucket.take(share * ceiling, now)
    if events:
        bucket.take(ceiling, now := when_ready(bucket, ceiling, now))
        assert bucket.ready_at(ceiling / 100, now) > now or ceiling / 100 / per_second < math.ulp(now) * 4


@given(ceilings, rates, origins, arrivals, shares, st.lists(gaps, min_size=2, max_size=10))
def test_the_moment_of_readiness_does_not_move(
    ceiling: float, per_second: float, origin: float, requests: list[Grant], share: float, later: list[float]
) -> None:
    """Asked later, and later again, the answer is the same moment until it has come, and then the time of asking."""
    bucket = Bucket(ceiling, per_second)
    fill = ceiling / per_second
    now, _ = grants(bucket, [(gap * fill, amount * ceiling) for gap, amount in requests], origin)[-1]
    moments = [now + part * fill / 5 for part in itertools.accumulate(later)]
    answers = [bucket.ready_at(share * ceiling, moment) for moment in moments]

    error = 8 * math.ulp(moments[-1] + 3 * fill) + fill * 1e-9
    assert all(answer >= moment for answer, moment in zip(answers, moments, strict=True))
    assert all(second >= first - error for first, second in itertools.pairwise(answers))
    promised = answers[0]
    for answer, moment in zip(answers, moments, strict=True):
        assert answer <= max(promised, moment) + error


@given(ceilings, rates, origins, shares, st.floats(0.01, 1))
def test_the_first_amount_goes_at_once_and_leaves_nothing(
    ceiling: float, per_second: float, origin: float, share: float, then: float
) -> None:
    """The first amount waits for nothing; what is above the ceiling is owed; the next waits for all of its own."""
    bucket = Bucket(ceiling, per_second)
    assert bucket.ready_at(share * ceiling, origin) == origin
    bucket.take(share * ceiling, origin)
    owed = max(0.0, share - 1) * ceiling

    expected = (owed + then * ceiling) / per_second
    assert bucket.ready_at(then * ceiling, origin) - origin == pytest.approx(
        expected, rel=1e-3, abs=4 * math.ulp(origin) + 1e-5 / per_second
    )


def test_a_bucket_fills_up_to_its_ceiling() -> None:
    """A bucket of 10 at 2 a second: 10 at once, 1 half a second later, and after an hour of nothing 10 and no more."""
    bucket = Bucket(ceiling=10, per_second=2)

    asked = [(0.0, 10.0), (0.0, 1.0), (3_600.0, 10.0), (0.0, 2.0)]
    assert grants(bucket, asked, 100.0) == [(100.0, 10), (100.5, 1), (3_700.5, 10), (3_701.5, 2)]


def test_an_amount_above_the_ceiling_is_owed() -> None:
    """30 from a full bucket of 10 goes at once; the next, however small, waits until 20 are paid back."""
    bucket = Bucket(ceiling=10, per_second=2)

    assert grants(bucket, [(0, 30), (0, 1)], 0.0) == [(0.0, 30), (10.5, 1)]
    assert when_ready(bucket, 30, 10.5) == 15.5


def test_a_clock_that_stands_still_refills_nothing() -> None:
    """At one moment a full bucket of 3 is granted 3 times 1, however often it is asked."""
    bucket = Bucket(ceiling=3, per_second=1)
    bucket.take(1, 0.0)
    taken = 0
    for _ in range(10):
        if bucket.ready_at(1, 5.0) <= 5.0:
            bucket.take(1, 5.0)
            taken += 1
    assert taken == 3


def test_draining_keeps_debts() -> None:
    """What was saved up is gone, what is owed is not."""
    saved, owing = Bucket(10, 1), Bucket(10, 1)
    saved.take(1, 0.0)
    owing.take(15, 0.0)
    for bucket in (saved, owing):
        bucket.drain(1.0)

    assert saved.ready_at(1, 1.0) == 2
    assert owing.ready_at(1, 1.0) == 6


# Requests and tokens together


@given(limits_of_both, origins, arrivals)
def test_both_quotas_hold(limits: Limits, origin: float, requests: list[Grant]) -> None:
    """In any window requests stay within their burst and rate, and tokens within theirs, with or without the other."""
    tokens_per_second = (limits.max_tokens_per_minute or 60_000) / 60
    asked = [(gap, share * tokens_per_second * limits.burst) for gap, share in requests]

    granted = grants(Pace(limits), asked, origin)

    if limits.max_requests_per_minute is not None:
        per_second = limits.max_requests_per_minute / 60
        assert_no_window_has_more([(at, 1) for at, _ in granted], max(1, per_second * limits.burst), per_second)
    if limits.max_tokens_per_minute is not None:
        assert_no_window_has_more(granted, max(1, tokens_per_second * limits.burst), tokens_per_second)


def test_without_quotas_everything_goes_at_once() -> None:
    """No limits: a thousand requests of a million tokens are ready when they come, and batches may be any size."""
    pace = Pace(Limits())

    assert grants(pace, [(0, 1e6)] * 1_000, 5.0) == [(5.0, 1e6)] * 1_000
    assert pace.rates(6.0) == (math.inf, math.inf)
    assert pace.batch_tokens(6.0) == math.inf


def test_a_minutes_quota_is_not_granted_in_its_first_second() -> None:
    """At 600 requests a minute one goes at once, then ten a second: 601 by the end of the first minute."""
    pace = Pace(Limits(max_requests_per_minute=600))
    granted = [at for at, _ in grants(pace, [(0, 0)] * 1_000, 0.0)]

    assert granted[:3] == pytest.approx([0, 0.1, 0.2])
    assert sum(at <= 60 + 1e-6 for at in granted) == 601


def test_a_quota_below_one_request_per_burst_still_lets_one_go() -> None:
    """At 1 request a minute the bucket holds one request, not the 1/30 that two seconds are worth."""
    pace = Pace(Limits(max_requests_per_minute=1))

    assert [at for at, _ in grants(pace, [(0, 0)] * 3, 0.0)] == pytest.approx([0, 60, 120])


def test_after_a_pause_nothing_has_been_saved_up() -> None:
    """Ten seconds of nothing would let a burst go; drained, requests and tokens begin from nothing."""
    pace = Pace(Limits(max_requests_per_minute=60, max_tokens_per_minute=6_000))
    pace.take(10, 0.0)
    pace.drain(10.0)

    assert [at for at, _ in grants(pace, [(0, 50)] * 3, 10.0)] == pytest.approx([11, 12, 13])


def test_tokens_that_were_not_needed_are_there_again() -> None:
    """100 tokens were taken and 40 sent: the other 60 count for the next request, and 60 more would not."""
    more, less = Pace(Limits(max_tokens_per_minute=6_000)), Pace(Limits(max_tokens_per_minute=6_000))
    for pace in (more, less):
        pace.take(100, 0.0)
    less.correct(-60, 0.0)
    more.correct(60, 0.0)

    assert less.ready_at(60, 0.0) == 0
    assert more.ready_at(60, 0.0) == pytest.approx(1.2)


@given(st.floats(60, 1e9), st.none() | st.floats(1, 1e6), st.floats(0.01, 60))
def test_batches_are_small_and_large_enough(tokens: float, requests: float | None, burst: float) -> None:
    """
    A batch holds 0.2 s of the token rate, or as much more as it takes to use the tokens within the requests, and
    never more than the burst.
    """
    limits = Limits(max_tokens_per_minute=tokens, max_requests_per_minute=requests, burst=burst)
    most = Pace(limits).batch_tokens(0.0)
    rate = tokens / 60

    assert most <= rate * burst * (1 + 1e-9)
    assert most >= min(burst, BATCH) * rate * (1 - 1e-9)
    if requests is not None and most < rate * burst * (1 - 1e-9):
        assert most * requests / 60 >= rate
    if requests is None or requests / 60 >= 1.25 / BATCH:
        assert most <= BATCH * rate * (1 + 1e-9)


# Growth


@given(st.floats(0, 1e7), st.lists(st.floats(0, 1e6), min_size=2, max_size=10))
def test_growth_is_half_as_much_again_in_any_15_minutes(rate: float, moments: list[float]) -> None:
    """From the rate it began with, or a million a minute, the rate grows by half in 15 minutes, not in less."""
    ramp = Ramp()
    assert ramp.rate(0.0) == math.inf
    ramp.begin(rate, 0.0)
    assert ramp.rate(0.0) == max(rate, RAMP_FROM)

    for first, second in itertools.pairwise(sorted(moments)):
        assert ramp.rate(first) <= ramp.rate(second)
        growth = ramp.rate(min(second, first + RAMP_PERIOD)) / ramp.rate(first)
        assert growth <= RAMP_GROWTH * (1 + 1e-9)


def test_growth_has_no_end() -> None:
    """A process that has run for a year is still told a rate."""
    ramp = Ramp()
    ramp.begin(0.0, 0.0)

    assert ramp.rate(365 * 86_400.0) >= ramp.rate(86_400.0)


def test_a_run_that_keeps_the_ramp_begins_at_a_million_a_minute() -> None:
    """With ramp=True the rate of tokens is a million a minute at first, and grows up to what is set."""
    pace = Pace(Limits(max_tokens_per_minute=10_000_000, ramp=True))
    pace.take(100, 50.0)

    assert pace.rates(50.0)[1] == pytest.approx(RAMP_FROM)
    assert pace.rates(50.0 + RAMP_PERIOD)[1] == pytest.approx(1.5 * RAMP_FROM)
    assert pace.rates(50.0 + 20 * RAMP_PERIOD)[1] == pytest.approx(10_000_000 / 60)
    assert pace.rates(50.0)[0] == math.inf
