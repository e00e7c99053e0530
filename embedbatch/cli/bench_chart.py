"""What a sweep found, as a picture. The only place for matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from ..sweep import Measurement, Sweep, Verdict, is_bound, sustained

_GREY = "#555555"
_RED = "#d62728"


def draw(sweep: Sweep, title: str, path: Path) -> None:
    """Draw throughput by requests in flight, and what it costs in latency, into a PNG file."""
    verdict = sweep.verdict()
    if verdict is None:
        return
    figure = Figure(figsize=(12, 5.4), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    _draw_throughput(left, sweep, verdict)
    _draw_latency(right, sweep, verdict)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, title="inputs in a request")
    figure.savefig(path, format="png")


def _lines(sweep: Sweep) -> Iterator[tuple[str, tuple[float, float, float, float], list[Measurement]]]:
    """For each batch size its name, its colour, and its points, from few in flight to many."""
    sizes = sorted({each.point.batch_inputs for each in sweep.measured.values() if each.is_good})
    shades = colormaps["viridis"]
    for place, size in enumerate(sizes):
        points = [sweep.measured[point] for point in sorted(sweep.measured) if point.batch_inputs == size]
        colour = shades(0.85 * place / max(1, len(sizes) - 1))
        yield f"{size:,}", colour, [each for each in points if each.is_good]


def _draw_throughput(axes: Axes, sweep: Sweep, verdict: Verdict) -> None:
    for name, colour, line in _lines(sweep):
        at = [each.point.in_flight for each in line]
        axes.plot(at, [each.inputs_per_second for each in line], marker="o", color=colour, label=name)
    limit = sustained(verdict.best, sweep.quota)
    if is_bound(verdict.best, sweep.quota):
        axes.axhline(limit, color=_GREY, linestyle="--", linewidth=1)
        end = (sweep.grid.in_flight[-1], limit)
        axes.annotate("the quota", end, xytext=(0, 4), textcoords="offset points", color=_GREY, ha="right")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("requests in flight")
    axes.set_title("Throughput: inputs/s", fontsize=11, loc="left")
    knee = verdict.knee
    _tidy(axes)
    axes.xaxis.set_major_locator(FixedLocator(list(sweep.grid.in_flight)))
    _mark(axes, knee.point.in_flight, knee.inputs_per_second, f"knee: {knee.point}")


def _draw_latency(axes: Axes, sweep: Sweep, verdict: Verdict) -> None:
    for _, colour, line in _lines(sweep):
        rates = [each.inputs_per_second for each in line]
        axes.plot(rates, [each.p50 for each in line], marker="o", color=colour)
        axes.vlines(rates, [each.p50 for each in line], [each.p99 for each in line], color=colour, alpha=0.45)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("inputs/s")
    axes.set_title("Latency: median, and a line up to p99; from few in flight to many", fontsize=11, loc="left")
    _tidy(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _seconds(value)))
    _mark(axes, verdict.knee.inputs_per_second, verdict.knee.p50, "knee")


def _mark(axes: Axes, x: float, y: float, text: str) -> None:
    if not math.isfinite(y):
        return
    axes.plot([x], [y], marker="D", markersize=13, markerfacecolor="none", markeredgecolor=_RED, zorder=5)
    low, high = axes.get_xlim()
    side = "left" if x < math.sqrt(low * high) else "right"
    offset = (-8 if side == "left" else 8, 13)
    axes.annotate(text, (x, y), xytext=offset, textcoords="offset points", color=_RED, ha=side, weight="bold")


def _tidy(axes: Axes) -> None:
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_locator(NullLocator())
    axes.margins(0.08, 0.14)


def _seconds(value: float) -> str:
    return f"{value * 1_000:g} ms" if value < 1 else f"{value:g} s"
