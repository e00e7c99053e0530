"""3. Long documents: megabytes a second that are tokenized and cut to what a model takes."""

from __future__ import annotations

from dataclasses import dataclass

from ..case import Case, Outcome
from ..clients import CLIENTS
from ..tables import Results, Table, Verdict, median, ratio, spread
from . import QUICK, Part

DOCUMENTS = 300
CLIENT_NAMES = ("tiktoken", "embedbatch-plan", "embedbatch-long", "langchain-split")


def megabytes_per_second(outcome: Outcome) -> float:
    nbytes: int = outcome.extra["bytes"]
    return nbytes / outcome.seconds / 1e6


def bytes_per_cpu(outcome: Outcome) -> float:
    nbytes: int = outcome.extra["bytes"]
    return nbytes / outcome.cpu


@dataclass(frozen=True)
class LongDocuments(Part):
    """tiktoken alone, what embedbatch makes of it, and what langchain-openai does."""

    quick: bool = False
    name: str = "long"
    dimensions: int = QUICK

    def case(self, client: str) -> Case:
        texts = 3 if self.quick else DOCUMENTS
        return Case(task="chunk", client=client, texts=texts, dimensions=self.dimensions)

    def cases(self) -> list[Case]:
        return list(map(self.case, CLIENT_NAMES))

    def tables(self, results: Results) -> list[Table]:
        columns = ("what", "MB/s", "spread", "of tiktoken alone", "CPU ms/MB", "chunks")
        rows = []
        for case, outcomes in results.items():
            share = ratio(results, case, self.case("tiktoken"), megabytes_per_second)
            rows.append(
                (
                    CLIENTS[case.client].title,
                    f"{median(outcomes, megabytes_per_second):.1f}",
                    spread(outcomes, megabytes_per_second),
                    f"{share:.3g} ×" if share else "–",
                    f"{1e9 / median(outcomes, bytes_per_cpu):,.0f}",
                    f"{outcomes[0].extra['chunks']:,}" if outcomes[0].extra["chunks"] else "–",
                )
            )
        size = next((outcomes[0].extra["bytes"] for outcomes in results.values()), 0)
        title = f"Long documents: {self.case('tiktoken').texts} of 20 to 120 kB, {size / 1e6:,.1f} MB in all"
        return [Table(title, columns, rows)]

    def verdicts(self, results: Results) -> list[Verdict]:
        def verdict(claim: str, below: str, bar: float) -> Verdict:
            over, under = self.case("embedbatch-plan"), self.case(below)
            by_cpu = ratio(results, over, under, bytes_per_cpu)
            return Verdict(
                f"long documents, {claim}", ratio(results, over, under, megabytes_per_second), bar, by_cpu=by_cpu
            )

        return [
            verdict("chunking vs tiktoken alone", "tiktoken", 0.9),
            verdict("chunking vs langchain-openai's splitting", "langchain-split", 1.0),
        ]
