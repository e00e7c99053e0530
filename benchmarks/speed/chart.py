"""The picture: speed, CPU time, the latency run, and memory, of the clients side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .case import Outcome
from .clients import CLIENTS
from .report import Report
from .tables import Results, cpu_per_vector, median, rate, seconds

OURS, THEIRS, LIMIT = "#1b6ca8", "#b0b7bf", "#e0a030"


def draw(report: Report, path: Path) -> None:
    """Write the picture to *path*; panels whose part was not run stay out."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels: list[Callable[[Any], None]] = []
    ceiling, latency, memory = (report.results.get(name) for name in ("ceiling", "latency", "memory"))
    if ceiling:
        panels.append(lambda axes: _bars(axes, ceiling, rate, "vectors/s, one core (more is better)"))
        panels.append(lambda axes: _bars(axes, ceiling, cpu_per_vector, "client CPU µs per vector (less is better)"))
    if latency:
        panels.append(lambda axes: _bars(axes, latency, seconds, "slow server: seconds to finish (less is better)"))
    if memory:
        panels.append(lambda axes: _memory(axes, memory))
    if not panels:
        return
    rows = (len(panels) + 1) // 2
    figure, grid = pyplot.subplots(rows, 2, figsize=(15, 4.4 * rows), squeeze=False, layout="constrained")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.spines[["top", "right"]].set_visible(False)
        panel(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _bars(axes: Any, results: Results, figure: Callable[[Outcome], float], title: str) -> None:
    """One bar for each client, the first on top; where the longest would hide the others, on a logarithmic scale."""
    values = {CLIENTS[case.client].title: median(outcomes, figure) for case, outcomes in results.items()}
    colours = [_colour(case.client) for case in results]
    bars = axes.barh(list(values), list(values.values()), color=colours)
    labels = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values.values()]
    axes.bar_label(bars, labels=labels, padding=3)
    axes.invert_yaxis()
    axes.set_title(title, loc="left")
    if max(values.values()) > 20 * min(values.values()):
        axes.set_xscale("log")
    axes.margins(x=0.15)


def _colour(client: str) -> str:
    if client.startswith("embedbatch"):
        return OURS
    return LIMIT if client.startswith("raw") else THEIRS


def _memory(axes: Any, results: Results) -> None:
    """Peak memory over the number of texts, a line for each client and way."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for case, outcomes in results.items():
        how = {"stream": ", stream()", "hold": ""}[case.task]
        peak = median(outcomes, lambda it: it.peak - it.baseline)
        lines.setdefault(CLIENTS[case.client].title + how, []).append((case.texts, max(peak, 1) / 1e6))
    for name, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("texts")
    axes.set_title("peak memory, MB (less is better)", loc="left")
    axes.legend(fontsize="small", frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
