"""What the simulated provider grants: never more than its quota, nothing to whoever hammers, and it says so."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from random import Random
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch import ConfigurationError
from embedbatch.testing import Capacity, Latency, OtherClient, Outage, Quota
from embedbatch.testing.quota import FillingBucket, FixedWindow, Meter, Ramp, format_seconds
from embedbatch.testing.replies import vectors_of

Offer = tuple[float, float]
"""Seconds after the one before, and tokens."""

rates = st.floats(60, 1e8)  # tokens a minute
windows = st.floats(0.5, 120)
gaps = st.floats(0, 2) | st.just(0.0)  # in times it takes to fill a bucket
shares = st.floats(1e-3, 1.2)  # of what a bucket holds
offers = st.lists(st.tuples(gaps, shares), min_size=1, max_size=40)


def make_meter(quota: Quota, *others: OtherClient) -> Meter:
    """A meter with seeded noise."""
    return Meter(quota, others, Random(1))


def scaled(quota: Quota, given: list[Offer]) -> list[Offer]:
    """Offers in seconds since the beginning, and tokens."""
    assert quota.tokens_per_minute is not None
    ceiling = quota.tokens_per_minute / 60 * quota.window
    times = itertools.accumulate(gap * quota.window for gap, _ in given)
    return [(at, share * ceiling) for at, (_, share) in zip(times, given, strict=True)]


def granted(meter: Meter, offered: list[Offer]) -> list[Offer]:
    """Those of the offers that are let through."""
    return [(at, tokens) for at, tokens in offered if meter.offer(tokens, at) is None]


def seconds_of(text: str) -> float:
    """Seconds of a time as OpenAI writes it."""
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text))


@given(rates, windows, offers)
def test_no_window_of_a_bucket_grants_more_than_its_capacity_and_the_rate(
    rate: float, window: float, given: list[Offer]
) -> None:
    """Between any two granted requests, both counted, at most rate × window + rate × the time between is granted."""
    quota = Quota(tokens_per_minute=rate, window=window)
    passed = granted(make_meter(quota), scaled(quota, given))

    for first, last in itertools.combinations_with_replacement(range(len(passed)), 2):
        total = sum(tokens for _, tokens in passed[first : last + 1])
        most = rate / 60 * (window + passed[last][0] - passed[first][0])
        assert total <= most * (1 + 1e-9) + 1e-5 * len(passed)


@given(rates, windows, offers)
def test_a_fixed_window_grants_no_more_than_it_holds(rate: float, window: float, given: list[Offer]) -> None:
    """In each window, counted from the beginning, at most rate × window is granted, and nothing after a refusal."""
    quota = Quota(tokens_per_minute=rate, window=window, style="fixed")
    meter = make_meter(quota)
    total: dict[int, float] = {}
    closed = set()
    for at, tokens in scaled(quota, given):
        number = math.floor(at / window + 1e-9)
        if meter.offer(tokens, at) is None:
            assert number not in closed
            total[number] = total.get(number, 0.0) + tokens
        else:
            closed.add(number)

    assert all(tokens <= rate / 60 * window * (1 + 1e-9) + 1e-4 for tokens in total.values())


@given(rates, windows, st.floats(0.01, 1), st.floats(1.5, 20))
def test_who_keeps_sending_gets_nothing(rate: float, window: float, share: float, haste: float) -> None:
    """Once a bucket is empty, requests at 1.5 to 20 times the rate are all refused: refused ones count as well."""
    quota = Quota(tokens_per_minute=rate, window=window)
    meter = make_meter(quota)
    tokens = share * rate / 60 * window
    interval = tokens / (rate / 60) / haste
    refused = 0
    passed_later = 0
    for n in range(600):
        is_refused = meter.offer(tokens, n * interval) is not None
        passed_later += bool(refused) and not is_refused
        refused += is_refused

    assert refused > 0
    assert passed_later == 0


@given(
    rates,
    windows,
    st.sampled_from(["bucket", "fixed"]),
    st.floats(1, 1e4),
    st.lists(st.floats(0.01, 1), min_size=1, max_size=12),
)
def test_who_waits_as_long_as_it_is_told_is_let_through(
    rate: float, window: float, style: Any, requests: float, given: list[float]
) -> None:
    """A refused request that comes back after the time it was told is granted; a hundredth of it earlier it is not."""
    quota = Quota(tokens_per_minute=rate, requests_per_minute=requests, window=window, style=style)
    meter = make_meter(quota)
    now = 0.0
    sent: list[Offer] = []
    for share in given:
        tokens = share * rate / 60 * window
        refusal = meter.offer(tokens, now)
        sent.append((now, tokens))
        if refusal is None:
            continue
        if refusal.wait * rate / 60 > 0.1 and refusal.wait * requests / 60 > 1e-3:
            hasty = make_meter(quota)
            granted(hasty, sent)
            assert hasty.offer(tokens, now + refusal.wait * 0.99) is not None
        now += refusal.wait
        assert meter.offer(tokens, now) is None
        sent.append((now, tokens))


def test_a_refusal_has_the_numbers_of_its_limit() -> None:
    """Of 60,000 tokens a minute 50,000 are taken: 20,000 more are refused, take what is left, and fit 20 s later."""
    meter = make_meter(Quota(tokens_per_minute=60_000, requests_per_minute=100))
    assert meter.offer(50_000, 0.0) is None

    assert meter.offer(20_000, 0.0) == ("tokens", 60_000, 60_000, 20_000, 20)
    assert meter.offer(20_000, 20.0) is None


def test_a_request_above_what_the_window_holds_never_fits() -> None:
    """With 60,000 tokens a minute held in windows of a second, 1,001 tokens are refused for ever."""
    meter = make_meter(Quota(tokens_per_minute=60_000, window=1.0))

    refusal = meter.offer(1_001, 0.0)

    assert refusal is not None
    assert refusal.wait == math.inf


def test_less_than_one_request_in_a_window_still_lets_one_go() -> None:
    """At 6 requests a minute and windows of a second there is one request at a time, not a tenth of one."""
    meter = make_meter(Quota(requests_per_minute=6, window=1.0))

    assert [meter.offer(1, at) is None for at in (0.0, 0.0, 10.0)] == [True, False, True]


@given(rates, windows, st.sampled_from(["bucket", "fixed"]), offers)
def test_the_headers_describe_a_bucket_of_a_minute(rate: float, window: float, style: Any, given: list[Offer]) -> None:
    """Whatever is enforced: limit is the rate, remaining is from 0 to limit, and reset the time until it is full."""
    quota = Quota(tokens_per_minute=rate, window=window, style=style)
    meter, minute = make_meter(quota), FillingBucket(rate, rate / 60)
    for at, tokens in scaled(quota, given):
        meter.offer(tokens, at)
        minute.take(tokens, at)
        headers = meter.headers(at)

        assert list(headers) == [f"x-ratelimit-{name}-tokens" for name in ("limit", "remaining", "reset")]
        assert int(headers["x-ratelimit-limit-tokens"]) == math.floor(rate)
        remaining = int(headers["x-ratelimit-remaining-tokens"])
        assert 0 <= remaining <= math.floor(rate)
        assert remaining == pytest.approx(minute.level(at), abs=1)
        missing = rate - minute.level(at)
        assert seconds_of(headers["x-ratelimit-reset-tokens"]) == pytest.approx(missing / rate * 60, abs=0.0011)


@given(st.floats(0, 1e6))
def test_a_time_can_be_read_back(seconds: float) -> None:
    """A written time is the time, rounded up to a millisecond."""
    assert 0 <= seconds_of(format_seconds(seconds)) - seconds + 1e-8 <= 0.001 + 1e-6


def test_times_look_as_openai_writes_them() -> None:
    """Milliseconds below a second, then seconds with a fraction, then minutes and hours."""
    times = [0, 0.0121, 0.193, 1.2, 20, 59.9999, 360, 72.172, 3_661.5]

    written = [format_seconds(seconds) for seconds in times]

    assert written == ["0s", "13ms", "193ms", "1.2s", "20s", "1m0s", "6m0s", "1m12.172s", "1h1m1.5s"]


@given(rates, st.floats(0, 0.9), st.integers(1, 10**6))
def test_an_estimate_is_as_far_off_as_it_may_be(rate: float, noise: float, size: int) -> None:
    """A request counts as 0.25 token a byte and what its token arrays have, give or take the noise."""
    meter = make_meter(Quota(tokens_per_minute=rate, noise=noise))
    expected = size / 4 + 10

    estimates = [meter.estimate(size, 10) for _ in range(20)]

    assert all(abs(estimate / expected - 1) <= noise + 1e-9 for estimate in estimates)


def test_another_client_takes_its_share() -> None:
    """With 600 of 1,000 tokens a second taken by somebody else, 300 a second all go, and of 500 a second a part."""
    other = OtherClient(start=0, end=1e9, tokens_per_minute=36_000, request_tokens=60)
    quota = Quota(tokens_per_minute=60_000, window=1.0)

    modest = granted(make_meter(quota, other), [(at / 3, 100) for at in range(3_000)])
    alone = granted(make_meter(quota), [(at / 5, 100) for at in range(3_000)])
    greedy = granted(make_meter(quota, other), [(at / 5, 100) for at in range(3_000)])

    assert len(modest) == len(alone) == 3_000
    assert len(greedy) < 3_000


@given(st.floats(100, 1e5), st.floats(0.1, 1), st.floats(1, 300))
def test_what_another_client_takes_is_missing(rate: float, part: float, seconds: float) -> None:
    """Somebody who takes a part of the rate, unhindered, leaves the rest: the headers show it."""
    tokens = rate / 600
    other = OtherClient(start=0, end=seconds, tokens_per_minute=rate * part, request_tokens=max(1, int(tokens)))
    meter = make_meter(Quota(tokens_per_minute=rate), other)
    full = FillingBucket(rate, rate / 60)
    for n in range(10**6):
        at = n * other.interval
        if at >= seconds:
            break
        full.take(other.tokens, at)

    remaining = meter.headers(seconds)["x-ratelimit-remaining-tokens"]

    assert int(remaining) == pytest.approx(full.level(seconds), abs=1)


def test_another_client_comes_and_goes() -> None:
    """Two requests a second from 10 to before 20 s are 20 requests; before and after, nothing is taken."""
    other = OtherClient(start=10, end=20, tokens_per_minute=0, requests_per_minute=120)
    meter = make_meter(Quota(requests_per_minute=60), other)

    left = [int(meter.headers(at)["x-ratelimit-remaining-requests"]) for at in (9.9, 10.0, 19.99, 80.0)]

    assert left == [60, 59, 49, 60]  # one a second comes back


def ramped(rates_by_minute: list[float]) -> list[float]:
    """For each minute, the part of its tokens that the ramp rule lets through, sent in 60 requests."""
    ramp = Ramp()
    parts = []
    for minute, rate in enumerate(rates_by_minute):
        passed = [ramp.offer(rate / 60, minute * 60 + second) == 0 for second in range(60)]
        parts.append(sum(passed) / 60)
    return parts


def test_growth_by_half_every_quarter_of_an_hour_is_let_through() -> None:
    """From 1 million tokens a minute, each 15 minutes 1.4 times as much: nothing is refused."""
    assert set(ramped([1e6 * 1.4 ** (minute // 15) for minute in range(90)])) == {1.0}


def test_a_jump_is_slowed_down_to_one_and_a_half_times() -> None:
    """3 million tokens a minute from the start: half passes for 15 minutes, then 2.25 million, then all."""
    parts = ramped([3e6] * 40)

    assert parts[:15] == pytest.approx([0.5] * 15, abs=0.02)
    assert fmean(parts[18:30]) == pytest.approx(0.75, abs=0.02)
    assert parts[33:] == pytest.approx([1.0] * 7, abs=0.02)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(1, 2e6)), min_size=1, max_size=60))
def test_no_minute_has_more_than_the_ramp_allows(given: list[Offer]) -> None:
    """In the first quarter of an hour no 60 seconds have more than 1.5 million, and a told wait is enough."""
    ramp = Ramp()
    now = 0.0
    passed: list[Offer] = []
    for gap, tokens in given:
        now = min(899.0, now + gap)
        wait = ramp.offer(tokens, now)
        if 0 < wait <= 899 - now:
            now += wait
            wait = ramp.offer(tokens, now)
            assert wait == 0
        if wait == 0:
            passed.append((now, tokens))

    for first, _ in passed:
        assert sum(tokens for at, tokens in passed if first <= at < first + 59.999) <= 1.5e6 + 1e-3


@given(st.floats(1, 64))
def test_throughput_is_highest_at_the_peak(peak: float) -> None:
    """n at once over the time that they stretch is largest for the whole numbers beside the peak, and falls beyond."""
    capacity = Capacity(contention_peak=peak)
    throughput = {n: n / capacity.stretch(n) for n in range(1, 200)}

    best = max(throughput, key=throughput.__getitem__)
    assert best in (math.floor(peak), math.ceil(peak))
    beyond = [throughput[n] for n in range(math.ceil(peak), 200)]
    assert beyond == sorted(beyond, reverse=True)


def test_latency_is_spread_around_its_median() -> None:
    """The median is the median, a twentieth takes 20 times as long, and tokens cost time."""
    rng = Random(3)
    latency = Latency(median=0.5, sigma=0.2, per_token=0.001, tail_share=0.05)

    drawn = [latency.draw(100, rng) for _ in range(20_000)]

    assert median(drawn) == pytest.approx(0.6, rel=0.03)
    assert sum(seconds > 4 for seconds in drawn) / len(drawn) == pytest.approx(0.05, abs=0.01)
    assert Latency(median=0.5, sigma=0.0).draw(1, rng) == 0.5


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=20, unique=True), st.integers(4, 40))
def test_vectors_tell_inputs_apart(inputs: list[bytes], dimensions: int) -> None:
    """Each input has its own vector of length 1, bit by bit the same whatever it stands beside."""
    vectors = vectors_of(inputs, dimensions)

    assert vectors.shape == (len(inputs), dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert len({vector.tobytes() for vector in vectors}) == len(inputs)
    for item, vector in zip(inputs, vectors, strict=True):
        np.testing.assert_array_equal(vectors_of([item], dimensions)[0], vector)


@given(offers, windows, st.floats(0.1, 10))
def test_both_styles_begin_full(given: list[Offer], window: float, share: float) -> None:
    """At time 0 what a window holds is granted at once, and not more."""
    for rule in (FillingBucket(share * window, share), FixedWindow(share * window, window)):
        assert rule.wait(share * window, 0.0) == 0
        assert rule.wait(share * window * 1.01 + 1e-5, 0.0) == math.inf


@pytest.mark.parametrize(
    "make",
    [
        lambda: Quota(tokens_per_minute=0),
        lambda: Quota(window=-1),
        lambda: Quota(noise=1),
        lambda: Quota(style="sliding"),  # type: ignore[arg-type]
        lambda: OtherClient(start=2, end=1, tokens_per_minute=1),
        lambda: OtherClient(start=0, end=1, tokens_per_minute=0),
        lambda: OtherClient(start=0, end=1, tokens_per_minute=-1),
        lambda: Latency(median=-1),
        lambda: Latency(tail_share=2),
        lambda: Capacity(workers=0),
        lambda: Capacity(status=500),  # type: ignore[arg-type]
        lambda: Outage(start=2, end=1),
        lambda: Outage(start=0, end=1, kind="502"),  # type: ignore[arg-type]
    ],
)
def test_a_rule_that_cannot_hold_is_refused(make: Callable[[], object]) -> None:
    """What makes no sense is said when it is made."""
    with pytest.raises(ConfigurationError, match="expected"):
        make()
