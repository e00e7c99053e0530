"""Which point a sweep measures next, and with how many requests."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from embedbatch import ConfigurationError
from embedbatch.sweep import Budget, Grid, Point, Reason
from embedbatch.sweep.ledger import Ledger
from embedbatch.sweep.plan import (
    LEAST,
    LEAST_EACH,
    MOST_LIMITED,
    MOST_TIMES,
    PATIENCE,
    RISE,
    Prices,
    allot,
    is_flat,
    least,
    open_points,
    reasons,
    why_to_end,
)

from .sweeping import PLACES, SIZES, grids, measured, rates

budgets = st.builds(Budget, max_requests=st.integers(0, 5_000), max_tokens=st.integers(0, 5_000_000))
prices = st.builds(
    lambda expected, more, places: Prices(expected=expected, bound=expected + more, open_places=places),
    st.floats(0.1, 300),
    st.floats(0, 300),
    st.integers(0, 32),
)


@given(grids, budgets, prices)
def test_what_is_planned_fits_into_the_budget(grid: Grid, left: Budget, prices: Prices) -> None:
    """All requests and tokens of a plan together, what is not measured included, are within what is left."""
    allotment = allot(grid.points(), left, prices)

    requests, tokens = prices.cost(allotment)
    assert requests <= left.max_requests
    assert tokens <= left.max_tokens


@given(grids, budgets, prices)
def test_a_point_gets_enough_requests_or_none(grid: Grid, left: Budget, prices: Prices) -> None:
    """At least 8, and 2 for every place; at most three times as many. Every place is used."""
    for point, requests in allot(grid.points(), left, prices).items():
        assert max(LEAST, LEAST_EACH * point.in_flight) == least(point) <= requests <= MOST_TIMES * least(point)
        assert requests >= point.in_flight


@given(grids, budgets, prices)
def test_the_costliest_points_are_left_out(grid: Grid, left: Budget, prices: Prices) -> None:
    """No point that is planned sends more inputs than one that is not."""
    allotment = allot(grid.points(), left, prices)

    inputs = {point: least(point) * point.batch_inputs for point in grid.points()}
    rest = [inputs[point] for point in inputs if point not in allotment]
    if allotment and rest:
        assert max(inputs[point] for point in allotment) <= min(rest)


@given(grids, prices)
def test_with_enough_of_everything_all_points_get_the_most(grid: Grid, prices: Prices) -> None:
    """Where nothing is short, every point has three times the least."""
    plenty = Budget(max_requests=10**9, max_tokens=10**12)

    assert allot(grid.points(), plenty, prices) == {point: MOST_TIMES * least(point) for point in grid.points()}


def test_what_is_in_flight_counts_with_the_most_it_can_cost() -> None:
    """8 requests of 4 inputs at 1 token, one to open each of 2 places, one for the size; 8 inputs in flight at 5."""
    prices = Prices(expected=1, bound=5)

    assert prices.cost({Point(4, 2): 8}) == (8 + 2 + 1, (32 + 2 + 4) * 1 + 8 * (5 - 1))
    assert prices.cost({}) == (0, 0)


def test_what_is_over_goes_to_cheap_points_first() -> None:
    """With requests for one point more than the least, the one that costs fewer tokens gets them."""
    points = [Point(64, 1), Point(1, 1)]

    allotment = allot(points, Budget(max_requests=27, max_tokens=10**6), Prices(expected=1, bound=1))

    assert allotment == {Point(1, 1): 16, Point(64, 1): 8}, "and one to open the place, one for each size"


def test_a_grid_is_walked_from_cheap_to_dear() -> None:
    """By inputs in flight: a limit is met where it costs little."""
    grid = Grid((16, 1), (4, 1))

    assert grid.points() == [Point(1, 1), Point(1, 4), Point(16, 1), Point(16, 4)]


@pytest.mark.parametrize("axis", [(), (0,), (-1, 2)])
def test_a_grid_has_numbers_of_at_least_one(axis: tuple[int, ...]) -> None:
    """Anything else is refused with its name."""
    with pytest.raises(ConfigurationError, match=r"batch_inputs: expected numbers of at least 1, got"):
        Grid(axis, (1,))
    with pytest.raises(ConfigurationError, match=r"in_flight: expected numbers of at least 1 and at most 1,000, got"):
        Grid((1,), axis)


@pytest.mark.parametrize(
    ("rates", "flat"),
    [
        ([], False),
        ([10, 10], False),
        ([10, 10, 10], True),
        ([10, 10, 11.1], False),
        ([10, 20, 40, 42], False),
        ([10, 20, 40, 42, 43], True),
        ([10, 40, 20, 41], True),
    ],
)
def test_two_points_without_a_rise_end_an_axis(rates: list[float], flat: bool) -> None:
    """One may have met a slow reply; two in a row that do not bring a tenth more end it."""
    assert is_flat(rates) is flat


@given(st.lists(rates, min_size=1, max_size=8))
def test_an_axis_that_rises_goes_on(rates: list[float]) -> None:
    """If the last point is a tenth above all before it, the next is worth measuring."""
    assume(len(rates) < 2 or rates[-1] >= RISE * max(rates[:-1]))

    assert not is_flat(rates)


def test_a_flat_axis_is_not_followed_further() -> None:
    """Rows and columns end by themselves: others go on."""
    grid = Grid((1, 4), PLACES)
    known = [measured(1, 1, 10), measured(1, 2, 10), measured(1, 4, 10), measured(4, 1, 40)]

    rest = open_points(grid, {each.point: each for each in known}, ())

    assert [point for point in rest if point.batch_inputs == 1] == []
    assert {point.in_flight for point in rest} == {2, 4, 8, 16, 32}


def test_larger_batches_that_bring_nothing_are_not_followed_further() -> None:
    """With one in flight 1, 4 and 16 inputs are as fast: 64 are not tried with one, but with two in flight."""
    known = [measured(1, 1, 10), measured(4, 1, 10), measured(16, 1, 10)]

    closed = reasons(Grid((1, 4, 16, 64), (1, 2)), {each.point: each for each in known}, ())

    assert closed == {Point(64, 1): Reason.FLAT}


@given(st.sampled_from(SIZES), st.sampled_from(PLACES), st.booleans())
def test_nothing_above_a_failed_point_is_tried(batch_inputs: int, in_flight: int, refused: bool) -> None:
    """Whether it was too much or did not work: a point with as many of both would fail too. Others may not."""
    failed = measured(batch_inputs, in_flight, refusals=1) if refused else measured(batch_inputs, in_flight, errors=3)

    closed = reasons(Grid(SIZES, PLACES), {failed.point: failed}, ())

    above = {Point(size, places) for size in SIZES for places in PLACES if size >= batch_inputs and places >= in_flight}
    assert closed == dict.fromkeys(above - {failed.point}, Reason.LIMITED)


def test_a_size_that_is_refused_ends_the_sizes() -> None:
    """With however many in flight, and the larger ones too."""
    refused = measured(64, 2, requests=0, is_size_refused=True)

    closed = reasons(Grid(SIZES, (1, 2)), {refused.point: refused}, [256])

    assert closed == dict.fromkeys([Point(64, 1), Point(256, 1), Point(256, 2)], Reason.SIZE)


@given(
    st.integers(0, 20),
    st.integers(0, 1_000),
    st.lists(st.tuples(st.booleans(), st.integers(1, 300), st.none() | st.floats(0, 1), st.floats(0, 1)), max_size=60),
)
def test_no_order_of_events_passes_the_budget(
    max_requests: int, max_tokens: int, steps: list[tuple[bool, int, float | None, float]]
) -> None:
    """If what the ledger refuses is not sent, requests and tokens stay within the budget, whatever comes back when."""
    ledger = Ledger(Budget(max_requests=max_requests, max_tokens=max_tokens))
    in_flight: list[int] = []
    sent = 0
    for sends, bound, share, which in steps:
        if sends and ledger.take(bound):
            in_flight.append(bound)
            sent += 1
        elif in_flight:
            bound = in_flight.pop(int(which * (len(in_flight) - 1)))
            ledger.settle(bound, None if share is None else int(share * bound), inputs=1)
        assert ledger.requests == sent <= max_requests
        assert ledger.tokens + sum(in_flight) <= max_tokens
        assert ledger.left.max_requests == max_requests - sent


def test_a_sweep_ends_when_the_points_do_not_matter() -> None:
    """Three points were refused as too much: it says so in the words of the last. Two may be too large themselves."""
    good = measured(1, 1)
    refused = [measured(4, 2**n, refusals=1, reason=f"429 at {2**n}") for n in range(MOST_LIMITED)]

    assert why_to_end([good, *refused], 0.0) == "3 points were too much for the endpoint: 429 at 4"
    assert why_to_end([good, *refused[1:]], 0.0) is None


def test_a_sweep_waits_for_a_pause_unless_it_is_long() -> None:
    """Up to a minute; what is longer ends it, and is told."""
    assert why_to_end([], PATIENCE) is None
    assert why_to_end([], PATIENCE + 30) == "the endpoint asked for a pause of 90 s"


def test_the_ledger_learns_what_an_input_costs() -> None:
    """From usage alone: a request that nobody counted says nothing, and costs the most it can."""
    ledger = Ledger(Budget(max_requests=9, max_tokens=1_000))
    ledger.take(200)
    ledger.settle(200, None, inputs=4)
    assert ledger.tokens_per_input is None

    ledger.take(200)
    ledger.settle(200, 60, inputs=4)

    assert (ledger.tokens, ledger.tokens_per_input) == (260, 15)
