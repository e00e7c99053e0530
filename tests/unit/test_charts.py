"""Axes have few round ticks around what is drawn, and nothing is drawn outside of them."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.jobs.charts import HEIGHT, WIDTH, Bars, Chart, Line, compact, draw, log_ticks, ticks, time_ticks
from embedbatch.jobs.timeline import Bin, Slice

SVG = "{http://www.w3.org/2000/svg}"
positive = st.floats(1e-6, 1e12)
values = st.floats(0, 1e9)


def slices(count: int, seconds: float = 1.0) -> list[Slice]:
    return [Slice(number * seconds, seconds, Bin()) for number in range(count)]


def coordinates(path: str) -> list[tuple[float, float]]:
    """The points that a path names."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


@given(positive)
def test_linear_ticks_reach_from_0_to_the_most(most: float) -> None:
    """Two to six ticks, evenly spaced from 0; the last one is not below the most, and not far above it."""
    found = ticks(most)

    assert 2 <= len(found) <= 6
    assert found[0] == 0
    assert most * (1 - 1e-6) <= found[-1] <= 2.6 * most
    assert found == pytest.approx([number * found[1] for number in range(len(found))])


@given(st.integers(1, 10**9))
def test_whole_ticks_are_whole(most: int) -> None:
    """Where there are no fractions, no tick is one."""
    assert all(tick == int(tick) for tick in ticks(most, whole=True))
    assert ticks(most, whole=True)[-1] >= most


@given(st.floats(1e-4, 1e6), st.floats(1, 1e6))
def test_logarithmic_ticks_hold_what_is_drawn(least: float, factor: float) -> None:
    """From the least or below to the most or above, in order, and not more than can be read."""
    most = least * factor
    found = log_ticks(least, most)

    assert found[0] <= least * 1.001 and found[-1] >= most * 0.999
    assert found == sorted(set(found))
    assert 2 <= len(found) <= 13


@given(st.floats(0.01, 1e9))
def test_times_below_a_chart_are_few_and_inside_of_it(seconds: float) -> None:
    """From a hundredth of a second to decades: one to six labels, the first at 0."""
    found = time_ticks(seconds)

    assert 1 <= len(found) <= 7
    assert found[0] == (0, "0")
    assert all(0 <= at <= seconds * 1.001 for at, _ in found)
    assert len({label for _, label in found}) == len(found)


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        (1, ["0", "0.2 s", "0.4 s", "0.6 s", "0.8 s", "1 s"]),
        (45, ["0", "10 s", "20 s", "30 s", "40 s"]),
        (440, ["0", "2 min", "4 min", "6 min"]),
        (7_000, ["0", "30 min", "60 min", "90 min"]),
        (604_800, ["0", "2 d", "4 d", "6 d"]),
    ],
)
def test_times_are_in_units_that_fit(seconds: float, labels: list[str]) -> None:
    """Seconds, minutes, hours or days, as the length of the run asks for."""
    assert [label for _, label in time_ticks(seconds)] == labels


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.25, "0.25"), (250, "250"), (2_500, "2.5k"), (16_667, "16.7k"), (3e6, "3M"), (2e9, "2G")],
)
def test_numbers_of_an_axis_are_short(value: float, shown: str) -> None:
    """Four characters or five are enough."""
    assert compact(value) == shown


@given(st.lists(st.none() | values, min_size=1, max_size=30), st.sampled_from(["linear", "log"]), st.data())
def test_everything_is_drawn_inside_of_the_plot(line: list[float | None], scale: str, data: st.DataObject) -> None:
    """Whatever the values: well-formed, no number that is none, and every point within the plot."""
    bars = data.draw(st.lists(st.floats(0, 1e6), min_size=len(line), max_size=len(line)))
    chart = Chart(
        title="T < & >",
        unit="u",
        summary="s",
        lines=[Line("a", "blue", line, "area"), Line("b", "red", line, "dashed")],
        bars=[Bars("c", "green", bars), Bars("d", "red", bars)],
        scale="log" if scale == "log" else "linear",
    )

    svg = ElementTree.fromstring(draw(chart, slices(len(line)), "chart")).find(f".//{SVG}svg")

    assert svg is not None
    for path in svg.iter(f"{SVG}path"):
        for x, y in coordinates(path.attrib["d"]):
            assert -0.1 <= x <= WIDTH + 0.1
            assert -0.1 <= y <= HEIGHT + 0.1
    for box in svg.iter(f"{SVG}rect"):
        numbers = [float(box.attrib[name]) for name in ("x", "y", "width", "height")]
        assert all(math.isfinite(number) and number >= -0.01 for number in numbers)
        assert numbers[1] + numbers[3] <= HEIGHT + 0.1


def test_a_line_is_broken_where_nothing_is_known() -> None:
    """Two values, a gap and one: two pieces, the second as wide as its slice."""
    chart = Chart(title="t", unit="u", summary="s", lines=[Line("a", "blue", [1.0, 1.0, None, 1.0])])
    drawn = ElementTree.fromstring(draw(chart, slices(4), "chart"))

    (path,) = [each.attrib["d"] for each in drawn.iter(f"{SVG}path") if "line" in each.attrib["class"]]

    assert [[x for x, _ in coordinates("M" + piece)] for piece in path.split("M")[1:]] == [
        [0.0, 125.0, 375.0, 500.0],
        [750.0, 875.0, 1000.0],
    ]


def test_a_chart_says_what_it_is() -> None:
    """It has a title and a summary for those who do not see it, and each slice tells its values."""
    chart = Chart(title="Speed", unit="u/s", summary="Up to 3.", lines=[Line("a", "blue", [1.0, 3.0])])
    drawn = ElementTree.fromstring(draw(chart, [Slice(0, 60, Bin()), Slice(60, 60, Bin(away=30.0))], "chart-7"))

    frame = drawn.find(f".//{SVG}svg")
    assert frame is not None
    labelled = frame.attrib["aria-labelledby"].split()
    texts = {each.attrib["id"]: each.text for each in frame if "id" in each.attrib}
    assert frame.attrib["role"] == "img"
    assert [texts[name] for name in labelled] == ["Speed", "Up to 3."]
    hints = [each.text for each in drawn.iter(f"{SVG}title")]
    assert hints[1:] == ["0 s to 1 min: a 1", "1 min to 2 min: a 3, away 50 %"]
    assert [each.text or "".join(each.itertext()) for each in drawn.iter("li")] == ["a", "away"]
