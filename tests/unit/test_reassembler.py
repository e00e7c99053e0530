"""Documents go in, replies come in any order, every document leaves once: the same bits in the same order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.assemble.reassembler import Block, Reassembler
from embedbatch.errors import EmbedbatchError, InvalidReplyError, ServerError
from embedbatch.values import Batch, Failure, Vectors

DIMENSIONS = 3


class Doc(NamedTuple):
    """A document to be: its bytes, its parts' weights, and whether it fails before it is sent."""

    nbytes: int
    weights: tuple[int, ...]
    fails: bool


class Work(NamedTuple):
    """Documents, their chunks in batches, and which batches fail."""

    docs: list[Doc]
    batches: list[Batch]
    broken: list[bool]


def vector_of(document: int, part: int) -> list[float]:
    return [1.0 + document, (part * 7 + document * 3) % 11 - 5.0, 0.1 * (document + 1)]


def vectors_of(batch: Batch) -> Vectors:
    """The reply to *batch*: every chunk has a vector of its own."""
    rows = [vector_of(document, part) for document, part in zip(batch.documents, batch.parts, strict=True)]
    return np.array(rows, np.float32).reshape(len(batch), DIMENSIONS)


docs = st.builds(
    Doc,
    st.integers(0, 1_000),
    st.just((1,)) | st.lists(st.integers(1, 9), min_size=2, max_size=5).map(tuple),
    st.sampled_from([False, False, False, True]),
)


@st.composite
def works(draw: st.DrawFn, *, breaks: bool = True) -> Work:
    several = draw(st.lists(docs, max_size=10))
    chunks = [
        (position, part, weight)
        for position, doc in enumerate(several)
        for part, weight in enumerate(doc.weights)
        if not doc.fails
    ]
    batches = [Batch()]
    for position, part, weight in draw(st.permutations(chunks)):
        if batches[-1] and draw(st.booleans()):
            batches.append(Batch())
        batches[-1].append(b'"x"', position, part, weight, weight)
    broken = [breaks and draw(st.sampled_from([False, False, True])) for _ in batches]
    return Work(several, batches, broken)


def spans_of(doc: Doc) -> tuple[tuple[int, int], ...]:
    return tuple((part * 10, part * 10 + 10) for part in range(len(doc.weights)))


def enter(reassembler: Reassembler, position: int, doc: Doc, *, row_per_chunk: bool) -> int:
    """Let one document in; return the rows that the window was charged for it."""
    reassembler.enter(position, f"d{position}", doc.nbytes)
    if doc.fails:
        reassembler.fail([position], InvalidReplyError("not sent"), 0)
        return 1
    if len(doc.weights) > 1 or row_per_chunk:
        return 1 + reassembler.expect(position, spans_of(doc), doc.weights)
    return 1


def deliver(reassembler: Reassembler, work: Work, number: int) -> None:
    batch = work.batches[number]
    if work.broken[number]:
        reassembler.fail(batch.documents, ServerError(f"batch {number}"), 3)
    else:
        reassembler.deliver(batch, vectors_of(batch))


def run(
    work: Work, order: list[int], *, ordered: bool, row_per_chunk: bool, take: int = 10**9
) -> tuple[list[Block], int]:
    """Deliver the batches of *work* in *order*, and take blocks of at most *take*; also the rows that were charged."""
    reassembler = Reassembler(ordered=ordered, row_per_chunk=row_per_chunk)
    charged = sum(
        enter(reassembler, position, doc, row_per_chunk=row_per_chunk) for position, doc in enumerate(work.docs)
    )
    blocks = []
    for number in [*order, None]:
        if number is not None:
            deliver(reassembler, work, number)
        while (block := reassembler.take(take)) is not None:
            assert 1 <= block.documents <= max([take, *(len(set(batch.documents)) for batch in work.batches)])
            blocks.append(block)
    assert len(reassembler) == 0
    assert reassembler.unfinished() == []
    return blocks, charged


Row = tuple[int, object, int | None, object, bytes]


def rows_of(blocks: list[Block]) -> list[Row]:
    """The rows of all blocks, with their bits."""
    return [
        (position, id, tokens, span, vector.tobytes())
        for block in blocks
        for position, id, tokens, span, vector in zip(
            block.positions, block.ids, block.tokens, block.spans, block.vectors, strict=True
        )
    ]


def failures_of(blocks: list[Block]) -> list[Failure]:
    return [failure for block in blocks for failure in block.failures]


@given(works(breaks=False), st.data(), st.booleans(), st.integers(1, 4))
def test_any_permutation_of_replies_gives_the_same_bits(
    work: Work, data: st.DataObject, row_per_chunk: bool, take: int
) -> None:
    """Ordered results are bit for bit those of replies that came in order, in blocks of any size."""
    order = data.draw(st.permutations(range(len(work.batches))))
    in_order, _ = run(work, list(range(len(work.batches))), ordered=True, row_per_chunk=row_per_chunk)
    shuffled, _ = run(work, order, ordered=True, row_per_chunk=row_per_chunk, take=take)

    assert rows_of(shuffled) == rows_of(in_order)
    assert [failure.position for failure in failures_of(shuffled)] == [
        at for at, doc in enumerate(work.docs) if doc.fails
    ]
    assert [row[0] for row in rows_of(in_order)] == sorted(row[0] for row in rows_of(in_order))


@given(works(breaks=False), st.data(), st.booleans())
def test_without_order_the_same_rows_come_as_they_are_done(
    work: Work, data: st.DataObject, row_per_chunk: bool
) -> None:
    """With ordered=False the rows are the same bits as in order, those of one document together, in their order."""
    order = data.draw(st.permutations(range(len(work.batches))))
    in_order, _ = run(work, order, ordered=True, row_per_chunk=row_per_chunk)
    as_done, _ = run(work, order, ordered=False, row_per_chunk=row_per_chunk)

    assert sorted(rows_of(as_done), key=lambda row: row[0]) == rows_of(in_order)
    positions = [row[0] for row in rows_of(as_done)]
    runs = [position for at, position in enumerate(positions) if at == 0 or positions[at - 1] != position]
    assert len(runs) == len(set(runs))


@given(works(), st.data(), st.booleans(), st.booleans(), st.integers(1, 5))
def test_every_document_leaves_once_and_the_window_gets_back_what_it_was_charged(
    work: Work, data: st.DataObject, ordered: bool, row_per_chunk: bool, take: int
) -> None:
    """With failing batches too: each document is one row, one row per chunk or one failure; bytes and rows add up."""
    order = data.draw(st.permutations(range(len(work.batches))))
    blocks, charged = run(work, order, ordered=ordered, row_per_chunk=row_per_chunk, take=take)

    failed = {failure.position for failure in failures_of(blocks)}
    expected_failed = {position for position, doc in enumerate(work.docs) if doc.fails}
    for batch, breaks in zip(work.batches, work.broken, strict=True):
        expected_failed |= set(batch.documents) if breaks else set()
    embedded = [row[0] for row in rows_of(blocks)]
    assert failed == expected_failed
    assert len(failures_of(blocks)) == len(failed)
    assert sorted(embedded) == [
        position
        for position, doc in enumerate(work.docs)
        if position not in failed
        for _ in (doc.weights if row_per_chunk else (1,))
    ]
    assert sum(block.documents for block in blocks) == len(work.docs)
    assert sum(block.bytes for block in blocks) == sum(doc.nbytes for doc in work.docs)
    assert sum(block.rows for block in blocks) == charged


@given(works(), st.data(), st.booleans())
def test_documents_may_enter_while_others_leave(work: Work, data: st.DataObject, row_per_chunk: bool) -> None:
    """Entering, delivering and taking in any interleaving gives the bits of doing them one after the other."""
    reassembler = Reassembler(ordered=True, row_per_chunk=row_per_chunk)
    entered = 0
    waiting = list(range(len(work.batches)))
    blocks: list[Block] = []
    delivered: list[int] = []
    while entered < len(work.docs) or waiting:
        ready = [number for number in waiting if all(position < entered for position in work.batches[number].documents)]
        if ready and (entered == len(work.docs) or data.draw(st.booleans())):
            number = data.draw(st.sampled_from(ready))
            waiting.remove(number)
            delivered.append(number)
            deliver(reassembler, work, number)
        else:
            enter(reassembler, entered, work.docs[entered], row_per_chunk=row_per_chunk)
            entered += 1
        if data.draw(st.booleans()) and (block := reassembler.take(data.draw(st.integers(1, 3)))):
            blocks.append(block)
    while block := reassembler.take(2):
        blocks.append(block)

    expected, _ = run(work, delivered, ordered=True, row_per_chunk=row_per_chunk)
    assert rows_of(blocks) == rows_of(expected)
    assert [failure.position for failure in failures_of(blocks)] == [
        failure.position for failure in failures_of(expected)
    ]


# One by one


def batch_of(*chunks: tuple[int, int, int]) -> Batch:
    """Chunks as (document, part, tokens)."""
    batch = Batch()
    for document, part, tokens in chunks:
        batch.append(b'"x"', document, part, tokens, max(1, tokens))
    return batch


def two_documents(*, row_per_chunk: bool) -> Reassembler:
    """Document 0 has three parts, document 1 one."""
    reassembler = Reassembler(ordered=True, row_per_chunk=row_per_chunk)
    for position, nbytes in ((0, 100), (1, 20)):
        reassembler.enter(position, f"d{position}", nbytes)
    assert reassembler.expect(0, ((0, 5), (5, 9), (9, 12)), (5, 4, 3)) == 2
    if row_per_chunk:
        assert reassembler.expect(1, ((0, 4),), (1,)) == 0
    return reassembler


def test_a_document_waits_for_the_one_before_it() -> None:
    """In order, document 1 is not handed out while document 0 lacks one of its three parts."""
    reassembler = two_documents(row_per_chunk=False)
    first, second = batch_of((1, 0, 2), (0, 2, 3)), batch_of((0, 0, 5), (0, 1, 4))

    reassembler.deliver(first, vectors_of(first))
    assert reassembler.take(10) is None
    assert reassembler.unfinished() == [0]
    reassembler.deliver(second, vectors_of(second))
    block = reassembler.take(10)

    assert block is not None
    assert (block.positions, block.ids, block.tokens, block.spans) == ([0, 1], ["d0", "d1"], [12, 2], [None, None])
    assert (block.documents, block.rows, block.bytes) == (2, 4, 120)
    total = sum(np.array(vector_of(0, part)) * weight for part, weight in enumerate((5, 4, 3)))
    assert block.vectors[0] == pytest.approx(total / np.linalg.norm(total), abs=1e-6)
    assert block.vectors[1].tolist() == np.array(vector_of(1, 0), np.float32).tolist()


def test_a_row_per_chunk_keeps_vectors_tokens_and_spans() -> None:
    """Under "chunks" document 0 leaves as three rows with their own counts and spans, and the vectors as they came."""
    reassembler = two_documents(row_per_chunk=True)
    batch = batch_of((0, 2, 3), (1, 0, 0), (0, 0, 5), (0, 1, 4))

    reassembler.deliver(batch, vectors_of(batch))
    block = reassembler.take(10)

    assert block is not None
    assert block.positions == [0, 0, 0, 1]
    assert block.tokens == [5, 4, 3, None]
    assert block.spans == [(0, 5), (5, 9), (9, 12), (0, 4)]
    assert block.vectors.tobytes() == vectors_of(batch)[[2, 3, 0, 1]].tobytes()


def test_tokens_are_known_only_if_all_parts_are() -> None:
    """If one part of three has no exact count, the document has none."""
    reassembler = two_documents(row_per_chunk=False)
    batch = batch_of((0, 0, 5), (0, 1, 0), (0, 2, 3), (1, 0, 0))

    reassembler.deliver(batch, vectors_of(batch))
    block = reassembler.take(10)

    assert block is not None
    assert block.tokens == [None, None]


@pytest.mark.parametrize("row_per_chunk", [False, True])
def test_one_failed_part_fails_its_document_and_no_other(row_per_chunk: bool) -> None:
    """A part that fails before or after the others came ends the document once; parts that come later are ignored."""
    reassembler = two_documents(row_per_chunk=row_per_chunk)
    error = ServerError("HTTP 500")
    one, two = batch_of((0, 0, 5)), batch_of((0, 2, 3), (1, 0, 2))

    reassembler.deliver(one, vectors_of(one))
    assert reassembler.fail([0, 0], error, 6) == [Failure("d0", 0, error, 6)]
    assert reassembler.fail([0], ServerError("again"), 1) == []
    reassembler.deliver(two, vectors_of(two))
    block = reassembler.take(10)

    assert block is not None
    assert block.failures == [Failure("d0", 0, error, 6)]
    assert block.positions == [1]
    assert (block.documents, block.rows, block.bytes) == (2, 4, 120)
    assert reassembler.fail([0, 1], error, 1) == []
    reassembler.deliver(one, vectors_of(one))
    assert reassembler.take(10) is None


def test_chunks_that_cancel_each_other_out_are_a_failure() -> None:
    """A document whose parts' vectors add up to nothing fails with InvalidReplyError instead of a vector of NaN."""
    reassembler = Reassembler(ordered=True, row_per_chunk=False)
    reassembler.enter(0, "d0", 10)
    reassembler.expect(0, ((0, 5), (5, 10)), (4, 4))

    reassembler.deliver(batch_of((0, 0, 4), (0, 1, 4)), np.array([[1, 2], [-1, -2]], np.float32))
    block = reassembler.take(10)

    assert block is not None
    assert block.vectors.shape == (0, 0)
    (failure,) = block.failures
    assert isinstance(failure.error, InvalidReplyError)
    assert "cancel each other out" in str(failure.error)


def test_a_skipped_document_says_so() -> None:
    """What the caller's policy skipped is a failure marked as skipped."""
    reassembler = Reassembler(ordered=True, row_per_chunk=False)
    reassembler.enter(0, 0, 0)

    (failure,) = reassembler.fail([0], EmbedbatchError("empty"), skipped=True)
    assert failure.skipped


def test_a_block_tells_when_its_documents_entered() -> None:
    """The sum of the times, and the earliest of them, of what is taken; a failure is a document like any other."""
    reassembler = Reassembler(ordered=False, row_per_chunk=False)
    for position, now in enumerate((10.0, 12.0, 17.0, 11.0)):
        reassembler.enter(position, position, 1, now)
    reassembler.fail([2, 1], ServerError("HTTP 500"))
    block = reassembler.take(10)
    rest = batch_of((0, 0, 0), (3, 0, 0))
    reassembler.deliver(rest, vectors_of(rest))
    later = reassembler.take(10)

    assert block is not None
    assert later is not None
    assert (block.documents, block.entered_at, block.first_entered_at) == (2, 29.0, 12.0)
    assert (later.documents, later.entered_at, later.first_entered_at) == (2, 21.0, 10.0)


def test_nothing_comes_from_nothing() -> None:
    """Without documents, and after the last one, there is nothing to take and nothing unfinished."""
    reassembler = Reassembler(ordered=True, row_per_chunk=False)

    assert reassembler.take(10) is None
    assert reassembler.unfinished() == []
    assert len(reassembler) == 0


def test_a_reply_with_gaps_gives_each_document_its_own_row() -> None:
    """Of a reply to documents 2, 0, 3, 1, where 3 had failed, documents 0, 1 and 2 get the rows 1, 3 and 0."""
    reassembler = Reassembler(ordered=True, row_per_chunk=False)
    for position in range(4):
        reassembler.enter(position, position, 1)
    batch = batch_of((2, 0, 0), (0, 0, 0), (3, 0, 0), (1, 0, 0))

    reassembler.fail([3], ServerError("HTTP 500"))
    reassembler.deliver(batch, vectors_of(batch))
    block = reassembler.take(10)

    assert block is not None
    assert block.positions == [0, 1, 2]
    assert block.vectors.tolist() == vectors_of(batch)[[1, 3, 0]].tolist()


def test_rows_of_one_reply_are_not_copied() -> None:
    """256 documents of one reply, taken in order, are a slice of its array: no vector is copied on the way."""
    reassembler = Reassembler(ordered=True, row_per_chunk=False)
    for position in range(256):
        reassembler.enter(position, position, 1)
    vectors = np.ones((256, DIMENSIONS), np.float32)

    reassembler.deliver(batch_of(*((position, 0, 1) for position in range(256))), vectors)
    block = reassembler.take(1_024)

    assert block is not None
    assert np.shares_memory(block.vectors, vectors)
    assert len(block.vectors) == 256
