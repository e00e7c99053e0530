"""Which vectors float16 has room for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embedbatch.jobs.dtypes import rounded, rows_that_fit


@given(arrays(np.float32, (5, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_what_fits_is_within_its_rounding(vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    """Half a unit in the last of 11 bits, or of the smallest number; never infinite, never all zeros."""
    fit = rows_that_fit(vectors, "float16")
    narrow = rounded(vectors, "float16")[fit].astype(np.float64)

    assert np.isfinite(narrow).all()
    assert (narrow != 0).any(axis=1).all()
    error = np.abs(narrow - vectors[fit])
    assert (error <= np.maximum(np.abs(vectors[fit]) * 2.0**-11, 2.0**-25)).all()
    assert ((np.abs(vectors[~fit]) >= 65_520).any(axis=1) | (np.abs(vectors[~fit]) <= 2.0**-25).all(axis=1)).all()


@pytest.mark.parametrize(
    ("row", "fits"),
    [
        ([65_504, 0], True),
        ([65_519, 0], True),
        ([65_520, 0], False),
        ([0, -1e30], False),
        ([6e-8, 0], True),
        ([2e-8, -2e-8], False),
    ],
)
def test_a_row_fits_or_not(row: list[float], fits: bool) -> None:
    """At the bounds. float32 has room for all of them."""
    vectors = np.array([row], np.float32)

    assert rows_that_fit(vectors, "float16").tolist() == [fits]
    assert rows_that_fit(vectors, "float32").tolist() == [True]
