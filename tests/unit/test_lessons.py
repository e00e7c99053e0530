"""What one request may hold: what is set, what the server names, and what is found out by being refused."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.account import Account
from embedbatch.dispatch.lessons import KNOWN_CAPS, Lessons, size
from embedbatch.dispatch.work import Work
from embedbatch.events import CapLearned
from embedbatch.wire.refusal import NamedCap

from .sending import Sending, Server, batch_of, done, failed

MANY = 256  # inputs of a batch, unless told otherwise
TEI = "batch size {inputs} > maximum allowed batch size {cap}"


def lessons(*, max_inputs: int = 2_048, max_tokens: int = 300_000, max_bytes: int = 1_200_000) -> Lessons:
    """Lessons with nothing learned."""
    return Lessons(max_inputs=max_inputs, max_tokens=max_tokens, max_bytes=max_bytes)


def search(cap: int, most: int) -> tuple[int, int]:
    """Let *cap* be found by trials, beginning with *most* inputs that were refused; return what is found, and tries."""
    learned = lessons()
    learned.proves_too_much(most, most * 7, 400)
    for tries in range(1_000):
        trial = learned.trial()
        if trial is None:
            return learned.max_inputs, tries
        assert learned.passed_inputs < trial < most
        if trial <= cap:
            learned.passes(batch_of(range(trial)))
        else:
            learned.proves_too_much(trial, trial * 7, 400)
    raise AssertionError("the search has no end")


# The search for a cap


@given(st.integers(1, 2_047), st.integers(1, 2_048))
def test_trials_find_any_cap(cap: int, above: int) -> None:
    """Any cap below what was refused is found exactly, in at most 2·⌈log2⌉ + 2 trials."""
    most = min(2_048, cap + above)
    found, tries = search(cap, most)

    assert found == cap
    assert tries <= 2 * math.ceil(math.log2(most)) + 2


@pytest.mark.parametrize("cap", KNOWN_CAPS[:-1])
def test_caps_of_servers_in_use_are_found_sooner(cap: int) -> None:
    """The caps that servers have are found in at most seven trials of one to 2,048."""
    found, tries = search(cap, 2_048)

    assert found == cap
    assert tries <= 7


@pytest.mark.parametrize(("inputs", "step"), [(MANY, 1), (300, 13), (512, 29)])
def test_every_cap_is_learned_exactly(inputs: int, step: int) -> None:
    """Of a server that names nothing each cap from 1 to 300 is found, with ten refusals at most; nothing is lost."""
    for cap in range(1, 301, step):
        sending = Sending(Server(max_inputs=cap))
        for number in range(12):
            batch = batch_of(range(number * inputs, (number + 1) * inputs))
            work = sending.send(batch)
            assert done(work) == batch.documents
        assert sending.server.refusals <= 10
        if cap < inputs:
            assert sending.lessons.max_inputs == cap
            assert CapLearned("test", "inputs", cap) in sending.events
            assert sending.lessons.trial() is None
        else:
            assert len(sending.server.requests) == 12
            assert sending.server.refusals == 0


def test_a_cap_is_learned_although_batches_are_packed_by_what_is_known() -> None:
    """When each batch is packed as Router.caps() says at that moment, caps are still found exactly."""
    for cap in range(1, MANY, 3):
        sending = Sending(Server(max_inputs=cap), max_inputs=MANY)
        router = sending.router
        for _ in range(20):
            sending.send(batch_of(range(router.caps().max_inputs)))
        assert sending.lessons.max_inputs == cap
        assert router.caps().max_inputs == cap


@given(st.integers(1, 300), st.integers(1, 12), st.integers(0, 2**32))
def test_a_cap_is_learned_by_many_at_once(cap: int, count: int, seed: int) -> None:
    """Batches in flight together lose and repeat nothing; all of them together are refused less than twenty times."""
    sending = Sending(Server(max_inputs=cap))
    batches = [batch_of(range(number * MANY, (number + 1) * MANY)) for number in range(count)]
    works = sending.send_together(batches, Random(seed))

    assert [done(work) for work in works] == [batch.documents for batch in batches]
    assert sending.server.refusals <= 20
    assert sending.lessons.passed_inputs <= cap


def test_those_who_wait_for_an_answer_send_what_has_passed() -> None:
    """While one batch finds out why it was refused, others send as many inputs as have passed, and no more."""
    sending = Sending(Server())
    sending.send(batch_of(range(90)))
    route = sending.route
    route.investigator = "somebody"

    assert route.fit(batch_of(range(MANY)), "somebody else") == 90
    assert route.fit(batch_of(range(MANY)), "somebody") == MANY
    assert route.is_open_question(batch_of(range(91)), "somebody else")
    assert not route.is_open_question(batch_of(range(90)), "somebody else")
    assert not route.is_open_question(batch_of(range(91)), "somebody")
    sending.router.settle(route)
    assert not route.is_open_question(batch_of(range(91)), "somebody else")


def test_one_at_a_time_tries_another_size() -> None:
    """Between what passes and what does not one batch sends a trial; others send what passes, until it has ended."""
    sending = Sending(Server())
    sending.lessons.passes(batch_of(range(64)))
    sending.lessons.proves_too_much(128, 2_000, 400)
    first, second = (Work(batch_of(range(MANY)), Account()) for _ in range(2))
    route, trial = sending.route, sending.lessons.trial()
    piece = next(iter(first.pieces))
    assert trial is not None
    assert route.fit(piece.batch, first) == route.fit(piece.batch, second) == trial > 64
    first.pieces.cut(piece, trial)
    sending.inquiry.note_trial(piece, route, first)

    assert route.fit(batch_of(range(MANY)), first) == trial
    assert route.fit(batch_of(range(MANY)), second) == 64
    sending.inquiry.leave(route, first)
    assert route.fit(batch_of(range(MANY)), second) == trial


@given(st.integers(1, 200), st.integers(1, 200))
def test_a_server_that_changes_its_cap_gets_everything(before: int, after: int) -> None:
    """When a cap is lowered or raised nothing is lost, and no more than four requests are sent where one would do."""
    sending = Sending(Server(max_inputs=before))
    for cap in (before, after):
        sending.server.max_inputs = cap
        sending.server.requests.clear()
        for number in range(6):
            batch = batch_of(range(number * MANY, (number + 1) * MANY))
            assert done(sending.send(batch)) == batch.documents
        assert len(sending.server.requests) <= 4 * 6 * math.ceil(MANY / min(before, cap)) + 12


def test_what_is_learned_is_told_once() -> None:
    """When the cap is exact an event tells it, and later batches bring no other."""
    sending = Sending(Server(max_inputs=100))
    for number in range(12):
        sending.send(batch_of(range(number * MANY, (number + 1) * MANY)))

    assert [event for event in sending.events if isinstance(event, CapLearned)] == [CapLearned("test", "inputs", 100)]


# Caps that are named


@given(st.integers(1, 300), st.integers(2, 400))
def test_a_cap_that_is_named_is_kept_from_then_on(cap: int, inputs: int) -> None:
    """One refusal that names the cap is enough: no other comes, and requests are as large as they may be."""
    sending = Sending(Server(max_inputs=cap, words=TEI, status=413))
    for _ in range(3):
        work = sending.send(batch_of(range(inputs)))
        assert done(work) == list(range(inputs))
        assert not failed(work)

    assert sending.server.refusals == (inputs > cap)
    assert len(sending.server.requests) == 3 * math.ceil(inputs / cap) + (inputs > cap)
    assert sending.lessons.max_inputs == (cap if inputs > cap else 2_048)


def test_named_caps_are_believed_only_downwards() -> None:
    """Naming a number of tokens or bytes above what is set teaches nothing; below it lowers, once."""
    learned = lessons()

    assert not learned.name(NamedCap("tokens", None))
    assert not learned.name(NamedCap("tokens", 400_000))
    assert learned.name(NamedCap("tokens", 8_000)) and not learned.name(NamedCap("tokens", 8_000))
    assert not learned.name(NamedCap("bytes", 2_000_000))
    assert learned.name(NamedCap("bytes", 500_000)) and not learned.name(NamedCap("bytes", 500_000))
    assert learned.name(NamedCap("inputs", 64)) and not learned.name(NamedCap("inputs", 64))
    assert (learned.max_inputs, learned.max_tokens, learned.max_bytes) == (64, 8_000, 500_000)
    assert learned.news() == [("tokens", 8_000), ("bytes", 500_000), ("inputs", 64)]
    assert learned.news() == []
    assert learned.trial() is None


# Bytes


@given(st.integers(100, 20_000), st.lists(st.integers(8, 90), min_size=1, max_size=5), st.sampled_from([413, 400]))
def test_a_cap_of_bytes_is_kept(cap: int, lengths: list[int], status: int) -> None:
    """A server that refuses bodies above some size, with 413 or 400, gets everything, and refuses few requests."""
    sending = Sending(Server(max_bytes=cap, status=status))
    for number in range(12):
        batch = batch_of(range(number * MANY, (number + 1) * MANY), lengths[number % len(lengths)])
        work = sending.send(batch)
        assert done(work) == batch.documents
    late = sending.server.refusals
    for length in lengths:
        sending.send(batch_of(range(MANY), length))

    assert late <= 60
    assert sending.server.refusals - late <= 6


@given(st.integers(100, 20_000), st.integers(8, 90))
def test_a_413_is_about_bytes(cap: int, length: int) -> None:
    """A 413 lowers bytes, never inputs: to what passes, at least half of it, but for one input."""
    sending = Sending(Server(max_bytes=cap, status=413))
    for number in range(10):
        sending.send(batch_of(range(number * MANY, (number + 1) * MANY), length))
    total = MANY * (length + 1)

    assert sending.lessons.max_inputs == 2_048
    if total > cap:
        assert (cap - length - 1) / 2 <= sending.lessons.max_bytes + 2 * (length + 1)
        assert sending.lessons.max_bytes <= cap
    else:
        assert sending.lessons.max_bytes == sending.max_bytes


def test_what_was_refused_for_its_bytes_teaches_nothing_about_inputs() -> None:
    """Once 100 inputs have passed, a refusal of 50 large ones lowers bytes, also without a 413."""
    learned = lessons()
    learned.passes(batch_of(range(100), 10))
    learned.proves_too_much(50, 50_000, 400)
    assert learned.max_inputs == 2_048
    assert learned.max_bytes == size(batch_of(range(100), 10))


def test_a_refusal_of_what_has_passed_before_has_to_come_twice() -> None:
    """As few inputs and as few bytes have passed: the first time it was an accident, then the server takes less."""
    learned = lessons()
    learned.passes(batch_of(range(100), 10))

    learned.proves_too_much(100, 1_100, 400)
    assert (learned.max_inputs, learned.max_bytes) == (2_048, 1_200_000)
    learned.passes(batch_of(range(100), 10))
    learned.proves_too_much(100, 1_100, 400)
    assert (learned.max_inputs, learned.max_bytes) == (2_048, 1_200_000)
    learned.proves_too_much(100, 1_100, 400)
    assert (learned.max_inputs, learned.max_bytes) == (50, 1_200_000)
    assert 50 < (learned.trial() or 0) < 100


def test_bytes_that_are_known_closely_are_left_alone() -> None:
    """1,100 bytes pass and 1,150 do not: from now on 1,100 are the limit, whatever passes later."""
    learned = lessons()
    learned.passes(batch_of(range(100), 10))
    learned.proves_too_much(10, 1_150, 413)
    learned.passes(batch_of(range(1), 5_000))

    assert learned.max_bytes == 1_100


# What fits


@given(
    st.lists(st.integers(4, 200), min_size=1, max_size=60),
    st.integers(1, 80),
    st.integers(1, 4_000),
    st.integers(1, 4_000),
)
def test_as_much_goes_as_fits(lengths: list[int], inputs: int, tokens: int, nbytes: int) -> None:
    """The first inputs that keep to every cap go, one at least; one more would break a cap."""
    batch = batch_of(range(len(lengths)))
    batch.inputs[:] = [b"x" * length for length in lengths]
    batch.bounds[:] = [length // 2 for length in lengths]
    learned = lessons(max_inputs=inputs, max_tokens=tokens, max_bytes=nbytes)
    count = learned.fit(batch, learned.max_inputs, learned.max_bytes)

    def fits(count: int) -> bool:
        part = batch.select(range(count))
        return len(part) <= inputs and sum(part.bounds) <= tokens and size(part) <= nbytes

    assert count == 1 or fits(count)
    assert count == len(batch) or not fits(count + 1)
    assert learned.fit(batch, 1, learned.max_bytes) == 1
