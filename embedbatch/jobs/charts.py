"""
Charts over time, as SVG that follows the width of the page. Pure.

What is drawn is stretched to the width; texts and the thickness of lines are not. So a chart reads as well on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .markup import Markup, join, tag
from .timeline import Slice
from .wording import duration, rate, share

WIDTH, HEIGHT = 1_000, 160  # of the plot, in its own units; WIDTH is stretched
_TOP, _FOOT = 8, 24  # above and below it, in pixels
_MOST_TICKS = 5
_NOTHING = 1e-9  # and what is less than that
_TIMES = (  # steps between two labels below a chart: seconds, and the unit they are written in
    *((step, 1, "s") for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30)),
    *((60 * step, 60, "min") for step in (1, 2, 5, 10, 20, 30)),
    *((3_600 * step, 3_600, "h") for step in (1, 2, 4, 6, 12)),
    *((86_400 * step, 86_400, "d") for step in (1, 2, 5, 10, 20, 50, 100)),
)


def compact(value: float) -> str:
    """A number in few characters: ``250``, ``12k``, ``1.5M``."""
    for least, size, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e3, 1e3, "k")):
        if value >= least:
            return f"{value / size:.3g}{letter}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Line:
    """A line through the middles of the slices, broken where a value is ``None``; *colour* is a class of the page."""

    name: str
    colour: str
    values: Sequence[float | None]
    style: Literal["line", "area", "dashed"] = "line"


@dataclass(frozen=True, slots=True)
class Bars:
    """A bar in every slice, on top of those before it."""

    name: str
    colour: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """
    A chart: what is drawn, and in words.

    *unit* follows the title, *summary* says what there is to see. *write* writes a value of the axis, *tell* one of a
    slice, to whoever points at it. *scale* is linear from 0, or logarithmic; *whole* tells that there are no fractions.
    """

    title: str
    unit: str
    summary: str
    lines: Sequence[Line] = ()
    bars: Sequence[Bars] = ()
    write: Callable[[float], str] = compact
    tell: Callable[[float], str] = rate
    scale: Literal["linear", "log"] = "linear"
    whole: bool = False


def draw(chart: Chart, slices: Sequence[Slice], name: str) -> Markup:
    """The figure of a chart; *name* is not that of another one on the page."""
    axis = _Axis(chart)
    plot = tag(
        "svg",
        *_shades(slices),
        *(tag("path", class_="grid", d=f"M0 {axis.y(tick):.1f}H{WIDTH}") for tick in axis.ticks),
        *_stacked(chart.bars, slices, axis),
        *(_line(line, slices, axis) for line in chart.lines),
        *_hints(chart, slices),
        x=0,
        y=_TOP,
        width="100%",
        height=HEIGHT,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        overflow="visible",
    )
    svg = tag(
        "svg",
        tag("title", chart.title, id=f"{name}-title"),
        tag("desc", chart.summary, id=f"{name}-summary"),
        plot,
        *(
            tag("text", chart.write(tick), x=-8, y=f"{_TOP + axis.y(tick) + 4:.1f}", text_anchor="end")
            for tick in axis.ticks
        ),
        *_times(slices),
        xmlns="http://www.w3.org/2000/svg",
        class_="frame",
        width="100%",
        height=_TOP + HEIGHT + _FOOT,
        role="img",
        aria_labelledby=f"{name}-title {name}-summary",
    )
    heading = tag("h2", chart.title, " ", tag("small", chart.unit))
    return tag("figure", tag("figcaption", heading, _legend(chart, slices)), tag("div", svg, class_="plot"))


class _Axis:
    """The upward axis of a chart: its ticks, and where a value is."""

    def __init__(self, chart: Chart) -> None:
        totals = [sum(values) for values in zip(*(bars.values for bars in chart.bars), strict=True)]
        values = totals + [value for line in chart.lines for value in line.values if value is not None]
        values = [value for value in values if math.isfinite(value)]
        positive = [value for value in values if value > _NOTHING] or [1.0]
        self.is_log = chart.scale == "log"
        if self.is_log:
            self.ticks = log_ticks(min(positive), max(positive))
        else:
            self.ticks = ticks(max(positive), whole=chart.whole)
        self.low, self.high = self.ticks[0], self.ticks[-1]

    def y(self, value: float) -> float:
        """From the top, in units of the plot."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return HEIGHT * (1 - (min(max(value, low), high) - low) / (high - low))


def ticks(most: float, *, whole: bool = False) -> list[float]:
    """Round numbers from 0 to *most* or a little more, at most six of them."""
    size = 10.0 ** math.floor(math.log10(most))
    steps = [factor * size / 10 for factor in (1, 2, 2.5, 5, 10, 20, 25, 50)]
    steps = [step for step in steps if not whole or step == int(step)] or [1.0]
    step = next(step for step in steps if most <= _MOST_TICKS * step * (1 + 1e-9))
    count = max(1, math.ceil(most / step * (1 - 1e-9)))
    return [number * step for number in range(count + 1)]


def log_ticks(least: float, most: float) -> list[float]:
    """Round numbers from *least* or a little less to *most* or a little more: 1, 2, 5, or every power of ten."""
    for factors in ((1, 2, 5), (1, 3), (1,)):
        exponents = range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 2)
        all_ticks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        first = max(place for place, tick in enumerate(all_ticks) if tick <= least * (1 + 1e-9))
        last = min(place for place, tick in enumerate(all_ticks) if tick >= most * (1 - 1e-9))
        chosen = all_ticks[first : max(last, first + 1) + 1]
        if len(chosen) <= _MOST_TICKS + 1:
            break
    return chosen


def time_ticks(seconds: float) -> list[tuple[float, str]]:
    """Where labels stand below a chart of so many seconds, and what they are."""
    step, size, unit = next((each for each in _TIMES if seconds <= _MOST_TICKS * each[0]), _TIMES[-1])
    step = max(step, size * math.ceil(seconds / _MOST_TICKS / size)) if seconds > _MOST_TICKS * step else step
    count = math.floor(seconds / step * (1 + 1e-9))
    return [(number * step, f"{number * step / size:,.4g} {unit}" if number else "0") for number in range(count + 1)]


def _end(slices: Sequence[Slice]) -> float:
    return slices[-1].start + slices[-1].seconds


def _shades(slices: Sequence[Slice]) -> Iterator[Markup]:
    """Behind everything: pauses and outages, the darker the more of a slice they take."""
    for each, x, width in _places(slices):
        for name, seconds in (("paused", each.counts.paused), ("away", each.counts.away)):
            part = min(1.0, seconds / each.seconds)
            if part > 0.01:
                yield _box(x, width, 0, HEIGHT, class_=name, fill_opacity=f"{0.3 + 0.7 * part:.2f}")


def _places(slices: Sequence[Slice]) -> Iterator[tuple[Slice, float, float]]:
    """Each slice with its place and width in units of the plot."""
    scale = WIDTH / _end(slices)
    for each in slices:
        yield each, each.start * scale, each.seconds * scale


def _box(x: float, width: float, y: float, height: float, *children: object, **attributes: object) -> Markup:
    numbers = {"x": f"{x:.2f}", "y": f"{y:.2f}", "width": f"{width:.2f}", "height": f"{height:.2f}"}
    return tag("rect", *children, **numbers, **attributes)


def _stacked(several: Sequence[Bars], slices: Sequence[Slice], axis: _Axis) -> Iterator[Markup]:
    for place, (_, x, width) in enumerate(_places(slices)):
        below = 0.0
        for bars in several:
            value = bars.values[place]
            if value:
                top = axis.y(below + value)
                yield _box(x + 0.1 * width, 0.8 * width, top, axis.y(below) - top, class_=f"bar {bars.colour}")
            below += value


def _line(line: Line, slices: Sequence[Slice], axis: _Axis) -> Markup:
    """The path of a line. It begins and ends at the edges of its slices, not in their middles."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for (_, x, width), value in zip(_places(slices), line.values, strict=True):
        if value is None:
            pieces.append([])
            continue
        if not pieces[-1]:
            pieces[-1].append((x, axis.y(value)))
        pieces[-1] += [(x + width / 2, axis.y(value)), (x + width, axis.y(value))]
    paths = []
    for piece in filter(None, pieces):
        corners = [piece[0], *piece[1::2], piece[-1]]  # of the ends, only the first and the last
        paths.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners))
    d = "".join(paths)
    stroke = tag("path", class_=f"{'dashed ' if line.style == 'dashed' else ''}line {line.colour}", d=d)
    if line.style != "area":
        return stroke
    areas = [f"{path}V{HEIGHT}H{piece[0][0]:.1f}Z" for path, piece in zip(paths, filter(None, pieces), strict=True)]
    return join(tag("path", class_=f"area {line.colour}", d="".join(areas)), stroke)


def _hints(chart: Chart, slices: Sequence[Slice]) -> Iterator[Markup]:
    """What a pointer that rests on a slice is told."""
    for place, (each, x, width) in enumerate(_places(slices)):
        values: list[tuple[str, float | None]] = [(line.name, line.values[place]) for line in chart.lines]
        values += [(bars.name, bars.values[place]) for bars in chart.bars]
        told = [f"{name} {chart.tell(value)}" for name, value in values if value is not None]
        for name, seconds in (("paused", each.counts.paused), ("away", each.counts.away)):
            if seconds / each.seconds > 0.01:
                told.append(f"{name} {share(seconds / each.seconds)}")
        words = f"{duration(each.start)} to {duration(each.start + each.seconds)}: {', '.join(told)}"
        yield _box(x, width, 0, HEIGHT, tag("title", words), class_="hint")


def _times(slices: Sequence[Slice]) -> Iterator[Markup]:
    end = _end(slices)
    y = _TOP + HEIGHT + 18
    for at, label in time_ticks(end):
        part = at / end
        anchor = "start" if part == 0 else "end" if part > 0.96 else "middle"
        yield tag("text", label, x=f"{100 * part:.2f}%", y=y, text_anchor=anchor)


def _legend(chart: Chart, slices: Sequence[Slice]) -> Markup:
    dashed = {line.name for line in chart.lines if line.style == "dashed"}
    named = [(each.name, f"{'dashed ' if each.name in dashed else ''}{each.colour}") for each in chart.lines]
    named += [(each.name, f"block {each.colour}") for each in chart.bars]
    for name in ("paused", "away"):
        if any(getattr(each.counts, name) > 0.01 * each.seconds for each in slices):
            named.append((name, f"block {name}"))
    items = (tag("li", tag("span", class_=f"key {colour}", aria_hidden="true"), name) for name, colour in named)
    return tag("ul", *items, class_="legend")
