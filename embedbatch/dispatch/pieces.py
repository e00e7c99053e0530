"""
What of a batch is still to be sent, in which pieces. Pure.

A batch stays with its sender: a batch put back into the queue that feeds the workers could deadlock them. What must be
sent again in smaller pieces is a deque here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..values import Batch
from ..wire.fault import Fault
from ..wire.request import Form
from .lessons import size

ASKED_AGAIN = 2  # a reply that cannot be trusted is asked for once more before its batch is split


@dataclass(slots=True, eq=False)
class Refusal:
    """
    A request that was refused, and what its parts show about why.

    *form* is how it was put. *unanswered* inputs of it have not passed in a part yet. When one of them stands alone and
    is refused too, that is the reason; when all pass, it was too much.
    """

    inputs: int
    nbytes: int
    status: int | None
    unanswered: int
    form: Form | None = None
    is_explained: bool = False


@dataclass(slots=True)
class Piece:
    """
    Part of a batch, to be sent as one request.

    *asked* counts the untrusted replies it, or what it was split from, has had; *sent* the requests that brought a
    fault, *attempts* those of them that count against ``max_attempts``, *limited* those that were refused for a rate;
    *seconds* is the time of the attempts and of the waits between them, *begun_at* when the first was sent.
    *refusals* are the refused requests it is a part of, *avoid* the routes on which it failed, *fault* is the last.

    *renewed* tells that the key of its last attempt was refused, and another was found.

    *form* is how it was put the last time; *trial* how it is to be put on the route *trial_at*, to see whether that
    passes; *tried* are all such forms.

    *is_part* tells that what it was a part of brought nothing but faults; *is_deferred* that it did so too, and the
    other parts went first; *rounds* counts how often its attempts began anew. *ends_run* tells that it was refused
    a further attempt for reasons of the whole run.
    """

    batch: Batch
    asked: int = 0
    sent: int = 0
    attempts: int = 0
    seconds: float = 0.0
    limited: int = 0
    begun_at: float = math.inf
    refusals: tuple[Refusal, ...] = ()
    trial: Form | None = None
    trial_at: object = None
    tried: tuple[Form, ...] = ()
    form: Form | None = None
    renewed: bool = False
    fault: Fault | None = None
    ends_run: bool = False
    is_part: bool = False
    is_deferred: bool = False
    rounds: int = 0
    avoid: set[object] = field(default_factory=set)

    def part(self, rows: Sequence[int]) -> Piece:
        """The inputs in *rows*, with the same past."""
        return Piece(
            self.batch.select(rows),
            asked=self.asked,
            sent=self.sent,
            begun_at=self.begun_at,
            refusals=self.refusals,
            trial=self.trial,
            trial_at=self.trial_at,
            tried=self.tried,
            is_part=self.is_part,
        )


class Pieces:
    """The pieces of one batch that are still to be sent, in order."""

    def __init__(self, batch: Batch) -> None:
        self._queue = deque([Piece(batch)])

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Piece]:
        """Take the pieces, until there are none."""
        while self._queue:
            yield self._queue.popleft()

    def cut(self, piece: Piece, count: int) -> None:
        """Keep the first *count* inputs in *piece*; put the rest back."""
        if count < len(piece.batch):
            self._queue.appendleft(piece.part(range(count, len(piece.batch))))
            piece.batch = piece.batch.select(range(count))

    def put_back(self, piece: Piece) -> None:
        """Let *piece* be the next again."""
        self._queue.appendleft(piece)

    def defer(self, piece: Piece) -> None:
        """Let all others go before *piece*."""
        piece.is_deferred = True
        self._queue.append(piece)

    def single_out(self) -> None:
        """Let the first input of the next piece stand alone."""
        self.cut(piece := self._queue.popleft(), 1)
        self._queue.appendleft(piece)

    def again(self, piece: Piece, rows: Sequence[int]) -> None:
        """Ask again for *rows* of an untrusted reply; from the second time on for halves of them."""
        rest = piece.part(rows)
        rest.asked += 1
        if rest.asked < ASKED_AGAIN:
            self._queue.appendleft(rest)
        else:
            self.halve(rest, asked=ASKED_AGAIN - 1)

    def halve(self, piece: Piece, *, asked: int = 0, attempts: int = 0, last: bool = False) -> None:
        """Put both halves of *piece* in its place, or behind all others."""
        middle = len(piece.batch) // 2
        halves = [piece.part(range(middle)), piece.part(range(middle, len(piece.batch)))]
        for part in halves:
            part.asked, part.attempts = asked, attempts
            part.is_part = part.is_part or last
        if last:
            self._queue.extend(halves)
        else:
            self._queue.extendleft(reversed(halves))

    def refuse(self, piece: Piece, status: int | None, *, first_alone: bool) -> Refusal:
        """
        Put parts of the refused *piece* in its place, and return what they will explain.

        With *first_alone*, one input goes first and then the halves of the others.
        """
        refusal = Refusal(len(piece.batch), size(piece.batch), status, len(piece.batch), piece.form)
        piece.refusals = (*piece.refusals, refusal)
        if not first_alone or len(piece.batch) == 2:
            self.halve(piece)
        else:
            self.halve(piece.part(range(1, len(piece.batch))))
            self._queue.appendleft(piece.part([0]))
        return refusal


def passed(piece: Piece) -> list[Refusal]:
    """Note that *piece* was accepted; return the refusals which that explains: they were too much, innermost first."""
    explained = []
    for refusal in reversed(piece.refusals):
        refusal.unanswered -= len(piece.batch)
        if not refusal.unanswered and not refusal.is_explained:
            refusal.is_explained = True
            explained.append(refusal)
    return explained


def spoiled(piece: Piece) -> None:
    """Note that *piece*, one input, is refused by itself: it explains every refusal that it had a part in."""
    for refusal in piece.refusals:
        refusal.is_explained = True
