"""The table: one line for each figure of each scenario."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .scenario import STOPPED, Bar, Figures, Scenario

OURS = "embedbatch"
MISSED = "✗"

Results: TypeAlias = Mapping[tuple[str, str], Sequence["Figures | str"]]
"""For a scenario and a client: the figures of each seed, or what went wrong."""


def misses(scenario: Scenario, results: Results) -> list[str]:
    """The figures of embedbatch that do not reach their bar with every seed."""
    runs = results.get((scenario.name, OURS), ())
    return [
        f"{scenario.name}: {bar.figure}"
        for bar in scenario.bars
        if bar.demands and any(isinstance(run, str) or not bar.is_met(run) for run in runs)
    ]


def render(scenarios: Sequence[Scenario], clients: Sequence[str], results: Results) -> str:
    """The table as text; what misses its bar is marked."""
    head = ["scenario", "figure", "bar", *clients]
    rows = [head]
    for scenario in scenarios:
        for number, bar in enumerate(scenario.bars):
            cells = [_cell(bar, results.get((scenario.name, client), ()), client == OURS) for client in clients]
            rows.append(["" if number else scenario.name, bar.figure, str(bar), *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-+-".join("-" * width for width in widths), *lines[1:]])


def problems(results: Results) -> list[str]:
    """What went wrong, each thing once, and which runs stopped early."""
    found: set[str] = set()
    for (scenario, client), runs in results.items():
        found |= {f"{scenario}, {client}: {run}" for run in runs if isinstance(run, str)}
        stopped = sum(bool(run[STOPPED]) for run in runs if not isinstance(run, str))
        if stopped:
            found.add(f"{scenario}, {client}: {stopped} of {len(runs)} runs stopped early")
    return sorted(found)


def _cell(bar: Bar, runs: Sequence[Figures | str], marked: bool) -> str:
    """Median and worst over the seeds."""
    if not runs:
        return "–"
    good = [run for run in runs if not isinstance(run, str)]
    if len(good) < len(runs):
        return f"error {MISSED if marked and bar.demands else ''}".rstrip()
    values = [run[bar.figure] for run in good]
    median = math.nan if any(map(math.isnan, values)) else statistics.median(values)
    shown = bar.show(median)
    worst = bar.show(bar.worst(values))
    if worst != shown:
        shown += f" ({worst})"
    if marked and bar.demands and not all(map(bar.is_met, good)):
        shown += f" {MISSED}"
    return shown


def as_json(scenarios: Sequence[Scenario], results: Results) -> list[dict[str, Any]]:
    """All figures of all runs, also those that the table leaves out."""
    return [
        {
            "scenario": scenario.name,
            "title": scenario.title,
            "client": client,
            "bars": {bar.figure: str(bar) for bar in scenario.bars if bar.demands},
            "runs": [run if isinstance(run, str) else _finite(run) for run in runs],
        }
        for scenario in scenarios
        for (name, client), runs in results.items()
        if name == scenario.name
    ]


def _finite(figures: Figures) -> dict[str, float | None]:
    """JSON has no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
