"""
Restores the original order and makes documents of chunks. What it holds is bounded by the pipeline's window.

Replies come in any order; a block of results goes out as soon as it is the next one (or, unordered, as soon as it
is done). A document with several chunks is pooled into one vector, or keeps one row per chunk.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress, islice, repeat
from typing import TypeAlias

import numpy as np

from ..errors import EmbedbatchError, InvalidReplyError
from ..events import DocumentsEmbedded
from ..values import Batch, Failure, Id, Span, Vector, Vectors
from .pooling import WeightedMean


@dataclass(slots=True)
class Block:
    """
    Results that may be handed out, as columns: *positions*, *ids*, *tokens* and *spans* are parallel to the rows
    of *vectors*, float32 of shape (rows, dimensions), which stand in *arrays*, one after the other. *documents*, *rows*
    and *bytes* are what the window gets back.
    *entered_at* is the sum of the times at which the documents entered, *first_entered_at* the earliest.
    """

    positions: list[int] = field(default_factory=list)
    ids: list[Id] = field(default_factory=list)
    tokens: list[int | None] = field(default_factory=list)
    spans: list[Span | None] = field(default_factory=list)
    arrays: list[Vectors] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    documents: int = 0
    rows: int = 0
    bytes: int = 0
    entered_at: float = 0.0
    first_entered_at: float = math.inf

    @property
    def vectors(self) -> Vectors:
        """All rows in one array."""
        if not self.arrays:
            return np.empty((0, 0), np.float32)
        return self.arrays[0] if len(self.arrays) == 1 else np.concatenate(self.arrays)

    def report(self, now: float) -> DocumentsEmbedded:
        """The event of handing it out."""
        seconds = max(0.0, self.documents * now - self.entered_at)
        longest = now - self.first_entered_at
        return DocumentsEmbedded(self.documents, len(self.positions), self.bytes, seconds, longest)


# A document is a plain tuple here, and what befalls a batch befalls it as columns: one small object for each document
# would cost as much as all the rest of this room.
_Unfinished: TypeAlias = "tuple[Id, int, float]"
"""A document that has entered and not gone out: its id, its bytes, and when it entered."""

_Done: TypeAlias = "tuple[Vectors, int, int, Sequence[int | None], Sequence[Span | None]]"
"""A document's vectors: an array, its first row there and the one behind its last; tokens and spans of each row."""

_NO_SPAN: tuple[None] = (None,)


class _Several:
    """The chunks of one document on their way in."""

    __slots__ = ("collect", "spans", "tokens")

    def __init__(self, collect: WeightedMean | _Rows, spans: Sequence[Span], parts: int) -> None:
        self.collect = collect
        self.spans = spans
        self.tokens = [0] * parts


class _Rows:
    """Collects one row per chunk."""

    def __init__(self, parts: int) -> None:
        self._rows: dict[int, Vector] = {}
        self._parts = parts

    def add(self, part: int, vector: Vector) -> None:
        self._rows[part] = vector.copy()

    @property
    def is_complete(self) -> bool:
        return len(self._rows) == self._parts

    def result(self) -> Vectors:
        return np.stack([self._rows[part] for part in range(self._parts)])


class Reassembler:
    """
    Takes documents in and vectors in any order; gives blocks out.

    Every document that was entered leaves exactly once: in a row (or a row per chunk), or as a failure.
    """

    def __init__(self, *, ordered: bool, row_per_chunk: bool) -> None:
        self._ordered = ordered
        self._row_per_chunk = row_per_chunk
        self._next = 0
        self._unfinished: dict[int, _Unfinished] = {}
        self._several: dict[int, _Several] = {}
        self._more_rows: dict[int, int] = {}  # than one, that documents were expected to have
        self._ready: dict[int, _Done | Failure] = {}
        self._whole: dict[int, Block] = {}  # of one reply each, by their first position

    def __len__(self) -> int:
        """Documents that have entered and not gone out."""
        return len(self._unfinished) + sum(block.documents for block in self._whole.values())

    def enter(self, position: int, id: Id, nbytes: int, now: float = 0.0) -> None:
        """Note a document; positions are counted from 0 without a gap."""
        self._unfinished[position] = (id, nbytes, now)

    def enter_together(self, positions: Sequence[int], sizes: Sequence[int], now: float) -> None:
        """Note documents of which each has its position as its id."""
        self._unfinished.update(zip(positions, zip(positions, sizes, repeat(now)), strict=True))

    def expect(self, position: int, spans: Sequence[Span], weights: Sequence[int]) -> int:
        """Say that a document has one chunk for each of *spans*; return how many rows that adds."""
        collect = _Rows(len(spans)) if self._row_per_chunk else WeightedMean(weights)
        self._several[position] = _Several(collect, spans, len(spans))
        self._more_rows[position] = len(spans) - 1
        return len(spans) - 1

    def deliver(self, batch: Batch, vectors: Vectors) -> list[Failure]:
        """
        Take in the vectors of *batch*: float32 of shape (len(batch), dimensions).

        Returns the documents that this ended in a failure: those whose chunks cancel each other out.
        """
        counts = [tokens or None for tokens in batch.tokens]
        if batch and self._are_plain(batch.documents):
            block = self._release(batch.documents)
            block.positions, block.tokens, block.spans = batch.documents, counts, [None] * len(batch)
            block.arrays.append(vectors)
            self._whole[batch.documents[0]] = block
            return []
        done = zip(repeat(vectors), range(len(batch)), range(1, len(batch) + 1), zip(counts), repeat(_NO_SPAN))
        failures: list[Failure] = []
        for row, (position, alone) in enumerate(zip(batch.documents, done, strict=True)):
            if position not in self._unfinished or position in self._ready:
                continue  # another chunk of this document has failed
            if position in self._several:
                failures += self._deliver_part(position, batch.parts[row], batch.tokens[row], vectors[row])
            else:
                self._ready[position] = alone
        return failures

    def _are_plain(self, positions: Sequence[int]) -> bool:
        """
        True if these are documents of one chunk each that have neither vector nor failure, as nearly all have; and
        follow each other, or, where order does not matter, have nobody before them who would be overtaken.
        """
        distinct = set(positions)
        return (
            len(distinct) == len(positions)
            and (are_consecutive(positions) if self._ordered else not self._ready)
            and self._unfinished.keys() >= distinct
            and self._ready.keys().isdisjoint(distinct)
            and not self.has_parts(distinct)
        )

    def has_parts(self, positions: Iterable[int]) -> bool:
        """True if one of these documents has several chunks, of which not all have come."""
        return not self._several.keys().isdisjoint(positions)

    def _deliver_part(self, position: int, part: int, tokens: int, vector: Vector) -> list[Failure]:
        several = self._several[position]
        several.tokens[part] = tokens
        several.collect.add(part, vector)
        if not several.collect.is_complete:
            return []
        del self._several[position]
        result = several.collect.result()
        if isinstance(several.collect, _Rows):
            counts = [count or None for count in several.tokens]
            self._ready[position] = (result, 0, len(result), counts, several.spans)
        elif np.isnan(result[0]):
            error = InvalidReplyError("the vectors of this document's chunks cancel each other out")
            return self.fail([position], error, 1)
        else:
            total = sum(several.tokens) if all(several.tokens) else None
            self._ready[position] = (result[np.newaxis], 0, 1, (total,), _NO_SPAN)
        return []

    def fail(
        self, positions: Iterable[int], error: EmbedbatchError, attempts: int = 0, *, skipped: bool = False
    ) -> list[Failure]:
        """End documents in a failure; return those that had not ended before."""
        failures = []
        for position in positions:
            if position in self._unfinished and position not in self._ready:
                self._several.pop(position, None)
                failure = Failure(self._unfinished[position][0], position, error, attempts, skipped)
                self._ready[position] = failure
                failures.append(failure)
        return failures

    def unfinished(self) -> list[int]:
        """The positions of documents that have neither vectors nor a failure."""
        return [position for position in self._unfinished if position not in self._ready]

    def take(self, max_documents: int) -> Block | None:
        """What may go out now, at most *max_documents* or those of one reply; or ``None``."""
        whole = self._take_whole()
        if whole is not None:
            return whole
        positions, done = self._take_ordered(max_documents) if self._ordered else self._take_any(max_documents)
        if not positions:
            return None
        block = self._release(positions)
        if self._more_rows:
            block.rows += sum(self._more_rows.pop(position, 0) for position in positions)
        block.failures = [each for each in done if isinstance(each, Failure)]
        if block.failures:
            ended_well = [isinstance(each, tuple) for each in done]
            positions = list(compress(positions, ended_well))
            block.ids, done = list(compress(block.ids, ended_well)), list(compress(done, ended_well))
        if done:
            _fill(block, positions, done)  # type: ignore[arg-type]
        return block

    def _release(self, positions: Sequence[int]) -> Block:
        """A block for the documents at *positions*, which are not unfinished any more."""
        ids, sizes, entered_at = zip(*map(self._unfinished.pop, positions), strict=True)
        return Block(
            ids=list(ids),
            documents=len(positions),
            rows=len(positions),
            bytes=sum(sizes),
            entered_at=sum(entered_at),
            first_entered_at=min(entered_at),
        )

    def _take_whole(self) -> Block | None:
        """The documents of one reply."""
        first = self._next if self._ordered else next(iter(self._whole), -1)
        block = self._whole.pop(first, None)
        if block is not None:
            self._next += block.documents
        return block

    def _take_ordered(self, most: int) -> tuple[Sequence[int], list[_Done | Failure]]:
        first = self._next
        while self._next in self._ready and self._next - first < most:
            self._next += 1
        positions = range(first, self._next)
        return positions, [self._ready.pop(position) for position in positions]

    def _take_any(self, most: int) -> tuple[Sequence[int], list[_Done | Failure]]:
        if len(self._ready) > most:
            positions = list(islice(self._ready, most))
            return positions, [self._ready.pop(position) for position in positions]
        # Whole, and not from its front: a dict keeps the places of what was taken, and looks through them each time.
        ready, self._ready = self._ready, {}
        return list(ready), list(ready.values())


def are_consecutive(positions: Sequence[int]) -> bool:
    """True if these are positions one after the other, as nearly all are."""
    return list(positions) == list(range(positions[0], positions[0] + len(positions)))


def _fill(block: Block, positions: Sequence[int], done: Sequence[_Done]) -> None:
    """Put what is *done* into *block*, rows of one array that follow each other as one slice."""
    arrays, firsts, lasts, tokens, spans = zip(*done, strict=True)
    rows = list(map(operator.sub, lasts, firsts))
    block.positions = list(chain.from_iterable(map(repeat, positions, rows)))
    block.ids = list(chain.from_iterable(map(repeat, block.ids, rows)))
    block.tokens = list(chain.from_iterable(tokens))
    block.spans = list(chain.from_iterable(spans))
    begin = 0
    for end in range(1, len(arrays) + 1):
        if end == len(arrays) or arrays[end] is not arrays[begin] or firsts[end] != lasts[end - 1]:
            block.arrays.append(arrays[begin][firsts[begin] : lasts[end - 1]])
            begin = end
