"""What the tests of the sweep's rules share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from embedbatch.sweep import Grid, Measurement, Point

SIZES = (1, 4, 16, 64, 256)
PLACES = (1, 2, 4, 8, 16, 32)

grids = st.builds(
    Grid,
    st.lists(st.integers(1, 2_048), min_size=1, max_size=6, unique=True),
    st.lists(st.integers(1, 64), min_size=1, max_size=6, unique=True),
)
rates = st.floats(0.1, 1e6)


def measured(batch_inputs: int, in_flight: int, rate: float = 10.0, **changes: Any) -> Measurement:
    """A point that was measured to embed *rate* inputs per second, at 10 tokens an input."""
    facts = {
        "point": Point(batch_inputs, in_flight),
        "requests": 8,
        "inputs": 8 * batch_inputs,
        "tokens": 80 * batch_inputs,
        "inputs_per_second": rate,
        "p50": 0.1,
    }
    return Measurement(**{**facts, **changes})


@st.composite
def measurements(draw: st.DrawFn) -> list[Measurement]:
    """Some points of the usual grid, with any throughput and latency."""
    every = st.tuples(st.sampled_from(SIZES), st.sampled_from(PLACES))
    points = draw(st.lists(every, min_size=1, max_size=30, unique=True))
    return [measured(*point, draw(rates), p50=draw(st.floats(0.001, 10))) for point in points]
