"""1. Ceiling: how many vectors a second a client can take in when the server does not keep it waiting."""

from __future__ import annotations

from dataclasses import dataclass

from ..case import Case, Outcome
from ..clients import CLIENTS
from ..tables import Results, Table, Verdict, median, rate, ratio, spread
from . import QUICK, Part

# Texts of one call, and calls. A call ends before memory grows cold: a virtual machine may give what is free back to
# its host after seconds, and taking it in again costs more than everything that is measured here.
FAST, SLOW, SLOWEST = (20_000, 5), (5_000, 3), (250, 2)
SIZES = {
    "raw-discard": FAST,
    "raw-many": FAST,
    "raw-decode": FAST,
    "embedbatch-fast": FAST,
    "embedbatch-fast-stream": FAST,
    "embedbatch": FAST,
    "baseten": (20_000, 3),
    "baseten-base64": FAST,
    "langchain": SLOW,
    "openai": SLOW,
    "llama-index": SLOW,
    "litellm": SLOWEST,
}
UNPINNED = ("raw-discard", "raw-many", "raw-decode", "embedbatch-fast", "embedbatch", "baseten", "baseten-base64")
QUICKLY = {True: ("raw-discard", "raw-decode", "embedbatch-fast", "embedbatch"), False: ("embedbatch",)}
SERVER = ("raw-discard", "raw-many")
NEAR = 0.8  # of the server's ceiling: above this the server is what is measured


def vectors_per_cpu(outcome: Outcome) -> float:
    return 1 / outcome.cpu_per_vector


@dataclass(frozen=True)
class Ceiling(Part):
    """The table of the clients. With *pinned* the client has one core and the server another."""

    pinned: bool
    quick: bool = False

    @property
    def name(self) -> str:
        return "ceiling" if self.pinned else "unpinned"

    @property
    def dimensions(self) -> int:
        return QUICK if self.quick else 1_536

    def case(self, client: str) -> Case:
        texts, calls = (600, 1) if self.quick else SIZES[client]
        return Case(
            task="embed",
            client=client,
            texts=texts,
            repeat=calls,
            warm_up=texts,
            dimensions=self.dimensions,
            pinned=self.pinned,
        )

    def cases(self) -> list[Case]:
        if self.quick:
            return list(map(self.case, QUICKLY[self.pinned]))
        return list(map(self.case, SIZES if self.pinned else UNPINNED))

    def tables(self, results: Results) -> list[Table]:
        ceiling = server_ceiling(results)
        limit = self.case("raw-decode")
        columns = ("client", "texts", "vectors/s", "spread", "of the limit", "CPU µs/vector", "peak kB/vector")
        rows = []
        for case, outcomes in results.items():
            share = ratio(results, case, limit, rate)
            rows.append(
                (
                    CLIENTS[case.client].title,
                    f"{case.texts * case.repeat:,}",
                    f"{median(outcomes, rate):,.0f}",
                    spread(outcomes, rate),
                    f"{share:.3g} ×" if share else "–",
                    f"{median(outcomes, lambda it: it.cpu_per_vector):,.1f}",
                    _memory(case, outcomes),
                )
            )
        how = "one core for the client, another for the server" if self.pinned else "not pinned"
        notes = [f"The server's own ceiling in this run: {ceiling:,.0f} vectors/s."] if ceiling else []
        notes += [
            f"WARNING: {CLIENTS[case.client].title} reaches {median(outcomes, rate) / ceiling:.0%} of the server's "
            "ceiling: here the server is part of what is measured."
            for case, outcomes in results.items()
            if ceiling and case.client not in SERVER and median(outcomes, rate) > NEAR * ceiling
        ]
        return [Table(f"Ceiling: {how}", columns, rows, tuple(notes))]

    def verdicts(self, results: Results) -> list[Verdict]:
        if not self.pinned:
            return []

        def verdict(claim: str, above: str, below: str, bar: float) -> Verdict:
            over, under = self.case(above), self.case(below)
            by_cpu = ratio(results, over, under, vectors_per_cpu)
            return Verdict(f"ceiling, {claim}", ratio(results, over, under, rate), bar, by_cpu=by_cpu)

        return [
            verdict("[fast] vs baseten-performance-client", "embedbatch-fast", "baseten", 5),
            verdict("[fast] vs openai-python", "embedbatch-fast", "openai", 18),
            verdict("[fast] vs the blocking-socket limit, decoding", "embedbatch-fast", "raw-decode", 0.45),
            verdict("default httpx vs baseten-performance-client", "embedbatch", "baseten", 3),
        ]


def _memory(case: Case, outcomes: list[Outcome]) -> str:
    """The most memory above what there was before the first call, for each text of a call. The output is in it."""
    if case.client.startswith("raw"):
        return "–"
    return f"{median(outcomes, lambda it: it.peak - it.baseline) / case.texts / 1e3:,.1f}"


def server_ceiling(results: Results) -> float:
    """The most vectors a second that the server was seen to give: the better of the two that discard, in the median."""
    return max((median(outcomes, rate) for case, outcomes in results.items() if case.client in SERVER), default=0.0)
