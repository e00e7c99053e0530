"""Figures as text: tables for the terminal and for a page, verdicts, medians."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .case import Case, Outcome

Results = dict[Case, list[Outcome]]
Figure = Callable[[Outcome], float]


@dataclass(frozen=True)
class Table:
    """A table: the first column is text, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def as_text(self) -> str:
        """For the terminal: columns padded, figures to the right."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.columns))]
        shown = [
            "  ".join(
                [cells[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
            )
            for cells in lines
        ]
        return "\n".join([self.title, "", *shown, *([""] if self.notes else []), *self.notes])

    def as_markdown(self) -> str:
        """For a page."""
        return "\n".join([f"## {self.title}", "", *self._pipes(), *([""] if self.notes else []), *self.notes])

    def _pipes(self) -> list[str]:
        ruler = ("---", *["--:"] * (len(self.columns) - 1))
        return [f"| {' | '.join(cells)} |" for cells in (self.columns, ruler, *self.rows)]


@dataclass(frozen=True)
class Verdict:
    """One line of what the benchmarks must show. *figure* is ``None`` where it was not measured."""

    claim: str
    figure: float | None
    bar: float
    at_least: bool = True
    unit: str = " ×"
    by_cpu: float | None = None  # the same ratio of CPU times, which other work on the machine disturbs less

    @property
    def is_met(self) -> bool | None:
        """Whether the figure reaches its bar; ``None`` if there is none."""
        if self.figure is None:
            return None
        return self.figure >= self.bar if self.at_least else self.figure <= self.bar

    @property
    def cells(self) -> tuple[str, ...]:
        measured = "not measured" if self.figure is None else f"{self.figure:,.3g}{self.unit}"
        by_cpu = "–" if self.by_cpu is None else f"{self.by_cpu:,.3g} ×"
        sign = "≥" if self.at_least else "≤"
        word = {True: "met", False: "NOT MET", None: "–"}[self.is_met]
        return self.claim, measured, by_cpu, f"{sign} {self.bar:,.3g}{self.unit}", word


def median(outcomes: Sequence[Outcome], figure: Figure) -> float:
    """The median of one figure over the rounds."""
    return statistics.median(map(figure, outcomes))


def ratio(results: Results, above: Case, below: Case, figure: Figure) -> float | None:
    """The median of *above*'s figure over *below*'s in the same round; ``None`` if one of them was not measured."""
    pairs = list(zip(results.get(above, ()), results.get(below, ()), strict=False))
    return statistics.median(figure(over) / figure(under) for over, under in pairs) if pairs else None


def spread(outcomes: Sequence[Outcome], figure: Figure) -> str:
    """The lowest and the highest of the rounds, in percent of the median."""
    if len(outcomes) == 1:
        return "–"
    middle = median(outcomes, figure)
    values = [figure(outcome) / middle - 1 for outcome in outcomes]
    return f"{min(values):+.0%} {max(values):+.0%}"


def rate(outcome: Outcome) -> float:
    return outcome.rate


def seconds(outcome: Outcome) -> float:
    return outcome.seconds


def cpu_per_vector(outcome: Outcome) -> float:
    return outcome.cpu_per_vector


def judgement(verdicts: Sequence[Verdict]) -> Table:
    """All verdicts as one table."""
    columns = ("figure", "measured", "by CPU time", "bar", "")
    return Table("What it must show", columns, [verdict.cells for verdict in verdicts])
