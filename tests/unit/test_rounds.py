"""Which single calls go together, and when: nobody is forgotten, nobody waits for long, nothing is asked for twice."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from embedbatch.rounds import Round, Rounds, Slot
from embedbatch.settings import LINGER
from embedbatch.values import Document


class Calls:
    """Callers, each a number, and what happens to them: joining, leaving, going, being answered."""

    def __init__(self) -> None:
        self.rounds: Rounds[int] = Rounds()
        self.now = 0.0
        self.came: dict[int, tuple[Slot[int], float]] = {}
        self.waiting: set[int] = set()
        self.answered: list[int] = []
        self.gathering: list[Round[int]] = []
        self.out: dict[Round[int], list[Slot[int]]] = {}

    def join(self, document: Document) -> Slot[int]:
        caller = len(self.came)
        slot = self.rounds.join(caller, document, self.now)
        self.came[caller] = slot, self.now
        self.waiting.add(caller)
        if slot.round not in self.out and slot.round not in self.gathering:
            self.gathering.append(slot.round)
        return slot

    def leave(self, caller: int) -> None:
        self.waiting.discard(caller)
        slot, _ = self.came[caller]
        if self.rounds.leave(slot, caller):
            self.end(slot.round)

    def go(self) -> list[Slot[int]]:
        """Let the round that gathers go, if it may go now."""
        for round in list(self.gathering):
            if self.rounds.wait(round, self.now, queued=False) == 0.0:
                self.gathering.remove(round)
                self.out[round] = self.rounds.depart(round)
                return self.out[round]
        return []

    def answer(self, slot: Slot[int]) -> None:
        callers = self.rounds.answer(slot)
        assert callers <= self.waiting
        self.answered += callers
        self.waiting -= callers

    def come_back(self, round: Round[int]) -> Round[int] | None:
        for slot in self.out[round]:
            self.answer(slot)
        return self.end(round)

    def end(self, round: Round[int]) -> Round[int] | None:
        if round in self.gathering:
            self.gathering.remove(round)
        self.out.pop(round, None)
        return self.rounds.end(round)


def document(number: int) -> Document:
    return Document(f"text {number}", 0)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 4)),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("answer"), st.integers(0, 30)),
        st.tuples(st.just("come back"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.integers(0, 30)),
    ),
    max_size=60,
)


def play(steps: list[tuple[str, int]], check: Callable[[Calls], None]) -> Calls:
    """Do *steps*, and let the round that gathers go as soon as it may; *check* after each."""
    calls = Calls()
    for step, number in steps:
        if step == "join":
            calls.join(document(number))
        elif step == "leave" and calls.waiting:
            calls.leave(sorted(calls.waiting)[number % len(calls.waiting)])
        elif step == "answer" and calls.out:
            slots = [slot for slots in calls.out.values() for slot in slots]
            calls.answer(slots[number % len(slots)])
        elif step == "come back" and calls.out:
            calls.come_back(list(calls.out)[number % len(calls.out)])
        elif step == "wait":
            calls.now += number / 600
        calls.go()
        check(calls)
    return calls


@given(actions)
def test_every_caller_is_answered_once_or_has_left(steps: list[tuple[str, int]]) -> None:
    """Whatever comes, leaves and comes back: when all rounds are back, each caller who stayed was answered once."""
    calls = play(steps, lambda calls: None)
    left = set(calls.came) - calls.waiting - set(calls.answered)
    for _ in range(2):
        for round in list(calls.out):
            calls.come_back(round)
        calls.now += LINGER
        calls.go()
    for round in list(calls.out):
        calls.come_back(round)

    assert sorted(calls.answered) == sorted(set(calls.came) - left)
    assert not calls.waiting
    assert not calls.gathering


@given(actions)
def test_every_document_is_asked_for_once_at_a_time(steps: list[tuple[str, int]]) -> None:
    """All who wait for one text wait in one slot; a round has no text twice, and none that nobody waited for."""

    def check(calls: Calls) -> None:
        slots = {calls.came[caller][0] for caller in calls.waiting}
        assert len({slot.document for slot in slots}) == len(slots)
        assert all(calls.waiting >= slot.callers for slot in slots)
        for round in {slot.round for slot in slots}:
            assert round.callers == sum(len(slot.callers) for slot in round.slots.values())
        assert len(calls.gathering) <= 1

    calls = play(steps, check)
    calls.now += LINGER
    gone = calls.go()

    assert len({slot.document for slot in gone}) == len(gone)
    assert all(slot.callers for slot in gone)


@given(actions)
def test_nobody_waits_for_a_round_longer_than_the_bound(steps: list[tuple[str, int]]) -> None:
    """Whoever waits in a round that has not gone came less than LINGER ago, and waits for the round that went last."""

    def check(calls: Calls) -> None:
        for round in calls.gathering:
            since = min(calls.came[caller][1] for slot in round.slots.values() for caller in slot.callers)
            wait = calls.rounds.wait(round, calls.now, queued=False)
            assert 0 < wait <= LINGER + 1e-9
            assert calls.now + wait <= since + LINGER + 1e-9
            assert calls.out

    play(steps, check)


def test_a_lone_call_goes_at_once() -> None:
    """With nothing out, a call and those that come before its round goes are one round, without a wait."""
    calls = Calls()
    for number in range(3):
        calls.join(document(number))

    assert [slot.document for slot in calls.go()] == [document(number) for number in range(3)]


def test_those_that_come_meanwhile_go_when_the_last_round_is_back() -> None:
    """Calls wait for the round that is out; when it is back their round is due, and is told so."""
    calls = Calls()
    first = calls.join(document(0)).round
    calls.go()
    second = calls.join(document(1)).round
    calls.now += LINGER / 2
    assert calls.join(document(2)).round is second
    assert calls.go() == []

    assert calls.come_back(first) is second
    assert [slot.document for slot in calls.go()] == [document(1), document(2)]


def test_a_stuck_round_is_waited_for_once() -> None:
    """One round never comes back: the next goes after LINGER, and from when that is back calls go at once."""
    calls = Calls()
    calls.join(document(0))
    calls.go()
    second = calls.join(document(1)).round
    calls.now += LINGER
    assert calls.go() != []
    calls.come_back(second)
    calls.join(document(2))

    assert calls.go() != []


def test_a_round_waits_for_the_one_that_waits_for_capacity() -> None:
    """Past its time a round waits on while the last one is not sent; with nothing out that does not matter."""
    calls = Calls()
    first = calls.join(document(0)).round
    assert calls.rounds.wait(first, calls.now, queued=True) == 0
    calls.go()
    second = calls.join(document(1)).round
    calls.now += 10 * LINGER

    assert calls.rounds.wait(second, calls.now, queued=True) == LINGER
    assert calls.rounds.wait(second, calls.now, queued=False) == 0


def test_a_document_nobody_waits_for_any_more_is_not_asked_for() -> None:
    """Left before its round goes, a text is dropped; left later, it stays for whoever asks for it again."""
    calls = Calls()
    calls.join(document(0))
    calls.go()
    for number in (1, 2, 3):
        calls.join(document(number))
    calls.leave(2)
    calls.now += LINGER
    slots = calls.go()
    calls.leave(1)

    assert [slot.document for slot in slots] == [document(1), document(3)]
    assert calls.join(document(1)) is slots[0]


def test_a_round_that_nobody_waits_for_is_over() -> None:
    """When the last caller has left, a round is to end; equal documents that come then are in another."""
    calls = Calls()
    first, shared = calls.join(document(0)), calls.join(document(0))
    calls.go()

    assert first is shared
    assert not calls.rounds.leave(first, 0)
    assert calls.rounds.leave(first, 1)
    calls.end(first.round)
    assert calls.rounds.depart(first.round) == []
    assert calls.join(document(0)).round is not first.round
    assert calls.go() != []
