"""2. Latency: the time to finish when every request takes its time, and one in a hundred takes two seconds."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from ..case import Case
from ..clients import CLIENTS
from ..delays import MEDIAN, TAIL, TAIL_DELAY, schedule
from ..tables import Results, Table, Verdict, median, ratio, seconds, spread
from . import QUICK, Part

TEXTS = 50_000
BATCH = 16
IN_FLIGHT = 64
SEED = 20
CLIENT_NAMES = ("embedbatch-fast", "embedbatch", "baseten", "openai")


@dataclass(frozen=True)
class Latency(Part):
    """The same schedule of delays for every client, nobody hedging."""

    quick: bool = False
    name: str = "latency"

    @property
    def dimensions(self) -> int:
        return QUICK if self.quick else 1_536

    def case(self, client: str) -> Case:
        return Case(
            task="embed",
            client=client,
            texts=320 if self.quick else TEXTS,
            warm_up=2 * BATCH,
            batch=BATCH,
            in_flight=IN_FLIGHT,
            delays=SEED,
            dimensions=self.dimensions,
        )

    def cases(self) -> list[Case]:
        return list(map(self.case, CLIENT_NAMES[:1] if self.quick else CLIENT_NAMES))

    def tables(self, results: Results) -> list[Table]:
        least = finish(schedule(self.case("embedbatch")), -(-self.case("embedbatch").texts // BATCH))
        columns = (
            "client",
            "seconds",
            "spread",
            "of the schedule alone",
            "requests",
            "most in flight",
            "CPU µs/vector",
        )
        rows = [("the schedule alone", f"{least:.2f}", "–", "1 ×", "–", "–", "–")]
        rows += [
            (
                CLIENTS[case.client].title,
                f"{median(outcomes, seconds):.2f}",
                spread(outcomes, seconds),
                f"{median(outcomes, seconds) / least:.3g} ×",
                f"{median(outcomes, lambda it: it.server['requests']):,.0f}",
                f"{median(outcomes, lambda it: it.server['most_in_flight']):,.0f}",
                f"{median(outcomes, lambda it: it.cpu_per_vector):,.1f}",
            )
            for case, outcomes in results.items()
        ]
        title = (
            f"Latency: {self.case('embedbatch').texts:,} texts, {BATCH} a request, {IN_FLIGHT} in flight, delays "
            f"around {MEDIAN * 1e3:.0f} ms, {TAIL:.0%} of them {TAIL_DELAY:.0f} s"
        )
        return [Table(title, columns, rows)]

    def verdicts(self, results: Results) -> list[Verdict]:
        return [
            Verdict(
                f"latency, {name}: time to finish vs baseten-performance-client",
                ratio(results, self.case(client), self.case("baseten"), seconds),
                1.0,
                at_least=False,
            )
            for name, client in (("[fast]", "embedbatch-fast"), ("default httpx", "embedbatch"))
        ]


def finish(delays: Iterable[float], requests: int, places: int = IN_FLIGHT) -> float:
    """When the last of *requests* would be done if a client and a server took no time at all."""
    free_at = [0.0] * places
    for _, delay in zip(range(requests), delays, strict=False):
        heapq.heapreplace(free_at, free_at[0] + delay)
    return max(free_at)
