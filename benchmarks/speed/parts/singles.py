"""5. Singles: many calls at the same time, one text each, as a web application makes them."""

from __future__ import annotations

from dataclasses import dataclass

from ..case import Case, Outcome
from ..clients import CLIENTS
from ..tables import Results, Table, Verdict, median, seconds, spread
from . import QUICK, Part

CALLS = 2_000
MOST_REQUESTS = 20
CLIENT_NAMES = ("embedbatch-fast", "embedbatch", "openai")


def requests(outcome: Outcome) -> float:
    requests: float = outcome.server["requests"]
    return requests


@dataclass(frozen=True)
class Singles(Part):
    """`embed_one`, whose calls share requests, against one request for each call."""

    quick: bool = False
    name: str = "singles"

    @property
    def dimensions(self) -> int:
        return QUICK if self.quick else 1_536

    def case(self, client: str) -> Case:
        return Case(
            task="singles", client=client, texts=50 if self.quick else CALLS, warm_up=1, dimensions=self.dimensions
        )

    def cases(self) -> list[Case]:
        return list(map(self.case, CLIENT_NAMES[:1] if self.quick else CLIENT_NAMES))

    def tables(self, results: Results) -> list[Table]:
        columns = ("client", "requests", "all done, s", "spread", "p50, ms", "p99, ms", "CPU µs/call")
        rows = [
            (
                CLIENTS[case.client].title,
                f"{median(outcomes, requests):,.0f}",
                f"{median(outcomes, seconds):.3f}",
                spread(outcomes, seconds),
                f"{median(outcomes, lambda it: it.extra['p50']) * 1e3:,.0f}",
                f"{median(outcomes, lambda it: it.extra['p99']) * 1e3:,.0f}",
                f"{median(outcomes, lambda it: it.cpu_per_vector):,.0f}",
            )
            for case, outcomes in results.items()
        ]
        return [Table(f"Singles: {self.case('openai').texts:,} calls at once, one text each", columns, rows)]

    def verdicts(self, results: Results) -> list[Verdict]:
        ours = [median(results[case], requests) for case in map(self.case, CLIENT_NAMES[:2]) if case in results]
        claim = f"singles, requests for {self.case('openai').texts:,} calls at once"
        return [Verdict(claim, max(ours, default=None), MOST_REQUESTS, at_least=False, unit="")]
