"""6. Cost of growth: what one text costs in a run of a thousand, and in a run of a million."""

from __future__ import annotations

from dataclasses import dataclass

from ..case import Case
from ..clients import CLIENTS
from ..tables import Results, Table, Verdict, cpu_per_vector, median, ratio, spread
from . import QUICK, Part

# Texts of a run, and runs: small ones are too short to be timed alone.
SIZES = {1_000: 20, 10_000: 10, 100_000: 2, 1_000_000: 1}
QUICK_SIZES = {300: 2, 600: 1}
WARM_UP = 20_000
MOST = 1.25


@dataclass(frozen=True)
class Growth(Part):
    """
    `embed()` of ever more texts, with short vectors.

    With 1,536 dimensions a million texts fill six gigabytes, and what the system takes for new memory, which differs
    from machine to machine, would hide what is asked here.
    """

    quick: bool = False
    name: str = "growth"
    dimensions: int = QUICK

    @property
    def sizes(self) -> dict[int, int]:
        return QUICK_SIZES if self.quick else SIZES

    def case(self, texts: int) -> Case:
        return Case(
            task="embed",
            client="embedbatch-fast",
            texts=texts,
            repeat=self.sizes[texts],
            warm_up=min(texts, WARM_UP),
            dimensions=self.dimensions,
        )

    def cases(self) -> list[Case]:
        return list(map(self.case, self.sizes))

    def tables(self, results: Results) -> list[Table]:
        columns = ("client", "texts", "runs", "CPU µs/text", "spread", "vectors/s")
        rows = [
            (
                CLIENTS[case.client].title,
                f"{case.texts:,}",
                f"{case.repeat}",
                f"{median(outcomes, cpu_per_vector):.2f}",
                spread(outcomes, cpu_per_vector),
                f"{median(outcomes, lambda it: it.rate):,.0f}",
            )
            for case, outcomes in results.items()
        ]
        return [Table(f"Cost of growth: embed(), {self.dimensions} dimensions", columns, rows)]

    def verdicts(self, results: Results) -> list[Verdict]:
        sizes = list(self.sizes)
        few, many = (sizes[-3], sizes[-1]) if len(sizes) > 2 else (sizes[0], sizes[-1])
        figure = ratio(results, self.case(many), self.case(few), cpu_per_vector)
        return [Verdict(f"growth, CPU time per text at {many:,} vs {few:,}", figure, MOST, at_least=False)]
