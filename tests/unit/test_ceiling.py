"""The rate that refusals leave: below what was refused, back to it along a cubic, and on."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.ceiling import DOUBLING, FIRST_CUT, FIRST_CUT_BLIND, MAX_CUT, MAX_PLATEAU, PLATEAU, Ceiling

rates = st.floats(1e-3, 1e9)
moments = st.floats(0, 1e9)
gaps = st.floats(1e-3, 600)


def plateau(rule: Ceiling, refused: float, now: float) -> float:
    """The seconds from *now*, the moment of a cut, until *refused* is tried again: a power of two times a minute."""
    return next(
        seconds
        for seconds in (PLATEAU * 2.0**doublings for doublings in range(8))
        if rule.rate(now + seconds) >= refused * (1 - 1e-12)
    )


@given(moments)
def test_nothing_is_held_back_before_the_first_refusal(now: float) -> None:
    """Without a refusal the rate is infinite."""
    assert Ceiling().rate(now) == math.inf


@given(rates, moments, st.lists(st.floats(0, 1_000), min_size=2, max_size=20), st.booleans())
def test_after_a_cut_the_rate_comes_back_and_never_falls(
    rate: float, now: float, later: list[float], blind: bool
) -> None:
    """It starts below the refused rate by the cut, never falls by itself, and passes that rate only after a minute."""
    rule = Ceiling()
    assert rule.refuse(rate, now, now, blind=blind) is (now > -math.inf)
    assert rule.rate(now) == pytest.approx(rate * (1 - (FIRST_CUT_BLIND if blind else FIRST_CUT)))

    seen = [rule.rate(now + seconds) for seconds in sorted(later)]
    assert all(first <= second * (1 + 1e-9) for first, second in itertools.pairwise(seen))
    for seconds, found in zip(sorted(later), seen, strict=True):
        assert (found <= rate * (1 + 1e-9)) or now + seconds > now + PLATEAU


@given(rates, st.booleans())
def test_the_refused_rate_is_touched_at_the_end_of_the_plateau_and_doubled_later(rate: float, blind: bool) -> None:
    """A minute after the first cut the rate is the refused one, before it is less; 30 s later it is twice that."""
    rule = Ceiling()
    rule.refuse(rate, 10, 10, blind=blind)

    assert rule.rate(10 + PLATEAU * 0.9) < rate
    assert rule.rate(10 + PLATEAU) == pytest.approx(rate)
    assert rule.rate(10 + PLATEAU + 1) > rate
    assert rule.rate(10 + PLATEAU + DOUBLING) == pytest.approx(2 * rate)


@given(rates, st.lists(st.tuples(gaps, st.floats(0, 1_000)), max_size=20))
def test_what_was_sent_before_the_last_cut_says_nothing(rate: float, late: list[tuple[float, float]]) -> None:
    """Refusals that come later of requests that left before the cut, or with it, change nothing, however many."""
    rule, untouched = Ceiling(), Ceiling()
    for each in (rule, untouched):
        each.refuse(rate, 999, 1_000, blind=False)
    now = 1_000.0
    for gap, before in late:
        now += gap
        assert not rule.refuse(rule.rate(now), 1_000 - before, now, blind=False)
        assert rule.rate(now) == untouched.rate(now)


@given(rates, st.floats(0.01, 9.9), st.integers(2, 8))
def test_refusals_soon_after_cuts_cut_deeper_up_to_half(rate: float, gap: float, count: int) -> None:
    """Each refusal within ten seconds of a cut cuts twice as deep as that one, and none deeper than half."""
    rule = Ceiling()
    now, expected = 100.0, FIRST_CUT
    for _ in range(count):
        rule.refuse(rate, now, now, blind=False)
        assert rule.rate(now) == pytest.approx(rate * (1 - expected))
        rate = rule.rate(now)
        now += gap
        expected = min(MAX_CUT, 2 * expected)


@given(rates, st.floats(30, 500))
def test_a_limit_that_proves_the_same_again_is_tried_half_as_often(rate: float, after: float) -> None:
    """At the same rate, 1, 2, 4 and then always 8 minutes pass between a refusal and the next try."""
    rule = Ceiling()
    now, expected = 100.0, PLATEAU
    for _ in range(6):
        rule.refuse(rate, now, now, blind=False)
        assert plateau(rule, rate, now) == expected
        now += max(after, expected)
        expected = min(MAX_PLATEAU, 2 * expected)


def test_another_limit_is_tried_as_often_as_the_first() -> None:
    """When the rate is refused at half of what it was before, the next try is a minute later, not two."""
    rule = Ceiling()
    rule.refuse(100, 0, 0, blind=False)
    rule.refuse(50, 60, 60, blind=False)

    assert plateau(rule, 50, 60) == PLATEAU


def test_a_blind_cut_is_deep_only_once() -> None:
    """Where nobody named a limit the first cut is a guess; once a rate is known the cuts are small."""
    rule = Ceiling()
    rule.refuse(100, 0, 0, blind=True)
    rule.refuse(100, 60, 60, blind=True)

    assert rule.rate(60) == pytest.approx(97)


@given(rates, st.floats(0, 600))
def test_a_ceiling_can_be_lifted(rate: float, after: float) -> None:
    """Once it is lifted nothing is held back, until the next refusal."""
    rule = Ceiling()
    rule.refuse(rate, 0, 0, blind=False)
    assert rule.is_cut
    rule.lift()
    assert not rule.is_cut
    assert rule.rate(after) == math.inf

    assert rule.refuse(rate, after + 1, after + 1, blind=False)
    assert rule.rate(after + 1) < rate


@given(rates, st.lists(st.tuples(gaps, st.booleans(), st.floats(0, 20)), max_size=40))
def test_a_cut_is_never_below_half_of_the_rate_that_was_refused(
    rate: float, refusals: list[tuple[float, bool, float]]
) -> None:
    """Whatever is refused when, the rate is then at least half of the one before, and below it if that is news."""
    rule = Ceiling()
    now = 0.0
    for gap, blind, ago in refusals:
        now += gap
        before = min(rate, rule.rate(now))
        if rule.refuse(before, now - ago, now, blind=blind):
            assert before * (1 - MAX_CUT) * (1 - 1e-9) <= rule.rate(now) < before
        else:
            assert min(rate, rule.rate(now)) == before
