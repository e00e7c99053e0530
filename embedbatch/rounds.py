"""
Which single calls go together, and when. Pure.

A *round* is the calls that go together. A call goes at once, with those of the same turn of the event loop, unless the
round that went last is still out. Then it waits until that one is back, for LINGER at most, and goes with all who wait.
So rounds go at most every LINGER, or as often as they come back: 500 calls a second at replies of 100 ms make 19 rounds
a second instead of 500 requests, and wait 26 ms on average. One round at a time would make 10, with waits of 50 ms, and
one stuck request would hold everybody up. Here the others go on 50 ms later, and those after them do not notice it.

While the round that went last still waits for capacity, the others wait too. Behind it in the same queue they would
have to go in more and smaller requests than there is capacity for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .settings import LINGER
from .values import Document

Caller = TypeVar("Caller")


@dataclass(slots=True, eq=False)
class Slot(Generic[Caller]):
    """One document of a round, and the callers who wait for its vector."""

    document: Document
    round: Round[Caller]
    callers: set[Caller] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Round(Generic[Caller]):
    """Calls that go together, *due_at* or earlier: the *slots* without an answer yet, and how many *callers* wait."""

    due_at: float
    slots: dict[Document, Slot[Caller]] = field(default_factory=dict)
    callers: int = 0


class Rounds(Generic[Caller]):
    """The rounds there are. Equal documents share one slot until it is answered."""

    def __init__(self) -> None:
        self._gathering: Round[Caller] | None = None
        self._last: Round[Caller] | None = None  # that went, until it is back
        self._slots: dict[Document, Slot[Caller]] = {}

    def join(self, caller: Caller, document: Document, now: float) -> Slot[Caller]:
        """Let *caller* wait for the vector of *document*: in the slot there is for it, or in one of the next round."""
        slot = self._slots.get(document)
        if slot is None:
            if self._gathering is None:
                self._gathering = Round(now + LINGER)
            slot = self._slots[document] = Slot(document, self._gathering)
            self._gathering.slots[document] = slot
        slot.callers.add(caller)
        slot.round.callers += 1
        return slot

    def leave(self, slot: Slot[Caller], caller: Caller) -> bool:
        """Let *caller* wait no more. True if nobody waits for its round any more, which then is to end."""
        if caller in slot.callers:  # it may be answered already
            slot.callers.remove(caller)
            slot.round.callers -= 1
        if not slot.callers and slot.round is self._gathering:
            self._drop(slot)
        return not slot.round.callers

    def wait(self, round: Round[Caller], now: float, *, queued: bool) -> float:
        """For how long *round* gathers on, if nothing changes. *queued*: the last that went waits for capacity."""
        if round is not self._gathering or self._last is None:
            return 0.0
        return max(0.0, round.due_at - now) or (LINGER if queued else 0.0)

    def depart(self, round: Round[Caller]) -> list[Slot[Caller]]:
        """Let *round* go; return what it asks for: nothing, if it has ended before."""
        if round is not self._gathering:
            return []
        self._gathering, self._last = None, round
        return list(round.slots.values())

    def answer(self, slot: Slot[Caller]) -> set[Caller]:
        """There is an answer for *slot*: return who waits for it."""
        callers, slot.callers = slot.callers, set()
        slot.round.callers -= len(callers)
        self._drop(slot)
        return callers

    def end(self, round: Round[Caller]) -> Round[Caller] | None:
        """*round* is back, or given up. Return the round that can go now, if there is one."""
        for slot in list(round.slots.values()):
            self._drop(slot)
        if round is self._gathering:
            self._gathering = None
        if round is not self._last:
            return None
        self._last = None
        return self._gathering

    def _drop(self, slot: Slot[Caller]) -> None:
        slot.round.slots.pop(slot.document, None)
        if self._slots.get(slot.document) is slot:
            del self._slots[slot.document]
