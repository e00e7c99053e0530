"""8. Jobs: what it costs that every vector is on the disk before it counts as done."""

from __future__ import annotations

from dataclasses import dataclass

from ..case import Case, Outcome
from ..clients import CLIENTS
from ..tables import Results, Table, Verdict, cpu_per_vector, median, ratio, spread
from . import QUICK, Part

TEXTS = 100_000
MOST_ROUNDS = 3  # gigabytes are written in each
LEAST = 0.5
KINDS = {None: "nothing: stream()", "v.npy": ".npy", "v": "a folder of .parquet", "v.parquet": "one .parquet"}


def rate(outcome: Outcome) -> float:
    """Documents per second."""
    return outcome.rate


@dataclass(frozen=True)
class Jobs(Part):
    """A file of JSON lines: streamed, with nothing kept, and made into files by a job. Unpinned: a job has threads."""

    quick: bool = False
    name: str = "jobs"

    @property
    def dimensions(self) -> int:
        return QUICK if self.quick else 1_536

    def case(self, destination: str | None) -> Case:
        return Case(
            task="job",
            client="embedbatch-fast",
            texts=600 if self.quick else TEXTS,
            dimensions=self.dimensions,
            warm_up=64,
            pinned=False,
            settings=(("destination", destination),),
        )

    def cases(self) -> list[Case]:
        return [self.case(destination) for destination in KINDS]

    def most_rounds(self, case: Case) -> float:
        return MOST_ROUNDS

    def tables(self, results: Results) -> list[Table]:
        columns = ("client", "into", "documents/s", "spread", "CPU µs/document", "rounds")
        rows = [
            (
                CLIENTS[case.client].title,
                KINDS[dict(case.settings)["destination"]],
                f"{median(outcomes, rate):,.0f}",
                spread(outcomes, rate),
                f"{median(outcomes, cpu_per_vector):.1f}",
                f"{len(outcomes)}",
            )
            for case, outcomes in results.items()
        ]
        title = f"Jobs: a file of {self.case(None).texts:,} documents, {self.dimensions:,} dimensions"
        return [Table(title, columns, rows)]

    def verdicts(self, results: Results) -> list[Verdict]:
        streamed, *written = KINDS
        figures = {name: ratio(results, self.case(name), self.case(streamed), rate) for name in written}
        return [Verdict(f"jobs, {KINDS[name]} vs stream(), documents/s", figures[name], LEAST) for name in written]
