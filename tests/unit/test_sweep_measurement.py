"""What came back at a point, and what a sweep makes of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch import (
    AttemptTimeoutError,
    AuthenticationError,
    ConnectionFailedError,
    ConnectionLostError,
    DimensionsError,
    MalformedReplyError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestError,
    RequestRefusedError,
    ServerError,
)
from embedbatch.sweep import Point
from embedbatch.sweep.measurement import Answer, Fault, Log, Trouble, name_trouble, percentile, summarize


def replies(*times: float, seconds: float = 1.0, inputs: int = 1, tokens: int | None = 5) -> list[Answer]:
    """Good replies at these *times*, each after so many *seconds*."""
    return [Answer(time - seconds, time, inputs, tokens) for time in times]


def test_rates_are_what_came_back_in_the_time_it_took() -> None:
    """Two places, and every second a reply of 4 inputs and 20 tokens at each: 8 inputs/s, 40 tokens/s, 2 in flight."""
    log = Log(replies(11, 11, 12, 12, 13, 13, inputs=4, tokens=20))

    result = summarize(Point(4, 2), log, 10.0, cpu=1.5)

    assert (result.requests, result.inputs, result.tokens, result.seconds) == (6, 24, 120, 3)
    assert result.inputs_per_second == pytest.approx(8)
    assert result.requests_per_second == pytest.approx(2)
    assert result.tokens_per_second == pytest.approx(40)
    assert result.in_flight == pytest.approx(2)
    assert result.cpu == pytest.approx(0.5)
    assert result.is_good


def test_a_straggler_at_the_end_does_not_count_against_the_rate() -> None:
    """The last of 8 replies takes 7 s more than the others: 7 in 2 s is the rate, and p99 tells of the eighth."""
    log = Log([*replies(1, 1, 1, 1, 2, 2, 2), Answer(1.0, 9.0, 1, 5)])

    result = summarize(Point(1, 4), log, 0.0)

    assert result.inputs_per_second == pytest.approx(3.5)
    assert result.in_flight == pytest.approx(4), "until then it was in flight too"
    assert (result.p50, result.p99) == (1, 8)


def test_a_slow_reply_in_the_middle_counts() -> None:
    """With one in flight nothing is left out: 4 replies in 8 s are 0.5/s."""
    log = Log([*replies(1, 2), Answer(2.0, 7.0, 1, 5), *replies(8)])

    assert summarize(Point(1, 1), log, 0.0).inputs_per_second == pytest.approx(0.5)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=50), st.integers(1, 16))
def test_the_rate_is_at_least_that_of_everything(times: list[float], in_flight: int) -> None:
    """What is left out at the end can only be slower; never more than half, nor more than the places but one."""
    result = summarize(Point(1, in_flight), Log(replies(*times, seconds=0.01)), 0.0)

    kept = round(result.inputs_per_second * result.seconds)
    assert result.inputs_per_second >= len(times) / max(times) * (1 - 1e-9)
    assert kept >= max(len(times) / 2, len(times) - in_flight + 1)
    assert result.p50 <= result.p90 <= result.p99


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values(values: list[float], share: float) -> None:
    """It is a value that was seen; at least that share of the values is no larger."""
    ascending = sorted(values)

    value = percentile(ascending, share)

    assert value in values
    assert sum(each <= value for each in values) >= share * len(values) - 1e-6


def test_of_nothing_nothing_is_known() -> None:
    """A point without a reply has no latency, no rate, and is not good."""
    result = summarize(Point(1, 1), Log(), 0.0, cpu=1.0)

    assert math.isnan(result.p50)
    assert (result.inputs_per_second, result.tokens_per_second, result.tokens, result.cpu) == (0, None, None, None)
    assert not result.is_good


def test_replies_that_take_no_time_have_no_rate() -> None:
    """A clock that stood still is no reason to divide by zero."""
    assert summarize(Point(1, 1), Log(replies(0, 0, seconds=0)), 0.0).inputs_per_second == 0


def test_tokens_that_nobody_counted_are_not_made_up() -> None:
    """One reply without usage, and the tokens of the point are not known."""
    log = Log([*replies(1, 2), *replies(3, tokens=None)])

    result = summarize(Point(1, 1), log, 0.0)

    assert (result.tokens, result.tokens_per_second) == (None, None)


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (AuthenticationError("no", status=401), Trouble.FATAL),
        (ModelNotFoundError("no", status=404), Trouble.FATAL),
        (QuotaExhaustedError("no", status=429), Trouble.FATAL),
        (DimensionsError("no", status=200), Trouble.FATAL),
        (RateLimitedError("no", status=429), Trouble.LIMIT),
        (AttemptTimeoutError("no"), Trouble.LIMIT),
        (ServerError("no", status=503), Trouble.LIMIT),
        (ServerError("no", status=529), Trouble.LIMIT),
        (ServerError("no", status=500), Trouble.ACCIDENT),
        (ConnectionLostError("no"), Trouble.ACCIDENT),
        (MalformedReplyError("no", status=200), Trouble.ACCIDENT),
        (RequestRefusedError("no", status=400), Trouble.SIZE),
    ],
    ids=lambda it: f"{type(it).__name__} {it.status}" if isinstance(it, RequestError) else it.name,
)
def test_an_error_has_a_meaning(error: RequestError, trouble: Trouble) -> None:
    """What ends the sweep, what is too much, what is too large, and what may happen."""
    assert name_trouble(error) is trouble


@pytest.mark.parametrize(
    ("errors", "over"),
    [
        ([], False),
        ([ServerError("no", status=500)] * 2, False),
        ([ServerError("no", status=500)] * 3, True),
        ([RateLimitedError("no", status=429)], True),
        ([RequestRefusedError("no", status=400)], True),
    ],
)
def test_a_point_is_over_when_more_requests_would_not_help(errors: list[RequestError], over: bool) -> None:
    """At the first refusal, and at the third accident."""
    log = Log(replies(1, 2, 3), [Fault(error) for error in errors])

    assert log.is_over is over
    assert summarize(Point(1, 1), log, 0.0).is_good is not over


def test_a_log_tells_the_longest_pause_and_the_first_reason() -> None:
    """Each place may be told another time."""
    faults = [Fault(RateLimitedError("slow down", status=429), pause) for pause in (0.0, 7.0, 2.0)]
    log = Log(faults=faults)

    assert log.pause == 7
    assert log.first(Trouble.LIMIT) is faults[0].error
    assert log.first(Trouble.FATAL) is None
    assert summarize(Point(1, 1), log, 0.0).reason == "slow down"


@pytest.mark.parametrize(
    ("error", "free"),
    [
        (ConnectionFailedError("no"), True),
        (RateLimitedError("no", status=429), True),
        (ServerError("no", status=500), False),
        (ConnectionLostError("no"), False),
    ],
)
def test_what_was_never_worked_on_costs_no_tokens(error: RequestError, free: bool) -> None:
    """A refusal is free; in doubt the most is counted."""
    assert Fault(error).was_free is free
