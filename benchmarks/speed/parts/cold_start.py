"""7. Cold start: how long a Python takes that does nothing but import a library."""

from __future__ import annotations

from dataclasses import dataclass

from ..case import Case
from ..tables import Results, Table, Verdict, median, ratio, seconds, spread
from . import QUICK, Part

PYTHON = "pass"
STATEMENTS = {
    PYTHON: "embedbatch",
    "import embedbatch": "embedbatch",
    "from embedbatch import Embedder": "embedbatch",
    "import baseten_performance_client": "baseten",
    "import openai": "openai",
    "import langchain_openai": "langchain",
    "import llama_index.embeddings.openai": "llama-index",
    "import litellm": "litellm",
}
STARTS = 3  # of one measurement, after one that is not timed
ONE_START = ("langchain", "llama-index", "litellm")  # only, of what takes seconds
MOST = 0.35


@dataclass(frozen=True)
class ColdStart(Part):
    """Whole processes, from start to end."""

    quick: bool = False
    name: str = "cold"
    dimensions: int = QUICK

    def case(self, statement: str) -> Case:
        return Case(
            task="start",
            client=STATEMENTS[statement],
            repeat=1 if self.quick or STATEMENTS[statement] in ONE_START else STARTS,
            warm_up=0 if STATEMENTS[statement] in ONE_START else 1,
            settings=(("statement", statement),),
        )

    def cases(self) -> list[Case]:
        return list(map(self.case, STATEMENTS))

    def tables(self, results: Results) -> list[Table]:
        rows = []
        for case, outcomes in results.items():
            share = ratio(results, case, self.case("import openai"), seconds)
            rows.append(
                (
                    f'`python -c "{dict(case.settings)["statement"]}"`',
                    f"{median(outcomes, seconds) * 1e3:,.0f}",
                    spread(outcomes, seconds),
                    f"{median(outcomes, lambda it: it.cpu) * 1e3:,.0f}",
                    f"{share:.3g} ×" if share else "–",
                )
            )
        return [Table("Cold start", ("process", "ms", "spread", "CPU ms", "of openai"), rows)]

    def verdicts(self, results: Results) -> list[Verdict]:
        ours, theirs = self.case("import embedbatch"), self.case("import openai")
        by_cpu = ratio(results, ours, theirs, lambda it: it.cpu)
        figure = ratio(results, ours, theirs, seconds)
        return [Verdict("cold start, import embedbatch vs import openai", figure, MOST, at_least=False, by_cpu=by_cpu)]
