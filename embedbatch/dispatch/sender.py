"""
One batch until it is answered, split, or given up. The only place for tenacity.

A batch stays with its sender: a batch put back into the queue that feeds the workers could deadlock them. What
must be sent again in smaller pieces is a deque of pieces here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from random import Random

import anyio
import tenacity

from ..errors import (
    ConnectionFailedError,
    DimensionsError,
    InvalidReplyError,
    MalformedReplyError,
    RequestError,
    SpendLimitError,
)
from ..events import AttemptFailed, BatchAnswered, EndpointPaused, Observe
from ..plan.tokens import TokenRatio
from ..settings import Retries
from ..values import Batch, Usage, Vectors
from ..wire.fault import Action, Fault, holds_error, judge, read_request_id
from ..wire.reply import Decoded, decode
from ..wire.request import RequestTemplate
from .account import Account, RunClosedError
from .backoff import backoff
from .limiter import Limiter, Ticket
from .transport import Reply, Transport

_BYTES_PER_NUMBER = 40  # in JSON, with indentation; base64 has 5.3
_ASKED_AGAIN = 2  # a reply that cannot be trusted is asked for once more before its batch is split


@dataclass(slots=True)
class Answer:
    """
    What became of one batch.

    *done* holds the chunks that have a vector, *failed* those that have none, with the reason and the number of
    attempts. What *stopped* the run, if anything did, leaves the remaining chunks in neither.
    """

    done: list[tuple[Batch, Vectors]] = field(default_factory=list)
    failed: list[tuple[Batch, RequestError, int]] = field(default_factory=list)
    stopped: RequestError | SpendLimitError | None = None


class _FaultError(Exception):
    """Carries a fault through tenacity."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.error)
        self.fault = fault
        self.attempts = 1


@dataclass(slots=True)
class _Piece:
    """Part of a batch. *asked* counts the untrusted replies it, or what it was split from, has had."""

    batch: Batch
    asked: int = 0


class Sender:
    """Sends batches to one endpoint. What it learns there — vector size, token ratio — holds for every run."""

    def __init__(
        self,
        *,
        name: str,
        transport: Transport,
        template: RequestTemplate,
        limiter: Limiter,
        retries: Retries,
        dimensions: int | None,
        rng: Random,
        observe: Observe,
    ) -> None:
        self.dimensions = dimensions
        self.ratio = TokenRatio()
        self.proven = False
        self._name = name
        self._transport = transport
        self._template = template
        self._limiter = limiter
        self._retries = retries
        self._rng = rng
        self._observe = observe

    async def send(self, batch: Batch, account: Account) -> Answer:
        """Send *batch*, in as many requests as it takes. Never raises for what the endpoint does."""
        answer = Answer()
        ticket = self._limiter.ticket(urgent=account.urgent)
        pieces = deque([_Piece(batch)])
        while pieces:
            piece = pieces.popleft()
            try:
                decoded = await self._try(piece, account, ticket)
            except RunClosedError:
                break
            except SpendLimitError as error:
                answer.stopped = error
                break
            except _FaultError as error:
                if error.fault.action is Action.STOP:
                    answer.stopped = error.fault.error
                    break
                if _may_be_one_input(error.fault) and len(piece.batch) > 1:
                    pieces.extendleft(_halves(piece.batch))
                else:
                    answer.failed.append((piece.batch, error.fault.error, error.attempts))
            else:
                self._take(piece, decoded, answer, pieces)
        return answer

    def _take(self, piece: _Piece, decoded: Decoded, answer: Answer, pieces: deque[_Piece]) -> None:
        """Keep the good rows; ask again for the bad ones, then for halves of them, until each stands alone."""
        batch = piece.batch
        bad = sorted(decoded.bad_rows)
        if not bad:
            answer.done.append((batch, decoded.vectors))
            return
        good = [row for row in range(len(batch)) if row not in decoded.bad_rows]
        if good:
            answer.done.append((batch.select(good), decoded.vectors[good]))
        rest = _Piece(batch.select(bad), piece.asked + 1)
        if rest.asked < _ASKED_AGAIN:
            pieces.appendleft(rest)
        elif len(bad) > 1:
            pieces.extendleft(_halves(rest.batch))
        else:
            reason = InvalidReplyError(f"expected a vector, got {decoded.bad_rows[bad[0]]}", status=200)
            answer.failed.append((rest.batch, reason, rest.asked))

    async def _try(self, piece: _Piece, account: Account, ticket: Ticket) -> Decoded:
        """Attempt *piece* until it is answered or its fault is final."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_waits),
            wait=self._wait,
            stop=lambda state: self._is_last(state, piece),
            sleep=account.sleep,
            reraise=True,
        )
        number = 0
        try:
            async for attempt in retrying:
                with attempt:
                    number = attempt.retry_state.attempt_number
                    return await self._attempt(piece.batch, number, account, ticket)
        except _FaultError as error:
            error.attempts = number
            if isinstance(error.fault.error, DimensionsError):
                raise _FaultError(Fault(Action.STOP, error.fault.error)) from error
            raise
        raise AssertionError("tenacity ends by returning or raising")  # pragma: no cover

    def _is_last(self, state: tenacity.RetryCallState, piece: _Piece) -> bool:
        fault = _fault_of(state)
        if _may_be_one_input(fault) or isinstance(fault.error, DimensionsError):
            piece.asked += 1
            if piece.asked >= _ASKED_AGAIN:
                return True
        return state.attempt_number >= self._retries.max_attempts

    def _wait(self, state: tenacity.RetryCallState) -> float:
        return backoff(state.attempt_number, _fault_of(state).retry_after, self._rng, self._retries)

    async def _attempt(self, batch: Batch, number: int, account: Account, ticket: Ticket) -> Decoded:
        bound = sum(batch.bounds)
        await account.reserve(bound)
        outcome: Decoded | Fault | None = None
        sent = False
        try:
            with account.waiting():
                await self._limiter.acquire(self._estimate(batch), ticket)
            try:
                account.check_open()  # the run may have ended since the lease was granted
                sent = True
                account.usage += Usage(requests=1)
                started_at = anyio.current_time()
                outcome = await self._exchange(batch)
                seconds = anyio.current_time() - started_at
                if isinstance(outcome, Fault):  # its pause has to be known before the release lets the next one go
                    self._note_fault(outcome, batch, number, seconds)
            finally:
                self._limiter.release()
        finally:
            account.settle(bound, _cost(outcome, bound) if sent else 0)
        if isinstance(outcome, Fault):
            raise _FaultError(outcome)
        self._note_reply(outcome, batch, seconds, account)
        return outcome

    async def _exchange(self, batch: Batch) -> Decoded | Fault:
        try:
            reply = await self._transport.send(self._template.body(batch), max_reply=self._max_reply(len(batch)))
        except RequestError as error:
            return Fault(Action.STOP if self._transport.is_closed else Action.WAIT, error)
        return self._judge(reply, len(batch))

    def _judge(self, reply: Reply, inputs: int) -> Decoded | Fault:
        rule = partial(judge, proven=self.proven, max_wait=self._retries.max_server_wait)
        if not 200 <= reply.status < 300:
            return rule(reply.status, reply.headers, reply.body)
        request_id = read_request_id(reply.headers)
        try:
            return decode(reply.body, inputs=inputs, dimensions=self.dimensions, request_id=request_id)
        except InvalidReplyError as error:
            if holds_error(reply.body):
                return rule(200, reply.headers, reply.body)
            return Fault(Action.WAIT, error)

    def _max_reply(self, inputs: int) -> int:
        """More bytes than the vectors can have, so that an endless reply does not fill the memory."""
        return 65_536 + inputs * (self.dimensions or 16_384) * _BYTES_PER_NUMBER

    def _estimate(self, batch: Batch) -> float:
        """Tokens as the endpoint will likely count them: for pace."""
        known = sum(batch.tokens)
        unknown = sum(len(wire) for wire, tokens in zip(batch.inputs, batch.tokens, strict=True) if not tokens)
        return known + self.ratio.value * unknown

    def _note_fault(self, fault: Fault, batch: Batch, number: int, seconds: float) -> None:
        waits = fault.action is Action.WAIT
        if waits and fault.pauses:
            wait = fault.retry_after
            if wait is None:
                wait = backoff(number, None, self._rng, self._retries)
            longer = self._limiter.pause(wait)
            if longer > 0:
                self._observe(EndpointPaused(self._name, longer))
        self._observe(AttemptFailed(self._name, len(batch), number, seconds, fault.kind, fault.error, waits))

    def _note_reply(self, decoded: Decoded, batch: Batch, seconds: float, account: Account) -> None:
        if len(decoded.bad_rows) < len(batch):
            self.proven = True
            self.dimensions = self.dimensions or decoded.vectors.shape[1]
        sent_bytes = sum(map(len, batch.inputs))
        if not any(batch.tokens):  # what was counted, or came as tokens, needs no ratio
            self.ratio.learn(sent_bytes, decoded.prompt_tokens)
        told = decoded.total_tokens is not None
        account.usage += Usage(
            replies=1,
            replies_without_usage=not told,
            prompt_tokens=decoded.prompt_tokens,
            total_tokens=decoded.total_tokens,
        )
        self._observe(
            BatchAnswered(
                self._name,
                len(batch),
                len(decoded.bad_rows),
                sent_bytes,
                seconds,
                decoded.prompt_tokens,
                decoded.total_tokens,
            )
        )


def _cost(outcome: Decoded | Fault | None, bound: int) -> int:
    """What a request that was sent counts against ``max_spend_tokens``: in doubt, the most it can have cost."""
    if isinstance(outcome, Decoded):
        return outcome.total_tokens or bound
    if isinstance(outcome, Fault):
        never_worked_on = isinstance(outcome.error, ConnectionFailedError) or 300 <= (outcome.error.status or 0) < 500
        return 0 if never_worked_on else bound
    return bound


def _may_be_one_input(fault: Fault) -> bool:
    """True for a reply that was well-formed and still cannot be trusted: one of the inputs may be the cause."""
    return isinstance(fault.error, InvalidReplyError) and not isinstance(
        fault.error, MalformedReplyError | DimensionsError
    )


def _halves(batch: Batch) -> tuple[_Piece, _Piece]:
    """Both halves of *batch*, the second first, as ``extendleft`` wants them. They are not asked twice again."""
    middle = len(batch) // 2
    first, second = batch.select(range(middle)), batch.select(range(middle, len(batch)))
    return _Piece(second, asked=_ASKED_AGAIN - 1), _Piece(first, asked=_ASKED_AGAIN - 1)


def _waits(error: BaseException) -> bool:
    # tenacity hands over cancellation too; it must pass.
    return isinstance(error, _FaultError) and error.fault.action is Action.WAIT


def _fault_of(state: tenacity.RetryCallState) -> Fault:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, _FaultError)
    return error.fault
