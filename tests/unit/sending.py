"""What the tests of lessons and pieces share: an inquiry into a server's refusals, without any waiting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from embedbatch.dispatch.account import Account
from embedbatch.dispatch.forms import Forms
from embedbatch.dispatch.inquiry import Inquiry
from embedbatch.dispatch.lessons import Lessons, size
from embedbatch.dispatch.router import Route, Router
from embedbatch.dispatch.work import Work
from embedbatch.errors import RequestRefusedError
from embedbatch.values import Batch
from embedbatch.wire.fault import Action, Fault
from embedbatch.wire.request import Form

TOO_MUCH, POISONED = "this request cannot be processed", "an input is invalid"


def batch_of(documents: Sequence[int], length: int = 6) -> Batch:
    """A batch of texts of so many bytes, quotes included; each is the number of its document, and a token a byte."""
    return Batch(
        [b'"' + str(number).encode().rjust(length - 2, b" ") + b'"' for number in documents],
        list(documents),
        [0] * len(documents),
        [0] * len(documents),
        [length] * len(documents),
    )


@dataclass
class Server:
    """
    Refuses requests above a cap with *words*, in which {inputs}, {cap}, and {size} are filled in, and inputs that are
    *poisoned*. *requests* are the documents of each request, *accepted* those that were answered.
    """

    max_inputs: float = math.inf
    max_bytes: float = math.inf
    poisoned: frozenset[int] = frozenset()
    words: str = TOO_MUCH
    status: int = 400
    requests: list[list[int]] = field(default_factory=list)
    accepted: list[list[int]] = field(default_factory=list)

    @property
    def refusals(self) -> int:
        """Requests that were refused."""
        return len(self.requests) - len(self.accepted)

    def reply(self, batch: Batch) -> Fault | None:
        """Answer *batch*, or refuse it."""
        inputs, nbytes = len(batch), size(batch)
        self.requests.append(batch.documents)
        if inputs > self.max_inputs or nbytes > self.max_bytes:
            cap = self.max_inputs if inputs > self.max_inputs else self.max_bytes
            return refusal(self.words.format(inputs=inputs, cap=cap, size=nbytes), self.status)
        if self.poisoned & set(batch.documents):
            return refusal(POISONED, 400)
        self.accepted.append(batch.documents)
        return None


def refusal(words: str, status: int) -> Fault:
    """A refusal for good."""
    return Fault(Action.SPLIT, RequestRefusedError(f"HTTP {status}: {words}", status=status))


class _NoPace:
    def batch_tokens(self) -> float:
        return math.inf


@dataclass
class Sending:
    """One sender with one route to *server*, which has answered before if *proven*."""

    server: Server
    proven: bool = True
    max_inputs: int = 2_048
    max_tokens: int = 10**9
    max_bytes: int = 10**9

    def __post_init__(self) -> None:
        lessons = Lessons(max_inputs=self.max_inputs, max_tokens=self.max_tokens, max_bytes=self.max_bytes)
        forms = Forms(Form(None, dimensions=False, token_arrays=False))
        if self.proven:
            forms.passes(forms.form, batch_of([0]))
        nothing: Any = None
        limiter: Any = _NoPace()
        self.route = Route("test", "key", nothing, nothing, limiter, lessons, forms, is_proven=self.proven)
        self.events: list[object] = []
        self.router = Router([self.route])
        self.inquiry = Inquiry(self.router, self.events.append)

    @property
    def lessons(self) -> Lessons:
        """What was learned."""
        return self.route.lessons

    def send(self, batch: Batch) -> Work:
        """Send *batch* until it is settled, alone; return what became of it."""
        return self.send_together([batch], Random(0))[0]

    def send_together(self, batches: Sequence[Batch], rng: Random) -> list[Work]:
        """Send *batches* at the same time, their replies coming in some order; return what became of each."""
        works = [Work(batch, Account()) for batch in batches]
        running = {number: self._steps(work) for number, work in enumerate(works)}
        idle = 0
        while running:
            number = rng.choice(list(running))
            waits = next(running[number], None)
            if waits is None:
                del running[number]
            idle = idle + 1 if waits else 0
            assert idle < 1_000, "everybody waits for somebody else"
        return works

    def _steps(self, work: Work) -> Iterator[bool]:
        """What Sender.send does, without the waiting; yields whether nothing could be done."""
        route = self.route
        for piece in work.pieces:
            while route.is_open_question(piece.batch, work):
                yield True
            work.pieces.cut(piece, route.fit(piece.batch, work))
            self.inquiry.note_trial(piece, route, work)
            piece.form = route.form_of(piece)
            fault = self.server.reply(piece.batch)
            assert len(self.server.requests) < 100_000, "it never ends"
            yield False
            if fault is not None:
                self.inquiry.refuse(piece, fault, route, work, more=False)
            else:
                route.is_proven = True
                self.inquiry.accept(piece, route, work)
                work.answer.done.append((piece.batch, np.zeros((len(piece.batch), 2), np.float32)))
            if work.answer.stopped is not None:
                break
        self.inquiry.leave(route, work)


def done(work: Work) -> list[int]:
    """The documents that have a vector, in the order they got it."""
    return [document for batch, _ in work.answer.done for document in batch.documents]


def failed(work: Work) -> list[int]:
    """The documents that were refused, in that order."""
    return [document for batch, *_ in work.answer.failed for document in batch.documents]
