"""How many requests and tokens may go: no window gets more than the burst and the rate, and nobody waits for ever."""

from __future__ import annotations

import itertools
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.pace import REENTRY, ROUNDING, Bucket, Pace
from embedbatch.settings import Limits

Grant = tuple[float, float]
"""When, and how much."""

rates = st.floats(1e-3, 1e9)
ceilings = st.floats(1, 1e9)
shares = st.floats(1e-6, 3) | st.just(1.0)  # amounts as shares of the ceiling, also above it
gaps = st.floats(0, 5) | st.just(0.0)  # between arrivals, in times it takes to fill the bucket
origins = st.sampled_from([0.0, 1e-3, 1e6, 1e9])  # where the clock begins
arrivals = st.lists(st.tuples(gaps, shares), min_size=1, max_size=30)
limits_of_both = st.builds(
    Limits,
    max_requests_per_minute=st.none() | st.floats(0.5, 1e5),
    max_tokens_per_minute=st.none() | st.floats(10, 1e8),
    burst=st.floats(0.01, 60),
    max_concurrent_requests=st.integers(1, 64),
)


def when_ready(rule: Bucket | Pace, amount: float, now: float) -> float:
    """Wait as the limiter does: until the moment it was told, and then it asks again."""
    for _ in range(4):
        at = rule.ready_at(amount, now)
        if at <= now:
            return now
        now = at
    raise AssertionError(f"still not ready at {now!r}")


def grants(rule: Bucket | Pace, requests: list[Grant], now: float) -> list[Grant]:
    """When each of *requests*, (seconds after the one before, amount), is granted."""
    granted = []
    for gap, amount in requests:
        now = when_ready(rule, amount, now + gap)
        rule.take(amount, now)
        granted.append((now, amount))
    return granted


def assert_no_window_has_more(granted: list[Grant], burst: float, per_second: float) -> None:
    """Fail if between any two grants, both counted, more went than *burst* and *per_second* allow."""
    most = max(burst, *(amount for _, amount in granted))
    for first, last in itertools.combinations_with_replacement(range(len(granted)), 2):
        window = granted[last][0] - granted[first][0]
        total = sum(amount for _, amount in granted[first : last + 1])
        # What the clock cannot tell apart: a moment has an error of one part in 2**52.
        error = per_second * 4 * math.ulp(granted[last][0]) * len(granted)
        assert total <= (most + per_second * window) * (1 + 1e-9) + ROUNDING + error


@given(ceilings, rates, origins, arrivals)
def test_no_window_is_granted_more_than_the_ceiling_and_the_rate(
    ceiling: float, per_second: float, origin: float, requests: list[Grant]
) -> None:
    """In any window at most max(ceiling, largest amount) + rate × window goes, from a clock at 0 or at 10⁹."""
    fill = ceiling / per_second
    asked = [(gap * fill, share * ceiling) for gap, share in requests]

    assert_no_window_has_more(grants(Bucket(ceiling, per_second), asked, origin), ceiling, per_second)


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


def test_a_full_bucket_goes_at_once() -> None:
    """A bucket of 10 at 2 a second gives 10 at once, then 1 after half a second, then 4 after two."""
    bucket = Bucket(ceiling=10, per_second=2)

    assert grants(bucket, [(0, 10), (0, 1), (0, 4)], 100.0) == [(100.0, 10), (100.5, 1), (102.5, 4)]


def test_a_bucket_holds_no_more_than_its_ceiling() -> None:
    """After an hour of nothing a bucket of 10 still gives no more than 10 at once."""
    bucket = Bucket(ceiling=10, per_second=2)

    assert grants(bucket, [(0, 10), (3600, 10), (0, 2)], 0.0) == [(0.0, 10), (3600.0, 10), (3601.0, 2)]


def test_an_amount_above_the_ceiling_is_owed() -> None:
    """30 from a full bucket of 10 goes at once; the next, however small, waits until 20 are paid back."""
    bucket = Bucket(ceiling=10, per_second=2)

    assert grants(bucket, [(0, 30), (0, 1)], 0.0) == [(0.0, 30), (10.5, 1)]
    assert when_ready(bucket, 30, 10.5) == 15.5


def test_a_clock_that_stands_still_refills_nothing() -> None:
    """At one moment a bucket of 3 is granted 3 times 1, however often it is asked."""
    bucket = Bucket(ceiling=3, per_second=1)
    taken = 0
    for _ in range(10):
        if bucket.ready_at(1, 5.0) <= 5.0:
            bucket.take(1, 5.0)
            taken += 1
    assert taken == 3


# Requests, tokens and pauses together


@given(limits_of_both, origins, arrivals, st.randoms(use_true_random=False))
def test_both_quotas_hold(limits: Limits, origin: float, requests: list[Grant], rng: Random) -> None:
    """In any window requests stay within their burst and rate, and tokens within theirs, with or without the other."""
    tokens_per_second = (limits.max_tokens_per_minute or 60_000) / 60
    asked = [(gap, share * tokens_per_second * limits.burst) for gap, share in requests]

    granted = grants(Pace(limits, rng), asked, origin)

    if limits.max_requests_per_minute is not None:
        per_second = limits.max_requests_per_minute / 60
        assert_no_window_has_more([(at, 1) for at, _ in granted], max(1, per_second * limits.burst), per_second)
    if limits.max_tokens_per_minute is not None:
        assert_no_window_has_more(granted, max(1, tokens_per_second * limits.burst), tokens_per_second)


def test_without_quotas_everything_goes_at_once() -> None:
    """No limits, no pause: a thousand requests of a million tokens are ready when they come."""
    pace = Pace(Limits(), Random(1))

    assert grants(pace, [(0, 1e6)] * 1_000, 5.0) == [(5.0, 1e6)] * 1_000


def test_a_minutes_quota_is_not_granted_in_its_first_second() -> None:
    """At 600 requests a minute and a burst of 2 seconds, 20 go at once, and 620 by the end of the first minute."""
    pace = Pace(Limits(max_requests_per_minute=600), Random(1))
    granted = [at for at, _ in grants(pace, [(0, 0)] * 1_000, 0.0)]

    assert sum(at == 0 for at in granted) == 20
    assert sum(at <= 60 + 1e-6 for at in granted) == 620


def test_a_quota_below_one_request_per_burst_still_lets_one_go() -> None:
    """At 1 request a minute the bucket holds one request, not the 1/30 that two seconds are worth."""
    pace = Pace(Limits(max_requests_per_minute=1), Random(1))

    assert [at for at, _ in grants(pace, [(0, 0)] * 3, 0.0)] == pytest.approx([0, 60, 120])


pauses = st.floats(0, 1_000)


@given(
    limits_of_both,
    origins,
    st.lists(st.tuples(gaps, pauses), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_nothing_is_ready_before_the_end_of_a_pause(
    limits: Limits, origin: float, events: list[tuple[float, float]], rng: Random
) -> None:
    """After pause(s) nothing goes for s seconds, whatever other pauses are on; a longer one is never cut short."""
    pace = Pace(limits, rng)
    now = closed_until = origin
    for gap, seconds in events:
        now += gap
        pace.pause(seconds, now)
        closed_until = max(closed_until, now + seconds)
        assert pace.ready_at(1, now) >= closed_until
    assert when_ready(pace, 1, now) >= closed_until


def test_a_pause_that_changes_nothing_says_so() -> None:
    """Of pauses of 30, 10 and 60 s asked for by three workers at once, the second adds nothing, the third 30 s."""
    pace = Pace(Limits(), Random(1))

    assert [pace.pause(seconds, 0.0) for seconds in (30, 10, 60)] == [30, 0, 30]


@given(st.integers(0, 2**32), st.integers(2, 64), st.floats(0, 100))
def test_requests_come_back_one_by_one(seed: int, places: int, seconds: float) -> None:
    """
    After a pause no two requests go at one moment for as long as the pause was, at most a second; gaps are at most
    2/places of that. Where only one may be in flight there is no one to wait for.
    """
    reentry_time = min(REENTRY, seconds) if places > 1 else 0.0
    pace = Pace(Limits(max_concurrent_requests=places), Random(seed))
    pace.pause(seconds, 10.0)
    granted = [at for at, _ in grants(pace, [(0, 1)] * (places * 4 + 60), 10.0)]

    end = 10.0 + seconds
    assert end <= granted[0] <= end + reentry_time / places
    reentry = [at for at in granted if at < end + reentry_time]
    gaps = [second - first for first, second in itertools.pairwise(reentry)]
    assert all(0 < gap <= 2 * reentry_time / places + 1e-9 for gap in gaps)
    assert granted[-1] <= granted[0] + 3 * REENTRY
    assert len(set(granted)) < len(granted)  # and then all at once again


def test_workers_told_the_same_do_not_return_together() -> None:
    """Two processes that are paused for 30 s at the same moment come back at different moments."""
    ends = set()
    for seed in range(20):
        pace = Pace(Limits(), Random(seed))
        pace.pause(30, 0.0)
        ends.add(pace.ready_at(1, 0.0))

    assert len(ends) == 20
    assert all(30 <= end <= 30 + 1 / 32 for end in ends)
