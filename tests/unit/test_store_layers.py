"""Two stores as one."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch import Batch, Chunks
from embedbatch.store_layers import Layered
from embedbatch.values import Vector, Vectors

from .caching import batch_of, vectors_of, wires


class Memory:
    """A store that remembers by the chunk's bytes, and what it was asked and given."""

    def __init__(self, inputs: list[bytes], error: Exception | None = None) -> None:
        self.vectors: dict[bytes, Vector] = dict(zip(inputs, vectors_of(inputs), strict=True))
        self.error = error
        self.asked: list[list[bytes]] = []
        self.given: list[Batch] = []

    async def known(self, chunks: Chunks, /) -> Mapping[int, Vector]:
        self.asked.append(chunks.inputs)
        return {row: self.vectors[wire] for row, wire in enumerate(chunks.inputs) if wire in self.vectors}

    async def put(self, batch: Batch, vectors: Vectors, /) -> None:
        self.given.append(batch)
        if self.error:
            raise self.error
        self.vectors.update(zip(batch.inputs, vectors, strict=True))


subsets = st.lists(st.sampled_from(wires(12)), unique=True)


@given(subsets, subsets, subsets)
def test_the_second_is_asked_for_what_the_first_does_not_know(
    first: list[bytes], second: list[bytes], asked: list[bytes]
) -> None:
    """
    All that either knows comes back, in its row; what only the second knew is then known to the first, and that is all.
    """
    above, below = Memory(first), Memory(second)

    found = anyio.run(Layered(above, below).known, batch_of(asked))

    assert {asked[row] for row in found} == set(asked) & {*first, *second}
    expected = vectors_of(asked)
    assert all(np.array_equal(vector, expected[row]) for row, vector in found.items())
    left = [wire for wire in asked if wire not in first]
    assert below.asked == ([left] if left else [])
    assert set(above.vectors) == {*first, *(set(asked) & set(second))}
    assert not below.given


def test_what_is_put_into_the_first_knows_its_documents() -> None:
    """
    The rows that the second knew keep their documents and parts.
    """
    above = Memory(wires(1))
    chunks = Chunks(wires(4), [7, 8, 8, 9], [0, 0, 1, 0], [0] * 4, [9] * 4)

    anyio.run(Layered(above, Memory(wires(2, 1))).known, chunks)

    (given_,) = above.given
    assert (given_.inputs, given_.documents, given_.parts) == (wires(2, 1), [8, 8], [0, 1])


def test_what_an_endpoint_gave_goes_to_both() -> None:
    """
    Each gets the whole batch.
    """
    above, below = Memory([]), Memory([])

    anyio.run(Layered(above, below).put, batch_of(wires(3)), vectors_of(wires(3)))

    assert above.vectors.keys() == below.vectors.keys() == set(wires(3))


def test_the_second_gets_it_also_if_the_first_fails() -> None:
    """
    The error comes out, and what was paid for is in the second.
    """
    below = Memory([])

    with pytest.raises(OSError, match="disk full"):
        anyio.run(Layered(Memory([], OSError("disk full")), below).put, batch_of(wires(3)), vectors_of(wires(3)))

    assert below.vectors.keys() == set(wires(3))
