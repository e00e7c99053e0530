"""One batch until it is answered, split, or given up. The only place for tenacity."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from random import Random

import anyio
import tenacity

from ..errors import (
    ConnectionFailedError,
    DimensionsError,
    InvalidReplyError,
    MalformedReplyError,
    SpendLimitError,
    TokenArrayError,
)
from ..events import Observe
from ..settings import Retries
from ..values import Batch, RowsFor, no_rows
from ..wire.fault import FOR_A_RATE, Action, Fault
from ..wire.reply import Decoded
from ..wire.shape import AS_IT_IS, Shape
from .account import Account, RunClosedError
from .backoff import backoff
from .exchange import Attempt, Exchange, Outcome
from .forms import is_arrays
from .inquiry import AsText, Inquiry
from .limiter import Lease
from .pieces import ASKED_AGAIN, Piece
from .router import Route, Router
from .work import Answer, Work

_LIMITED = 3  # refusals for a rate after which a piece is halved: it may be more than a short window grants
_LIMITED_LONGER = 9  # and where as much was granted before
_RATE_PATIENCE = 120.0  # seconds: the longest window over which rates are commonly counted is a minute
_ROUNDS = 3  # of all its attempts that the last input of a run is given while an outage is waited for
_DOUBTED = 2  # attempts that brought a 500, after which a probe is made of a part
_CLOSER = 2  # attempts that are left to the halves of a piece that only brings faults


class _NothingLeftError(Exception):
    """None of the inputs of a piece can be sent."""


class Sender:
    """Sends batches over the routes there are. What it learns there holds for every run."""

    def __init__(
        self,
        *,
        router: Router,
        dimensions: int | None,
        retries: Retries,
        rng: Random,
        observe: Observe,
        as_text: AsText = lambda wire: None,
        shape: Shape = AS_IT_IS,
    ) -> None:
        self.router = router
        self._exchange = Exchange(router=router, retries=retries, dimensions=dimensions, observe=observe, shape=shape)
        self._inquiry = Inquiry(router, observe, as_text)
        self._as_text = as_text
        self._retries = retries
        self._rng = rng

    async def send(self, batch: Batch, account: Account, rows_for: RowsFor = no_rows) -> Answer:
        """Send *batch*, in as many requests as it takes. Never raises for what an endpoint does."""
        work = Work(batch, account, rows_for)
        self._exchange.enter(account)
        answer = work.answer
        try:
            for piece in work.pieces:
                try:
                    route, outcome = await self._try(piece, work)
                except _NothingLeftError:
                    continue
                except RunClosedError:
                    work.stop(account.closed_by)
                    if piece.fault is not None:  # it was attempted, and may be the reason
                        work.fail(piece, piece.fault)
                    break
                if isinstance(outcome, Fault):
                    self._settle_fault(piece, outcome, route, work)
                else:
                    self._settle_reply(piece, outcome, route, work)
                if answer.stopped is not None:
                    break
        except SpendLimitError as error:
            work.stop(error)
        finally:
            self._hand_over(work)
        return answer

    # attempts -------------------------------------------------------------------------------------------------

    async def _try(self, piece: Piece, work: Work) -> tuple[Route, Outcome]:
        """Attempt *piece* until it is answered or its fault is final."""
        route, outcome = await self._attempt(piece, work)  # without tenacity, which takes 50 µs even if nothing fails
        if not _waits(outcome):
            return route, outcome
        # What tenacity has it holds until the garbage is collected: not the work, and no reply, which have the vectors.
        account = work.account
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda found: found is not None),
            wait=lambda state: self._wait(piece),
            stop=lambda state: self._is_last(piece, account, *_found(state)),
            sleep=partial(self._sleep, piece, account),
            retry_error_callback=lambda state: None,
        )
        async for attempt in retrying:
            state = attempt.retry_state
            if state.attempt_number > 1:
                route, outcome = await self._attempt(piece, work)
            state.set_result((route, outcome) if _waits(outcome) else None)
        return route, outcome

    async def _attempt(self, piece: Piece, work: Work) -> tuple[Route, Outcome]:
        account = work.account
        lease: Lease | None = None
        queued_at = anyio.current_time()
        try:
            await self._let_others_find_out(piece, work)
            route, lease = await self._lease(piece, work)
            while self._others_find_out(piece, work):  # since it stood in the queue
                lease.limiter.withdraw(lease)
                account.give_back(work.reserved)
                work.reserved = 0
                await self._let_others_find_out(piece, work)
                route, lease = await self._lease(piece, work)
            account.check_open()  # the run may have ended since the lease was granted
            piece.form = route.form_of(piece)
            if is_arrays(piece.batch) and not piece.form.token_arrays:
                self._reword(piece, route, work)
            if lease.probe:
                _make_smaller(piece, route, work)
            work.pieces.cut(piece, route.fit(piece.batch, work))
            too_much = work.reserved - sum(piece.batch.bounds)
            account.give_back(too_much)
            work.reserved -= too_much
            route.limiter.correct(lease, route.estimate(piece.batch))
            self._inquiry.note_trial(piece, route, work)
            piece.begun_at = min(piece.begun_at, lease.sent_at)
        except BaseException:
            if lease is not None and not lease.is_over:
                lease.limiter.withdraw(lease)
            account.give_back(work.reserved)
            work.reserved = 0
            raise
        work.reserved = 0  # it is settled with the reply
        attempt = Attempt(
            batch=piece.batch,
            form=piece.form,
            number=piece.sent + 1,
            account=account,
            waited=lease.sent_at - queued_at,
            may_renew=not piece.renewed,
            rows=work.rows_for(piece.batch.documents),
        )
        outcome = await self._exchange.send(route, lease, attempt)
        if isinstance(outcome, Fault):
            self._count(piece, outcome, route, work, anyio.current_time() - lease.sent_at)
        return route, outcome

    def _reword(self, piece: Piece, route: Route, work: Work) -> None:
        """Turn the token arrays of *piece* into texts; those that are not those of a text fail."""
        texts = [self._as_text(wire) for wire in piece.batch.inputs]
        for row, text in enumerate(texts):
            if text is None:
                reason = "and it is not known which text they stand for: pass the text, or tokenizer="
                said = f" ({piece.fault.error})" if piece.fault else ""
                error = TokenArrayError(f"{route.name} takes no arrays of token ids{said}, {reason}")
                work.answer.failed.append((piece.batch.select([row]), error, piece.sent))
        kept = [row for row, text in enumerate(texts) if text is not None]
        if not kept:
            raise _NothingLeftError
        piece.batch = piece.batch.select(kept)
        piece.batch.inputs = [text for text in texts if text is not None]

    async def _let_others_find_out(self, piece: Piece, work: Work) -> None:
        """Wait while somebody else finds out why a request was refused that was larger than any before."""
        while self._others_find_out(piece, work):
            with work.account.waiting():
                await self.router.settlement()

    def _others_find_out(self, piece: Piece, work: Work) -> bool:
        return all(route.is_open_question(piece.batch, work) for route in self.router.routes)

    async def _lease(self, piece: Piece, work: Work) -> tuple[Route, Lease]:
        account = work.account

        def tokens(route: Route) -> float:
            return route.estimate(piece.batch, route.fit(piece.batch, work))

        if work.place is not None:  # what is tried again, or sent in parts, keeps its place
            await self._reserve(piece, work)
            return await self.router.lease(tokens, work.place, piece.avoid, account.waiting)
        await account.take_turn()
        try:
            await self._reserve(piece, work)
            work.place = account.take_place(len(piece.batch))
            return await self.router.lease(tokens, work.place, piece.avoid, account.waiting)
        finally:
            account.turn.release()

    async def _reserve(self, piece: Piece, work: Work) -> None:
        """Set aside what *piece* can cost. Where not all of it can be paid for any more, a part of it may be."""
        account, bounds = work.account, piece.batch.bounds
        try:
            await account.reserve(sum(bounds))
        except SpendLimitError:
            count = sum(1 for total in accumulate(bounds) if total <= (account.remaining or 0))
            if not count:
                raise
            work.pieces.cut(piece, count)
            await account.reserve(sum(piece.batch.bounds))
        work.reserved = sum(piece.batch.bounds)

    def _count(self, piece: Piece, fault: Fault, route: Route, work: Work, seconds: float) -> None:
        """Count the attempt, unless the endpoint is away, or has no capacity, and the run waits for it."""
        piece.sent += 1
        piece.fault = fault
        piece.renewed = fault.action is Action.AGAIN
        if piece.renewed:
            return
        if len(self.router.routes) > 1:
            piece.avoid.add(route)
        if fault.trouble in FOR_A_RATE:
            piece.limited += 1
        if _may_be_one_input(fault):
            self._inquiry.suspect(piece, route, work)
        away = (route.limiter.is_away and fault.error.status != 500) or fault.trouble in FOR_A_RATE
        if not (away and self._waits_for_outage(fault, work.account)):
            piece.attempts += 1
            piece.seconds += seconds

    def _is_last(self, piece: Piece, account: Account, route: Route, fault: Fault) -> bool:
        """Decide whether *piece* was attempted for the last time; if not, that costs a retry."""
        if fault.action is Action.AGAIN:
            return False
        if _may_be_one_input(fault) or isinstance(fault.error, DimensionsError):
            piece.asked += 1
            if piece.asked >= ASKED_AGAIN:
                return True
        patience = _RATE_PATIENCE if fault.trouble in FOR_A_RATE else 0.0
        used_up = piece.attempts >= self._retries.max_attempts or piece.seconds >= self._retries.max_time
        if used_up and anyio.current_time() - piece.begun_at >= patience:
            return True
        if _may_be_too_much(piece, route):
            return True
        if self._is_doubted(piece, route, fault):
            return True
        last_good_at = max(route.good_at for route in self.router.routes)
        if self._waits_for_outage(fault, account):
            goes_on = anyio.current_time() - max(piece.begun_at, last_good_at) <= self._retries.max_outage
        else:
            # An endpoint that refuses for a rate and gets on in between is not dead.
            gets_on = fault.trouble in FOR_A_RATE and anyio.current_time() - last_good_at < _RATE_PATIENCE
            goes_on = gets_on or account.budget.spend()
        piece.ends_run = not goes_on
        return not goes_on

    def _is_doubted(self, piece: Piece, route: Route, fault: Fault) -> bool:
        """
        True if each of the 500s for *piece* may as well be about one of its inputs as about the endpoint.

        An endpoint that worked, and seems to be away, is better probed with parts: where one input is bad, a half of
        them shows that it works. And a part needs no second attempt while others succeed.
        """
        if fault.error.status != 500 or len(piece.batch) == 1 or not route.is_proven:
            return False
        if route.limiter.is_away:
            return piece.attempts >= _DOUBTED
        return piece.is_part

    def _waits_for_outage(self, fault: Fault, account: Account) -> bool:
        """True if the run waits for an endpoint that is away. One never reached is taken for a wrong address."""
        was_reached = any(route.is_proven for route in self.router.routes)
        return account.waits_for_outages and (was_reached or not isinstance(fault.error, ConnectionFailedError))

    def _wait(self, piece: Piece) -> float:
        """Seconds until the next attempt, after those for which the gate is closed. Another endpoint may go at once."""
        if piece.renewed or len(piece.avoid) < len(self.router.routes) > 1:
            return 0.0
        return backoff(max(1, piece.attempts), self._rng, self._retries)

    async def _sleep(self, piece: Piece, account: Account, seconds: float) -> None:
        if not (account.waits_for_outages and self.router.away_for()):
            piece.seconds += seconds
        await account.sleep(seconds)

    # what became of a piece -----------------------------------------------------------------------------------

    def _settle_reply(self, piece: Piece, decoded: Decoded, route: Route, work: Work) -> None:
        """Keep the good rows; ask again for the bad ones, then for halves of them, until each stands alone."""
        batch = piece.batch
        bad = sorted(decoded.bad_rows)
        tells_nothing = len(bad) == len(batch) and route.forms.is_open(batch)  # it may be the form
        if not tells_nothing:
            self._inquiry.accept(piece, route, work)
        elif piece.asked + 1 >= ASKED_AGAIN and self._inquiry.put_otherwise(piece, route, work):
            return
        else:
            self._inquiry.suspect(piece, route, work)
        if not bad:
            work.answer.done.append((batch, decoded.vectors))
            return
        good = [row for row in range(len(batch)) if row not in decoded.bad_rows]
        if good:
            work.answer.done.append((batch.select(good), decoded.vectors[good]))
        if len(bad) == 1 and piece.asked + 1 >= ASKED_AGAIN:
            reason = InvalidReplyError(f"expected a vector, got {decoded.bad_rows[bad[0]]}", status=200)
            work.answer.failed.append((batch.select(bad), reason, piece.asked + 1))
        else:
            work.pieces.again(piece, bad)

    def _settle_fault(self, piece: Piece, fault: Fault, route: Route, work: Work) -> None:
        """Decide what becomes of *piece*, which will not be attempted again as it is."""
        divisible = len(piece.batch) > 1
        if piece.ends_run:
            work.fail(piece, fault)
            work.stop(fault.error)
        elif fault.action is Action.STOP or isinstance(fault.error, DimensionsError):
            work.stop(fault.error)
        elif fault.action is Action.SPLIT:
            more = self._exchange.accounts[work.account] > 1
            self._inquiry.refuse(piece, fault, route, work, more=more)
        elif _may_be_one_input(fault) and self._inquiry.distrust(piece, route, work):
            pass
        elif _may_be_one_input(fault) and divisible:
            work.pieces.halve(piece, asked=ASKED_AGAIN - 1)
        elif fault.trouble in FOR_A_RATE and _may_be_too_much(piece, route):
            work.pieces.halve(piece)
            route.limiter.begin_anew()
        elif fault.action is Action.REFUSE or _may_be_one_input(fault):
            work.fail(piece, fault)
        else:
            self._settle_exhaustion(piece, fault, work)

    def _settle_exhaustion(self, piece: Piece, fault: Fault, work: Work) -> None:
        """The attempts are used up: find out whether one of the inputs is the matter, or the endpoint is dead."""
        others_succeed = any(route.good_at > piece.begun_at for route in self.router.routes)
        alone = self._exchange.accounts[work.account] == 1 and not work.pieces
        if not others_succeed and piece.is_part and work.pieces and not piece.is_deferred:
            work.pieces.defer(piece)  # the other half may show that the endpoint works
        elif len(piece.batch) > 1 and (others_succeed or not piece.is_part):
            # Last, so that good halves come in between: the endpoint is not to seem away.
            work.pieces.halve(piece, attempts=max(0, self._retries.max_attempts - _CLOSER), last=True)
        elif others_succeed:
            work.fail(piece, fault)
        elif self._waits_for_outage(fault, work.account) and (not alone or piece.rounds < _ROUNDS):
            piece.attempts, piece.rounds, piece.seconds = 0, piece.rounds + 1, 0.0
            work.pieces.put_back(piece)
        else:
            work.fail(piece, fault)
            if not self._waits_for_outage(fault, work.account):
                work.stop(fault.error)  # nothing has come from anywhere since this was first sent

    def _hand_over(self, work: Work) -> None:
        self._exchange.leave(work.account)
        for route in self.router.routes:
            self._inquiry.leave(route, work)


def _make_smaller(piece: Piece, route: Route, work: Work) -> None:
    """Where tries of *route* failed, try less and less: the reason may have been one of the inputs."""
    count = max(1, len(piece.batch) >> route.limiter.failed_probes)
    if count < len(piece.batch):
        work.pieces.cut(piece, count)
        piece.attempts = 0  # of what it is now


def _may_be_too_much(piece: Piece, route: Route) -> bool:
    """True if *piece*, refused for a rate again and again, may be more than is ever granted at once."""
    was_granted = route.estimate(piece.batch) <= route.limiter.largest
    return len(piece.batch) > 1 and piece.limited >= (_LIMITED_LONGER if was_granted else _LIMITED)


def _may_be_one_input(fault: Fault) -> bool:
    """True for a reply that was well-formed and still cannot be trusted: one of the inputs may be the cause."""
    return isinstance(fault.error, InvalidReplyError) and not isinstance(
        fault.error, MalformedReplyError | DimensionsError
    )


def _waits(outcome: Outcome) -> bool:
    """True for a fault after which the same may be sent again."""
    return isinstance(outcome, Fault) and outcome.action in (Action.WAIT, Action.AGAIN)


def _found(state: tenacity.RetryCallState) -> tuple[Route, Fault]:
    assert state.outcome is not None
    found: tuple[Route, Fault] = state.outcome.result()
    return found
