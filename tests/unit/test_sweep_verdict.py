"""The knee, and the settings that a sweep recommends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.sweep import Grid, Measurement, Point, Quota, Verdict, is_bound, sustained
from embedbatch.sweep.verdict import ENOUGH, find_best, find_knee, judge

from .sweeping import PLACES, SIZES, measured, measurements, rates

NO_QUOTA = Quota()
GRID = Grid(SIZES, PLACES)
quotas = st.builds(Quota, rates, rates, rates)


def verdict_on(*measurements: Measurement, quota: Quota = NO_QUOTA, over_budget: tuple[Point, ...] = ()) -> Verdict:
    """What these say; something worked."""
    verdict = judge(measurements, quota, GRID, over_budget)
    assert verdict is not None
    return verdict


@given(measurements(), quotas)
def test_the_recommendation_is_one_of_the_measured_points(measurements: list[Measurement], quota: Quota) -> None:
    """Knee and best were measured, and the settings are those of the knee."""
    verdict = verdict_on(*measurements, quota=quota)

    assert verdict.knee in measurements
    assert verdict.best in measurements
    assert verdict.limits.max_batch_inputs == verdict.knee.point.batch_inputs
    assert verdict.limits.max_concurrent_requests == verdict.knee.point.in_flight


@given(measurements())
def test_the_knee_has_nearly_the_best_throughput_with_the_fewest_in_flight(measurements: list[Measurement]) -> None:
    """At least 90 % of the best; whatever has fewer in flight has less; with as few, none of those is quicker."""
    knee, best = find_knee(measurements, NO_QUOTA), find_best(measurements)

    enough = [each for each in measurements if each.inputs_per_second >= ENOUGH * best.inputs_per_second]
    assert knee in enough
    assert all(each.point.in_flight >= knee.point.in_flight for each in enough)
    assert all(each.p50 >= knee.p50 for each in enough if each.point.in_flight == knee.point.in_flight)


@given(measurements(), quotas)
def test_the_quota_bounds_what_is_sustained(measurements: list[Measurement], quota: Quota) -> None:
    """Never more than was measured, nor than the quota's requests and tokens: 10 tokens an input."""
    for each in measurements:
        rate = sustained(each, quota)
        assert rate <= each.inputs_per_second
        assert rate <= quota.requests_per_second * each.point.batch_inputs * (1 + 1e-9)
        assert rate <= quota.tokens_per_second / 10 * (1 + 1e-9)
        assert is_bound(each, quota) == (rate < each.inputs_per_second)


@given(measurements(), st.randoms(use_true_random=False))
def test_the_order_of_measuring_does_not_matter(measurements: list[Measurement], dice: object) -> None:
    """The knee of the same points is the same."""
    shuffled = list(measurements)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]

    assert find_knee(shuffled, NO_QUOTA).p50 == find_knee(measurements, NO_QUOTA).p50
    assert find_knee(shuffled, NO_QUOTA).point.in_flight == find_knee(measurements, NO_QUOTA).point.in_flight


def test_more_in_flight_for_little_more_throughput_is_not_worth_it() -> None:
    """100, 190, 200, 205 with 1, 2, 4 and 8 in flight: the knee is at 2, which has 93 % of the best."""
    row = [measured(64, 1, 100), measured(64, 2, 190), measured(64, 4, 200), measured(64, 8, 205)]

    verdict = verdict_on(*row)

    assert (verdict.best.point, verdict.knee.point) == (Point(64, 8), Point(64, 2))


def test_of_batches_that_do_as_well_the_quickest_is_taken() -> None:
    """With one in flight 16 inputs are as good as 256, and come back sooner."""
    verdict = verdict_on(measured(16, 1, 95, p50=0.2), measured(256, 1, 100, p50=2.5))

    assert verdict.knee.point == Point(16, 1)


def test_what_was_refused_is_not_recommended() -> None:
    """However fast it was: there the endpoint says no. Where nothing worked there is nothing to say."""
    refused, good = measured(64, 8, 1_000, refusals=1), measured(64, 4, 500)

    assert verdict_on(refused, good).best is good
    assert judge([refused], NO_QUOTA, GRID) is None
    assert judge([], NO_QUOTA, GRID) is None


def test_with_a_quota_the_knee_is_where_it_is_used_up() -> None:
    """A quota of 1,000 tokens a second is 100 of these inputs: 8 in flight are not needed for that."""
    row = [measured(16, 1, 60), measured(16, 2, 120), measured(16, 8, 480)]

    verdict = verdict_on(*row, quota=Quota(tokens_per_second=1_000))

    assert (verdict.best.point, verdict.knee.point) == (Point(16, 8), Point(16, 2))
    assert "grants 100 of these inputs a second" in verdict.notes[0]


def test_batches_that_the_quota_cuts_are_not_recommended() -> None:
    """Where an embedder puts 500 tokens into a request, one of 2,560 would not be sent like that."""
    row = [measured(16, 4, 100), measured(256, 1, 900)]

    verdict = verdict_on(*row, quota=Quota(tokens_per_second=1_000, tokens_per_request=500))

    assert verdict.knee.point == Point(16, 4)
    assert "at most 500 tokens into a request" in verdict.notes[1]


def test_a_rise_at_the_edge_is_told() -> None:
    """At the end of an axis, and where the budget ended; not where throughput was flat already."""
    rising = verdict_on(measured(256, 4, 100), measured(256, 8, 200), over_budget=(Point(256, 16),))
    flat = verdict_on(measured(64, 16, 195), measured(64, 32, 200), measured(16, 32, 190))

    assert rising.notes == (
        "Throughput still rose when the budget ended: 256 × 16 was not tried.",
        "Throughput still rose at the end of --batch-sizes. Try larger ones.",
    )
    assert flat.notes == ()


@pytest.mark.parametrize(("cpu", "noted"), [(None, False), (0.5, False), (0.95, True)])
def test_a_busy_client_is_told(cpu: float | None, noted: bool) -> None:
    """Where this process used a whole core, the endpoint was not what was measured."""
    notes = verdict_on(measured(16, 4, 100, cpu=cpu), measured(16, 8, 100)).notes

    assert any("of a core" in note for note in notes) is noted
