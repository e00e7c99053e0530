"""Blocks of results become the one array that ``embed()`` returns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import NotAttemptedError
from ..values import Cut, Embeddings, Failure, Id, Span, Usage, Vectors
from .reassembler import Block, are_consecutive


class Collector:
    """
    Gathers the blocks of a run over *ids*, one id per document.

    Rows go straight to their place in one array that is made when the size of a vector is known; replies may have been
    written there as they came. With
    *row_per_chunk* the number of rows is not known before: blocks, which come in order then, are kept and joined.
    """

    def __init__(self, ids: Sequence[Id], *, dimensions: int | None, row_per_chunk: bool) -> None:
        self._ids = ids
        self._dimensions = dimensions or 0
        self._row_per_chunk = row_per_chunk
        self._vectors: Vectors | None = None
        self._tokens: list[int | None] = [None] * len(ids)
        self._has_row = bytearray(len(ids))
        self._blocks: list[Block] = []
        self._failures: dict[int, Failure] = {}

    def add(self, block: Block) -> None:
        """Take in one block of results."""
        for failure in block.failures:
            self._failures[failure.position] = failure
        if not block.positions:
            return
        self._dimensions = block.arrays[0].shape[1]
        if self._row_per_chunk:
            for position in block.positions:
                self._has_row[position] = 1
            self._blocks.append(block)
            return
        at = 0
        for array in block.arrays:
            end = at + len(array)
            self._place(block.positions[at:end], block.tokens[at:end], array)
            at = end

    def rows_for(self, positions: Sequence[int]) -> Vectors | None:
        """Where the vectors of the documents at *positions* belong, if that is known and is one place."""
        if self._row_per_chunk or not self._dimensions or not are_consecutive(positions):
            return None
        return self._all_rows()[positions[0] : positions[-1] + 1]

    def _all_rows(self) -> Vectors:
        if self._vectors is None:
            self._vectors = np.empty((len(self._ids), self._dimensions), np.float32)
        return self._vectors

    def _place(self, positions: Sequence[int], tokens: Sequence[int | None], vectors: Vectors) -> None:
        rows = self._all_rows()
        if not are_consecutive(positions):
            rows[positions] = vectors
            for position, count in zip(positions, tokens, strict=True):
                self._tokens[position] = count
                self._has_row[position] = 1
            return
        first, end = positions[0], positions[-1] + 1
        if not np.may_share_memory(rows, vectors):  # else they were written there as they came
            rows[first:end] = vectors
        self._tokens[first:end] = tokens
        self._has_row[first:end] = b"\1" * (end - first)

    def result(self, *, cut: Sequence[Cut], repaired: Sequence[Id], usage: Usage) -> Embeddings:
        """The whole result. Documents that were never heard of again were not attempted."""
        for position, id in enumerate(self._ids):
            if not self._has_row[position] and position not in self._failures:
                error = NotAttemptedError("the run stopped before this document was sent")
                self._failures[position] = Failure(id, position, error)
        failures = [self._failures[position] for position in sorted(self._failures)]
        if self._row_per_chunk:
            return self._join(failures, cut, repaired, usage)
        vectors = self._all_rows()
        # At the end, and only these: to fill the whole array before would write all of the memory twice.
        vectors[[failure.position for failure in failures]] = np.nan
        return Embeddings(vectors, self._ids, self._tokens, failures, cut, repaired, usage)

    def _join(self, failures: list[Failure], cut: Sequence[Cut], repaired: Sequence[Id], usage: Usage) -> Embeddings:
        """One row per chunk, in the order of documents and chunks; a failed document has one row, of NaN."""
        rows: list[tuple[int, Vectors, int | None, Span | None]] = [
            row
            for block in self._blocks
            for row in zip(block.positions, block.vectors, block.tokens, block.spans, strict=True)
        ]
        blank = np.full(self._dimensions, np.nan, np.float32)
        rows += [(failure.position, blank, None, None) for failure in failures]
        rows.sort(key=lambda row: row[0])  # stable: chunks keep their order
        vectors = np.stack([row[1] for row in rows]) if rows else np.empty((0, self._dimensions), np.float32)
        return Embeddings(
            vectors,
            [self._ids[row[0]] for row in rows],
            [row[2] for row in rows],
            failures,
            cut,
            repaired,
            usage,
            {number: row[3] for number, row in enumerate(rows) if row[3] is not None},
        )
