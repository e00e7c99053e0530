"""The knee, and the settings it recommends. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from ..settings import Limits
from .measurement import Measurement
from .plan import RISE
from .points import Grid, Point, Quota

ENOUGH = 0.9  # of the best throughput is as good as the best
_BUSY = 0.9  # of one core


@dataclass(frozen=True, slots=True)
class Verdict:
    """The point with the highest throughput, and the *knee*: where nearly as much is had with the least in flight."""

    best: Measurement
    knee: Measurement
    notes: tuple[str, ...]

    @property
    def limits(self) -> Limits:
        """The settings that are recommended."""
        point = self.knee.point
        return Limits(max_batch_inputs=point.batch_inputs, max_concurrent_requests=point.in_flight)


def sustained(measurement: Measurement, quota: Quota) -> float:
    """The inputs per second that a long run reaches: a sweep is short, and may go faster than the *quota*."""
    rate = min(measurement.inputs_per_second, quota.requests_per_second * measurement.point.batch_inputs)
    if measurement.tokens:
        rate = min(rate, quota.tokens_per_second * measurement.inputs / measurement.tokens)
    return rate


def is_bound(measurement: Measurement, quota: Quota) -> bool:
    """True if not the endpoint's speed is the limit, but the *quota*."""
    return sustained(measurement, quota) < measurement.inputs_per_second


def find_best(measurements: Sequence[Measurement]) -> Measurement:
    """The one with the highest throughput."""
    return max(measurements, key=lambda each: each.inputs_per_second)


def find_knee(measurements: Sequence[Measurement], quota: Quota) -> Measurement:
    """
    Of those with at least ENOUGH of the best throughput, the one with the fewest requests in flight.

    Throughput is what the quota sustains. Where several have as few in flight, it is the one with the lowest median
    latency, and then the smallest batch. Batches that an embedder would cut for the quota are not considered, if
    there are others.
    """
    usable = [each for each in measurements if _tokens(each) <= quota.tokens_per_request] or measurements
    enough = ENOUGH * max(sustained(each, quota) for each in usable)
    good = [each for each in usable if sustained(each, quota) >= enough]
    return min(good, key=lambda each: (each.point.in_flight, each.p50, each.point.batch_inputs))


def _tokens(measurement: Measurement) -> float:
    """Of one request."""
    return measurement.tokens / measurement.requests if measurement.tokens else 0.0


def judge(
    measured: Sequence[Measurement], quota: Quota, grid: Grid, over_budget: Collection[Point] = ()
) -> Verdict | None:
    """What *measured* says; ``None`` if nothing worked. *over_budget* are points that would have cost too much."""
    good = [each for each in measured if each.is_good and each.inputs_per_second > 0]
    if not good:
        return None
    best, knee = find_best(good), find_knee(good, quota)
    on_quota = tuple(_on_quota(best, quota))
    notes = (*(on_quota or _on_edges(best, good, grid, over_budget)), *_on_client(best))
    return Verdict(best, knee, notes)


def _on_quota(best: Measurement, quota: Quota) -> Iterator[str]:
    if is_bound(best, quota):
        yield (
            f"The endpoint tells of a quota: it grants {sustained(best, quota):,.0f} of these inputs a second, and "
            f"the best point went at {best.inputs_per_second:,.0f}. In a long run the quota is the limit; the knee is "
            "where it is reached."
        )
        if _tokens(best) > quota.tokens_per_request:
            yield f"To keep to it an embedder puts at most {quota.tokens_per_request:,.0f} tokens into a request."


def _on_edges(
    best: Measurement, good: Sequence[Measurement], grid: Grid, over_budget: Collection[Point]
) -> Iterator[str]:
    """Say along which axes throughput may rise further than was looked."""
    rates = {each.point: each.inputs_per_second for each in good}
    for flag, line in (
        ("--in-flight", [Point(best.point.batch_inputs, value) for value in grid.in_flight]),
        ("--batch-sizes", [Point(value, best.point.in_flight) for value in grid.batch_inputs]),
    ):
        at = line.index(best.point)
        before = max((rates.get(point, 0.0) for point in line[:at]), default=0.0)
        if before and best.inputs_per_second < RISE * before:
            continue
        if at == len(line) - 1:
            yield f"Throughput still rose at the end of {flag}. Try larger ones."
        elif line[at + 1] in over_budget:
            yield f"Throughput still rose when the budget ended: {line[at + 1]} was not tried."


def _on_client(best: Measurement) -> Iterator[str]:
    if best.cpu is not None and best.cpu >= _BUSY:
        yield (
            f"This process used {best.cpu:.0%} of a core at {best.point}: what was measured there is this machine, and "
            "the endpoint may do more."
        )
