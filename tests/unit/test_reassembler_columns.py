"""The reassembler and the collector, which work in columns, against a model that takes one document at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from embedbatch.assemble.collector import Collector
from embedbatch.assemble.reassembler import Block, Reassembler
from embedbatch.errors import ServerError
from embedbatch.values import Batch, Embeddings, Failure, Usage

ERROR = ServerError("HTTP 500")
DIMENSIONS = 2


def vector_of(position: int, part: int) -> npt.NDArray[np.float32]:
    """The vector of one chunk: no two are equal, and no two cancel each other out."""
    return np.array([position + 1, part + 1], np.float32)


def pooled(position: int, weights: list[int]) -> list[float]:
    """The mean of a document's chunks, as `embedbatch.assemble.pooling` promises it."""
    total = np.zeros(DIMENSIONS)
    for part, weight in enumerate(weights):
        total = total + vector_of(position, part).astype(np.float64) * weight
    result: list[float] = (total / np.linalg.norm(total)).astype(np.float32).tolist()
    return result


@dataclass
class Model:
    """One document at a time, and nothing clever."""

    ordered: bool
    row_per_chunk: bool
    chunks: dict[int, list[int]]  # the tokens of each chunk of each document
    came: dict[int, set[int]] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)  # in the order in which they did
    failed: set[int] = field(default_factory=set)
    out: set[int] = field(default_factory=set)
    replies: list[set[int]] = field(default_factory=list)

    def deliver(self, position: int, part: int) -> None:
        if position in self.ended:
            return
        self.came.setdefault(position, set()).add(part)
        if len(self.came[position]) == len(self.chunks[position]):
            self.ended.append(position)

    def fail(self, position: int) -> bool:
        if position in self.ended:
            return False
        self.failed.add(position)
        self.ended.append(position)
        return True

    def take(self, block: Block | None, most: int) -> list[int]:
        """The documents in *block*, which are the first of those that may go out, but no more than may go together."""
        waiting = [position for position in self.ended if position not in self.out]
        if self.ordered:
            first = len(self.out)
            waiting = [p for p in sorted(waiting) if set(range(first, p + 1)) <= set(self.ended)]
        if block is None:
            assert not waiting
            return []
        taken = list(dict.fromkeys([*block.positions, *(failure.position for failure in block.failures)]))
        if self.ordered:
            taken.sort()
        assert set(taken) == set(waiting[: len(taken)])
        assert len(taken) <= most or any(set(taken) <= reply for reply in self.replies)
        self.out |= set(taken)
        return taken

    def rows(self, position: int) -> list[tuple[int, list[float], int | None, object]]:
        """The rows of one document: its position, vector, tokens and span."""
        tokens = self.chunks[position]
        if position in self.failed:
            return []
        if not is_expected(tokens, row_per_chunk=self.row_per_chunk):
            return [(position, vector_of(position, 0).tolist(), tokens[0] or None, None)]
        if self.row_per_chunk:
            return [
                (position, vector_of(position, part).tolist(), count or None, (part, part + 1))
                for part, count in enumerate(tokens)
            ]
        return [(position, pooled(position, [part + 1 for part in range(len(tokens))]), _sum(tokens), None)]

    def rows_entered(self, position: int) -> int:
        return len(self.chunks[position])


def _sum(tokens: list[int]) -> int | None:
    return sum(tokens) if all(tokens) else None


def is_expected(tokens: list[int], *, row_per_chunk: bool) -> bool:
    """True if the reassembler is told of the chunks of such a document: with a row per chunk also of a single one."""
    return len(tokens) > 1 or (row_per_chunk and tokens != [0])


def enter(reassembler: Reassembler, chunks: dict[int, list[int]], *, row_per_chunk: bool = False) -> None:
    for position, tokens in chunks.items():
        reassembler.enter(position, f"d{position}", 10 + position, now=float(position))
        if is_expected(tokens, row_per_chunk=row_per_chunk):
            spans = [(part, part + 1) for part in range(len(tokens))]
            weights = [part + 1 for part in range(len(tokens))]
            assert reassembler.expect(position, spans, weights) == len(tokens) - 1


def batch_of(chunks: list[tuple[int, int, int]]) -> tuple[Batch, npt.NDArray[np.float32]]:
    """A batch of (position, part, tokens), and the right vectors for it."""
    batch = Batch()
    for position, part, tokens in chunks:
        batch.append(b'"x"', position, part, tokens, tokens or 1)
    return batch, np.stack([vector_of(position, part) for position, part, _ in chunks])


def assert_block(block: Block | None, taken: list[int], model: Model) -> None:
    """Assert that *block* holds just the documents *taken*, in this order."""
    if not taken:
        assert block is None
        return
    assert block is not None
    expected = [row for position in taken for row in model.rows(position)]
    assert list(zip(block.positions, block.vectors.tolist(), block.tokens, block.spans, strict=True)) == expected
    assert block.ids == [f"d{position}" for position, *_ in expected]
    assert [failure.position for failure in block.failures] == [p for p in taken if p in model.failed]
    assert block.vectors.dtype == np.float32
    assert block.documents == len(taken)
    assert block.rows == sum(model.rows_entered(position) for position in taken)
    assert block.bytes == sum(10 + position for position in taken)
    assert (block.entered_at, block.first_entered_at) == (sum(taken), min(taken))


@settings(max_examples=120)
@given(
    st.lists(st.sampled_from([[3], [3], [0], [2, 5], [2, 0, 4]]), min_size=1, max_size=9),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_whatever_happens_blocks_are_what_a_simple_model_gives(
    tokens: list[list[int]], ordered: bool, row_per_chunk: bool, data: st.DataObject
) -> None:
    """
    Replies in any grouping and order, chunks twice, failures before and after, blocks of any size, both modes.

    Rows, tokens, spans, failures and what the window gets back are the same, block by block; the collected result,
    too, has every row in its place, and NaN for each failure.
    """
    chunks = dict(enumerate(tokens))
    model = Model(ordered, row_per_chunk, chunks)
    reassembler = Reassembler(ordered=ordered, row_per_chunk=row_per_chunk)
    collector = Collector([f"d{p}" for p in chunks], dimensions=None, row_per_chunk=row_per_chunk)
    enter(reassembler, chunks, row_per_chunk=row_per_chunk)
    todo = [(position, part, count) for position in chunks for part, count in enumerate(chunks[position])]
    todo = list(data.draw(st.permutations(todo + data.draw(st.lists(st.sampled_from(todo), max_size=3)))))

    def take(most: int) -> bool:
        block = reassembler.take(most)
        taken = model.take(block, most)
        assert_block(block, taken, model)
        if block is not None:
            collector.add(block)
        assert len(reassembler) == len(chunks) - len(model.out)
        return bool(taken)

    while todo:
        action = data.draw(st.sampled_from(["deliver", "deliver", "deliver", "fail", "take"]))
        if action == "deliver":
            some = data.draw(st.integers(1, len(todo)))
            now, todo = todo[:some], todo[some:]
            assert reassembler.deliver(*batch_of(now)) == []
            model.replies.append({position for position, *_ in now})
            for position, part, _ in now:
                model.deliver(position, part)
        elif action == "fail":
            positions = data.draw(st.lists(st.sampled_from(list(chunks)), max_size=2))
            failures = reassembler.fail(positions, ERROR, 2)
            assert failures == [Failure(f"d{p}", p, ERROR, 2) for p in positions if model.fail(p)]
        else:
            take(data.draw(st.integers(1, 4)))
        assert reassembler.unfinished() == [p for p in chunks if p not in model.ended]
    while take(data.draw(st.integers(1, 4))):
        pass

    assert len(reassembler) == 0
    if ordered or not row_per_chunk:  # with a row per chunk the collector is given blocks in order
        assert_collected(collector.result(cut=(), repaired=(), usage=Usage()), model)


def assert_collected(embeddings: Embeddings, model: Model) -> None:
    """Assert that every document has its rows, in the order of documents."""
    blank = [None] * DIMENSIONS if len(model.failed) < len(model.chunks) else []
    expected = [row for position in model.chunks for row in model.rows(position) or [(position, blank, None, None)]]
    shown = [[None if np.isnan(x) else x for x in row] for row in embeddings.vectors.tolist()]
    assert shown == [vector for _, vector, _, _ in expected]
    assert embeddings.ids == [f"d{position}" for position, *_ in expected]
    assert embeddings.tokens == [count for _, _, count, _ in expected]
    assert [failure.position for failure in embeddings.failures] == sorted(model.failed)
    assert embeddings.spans == {row: span for row, (*_, span) in enumerate(expected) if span is not None}


def test_a_document_that_came_twice_in_one_reply_has_its_first_vector() -> None:
    """Two rows for one document of one chunk, in one batch: it leaves once, with the first of them."""
    reassembler = Reassembler(ordered=True, row_per_chunk=False)
    enter(reassembler, {0: [3], 1: [3]})
    batch, _ = batch_of([(0, 0, 3), (0, 0, 4), (1, 0, 5)])

    reassembler.deliver(batch, np.array([[1, 1], [2, 2], [3, 3]], np.float32))
    block = reassembler.take(9)

    assert block is not None
    assert (block.positions, block.tokens) == ([0, 1], [3, 5])
    assert block.vectors.tolist() == [[1, 1], [3, 3]]
    assert reassembler.take(9) is None


def test_a_reply_for_documents_that_are_gone_changes_nothing() -> None:
    """A late copy of a reply, whose documents have gone out: nothing comes again, and nothing is kept."""
    reassembler = Reassembler(ordered=False, row_per_chunk=False)
    enter(reassembler, {0: [3], 1: [3, 4]})
    reply = batch_of([(1, 1, 4), (0, 0, 3), (1, 0, 3)])
    reassembler.deliver(*reply)
    assert reassembler.take(9) is not None

    assert reassembler.deliver(*reply) == []
    assert reassembler.fail([0, 1], ERROR) == []

    assert reassembler.take(9) is None
    assert (len(reassembler), reassembler.unfinished()) == (0, [])


def test_without_order_what_was_done_first_goes_out_first() -> None:
    """A failure between two replies comes between them, also for a reader who always finds a whole reply ready."""
    reassembler = Reassembler(ordered=False, row_per_chunk=False)
    enter(reassembler, {position: [3] for position in range(5)})
    reassembler.deliver(*batch_of([(4, 0, 3), (3, 0, 3)]))
    reassembler.fail([2], ERROR)
    reassembler.deliver(*batch_of([(0, 0, 3), (1, 0, 3)]))

    blocks = [reassembler.take(1) for _ in range(4)]

    assert [block and block.positions for block in blocks] == [[4, 3], [], [0], [1]]


def test_a_pooled_document_does_not_keep_its_replies_alive() -> None:
    """Chunks that wait for others are copies: the array of a reply is not held by a document that is not done."""
    for row_per_chunk in (False, True):
        reassembler = Reassembler(ordered=True, row_per_chunk=row_per_chunk)
        enter(reassembler, {0: [1, 1]})
        batch, vectors = batch_of([(0, 1, 1)])
        reassembler.deliver(batch, vectors)
        vectors[:] = 99  # nobody looks at it any more
        reassembler.deliver(*batch_of([(0, 0, 1)]))
        block = reassembler.take(1)

        assert block is not None
        expected = [[1, 1], [1, 2]] if row_per_chunk else [pooled(0, [1, 2])]
        assert block.vectors.tolist() == expected


def test_rows_of_one_reply_in_another_order_keep_their_own_vectors() -> None:
    """A reply in reverse, with a hole and with a neighbour from another reply: each row has the vector it came with."""
    reassembler = Reassembler(ordered=True, row_per_chunk=False)
    enter(reassembler, {position: [1] for position in range(6)})
    reassembler.deliver(*batch_of([(5, 0, 1), (4, 0, 1), (2, 0, 1), (1, 0, 1)]))
    reassembler.deliver(*batch_of([(0, 0, 1), (3, 0, 1)]))
    block = reassembler.take(9)

    assert block is not None
    assert block.vectors.tolist() == [vector_of(position, 0).tolist() for position in range(6)]
