"""Whether requests or tokens are too many shows in what was granted from one refusal to the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.blame import ENOUGH, FEW_TOKENS, SPAN, SPANS, Blame
from embedbatch.wire.quota import Resource

rates = st.floats(0.1, 1_000)  # a second
seconds = st.floats(SPAN, 600)
spans = st.tuples(st.integers(ENOUGH, 500), st.floats(1, 100_000))  # requests, and tokens in each


def go(rule: Blame, now: float, requests: int, tokens: float, seconds: float) -> tuple[float, Resource]:
    """Let that many requests be granted in that time, and the next be refused."""
    for _ in range(requests):
        rule.grant(tokens)
    return now + seconds, rule.refuse(tokens, now + seconds)


@given(st.floats(0, 1e6), st.floats(0, 1e9))
def test_at_first_a_small_request_is_one_too_many_and_a_large_one_too_large(tokens: float, now: float) -> None:
    """By its size, as long as nothing was compared."""
    rule = Blame()

    assert rule.refuse(tokens, now) == ("requests" if tokens < FEW_TOKENS else "tokens")
    assert not rule.is_sure


@given(st.integers(ENOUGH, 300), st.lists(st.tuples(st.floats(1, 1e5), seconds), min_size=1, max_size=SPANS - 2))
def test_as_many_requests_as_ever_and_far_fewer_tokens(requests: int, between: list[tuple[float, float]]) -> None:
    """A server that grants so many requests a minute, of whatever size: found when the sizes differ by half."""
    rule, now = Blame(), 0.0
    rule.refuse(1_000, now)
    for size, lasted in [*between, (2e5, 120.0), (1e5, 120.0)]:
        now, blamed = go(rule, now, round(requests * lasted / SPAN), size, lasted)

    assert blamed == "requests"
    assert rule.is_sure


@given(st.floats(10_000, 1e7), st.lists(st.tuples(st.floats(10, 1_000), seconds), max_size=SPANS - 2))
def test_as_many_tokens_as_ever_and_far_fewer_requests(tokens: float, between: list[tuple[float, float]]) -> None:
    """A server that grants so many tokens a minute, in requests of whatever size: found when the sizes double."""
    rule, now = Blame(), 0.0
    rule.refuse(100, now)
    for size, lasted in [*between, (5.0, 120.0), (50.0, 120.0)]:
        requests = max(ENOUGH, round(tokens / 1_000 * lasted / SPAN / size))
        now, blamed = go(rule, now, requests, tokens * lasted / SPAN / requests, lasted)

    assert blamed == "tokens"


@given(st.lists(st.tuples(spans, st.floats(0.1, SPAN - 1)), max_size=20), st.floats(1, 1e6))
def test_less_than_a_minute_is_not_compared(between: list[tuple[tuple[int, float], float]], tokens: float) -> None:
    """Refusals within one minute of the first say nothing, whatever was granted between them."""
    rule = Blame()
    rule.refuse(1.0, 0.0)
    for (requests, size), now in between:
        for _ in range(requests):
            rule.grant(size)
        assert rule.refuse(tokens, now) == ("requests" if tokens < FEW_TOKENS else "tokens")
    assert not rule.is_sure


@given(st.lists(st.tuples(st.integers(0, ENOUGH - 1), st.floats(1, 1e6), seconds), max_size=20))
def test_a_few_requests_are_not_compared(between: list[tuple[int, float, float]]) -> None:
    """A span goes on until it has four."""
    rule, now, count = Blame(), 0.0, 0
    rule.refuse(1.0, now)
    for requests, size, lasted in between:
        count += requests
        if count >= ENOUGH:
            break
        now, _ = go(rule, now, requests, size, lasted)
    assert not rule.is_sure


@given(spans, st.lists(seconds, max_size=20))
def test_what_never_changes_shows_nothing(span: tuple[int, float], between: list[float]) -> None:
    """Requests of one size at one rate: both are as many as ever."""
    rule, now = Blame(), 0.0
    rule.refuse(1.0, now)
    for lasted in between:
        now, blamed = go(rule, now, *span, lasted)
        assert blamed == ("requests" if span[1] < FEW_TOKENS else "tokens")
    assert not rule.is_sure


@pytest.mark.parametrize("size", [10.0, 10_000.0])
def test_what_was_found_holds_until_the_contrary_shows(size: float) -> None:
    """Half as much of both is somebody else's doing; fewer requests with as many tokens as ever is another limit."""
    rule, now = Blame(), 0.0
    rule.refuse(1.0, now)
    for requests, tokens in ((100, 1_000.0), (100, 100.0), (50, 500.0)):
        now, blamed = go(rule, now, requests, tokens, SPAN)
    assert blamed == "requests"
    assert rule.refuse(size, now + 1) == "requests"

    now, blamed = go(rule, now, 10, 10_000.0, SPAN)
    assert blamed == "tokens"


def test_no_tokens_at_all_are_no_error() -> None:
    """An endpoint that counts none is compared by its requests."""
    rule, now = Blame(), 0.0
    rule.refuse(0.0, now)
    for requests in (10, 100):
        now, blamed = go(rule, now, requests, 0.0, SPAN)

    assert blamed == "requests"
