"""Which point is measured next, and with how many requests. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from .measurement import Measurement
from .points import Budget, Grid, Point

LEAST = 8  # requests at a point, and
LEAST_EACH = 2  # for every place: with one each, the second half would be measured with empty places
MOST_TIMES = 3  # as many where the budget allows it
SPARE = 0.05  # of what is left goes into more requests at a point, while other points are left out
RISE = 1.1  # times the throughput is worth going on
STALE = 2  # points in a row without such a rise end an axis: one alone may have met a slow reply
PATIENCE = 60.0  # seconds: a longer pause ends the sweep
MOST_LIMITED = 3  # points that were too much: then it is not the point that matters


class Reason(Enum):
    """Why a point is not measured."""

    FLAT = "throughput no longer rose"
    LIMITED = "a smaller point was refused or failed"
    SIZE = "a request of this size is not taken"
    BUDGET = "the budget does not allow it"
    ENDED = "the sweep ended before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """
    What requests cost: *expected* tokens an input, and the *bound* it can never exceed.

    The first request of a place opens its connection, the first of a batch size meets a server that is not used to
    it: both are sent, and not measured. *open_places* and *known_sizes* have had theirs.
    """

    expected: float
    bound: float
    open_places: int = 0
    known_sizes: Collection[int] = ()

    def cost(self, allotment: Mapping[Point, int]) -> tuple[int, float]:
        """The requests and tokens that so many requests at these points take, what is not measured included."""
        if not allotment:
            return 0, 0.0
        opened = max(0, max(point.in_flight for point in allotment) - self.open_places)
        new_sizes = {point.batch_inputs for point in allotment} - set(self.known_sizes)
        requests = sum(allotment.values()) + opened + len(new_sizes)
        inputs = sum(requests * point.batch_inputs for point, requests in allotment.items())
        # What is in flight counts with its bound; it is settled before the next point.
        in_flight = max(point.load for point in allotment)
        tokens = (inputs + opened + sum(new_sizes)) * self.expected
        return requests, tokens + in_flight * max(0.0, self.bound - self.expected)

    def fit(self, allotment: Mapping[Point, int], left: Budget) -> bool:
        """True if *left* is enough for *allotment*."""
        requests, tokens = self.cost(allotment)
        return requests <= left.max_requests and tokens <= left.max_tokens


def allot(points: Sequence[Point], left: Budget, prices: Prices) -> dict[Point, int]:
    """
    How many requests each of *points* gets, so that all fit in what is *left*; cheap points first.

    Where not all fit, the costliest are left out, and most of what is over is kept for them: some of the others may
    turn out not to be needed. Otherwise it goes into more requests at each, at first at the cheap ones.
    """
    order = sorted(points, key=lambda point: (least(point) * point.batch_inputs, point.in_flight))
    allotment = {point: least(point) for point in order}
    while allotment and not prices.fit(allotment, left):
        allotment.popitem()
    if len(allotment) < len(order):
        requests, tokens = prices.cost(allotment)
        left = Budget(
            max_requests=min(left.max_requests, requests + int(SPARE * left.max_requests)),
            max_tokens=min(left.max_tokens, math.ceil(tokens) + int(SPARE * left.max_tokens)),
        )
    for times in range(2, MOST_TIMES + 1):
        for point in allotment:
            more = {**allotment, point: times * least(point)}
            if prices.fit(more, left):
                allotment = more
    return allotment


def least(point: Point) -> int:
    """The requests that a point needs."""
    return max(LEAST, LEAST_EACH * point.in_flight)


def most(points: Collection[Point]) -> dict[Point, int]:
    """As many requests as each of *points* may get."""
    return {point: MOST_TIMES * least(point) for point in points}


def reasons(grid: Grid, measured: Mapping[Point, Measurement], refused_sizes: Collection[int]) -> dict[Point, Reason]:
    """The points of *grid* that need not be measured, and why. *refused_sizes* are too large for one request."""
    found = {}
    for point in grid.points():
        if point not in measured and (reason := _reason(point, measured, refused_sizes)):
            found[point] = reason
    return found


def open_points(grid: Grid, measured: Mapping[Point, Measurement], refused_sizes: Collection[int]) -> list[Point]:
    """The points of *grid* that are worth measuring."""
    closed = reasons(grid, measured, refused_sizes)
    return [point for point in grid.points() if point not in measured and point not in closed]


def _reason(point: Point, measured: Mapping[Point, Measurement], refused_sizes: Collection[int]) -> Reason | None:
    sizes = [*refused_sizes, *(each.point.batch_inputs for each in measured.values() if each.is_size_refused)]
    if any(size <= point.batch_inputs for size in sizes):
        return Reason.SIZE
    if any(each.point.is_within(point) for each in measured.values() if not each.is_good):
        return Reason.LIMITED
    good = sorted((each.point, each.inputs_per_second) for each in measured.values() if each.is_good)
    row = [rate for at, rate in good if at.batch_inputs == point.batch_inputs and at.in_flight < point.in_flight]
    column = [rate for at, rate in good if at.in_flight == point.in_flight and at.batch_inputs < point.batch_inputs]
    return Reason.FLAT if is_flat(row) or is_flat(column) else None


def why_to_end(measured: Sequence[Measurement], pause: float) -> str | None:
    """Why to end, after these points and a *pause*, in seconds, that was asked for at the last; ``None`` to go on."""
    limited = [each for each in measured if each.refusals]
    if len(limited) >= MOST_LIMITED:
        return f"{len(limited)} points were too much for the endpoint: {limited[-1].reason}"
    return f"the endpoint asked for a pause of {pause:,.0f} s" if pause > PATIENCE else None


def is_flat(rates: Sequence[float]) -> bool:
    """True if the last of the *rates* along an axis are no rise over those before."""
    return len(rates) > STALE and max(rates[-STALE:]) < RISE * max(rates[:-STALE])
