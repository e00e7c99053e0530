"""Blocks of results become one array: each row in its place, NaN where there is none, every failure listed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.assemble.collector import Collector
from embedbatch.assemble.reassembler import Block
from embedbatch.errors import NotAttemptedError, ServerError
from embedbatch.values import Cut, Embeddings, Failure, Id, Span, Usage

NOTHING: dict[str, Any] = {"cut": (), "repaired": (), "usage": Usage()}


def block_of(*rows: tuple[int, list[float]], failed: tuple[int, ...] = (), spans: list[Span] | None = None) -> Block:
    """A block with *rows* as (position, vector), each with 10 tokens more than its position."""
    return Block(
        positions=[position for position, _ in rows],
        ids=[f"d{position}" for position, _ in rows],
        tokens=[position + 10 for position, _ in rows],
        spans=list(spans) if spans else [None] * len(rows),
        arrays=[np.array([vector for _, vector in rows], np.float32)] if rows else [],
        failures=[failure(position) for position in failed],
    )


def failure(position: int) -> Failure:
    return Failure(f"d{position}", position, ServerError("HTTP 500"), 6)


def ids(count: int) -> list[Id]:
    return [f"d{position}" for position in range(count)]


def collect(count: int, *blocks: Block, dimensions: int | None = None, row_per_chunk: bool = False) -> Embeddings:
    collector = Collector(ids(count), dimensions=dimensions, row_per_chunk=row_per_chunk)
    for block in blocks:
        collector.add(block)
    return collector.result(**NOTHING)


@given(st.permutations(range(9)), st.lists(st.integers(1, 4), max_size=4), st.sets(st.integers(0, 8), max_size=4))
def test_rows_find_their_places(order: list[int], sizes: list[int], failed: set[int]) -> None:
    """Nine documents in blocks of any size and order: row i is document i's, and NaN if it failed."""
    blocks = []
    rest = list(order)
    for size in [*sizes, 9]:
        some, rest = rest[:size], rest[size:]
        rows = [(position, [float(position), 1.0]) for position in some if position not in failed]
        blocks.append(block_of(*rows, failed=tuple(position for position in some if position in failed)))

    embeddings = collect(9, *blocks)

    assert embeddings.vectors.dtype == np.float32
    assert embeddings.vectors.shape == ((9, 2) if len(failed) < 9 else (9, 0))
    for position in range(9):
        if position in failed:
            assert np.isnan(embeddings.vectors[position]).all()
            assert embeddings.tokens[position] is None
        else:
            assert embeddings.vectors[position].tolist() == [position, 1.0]
            assert embeddings.tokens[position] == position + 10
    assert [one.position for one in embeddings.failures] == sorted(failed)
    assert embeddings.ids == ids(9)
    assert embeddings.spans == {}


def test_what_was_never_heard_of_was_not_attempted() -> None:
    """After a run that stopped, documents without a result are NotAttemptedErrors of 0 attempts, in their places."""
    embeddings = collect(4, block_of((2, [1.0, 2.0]), failed=(1,)))

    assert [one.position for one in embeddings.failures] == [0, 1, 3]
    assert [type(one.error) for one in embeddings.failures] == [NotAttemptedError, ServerError, NotAttemptedError]
    assert [one.attempts for one in embeddings.failures] == [0, 6, 0]
    assert np.isnan(embeddings.vectors).all(axis=1).tolist() == [True, True, False, True]


@pytest.mark.parametrize("row_per_chunk", [False, True])
@pytest.mark.parametrize(("dimensions", "expected"), [(None, 0), (256, 256)])
def test_no_documents_are_an_empty_array(row_per_chunk: bool, dimensions: int | None, expected: int) -> None:
    """Nothing embedded is float32 of shape (0, dimensions), or (0, 0) where they are not known."""
    embeddings = collect(0, dimensions=dimensions, row_per_chunk=row_per_chunk)

    assert embeddings.vectors.shape == (0, expected)
    assert embeddings.vectors.dtype == np.float32
    assert (list(embeddings.ids), list(embeddings.tokens), list(embeddings.failures)) == ([], [], [])


@pytest.mark.parametrize("row_per_chunk", [False, True])
@pytest.mark.parametrize(("dimensions", "expected"), [(None, 0), (256, 256)])
def test_nothing_but_failures_is_nan(row_per_chunk: bool, dimensions: int | None, expected: int) -> None:
    """Two documents that both failed are two rows of NaN, as wide as is known."""
    embeddings = collect(2, block_of(failed=(0, 1)), dimensions=dimensions, row_per_chunk=row_per_chunk)

    assert embeddings.vectors.shape == (2, expected)
    assert np.isnan(embeddings.vectors).all()
    assert [one.position for one in embeddings.failures] == [0, 1]


def test_a_row_per_chunk_stands_in_the_order_of_documents_and_chunks() -> None:
    """Documents of 2, 0 (failed), 1 and 0 (not attempted) chunks are 5 rows; ids, tokens and spans are parallel."""
    embeddings = collect(
        4,
        block_of((0, [1.0]), (0, [2.0]), failed=(1,), spans=[(0, 5), (5, 9)]),
        block_of((2, [3.0]), spans=[(0, 4)]),
        row_per_chunk=True,
    )

    assert embeddings.ids == ["d0", "d0", "d1", "d2", "d3"]
    np.testing.assert_array_equal(embeddings.vectors, np.array([[1], [2], [np.nan], [3], [np.nan]], np.float32))
    assert embeddings.tokens == [10, 10, None, 12, None]
    assert embeddings.spans == {0: (0, 5), 1: (5, 9), 3: (0, 4)}
    assert [one.position for one in embeddings.failures] == [1, 3]


def test_a_failure_before_the_first_vector_is_as_wide_as_the_others() -> None:
    """Under "chunks" a document that failed before any size was known has a row as wide as the vectors that follow."""
    embeddings = collect(2, block_of(failed=(0,)), block_of((1, [1.0, 2.0]), spans=[(0, 4)]), row_per_chunk=True)

    np.testing.assert_array_equal(embeddings.vectors, np.array([[np.nan, np.nan], [1, 2]], np.float32))


def test_reports_are_passed_on() -> None:
    """What was cut, what was repaired and what was used are on the result."""
    collector = Collector(ids(1), dimensions=None, row_per_chunk=False)
    collector.add(block_of((0, [1.0])))
    cut = [Cut("d0", 0, "split", 12, ((0, 5), (5, 9)))]
    usage = Usage(requests=2, replies=1, total_tokens=12)

    embeddings = collector.result(cut=cut, repaired=["d0"], usage=usage)

    assert (embeddings.cut, embeddings.repaired, embeddings.usage) == (cut, ["d0"], usage)


@given(
    split=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    in_place=st.lists(st.booleans(), min_size=5, max_size=5),
    order=st.permutations(range(5)),
    failed=st.sets(st.integers(0, 4)),
)
def test_replies_may_be_written_where_they_belong(
    split: list[int], in_place: list[bool], order: list[int], failed: set[int]
) -> None:
    """Replies in any order, some written into the result as they came; some of their documents fail after that."""
    ends = np.cumsum(split).tolist()
    count = ends[-1]
    collector = Collector(ids(count), dimensions=2, row_per_chunk=False)
    for number in [number for number in order if number < len(split)]:
        positions = range(ends[number] - split[number], ends[number])
        vectors = np.array([[position, 1.0] for position in positions], np.float32)
        if in_place[number]:
            rows = collector.rows_for(positions)
            assert rows is not None
            assert rows.shape == vectors.shape
            rows[:] = vectors
            vectors = rows
        if number in failed:
            collector.add(Block(failures=[failure(position) for position in positions]))
        else:
            fields = {"ids": ids(len(positions)), "tokens": [7] * len(positions), "spans": [None] * len(positions)}
            collector.add(Block(positions=list(positions), arrays=[vectors], **fields))
    embeddings = collector.result(**NOTHING)

    lost = [
        row for number in failed if number < len(split) for row in range(ends[number] - split[number], ends[number])
    ]
    kept = [position for position in range(count) if position not in lost]
    assert embeddings.vectors[kept].tolist() == [[position, 1.0] for position in kept]
    assert [embeddings.tokens[position] for position in kept] == [7] * len(kept)
    assert np.isnan(embeddings.vectors[lost]).all()


def test_there_is_no_place_for_rows_that_are_not_together_or_of_unknown_size() -> None:
    """None where several rows may come for a document, positions have gaps or are out of order, or nothing has come."""
    assert Collector(ids(3), dimensions=None, row_per_chunk=False).rows_for([0, 1]) is None
    assert Collector(ids(3), dimensions=2, row_per_chunk=True).rows_for([0, 1]) is None
    collector = Collector(ids(3), dimensions=2, row_per_chunk=False)
    assert collector.rows_for([0, 2]) is None
    assert collector.rows_for([1, 0]) is None
    assert collector.rows_for([1, 1]) is None
