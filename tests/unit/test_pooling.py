"""Chunk vectors become one document vector: the weighted mean at length 1, whatever order they came in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.assemble.pooling import WeightedMean
from embedbatch.values import Vector

numbers = st.floats(-1, 1, width=32)


@st.composite
def weighted_vectors(draw: st.DrawFn) -> tuple[list[int], list[Vector], list[int]]:
    """Weights, a vector for each, and an order of arrival."""
    parts = draw(st.integers(1, 8))
    dimensions = draw(st.integers(1, 6))
    weights = draw(st.lists(st.integers(1, 8_192), min_size=parts, max_size=parts))
    rows = draw(st.lists(st.lists(numbers, min_size=dimensions, max_size=dimensions), min_size=parts, max_size=parts))
    return weights, [np.array(row, np.float32) for row in rows], draw(st.permutations(range(parts)))


def mean(weights: list[int], vectors: list[Vector], order: list[int]) -> Vector:
    pool = WeightedMean(weights)
    for part in order:
        assert not pool.is_complete
        pool.add(part, vectors[part])
    assert pool.is_complete
    return pool.result()


@given(weighted_vectors())
def test_the_order_of_arrival_changes_no_bit(given_vectors: tuple[list[int], list[Vector], list[int]]) -> None:
    """Up to 8 chunks in any order give the same float32 bits as in their own order."""
    weights, vectors, order = given_vectors
    in_order = mean(weights, vectors, list(range(len(weights))))

    assert mean(weights, vectors, order).tobytes() == in_order.tobytes()


@given(weighted_vectors())
def test_the_mean_points_where_the_weighted_sum_points(
    given_vectors: tuple[list[int], list[Vector], list[int]],
) -> None:
    """The result is Σ wᵢ·vᵢ at length 1, float32, or all NaN where the sum is exactly zero: never zeros."""
    weights, vectors, order = given_vectors
    result = mean(weights, vectors, order)

    expected = np.average(np.array(vectors, np.longdouble), axis=0, weights=weights)
    assert result.dtype == np.float32
    if np.isnan(result).any():
        assert np.isnan(result).all()
        assert np.abs(expected).max() < 1e-12
    else:
        assert np.linalg.norm(result) == pytest.approx(1, abs=1e-6)
        if np.abs(expected).max() > 1e-6:
            assert result == pytest.approx((expected / np.linalg.norm(expected)).astype(float), abs=1e-6)


def test_weights_are_tokens() -> None:
    """A chunk of 300 tokens counts three times as much as one of 100: (3, 1) at length 1."""
    result = mean([300, 100], [np.array([1, 0], np.float32), np.array([0, 1], np.float32)], [1, 0])

    assert result == pytest.approx(np.array([3, 1]) / np.sqrt(10), abs=1e-7)


def test_chunks_that_cancel_each_other_out_have_no_direction() -> None:
    """v and −v of equal weight give NaN, which cannot be taken for a vector, and no warning."""
    vector = np.array([0.6, 0.8], np.float32)

    assert np.isnan(mean([7, 7], [vector, -vector], [0, 1])).all()


def test_a_vector_is_copied() -> None:
    """What happens to a reply's array afterwards changes no mean."""
    pool = WeightedMean([1, 1])
    reply = np.array([[1, 0], [0, 1]], np.float32)
    pool.add(1, reply[1])
    reply[:] = 9
    pool.add(0, np.array([0, 1], np.float32))

    assert pool.result().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("size", [1e-38, 1e38])
def test_very_small_and_very_large_vectors_have_a_direction_too(size: float) -> None:
    """The sum is in float64: vectors of 1e-38 or 1e38 neither vanish nor overflow."""
    vectors = [np.array([size, 0], np.float32), np.array([0, size], np.float32)]

    assert mean([8_192, 8_192], vectors, [0, 1]) == pytest.approx([0.5**0.5] * 2, abs=1e-6)
