"""4. Memory: the most that a run needs above what was there before it, in memory and streaming."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from ..case import Case, Outcome
from ..clients import CLIENTS
from ..tables import Results, Table, Verdict, median
from . import QUICK, Part

SIZES = (10_000, 100_000, 1_000_000)
LARGE_ROUNDS = 1  # of a million texts held in memory, six gigabytes: it takes long, and has no bar
PEER_ROUNDS = 3
BOUND = 2.5  # times what is in flight
FLAT = 1.25
PEER_SIZES = {
    "baseten": SIZES[:2],
    "openai": SIZES[:1],
}  # what would take long, or more memory than there is, is left out


def above_output(outcome: Outcome) -> float:
    """What a run needed beside its result."""
    return outcome.peak - outcome.baseline - outcome.output


def in_replies(case: Case, outcome: Outcome) -> float:
    """The same, in units of what is in flight: so many replies of the largest size that was sent."""
    largest: int = outcome.server["largest_reply"]
    return above_output(outcome) / (case.in_flight * largest)


@dataclass(frozen=True)
class Memory(Part):
    """`embed()` of a list, which gives all vectors, and `stream()` of a generator, which gives them one by one."""

    quick: bool = False
    name: str = "memory"

    @property
    def dimensions(self) -> int:
        return QUICK if self.quick else 1_536

    @property
    def sizes(self) -> tuple[int, ...]:
        return (300, 600) if self.quick else SIZES

    def case(self, task: str, client: str, texts: int) -> Case:
        return Case(task=task, client=client, texts=texts, warm_up=32, dimensions=self.dimensions)

    def cases(self) -> list[Case]:
        ours = [
            self.case(task, client, texts)
            for task in ("hold", "stream")
            for client in ("embedbatch-fast", "embedbatch")[: 1 if self.quick else 2]
            for texts in self.sizes
            if client == "embedbatch-fast" or texts < self.sizes[-1]
        ]
        return ours + [self.case("hold", client, texts) for client, sizes in PEER_SIZES.items() for texts in sizes]

    def most_rounds(self, case: Case) -> float:
        if case.task == "hold" and case.texts == SIZES[-1]:
            return LARGE_ROUNDS
        return PEER_ROUNDS if case.client in PEER_SIZES else math.inf

    def tables(self, results: Results) -> list[Table]:
        columns = ("client", "texts", "output", "peak", "peak − output", "bound", "rounds")
        rows = []
        for case, outcomes in results.items():
            bound = BOUND * case.in_flight * outcomes[0].server["largest_reply"]
            ours = case.client.startswith("embedbatch")
            how = {"hold": ", embed()", "stream": ", stream()"}[case.task] if ours else ""
            rows.append(
                (
                    CLIENTS[case.client].title + how,
                    f"{case.texts:,}",
                    _megabytes(outcomes[0].output),
                    _megabytes(median(outcomes, lambda it: it.peak - it.baseline)),
                    _megabytes(median(outcomes, above_output)),
                    _megabytes(bound) if ours else "–",
                    f"{len(outcomes)}",
                )
            )
        return [Table("Memory: most during a run, above what the process had before", columns, rows)]

    def verdicts(self, results: Results) -> list[Verdict]:
        middle, largest = self.sizes[-2:]

        def worst(task: str, texts: int) -> float | None:
            cases = [self.case(task, client, texts) for client in ("embedbatch-fast", "embedbatch")]
            shares = [median(results[case], partial(in_replies, case)) for case in cases if case in results]
            return max(shares, default=None)

        few, many = (results.get(self.case("stream", "embedbatch-fast", texts)) for texts in (middle, largest))
        growth = median(many, above_output) / max(1.0, median(few, above_output)) if few and many else None
        unit = " × in flight × reply"
        return [
            Verdict(f"memory, embed() of {middle:,}: peak − output", worst("hold", middle), BOUND, False, unit),
            Verdict(f"memory, stream() of {largest:,}: peak", worst("stream", largest), BOUND, False, unit),
            Verdict(f"memory, stream(): peak at {largest:,} vs {middle:,}", growth, FLAT, False),
        ]


def _megabytes(nbytes: float) -> str:
    return f"{nbytes / 1e6:,.0f} MB" if nbytes else "–"
