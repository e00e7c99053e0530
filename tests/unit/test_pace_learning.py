"""How many requests and tokens may go, by what the endpoint says and refuses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.pace import BATCH, CHANGES, ENOUGH, RAMP_FROM, RAMP_PERIOD, Pace, Throttle
from embedbatch.settings import Limits
from embedbatch.wire.quota import Allowance, Overrun, QuotaHeaders

from .pacing import Grant, assert_no_window_has_more, grants, when_ready

per_minutes = st.floats(60, 1e7)
bursts = st.floats(0.1, 20)
steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "take", "give back", "drain", "hear", "hear", "refuse"]),
        st.floats(0, 3) | st.just(0.0),  # seconds since the last
        st.floats(0.1, 2),  # what the headers say, in times of what is set; seconds since what is refused was sent
        st.floats(0, 1),  # how much remains of it; how much is taken
    ),
    min_size=1,
    max_size=40,
)


def told(per_minute: float, remaining: float = 1.0) -> Allowance:
    """What headers say of a quota per minute, with that share of it remaining."""
    return Allowance(per_minute, remaining * per_minute, (1 - remaining) * 60)


def overrun(per_minute: float, window: float = 60.0) -> Overrun:
    """What the message of a 429 says."""
    return Overrun("tokens", per_minute * window / 60, None, None, window, None)


def play(
    throttle: Throttle, per_minute: float, most: float, events: list[tuple[str, float, float, float]]
) -> list[Grant]:
    """Let *events* happen, takes when they are ready; return the grants. A take is 1, or a share of *most*."""
    now = 1.0
    granted = []
    for kind, gap, factor, share in events:
        now += gap
        if kind == "hear":
            throttle.hear(told(per_minute * factor, share), now)
        elif kind == "refuse":
            throttle.refuse(now - factor, now, overrun(per_minute * factor) if share > 0.7 else None)
        elif kind == "drain":
            throttle.drain(now)
        else:
            amount = max(1.0, share * most)
            now = when_ready(throttle, amount, now, most=20_000)
            throttle.take(amount, now)
            if kind == "give back":
                throttle.take(-amount / 2, now)
                amount /= 2
            granted.append((now, amount))
    return granted


@given(per_minutes, bursts, steps)
def test_no_window_of_requests_gets_more_than_was_set(
    per_minute: float, burst: float, events: list[tuple[str, float, float, float]]
) -> None:
    """Whatever headers and refusals come when: in any window at most max(1, burst) + rate × window requests go."""
    throttle = Throttle(per_minute, burst)
    granted = play(throttle, per_minute, 1.0, events)

    assert_no_window_has_more(granted, max(1.0, burst * per_minute / 60), per_minute / 60)


@given(per_minutes, bursts, steps)
def test_no_window_of_tokens_gets_more_than_was_set(
    per_minute: float, burst: float, events: list[tuple[str, float, float, float]]
) -> None:
    """The same for amounts up to the burst that was set: what is above a burst that was lowered comes on top, once."""
    throttle = Throttle(per_minute, burst)
    most = max(1.0, burst * per_minute / 60)
    granted = play(throttle, per_minute, most, events)
    largest = max((amount for _, amount in granted), default=0.0)

    assert_no_window_has_more(granted, most + largest, per_minute / 60)


@given(per_minutes, st.floats(0.1, 0.9), st.lists(st.floats(0, 2), min_size=1, max_size=30))
def test_what_the_headers_say_holds_from_then_on(per_minute: float, share: float, arrivals: list[float]) -> None:
    """A rate that was set is lowered by the headers: no window after them gets more than they tell."""
    for set_to in (per_minute, None):
        throttle = Throttle(set_to, 2.0)
        throttle.take(1.0, 0.0)
        throttle.hear(told(per_minute * share), 5.0)
        throttle.ready_at(1.0, 5.0)
        granted = grants(throttle, [(gap, 1.0) for gap in arrivals], 5.0)

        per_second = per_minute * share / 60
        assert_no_window_has_more(granted, max(1.0, 2.0 * per_second), per_second)
        assert throttle.rate(5.0) == pytest.approx(per_second)


@given(per_minutes, st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 10), st.floats(0, 1)), max_size=10))
def test_headers_never_raise_what_was_set(per_minute: float, said: list[tuple[float, float, float]]) -> None:
    """Whatever the headers say, the rate is at most what was set."""
    throttle = Throttle(per_minute, 2.0)
    now = 0.0
    for gap, factor, remaining in said:
        now += gap
        throttle.hear(told(per_minute * factor, remaining), now)
        assert throttle.rate(now) <= per_minute / 60
        assert throttle.ready_at(1.0, now) == now


@given(per_minutes, st.floats(1.1, 10), st.integers(0, 8))
def test_a_told_limit_that_keeps_changing_is_ignored(per_minute: float, factor: float, more: int) -> None:
    """A gateway tells of one account and of another: with the third change its headers are believed no more."""
    throttle = Throttle(None, 2.0)
    said = [per_minute, per_minute * factor]
    for number in range(CHANGES):
        throttle.hear(told(said[number % 2], 0.0), float(number))
        assert throttle.rate(number) == pytest.approx(said[number % 2] / 60)
    for number in range(CHANGES, CHANGES + more + 1):
        throttle.hear(told(said[number % 2], 0.0), float(number))
        assert throttle.rate(number) == math.inf
        assert throttle.ready_at(1e9, number) == number


@given(per_minutes, st.lists(st.floats(0.995, 1.0), min_size=10, max_size=30))
def test_a_told_limit_that_stays_is_believed(per_minute: float, said: list[float]) -> None:
    """Differences of less than a percent are no changes."""
    throttle = Throttle(None, 2.0)
    for number, factor in enumerate(said):
        throttle.hear(told(per_minute * factor), float(number))

    assert throttle.rate(100.0) == pytest.approx(per_minute / 60, rel=0.006)


@pytest.mark.parametrize(
    "allowance",
    [
        pytest.param(Allowance(14_400, 14_370, 180), id="Groq's requests a day"),
        pytest.param(Allowance(3_600, 3_000, 600), id="an hour"),
    ],
)
def test_a_limit_over_more_than_a_minute_is_no_pace(allowance: Allowance) -> None:
    """An hour's or a day's quota changes neither a rate that was set nor one that is unknown."""
    blank, known = Throttle(None, 2.0), Throttle(600, 2.0)
    for throttle in (blank, known):
        throttle.hear(allowance, 0.0)
    blank.refuse(0.0, 0.0, overrun(10.0, window=86_400.0))

    assert blank.rate(0.0) == math.inf
    assert known.rate(0.0) == 10


@given(st.floats(1_200, 1e6), st.floats(0, 0.02))
def test_when_little_remains_less_goes_and_then_as_much_as_before(per_minute: float, remaining: float) -> None:
    """With 2 % of a minute's quota left fewer go for two seconds; after three the rate is used in full."""
    throttle, untouched = Throttle(per_minute, 2.0), Throttle(per_minute, 2.0)
    rate = per_minute / 60
    for each in (throttle, untouched):
        each.take(1.0, 0.0)
    throttle.hear(told(per_minute, remaining), 0.0)
    amount = max(1.0, rate / 20)

    def went(each: Throttle) -> list[float]:
        at, times = 0.0, []
        while at < 13:
            at = when_ready(each, amount, at, most=1_000)
            each.take(amount, at)
            times.append(at)
        return times

    squeezed, free = went(throttle), went(untouched)
    assert sum(at < 2 for at in squeezed) < sum(at < 2 for at in free)
    assert sum(3 <= at < 13 for at in squeezed) * amount >= 10 * rate - 2 * amount


def test_who_waits_asks_again_while_the_rate_changes_by_itself() -> None:
    """With nothing left of the quota, or on the way back from a cut, nobody waits for longer than half a second."""
    low, cut = Throttle(60, 2.0), Throttle(60, 2.0)
    for throttle in (low, cut):
        throttle.take(1.0, 0.0)
    low.hear(told(60, 0.0), 0.0)
    cut.refuse(0.0, 0.0, None)

    assert low.ready_at(1.0, 0.0) == 0.5
    assert cut.ready_at(1.0, 0.0) == 0.5
    assert Throttle(60, 2.0).ready_at(1.0, 0.0) == 0


# Refusals


@given(per_minutes, st.floats(0, 50))
def test_a_refusal_lowers_the_rate_for_a_minute(per_minute: float, sent: float) -> None:
    """Refused at the rate that was set, a little less goes; a minute later all of it; never more."""
    throttle = Throttle(per_minute, 2.0)
    throttle.take(1.0, sent)
    throttle.refuse(sent, sent + 1, None)
    rate = per_minute / 60

    assert 0.9 * rate <= throttle.rate(sent + 1) < rate
    seen = [throttle.rate(sent + 1 + seconds) for seconds in range(70)]
    assert seen == sorted(seen)
    assert seen[-1] == rate
    assert throttle.rate(sent + 10_000) == rate
    assert not throttle.is_cut


@given(st.floats(10, 1e6), st.floats(0.01, 20))
def test_where_nothing_is_known_the_rate_is_what_went(amount: float, latency: float) -> None:
    """Ten requests a second of one size, one refused however late: from then on seven tenths of that, not a trickle."""
    throttle = Throttle(None, 2.0)
    sent_at = 20.0
    for tenth in range(int(10 * (sent_at + latency)) + 1):
        throttle.take(amount, tenth / 10)
    now = sent_at + latency
    throttle.refuse(sent_at, now, None)

    assert throttle.rate(now) == pytest.approx(7 * amount, rel=0.15)


def test_a_refusal_of_the_first_requests_teaches_no_rate() -> None:
    """Of fewer requests than it takes to tell a rate nothing is concluded."""
    throttle = Throttle(None, 2.0)
    for _ in range(ENOUGH - 1):
        throttle.take(1.0, 0.0)
    throttle.refuse(0.0, 0.1, None)

    assert throttle.rate(0.1) == math.inf


def test_a_limit_that_the_refusal_names_is_kept() -> None:
    """A 429 that names 600 a minute sets the rate where none was known; one that names a day's limit does not."""
    throttle = Throttle(None, 2.0)
    throttle.take(1.0, 0.0)
    throttle.refuse(0.0, 0.1, overrun(600.0))

    assert 9 <= throttle.rate(0.1) <= 10
    assert throttle.rate(100.0) == 10


@pytest.mark.parametrize(
    ("tokens", "named", "resource"),
    [(100, None, 0), (5_000, None, 1), (100, "tokens", 1), (5_000, "requests", 0)],
)
def test_a_refusal_is_about_what_it_names_or_what_it_looks_like(
    tokens: float, named: str | None, resource: int
) -> None:
    """A refusal lowers what it names; if it names nothing, requests for a small one, tokens for a large one."""
    pace = Pace(Limits(max_requests_per_minute=600, max_tokens_per_minute=600_000))
    pace.take(tokens, 0.0)
    said = Overrun("requests" if named == "requests" else "tokens", 1e9, None, None, 60.0, None) if named else None
    before = pace.rates(0.5)
    pace.refuse(tokens, 0.0, 0.5, said)
    after = pace.rates(0.5)

    assert after[resource] < before[resource]
    assert after[1 - resource] == before[1 - resource]


def test_when_requests_are_to_blame_tokens_go_free() -> None:
    """Ten requests a minute, and ever fewer tokens: the rate that was concluded for tokens is lifted."""
    pace, now = Pace(Limits()), 0.0
    for tokens in (50_000, 50_000, 5_000):
        for _ in range(10):
            pace.take(tokens, now)
            pace.grant(tokens)
            now += 6.1
        pace.take(tokens, now)
        pace.refuse(tokens, now, now)
    requests, free = pace.rates(now)

    assert requests < 1
    assert free == math.inf
    assert pace.batch_tokens(now) == math.inf


def test_once_the_rate_is_back_nobody_asks_before_it_is_time() -> None:
    """After the way back from a cut the moment of readiness is told as it is, also when it is a second away."""
    throttle = Throttle(60, 2.0)
    throttle.take(1.0, 0.0)
    throttle.refuse(0.0, 1.0, None)
    throttle.take(2.0, when_ready(throttle, 2.0, 100.0, most=1_000))

    assert throttle.ready_at(1.0, 105.0) == 105
    throttle.take(2.0, 105.0)
    assert throttle.ready_at(2.0, 105.0) == pytest.approx(107)


def test_what_a_minute_had_is_what_a_minute_has() -> None:
    """
    Where nobody named a limit, 1,000 in the last minute are supposed to be all, and less is tried at first; where one
    was named, or nothing was refused, nothing is supposed; where nothing went, it is not supposed to be nothing.
    """
    blank, refused, known, idle = Throttle(None, 2.0), Throttle(None, 2.0), Throttle(60_000, 2.0), Throttle(None, 2.0)
    for throttle in (blank, refused, known, idle):
        for step in range(100):
            throttle.take(10.0, step / 10)
    for throttle in (refused, known, idle):
        throttle.refuse(9.9, 10.0, None)
        assert throttle.is_cut
    before = known.rate(20.0)
    for throttle in (blank, refused, known):
        throttle.suppose_a_minute(20.0)
    idle.suppose_a_minute(80.0)

    assert blank.rate(20.0) == math.inf
    assert 0.5 * 1_000 / 60 <= refused.rate(20.0) <= 1_000 / 60
    assert known.rate(20.0) == before
    assert idle.rate(80.0) > 0
    assert idle.ready_at(1.0, 80.0) < math.inf


@pytest.mark.parametrize("named", [True, False])
def test_what_the_last_minute_had_is_supposed_where_nobody_named_a_limit(named: bool) -> None:
    """Both of requests and tokens that are cut, and neither set nor told, are supposed to be what the minute had."""
    pace = Pace(Limits(max_tokens_per_minute=6_000_000) if named else Limits())
    for step in range(100):
        pace.take(1_000, step / 10)
    pace.refuse(1_000, 9.9, 10.0)
    assert pace.is_named is named
    assert pace.is_cut
    before = pace.rates(20.0)
    pace.suppose_a_minute(20.0)

    assert pace.rates(20.0)[0] == before[0] == math.inf
    assert (pace.rates(20.0)[1] <= 100_000 / 60) is not named


def test_growth_that_was_too_steep_begins_anew() -> None:
    """After slow_down the tokens are less than before, and grow by half in 15 minutes, requests as they were."""
    pace = Pace(Limits(max_requests_per_minute=60_000, max_tokens_per_minute=6_000_000))
    pace.take(10_000, 0.0)
    pace.refuse(10_000, 0.0, 1.0, too_steep=True)
    at_first = pace.rates(1.0)

    assert at_first[0] == 1_000
    assert RAMP_FROM <= at_first[1] < 100_000
    for seconds in range(0, 3_600, 100):
        first, later = pace.rates(1.0 + seconds)[1], pace.rates(1.0 + seconds + RAMP_PERIOD)[1]
        assert later <= 1.5 * max(first, RAMP_FROM) * (1 + 1e-9)


def test_headers_of_both_resources_are_heard() -> None:
    """Requests and tokens each keep to what the headers say of them, and nothing is lost where they say nothing."""
    pace = Pace(Limits())
    pace.hear(QuotaHeaders(None, None), 0.0)
    assert pace.rates(0.0) == (math.inf, math.inf)
    pace.hear(QuotaHeaders(told(600), told(60_000)), 0.0)

    assert pace.rates(0.0) == (10, 1_000)
    pace.hear(QuotaHeaders(Allowance(600), Allowance(60_000)), 1.0)
    assert pace.rates(1.0) == (10, 1_000)
    assert pace.batch_tokens(0.0) == BATCH * 1_000
