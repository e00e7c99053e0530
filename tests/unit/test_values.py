"""The result is usable as an array, and the records that flow are plain."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import ServerError
from embedbatch.values import Chunks, Cut, Document, Embedding, Embeddings, Failure, Usage

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def embeddings(**more: Any) -> Embeddings:
    return Embeddings(VECTORS.copy(), range(4), [None] * 4, **more)


# As an array


def test_asarray_shares_the_memory() -> None:
    """np.asarray(embeddings) copies nothing: it is float32 of shape (4, 3), and the same memory."""
    result = embeddings()

    for array in (np.asarray(result), np.asarray(result, np.float32), np.asarray(result, copy=False)):
        assert (array.dtype, array.shape) == (np.float32, (4, 3))
        assert np.shares_memory(array, result.vectors)


def test_array_copies() -> None:
    """np.array(embeddings), and any copy=True, is memory of its own."""
    result = embeddings()

    for array in (np.array(result), np.asarray(result, copy=True), np.array(result, copy=True)):
        np.testing.assert_array_equal(array, VECTORS)
        assert not np.shares_memory(array, result.vectors)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, "f8", float, int])
def test_another_dtype_is_a_converted_copy(dtype: Any) -> None:
    """np.asarray(embeddings, dtype=…) converts; with copy=False, which numpy cannot keep, it raises."""
    result = embeddings()

    array = np.asarray(result, dtype=dtype)
    assert array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(array, VECTORS.astype(dtype))
    with pytest.raises(ValueError, match="copy"):
        np.asarray(result, dtype=dtype, copy=False)


def test_numpy_functions_take_it() -> None:
    """Matrix products, means and stacking see the rows."""
    result = embeddings()

    assert np.mean(result, axis=0).tolist() == VECTORS.mean(axis=0).tolist()
    assert (np.asarray(result) @ VECTORS.T).shape == (4, 4)
    assert np.vstack([result, result]).shape == (8, 3)
    assert np.isfinite(result).all()


def test_it_has_rows() -> None:
    """len, iteration, and indexing by number, slice, mask and list are those of the rows."""
    result = embeddings()

    assert len(result) == 4
    assert [row.tolist() for row in result] == VECTORS.tolist()
    assert result[1].tolist() == result[-3].tolist() == [3, 4, 5]
    assert result[1:3].tolist() == VECTORS[1:3].tolist()
    assert result[[0, 2]].tolist() == VECTORS[[0, 2]].tolist()
    assert result[VECTORS[:, 0] > 3].shape == (2, 3)
    assert result[2, 1] == 7
    with pytest.raises(IndexError):
        result[4]


def test_an_empty_result_is_an_empty_array() -> None:
    """Of no documents: length 0, no rows, shape (0, 256)."""
    result = Embeddings(np.empty((0, 256), np.float32), [], [])

    assert (len(result), list(result), np.asarray(result).shape) == (0, [], (0, 256))
    assert repr(result) == "<Embeddings 0 × 256, 0 failures, 0 cut>"


def test_the_repr_is_one_line() -> None:
    """A result of 1,234 rows shows its shape and counts, not its numbers."""
    result = Embeddings(
        np.zeros((1_234, 1_536), np.float32),
        range(1_234),
        [None] * 1_234,
        failures=[Failure(0, 0, ServerError("x"))],
        cut=[Cut(1, 1, "split", 9_000, ((0, 5), (5, 9)))],
    )

    assert repr(result) == "<Embeddings 1,234 × 1,536, 1 failures, 1 cut>"


def test_results_are_frozen_and_compared_by_identity() -> None:
    """Two results are never "equal": arrays have no one answer to that. A result can be a key."""
    result = embeddings()

    assert result != embeddings()
    assert {result: 1}[result] == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.vectors = VECTORS  # type: ignore[misc]


# Usage

counts = st.integers(0, 1_000)
usages = st.builds(Usage, counts, counts, counts, st.none() | counts, st.none() | counts)


@given(st.lists(usages, max_size=5))
def test_usages_add_up_in_any_order(several: list[Usage]) -> None:
    """The sum of what is known is known; it is None only if no reply told; the order does not matter."""
    total = sum(several, Usage())

    assert total == sum(reversed(several), Usage())
    assert total.requests == sum(usage.requests for usage in several)
    assert total.replies_without_usage == sum(usage.replies_without_usage for usage in several)
    for name in ("prompt_tokens", "total_tokens"):
        known = [getattr(usage, name) for usage in several if getattr(usage, name) is not None]
        assert getattr(total, name) == (sum(known) if known else None)


# Records


def test_records_are_frozen() -> None:
    """What was reported does not change afterwards."""
    records: list[Any] = [
        Document("a"),
        Embedding("id", 0, VECTORS[0]),
        Failure("id", 0, ServerError("x")),
        Cut("id", 0, "split", 5, ()),
        Usage(),
    ]
    for record in records:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, dataclasses.fields(record)[0].name, "other")


@given(st.lists(st.tuples(st.binary(max_size=4), counts, counts, counts, counts), max_size=8), st.data())
def test_selected_chunks_keep_their_columns_together(
    rows: list[tuple[bytes, int, int, int, int]], data: st.DataObject
) -> None:
    """select(rows) has exactly those rows, in that order, in all five columns, and leaves the original as it was."""
    chunks = Chunks()
    for row in rows:
        chunks.append(*row)
    wanted = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=6)) if rows else []

    chosen = chunks.select(wanted)

    assert len(chunks) == len(rows)
    assert len(chosen) == len(wanted)
    columns = zip(chosen.inputs, chosen.documents, chosen.parts, chosen.tokens, chosen.bounds, strict=True)
    assert list(columns) == [rows[row] for row in wanted]
    chosen.append(b"", 0, 0, 0, 0)
    assert len(chunks) == len(rows)
