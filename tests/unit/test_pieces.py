"""Pieces of a batch: offenders are singled out in few requests, and no input is lost, repeated or reordered."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.pieces import Pieces, passed, spoiled
from embedbatch.errors import RequestRefusedError

from .sending import Sending, Server, batch_of, done, failed


@st.composite
def poisonings(draw: st.DrawFn, most: int = 300) -> tuple[int, frozenset[int]]:
    """How many documents there are, and which of them are refused: few or, now and then, all."""
    count = draw(st.integers(2, most))
    return count, draw(st.frozensets(st.integers(0, count - 1), max_size=10) | st.just(frozenset(range(count))))


def most_extra(count: int, offenders: int) -> int:
    """What is promised: that many requests more than one."""
    return 2 * offenders * math.ceil(math.log2(count)) + offenders


# Offenders


@given(poisonings(), st.booleans())
def test_offenders_alone_fail_after_few_requests(case: tuple[int, frozenset[int]], seen: bool) -> None:
    """
    Of n documents k are refused: exactly these fail, the others get their vectors in order, in at most
    2·k·⌈log2 n⌉ + k requests more than one. No cap is learned from it.
    """
    count, poisoned = case
    server = Server(poisoned=poisoned)
    sending = Sending(server)
    if seen:
        sending.send(batch_of(range(10_000, 10_000 + count)))
        server.requests.clear()
    work = sending.send(batch_of(range(count)))

    assert failed(work) == sorted(poisoned)
    assert done(work) == [document for document in range(count) if document not in poisoned]
    assert work.answer.stopped is None
    assert len(server.requests) - 1 <= most_extra(count, len(poisoned))
    assert sending.lessons.max_inputs == 2_048
    assert sending.lessons.max_bytes == sending.max_bytes


@given(poisonings(), st.integers(1, 300))
def test_offenders_and_a_cap_are_told_apart(case: tuple[int, frozenset[int]], cap: int) -> None:
    """With a cap that nobody names as well, the offenders alone fail, and what is learned is never below the truth."""
    count, poisoned = case
    sending = Sending(Server(poisoned=poisoned, max_inputs=cap))
    work = sending.send(batch_of(range(count)))
    healthy = count - len(poisoned)

    assert failed(work) == sorted(poisoned)
    assert done(work) == [document for document in range(count) if document not in poisoned]
    assert sending.lessons.passed_inputs <= cap
    trials = 2 * math.ceil(math.log2(count)) + 2
    assert len(sending.server.requests) <= most_extra(count, len(poisoned)) + trials + 2 * math.ceil(count / cap)
    if not poisoned and count > cap:
        assert sending.lessons.max_inputs <= cap
    assert healthy >= 0


@given(
    st.lists(poisonings(60), min_size=1, max_size=6),
    st.integers(1, 60) | st.just(1_000),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_batches_in_flight_together_do_not_mix(
    cases: list[tuple[int, frozenset[int]]], cap: int, named: bool, seed: int
) -> None:
    """Several batches with offenders, a cap, replies in any order: each document comes to its own end, once."""
    first = [1_000 * number for number in range(len(cases))]
    poisoned = frozenset(at + offender for at, (_, bad) in zip(first, cases, strict=True) for offender in bad)
    words = "batch size {inputs} > maximum allowed batch size {cap}" if named else "no"
    sending = Sending(Server(poisoned=poisoned, max_inputs=cap, words=words))
    batches = [batch_of(range(at, at + count)) for at, (count, _) in zip(first, cases, strict=True)]
    works = sending.send_together(batches, Random(seed))

    for batch, work in zip(batches, works, strict=True):
        assert failed(work) == [document for document in batch.documents if document in poisoned]
        assert done(work) == [document for document in batch.documents if document not in poisoned]
    assert sending.route.investigator is None
    assert sending.route.trier is None


# Before anything has succeeded


@given(st.integers(2, 300))
def test_settings_that_are_refused_stop_the_run(count: int) -> None:
    """Nothing was ever accepted, and everything is refused: three requests, or all there are, and the run stops."""
    sending = Sending(Server(poisoned=frozenset(range(count))), proven=False)
    work = sending.send(batch_of(range(count)))

    assert [len(request) for request in sending.server.requests] == [count, 1, 1]
    assert failed(work) == [0, 1]
    if count > 2:
        assert isinstance(work.answer.stopped, RequestRefusedError)
    else:
        assert work.answer.stopped is None


@given(st.integers(3, 300), st.integers(0, 299))
def test_one_offender_does_not_stop_a_run_that_begins_with_it(count: int, offender: int) -> None:
    """In the first batch ever, one document is refused: it fails, the others get their vectors, in few requests."""
    offender %= count
    sending = Sending(Server(poisoned=frozenset([offender])), proven=False)
    work = sending.send(batch_of(range(count)))

    assert work.answer.stopped is None
    assert failed(work) == [offender]
    assert done(work) == [document for document in range(count) if document != offender]
    assert len(sending.server.requests) - 1 <= most_extra(count, 1) + 2


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_cap_in_the_first_batch_does_not_stop_the_run(count: int, cap: int) -> None:
    """The first request ever is refused for its size: its inputs all get their vectors."""
    sending = Sending(Server(max_inputs=cap), proven=False)
    work = sending.send(batch_of(range(count)))

    assert done(work) == list(range(count))
    assert work.answer.stopped is None
    assert sending.server.refusals <= 12


# The queue itself

moves = st.lists(st.tuples(st.sampled_from(["done", "cut", "halve", "again", "refuse", "put back"]), st.floats(0, 1)))


@given(st.integers(1, 60), moves, st.booleans())
def test_whatever_is_split_comes_out_whole_and_in_order(
    count: int, events: list[tuple[str, float]], first_alone: bool
) -> None:
    """Cut, halved, put back, refused or asked again for in part: all documents come out once, in order."""
    pieces = Pieces(batch_of(range(count)))
    events.reverse()
    out: list[int] = []
    for piece in pieces:
        kind, share = events.pop() if events else ("done", 0.0)
        rows = len(piece.batch)
        assert rows
        at = int(share * (rows - 1))
        if kind == "cut":
            pieces.cut(piece, at + 1)
            assert len(piece.batch) == at + 1
        if kind == "halve" and rows > 1:
            pieces.halve(piece)
        elif kind == "refuse" and rows > 1:
            pieces.refuse(piece, 400, first_alone=first_alone)
        elif kind == "put back":
            pieces.put_back(piece)
        elif kind == "again" and 0 < at < rows - 1:  # a single one is not asked for in halves
            out += piece.batch.documents[:at]
            pieces.again(piece, range(at, rows))
        else:
            out += piece.batch.documents
    assert out == list(range(count))
    assert len(pieces) == 0


@given(st.integers(2, 200), st.floats(0, 1))
def test_a_reply_that_cannot_be_trusted_is_asked_for_once_more_and_then_in_halves(count: int, share: float) -> None:
    """The first time all its rows are one piece again, from the second on they are two; each keeps the count."""
    pieces = Pieces(batch_of(range(count)))
    piece = next(iter(pieces))
    pieces.again(piece, range(count))
    again = next(iter(pieces))
    assert again.batch.documents == list(range(count))
    assert again.asked == 1

    pieces.again(again, range(count))
    halves = list(pieces)
    assert [len(half.batch) for half in halves] == [count // 2, count - count // 2]
    assert [half.asked for half in halves] == [1, 1]


@given(st.integers(2, 100), st.booleans())
def test_a_refusal_whose_parts_all_pass_is_explained_once(count: int, first_alone: bool) -> None:
    """With the last part, and only then, the refusal is told to have been too much."""
    pieces = Pieces(batch_of(range(count)))
    refusal = pieces.refuse(next(iter(pieces)), 400, first_alone=first_alone)
    parts = list(pieces)
    told = [passed(part) for part in parts]

    assert sum(len(part.batch) for part in parts) == count
    assert told == [[]] * (len(parts) - 1) + [[refusal]]
    assert refusal.is_explained
    assert (refusal.inputs, refusal.status) == (count, 400)


def test_refusals_within_refusals_are_explained_from_the_inside() -> None:
    """Eight are refused, then the first four: when all pass, the four were too many, and so were the eight."""
    pieces = Pieces(batch_of(range(8)))
    outer = pieces.refuse(next(iter(pieces)), 400, first_alone=False)
    inner = pieces.refuse(next(iter(pieces)), 400, first_alone=False)
    told = [passed(part) for part in pieces]

    assert told == [[], [inner], [outer]]


def test_an_offender_explains_every_refusal_it_was_a_part_of() -> None:
    """What was refused because of one input is no evidence against its size, though the rest passes."""
    pieces = Pieces(batch_of(range(4)))
    outer = pieces.refuse(next(iter(pieces)), 400, first_alone=False)
    inner = pieces.refuse(next(iter(pieces)), 400, first_alone=False)
    spoiled(next(iter(pieces)))

    assert inner.is_explained and outer.is_explained
    assert [passed(part) for part in pieces] == [[], []]


def test_the_first_input_can_be_singled_out() -> None:
    """Of a piece of five the first goes alone, then the other four."""
    pieces = Pieces(batch_of(range(5)))
    pieces.single_out()

    assert [piece.batch.documents for piece in pieces] == [[0], [1, 2, 3, 4]]


def test_a_piece_can_go_last() -> None:
    """Of two pieces the first is deferred: it comes after the other, and is known to have been deferred."""
    pieces = Pieces(batch_of(range(4)))
    pieces.halve(next(iter(pieces)))
    first = next(iter(pieces))
    pieces.defer(first)

    assert [piece.batch.documents for piece in pieces] == [[2, 3], [0, 1]]
    assert first.is_deferred


def test_halves_start_with_the_attempts_they_are_given() -> None:
    """The halves of a piece that only brings faults have few attempts left; halves of a refused one have all."""
    pieces = Pieces(batch_of(range(4)))
    pieces.halve(next(iter(pieces)), attempts=4)

    assert [piece.attempts for piece in pieces] == [4, 4]
