"""Everything that one run brought: as JSON, and back from it; as text; as the results section of a page."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .case import Case, Outcome
from .clients import CLIENTS
from .parts import Part
from .tables import Results, Table, Verdict, cpu_per_vector, judgement, median, rate

BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"
LINE = 120
KNOWN = ("embedbatch-fast", "embedbatch", "baseten", "openai", "llama-index", "langchain", "litellm")  # to most readers


@dataclass
class Report:
    """The results of each part, by its name, and where and how they were made."""

    machine: dict[str, str]
    options: dict[str, Any]
    results: dict[str, Results] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def verdicts(self, parts: list[Part]) -> list[Verdict]:
        """Those of the parts that were run."""
        return [
            verdict for part in parts if part.name in self.results for verdict in part.verdicts(self.results[part.name])
        ]

    def as_text(self, parts: list[Part]) -> str:
        """For the terminal."""
        tables = [
            table for part in parts if part.name in self.results for table in part.tables(self.results[part.name])
        ]
        machine = "\n".join(f"{name:20} {value}" for name, value in self.machine.items())
        blocks = [
            f"{machine}\n{self._rounds()}",
            *(table.as_text() for table in tables),
            judgement(self.verdicts(parts)).as_text(),
        ]
        return "\n\n\n".join(blocks)

    def summary(self, parts: list[Part], picture: str) -> str:
        """For a page: where it was measured, the picture, and the verdicts."""
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        lines = [
            textwrap.fill(f"{self._rounds()} {machine[0].upper()}{machine[1:]}.", LINE, break_on_hyphens=False),
            f"![Vectors per second, CPU time, time to finish and memory of the clients]({picture})",
            judgement(self.verdicts(parts)).as_markdown().partition("\n\n")[2],
        ]
        return "\n\n".join(lines)

    def details(self, parts: list[Part]) -> str:
        """For a page: all tables, and the versions."""
        tables = [
            table for part in parts if part.name in self.results for table in part.tables(self.results[part.name])
        ]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = textwrap.fill(f"{versions}.", LINE, break_on_hyphens=False)
        return "\n\n".join([*(table.as_markdown() for table in tables), f"## Versions\n\n{lines}"])

    def headline(self) -> str:
        """For the front page: what the clients that people know did in the ceiling."""
        ceiling = {case.client: outcomes for case, outcomes in self.results.get("ceiling", {}).items() if outcomes}
        rows = [
            (
                CLIENTS[client].title,
                f"{median(ceiling[client], rate):,.0f}",
                f"{median(ceiling[client], cpu_per_vector):,.0f}",
            )
            for client in KNOWN
            if client in ceiling
        ]
        return Table("", ("client", "vectors/s", "CPU µs/vector"), rows).as_markdown().partition("\n\n")[2]

    def _rounds(self) -> str:
        """How many there were, and which parts had fewer."""
        wanted = self.options["rounds"]
        had = {name: max(map(len, results.values()), default=0) for name, results in self.results.items()}
        fewer = [f"{name} {rounds}" for name, rounds in had.items() if rounds < wanted]
        return ("One round" if wanted == 1 else f"{wanted} rounds") + (
            f", for want of time fewer of {', '.join(fewer)}." if fewer else "."
        )

    def to_json(self, parts: list[Part]) -> str:
        """All figures of all rounds, and the verdicts."""
        return json.dumps(
            {
                "machine": self.machine,
                "options": self.options,
                "versions": self.versions,
                "failures": self.failures,
                "verdicts": [asdict(verdict) | {"is_met": verdict.is_met} for verdict in self.verdicts(parts)],
                "parts": {
                    name: [
                        {"case": asdict(case), "rounds": [asdict(outcome) for outcome in outcomes]}
                        for case, outcomes in results.items()
                    ]
                    for name, results in self.results.items()
                },
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> Report:
        given = json.loads(text)
        return cls(
            machine=given["machine"],
            options=given["options"],
            versions=given["versions"],
            failures=given["failures"],
            results={
                name: {
                    Case.from_json(json.dumps(row["case"])): [Outcome(**outcome) for outcome in row["rounds"]]
                    for row in rows
                }
                for name, rows in given["parts"].items()
            },
        )


def publish(page: Path, section: str) -> None:
    """Put *section* between the two marks of *page*."""
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page}: expected the lines {BEGIN!r} and {END!r}")
    page.write_text(pattern.sub(lambda _: f"{BEGIN}\n\n{section}\n\n{END}", text), encoding="utf-8")
