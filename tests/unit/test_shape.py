"""Vectors leave at the size and length that was asked for; one without a direction is reported, not scaled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from embedbatch.errors import DimensionsError
from embedbatch.wire.reply import Decoded
from embedbatch.wire.shape import AS_IT_IS, Shape

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
matrices = array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: arrays(np.float32, shape, elements=numbers)
)


def decoded(vectors: object, bad_rows: dict[int, str] | None = None) -> Decoded:
    return Decoded(np.asarray(vectors, np.float32), bad_rows or {}, 7, 7)


@given(vectors=matrices, data=st.data())
def test_what_is_kept_points_where_it_did_at_length_one(vectors: np.ndarray, data: st.DataObject) -> None:
    """Any floats, the largest and the smallest too: each row is its first numbers, scaled; zeros are bad rows."""
    keep = data.draw(st.integers(1, vectors.shape[1]) | st.none())
    shaped = Shape(dimensions=keep, normalize=True).apply(decoded(vectors))

    first = vectors[:, :keep].astype(np.float64)
    lengths = np.sqrt((first * first).sum(axis=1))
    assert shaped.vectors.dtype == np.float32
    assert shaped.vectors.shape == first.shape
    assert set(shaped.bad_rows) == set(np.flatnonzero(lengths == 0))
    good = lengths > 0
    np.testing.assert_allclose(shaped.vectors[good], first[good] / lengths[good, None], rtol=1e-6, atol=1e-45)
    np.testing.assert_allclose(np.linalg.norm(shaped.vectors[good].astype(np.float64), axis=1), 1, atol=1e-6)


@given(vectors=matrices)
def test_shaping_twice_changes_nothing_more(vectors: np.ndarray) -> None:
    """But for the last bit."""
    once = Shape(normalize=True).apply(decoded(vectors))
    twice = Shape(normalize=True).apply(decoded(np.nan_to_num(once.vectors)))

    good = [row for row in range(len(vectors)) if row not in once.bad_rows]
    np.testing.assert_allclose(twice.vectors[good], once.vectors[good], rtol=1e-6, atol=1e-45)


def test_without_a_shape_vectors_are_left_alone() -> None:
    """Bit by bit, and without a copy."""
    given_one = decoded([[3, 4]])

    assert AS_IT_IS.apply(given_one) is given_one
    assert not AS_IT_IS
    assert Shape(dimensions=2) and Shape(normalize=True)


def test_what_is_kept_does_not_hold_the_whole_reply() -> None:
    """A view of the first numbers would keep all of them in memory."""
    assert Shape(dimensions=2, normalize=True).apply(decoded(np.ones((3, 8)))).vectors.base is None


def test_bad_rows_stay_bad_and_disturb_nobody() -> None:
    """Rows that hold NaN, infinity or zeros were reported before, and keep their reason."""
    vectors = [[np.nan, 1, 1], [np.inf, 1, 1], [0, 0, 0], [0, 0, 5], [3, 4, 0]]
    shaped = Shape(dimensions=2, normalize=True).apply(decoded(vectors, {0: "a", 1: "b", 2: "c"}))

    assert shaped.bad_rows == {0: "a", 1: "b", 2: "c", 3: "nothing but zeros in its first 2 numbers"}
    np.testing.assert_allclose(shaped.vectors[4], [0.6, 0.8])


def test_what_else_a_reply_says_stays() -> None:
    """Its tokens, and the size that its vectors came with, which later replies are held to."""
    shaped = Shape(dimensions=2, normalize=True).apply(decoded(np.ones((3, 8))))

    assert (shaped.dimensions, shaped.vectors.shape[1]) == (8, 2)
    assert (shaped.prompt_tokens, shaped.total_tokens) == (7, 7)
    assert decoded(np.ones((3, 8))).dimensions == 8


def test_vectors_with_fewer_numbers_are_refused() -> None:
    """There is nothing to fill them up with."""
    with pytest.raises(DimensionsError, match="at least 9 numbers, of which to keep so many; got 8"):
        Shape(dimensions=9, normalize=True).apply(decoded(np.ones((3, 8))))
