"""One request and its reply, and the copy that is sent of it when it is late."""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import anyio.to_thread

from ..errors import (
    AttemptTimeoutError,
    AuthenticationError,
    ConnectionFailedError,
    DimensionsError,
    InvalidReplyError,
    MalformedReplyError,
    RequestError,
)
from ..events import (
    AttemptFailed,
    BatchAnswered,
    EndpointAway,
    EndpointBack,
    EndpointPaused,
    InputsShortened,
    Observe,
    RequestHedged,
)
from ..settings import Retries
from ..tasks import task_group
from ..values import Batch, Usage, Vectors
from ..wire.body import Body
from ..wire.fault import FOR_A_RATE, Action, Fault, Trouble, holds_error, judge, read_request_id
from ..wire.quota import QuotaHeaders, read_quota
from ..wire.reply import Decoded, decode, is_slow
from ..wire.request import Form
from ..wire.shape import AS_IT_IS, Shape
from .account import Account
from .limiter import Lease
from .router import Route, Router

if TYPE_CHECKING:
    from .transport import Reply

_BYTES_PER_NUMBER = 40  # in JSON, with indentation; base64 has 5.3
_PRECISE = 100  # tokens: fewer, in whole numbers, say little about a ratio
_NOTHING_SAID = QuotaHeaders(None, None)

Outcome: TypeAlias = Decoded | Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """
    One attempt of *batch*, in a *form*, for a run: its *number*, and the seconds it *waited* in the queue.

    *may_renew* tells whether another key may be asked for if that of the request is refused, *rows* where its vectors
    may be written.
    """

    batch: Batch
    form: Form
    number: int
    account: Account
    waited: float
    may_renew: bool = True
    rows: Vectors | None = None

    @property
    def bound(self) -> int:
        """The most tokens that it can cost."""
        return sum(self.batch.bounds)


class Exchange:
    """
    Sends requests, judges the replies, and tells the limiter, the account and the observer.

    *dimensions*, the size of the vectors as they come, is the same for all endpoints; the first reply pins it. They
    leave in *shape*.
    """

    def __init__(
        self,
        *,
        router: Router,
        retries: Retries,
        dimensions: int | None,
        observe: Observe,
        shape: Shape = AS_IT_IS,
        in_thread: Callable[..., Awaitable[Any]] = partial(anyio.to_thread.run_sync, abandon_on_cancel=True),
    ) -> None:
        self.dimensions = dimensions
        self.accounts: Counter[Account] = Counter()  # of the runs, by their batches on the way
        self._router = router
        self._retries = retries
        self._observe = observe
        self._in_thread = in_thread
        self._shape = shape

    def enter(self, account: Account) -> None:
        """A batch of *account*'s run is on its way."""
        for accounts in self._registers():
            accounts[account] += 1

    def leave(self, account: Account) -> None:
        """It has arrived, or will not."""
        for accounts in self._registers():
            accounts[account] -= 1
            if not accounts[account]:
                del accounts[account]

    def _registers(self) -> list[Counter[Account]]:
        """Where runs are known: here, and at the limiter if it is the only one and so may be shared."""
        routes = self._router.routes
        return [self.accounts, routes[0].limiter.accounts] if len(routes) == 1 else [self.accounts]

    async def send(self, route: Route, lease: Lease, attempt: Attempt) -> Outcome:
        """Send *attempt* on *route*. The lease ends with the reply, and what was reserved is settled."""
        delay = route.hedges.delay() if self._retries.hedge else None
        if delay is None:
            return await self._send(route, lease, attempt)
        return await self._race(route, lease, replace(attempt, rows=None), delay)  # two would write there

    async def _race(self, route: Route, lease: Lease, attempt: Attempt, delay: float) -> Outcome:
        """Send *attempt*, and a copy of it if there is no reply after *delay* seconds. The first vectors are taken."""
        outcomes: list[tuple[Lease, Outcome]] = []
        out = {lease}
        copy: Lease | None = None
        try:
            async with task_group() as tasks:

                async def run(lease: Lease) -> None:
                    outcomes.append((lease, await self._send(route, lease, attempt)))
                    out.remove(lease)
                    if isinstance(outcomes[-1][1], Decoded) or not out:
                        tasks.cancel_scope.cancel()

                tasks.start_soon(run, lease)
                copy = await self._hedge(route, attempt, delay, out)
                if copy is not None:
                    out.add(copy)
                    tasks.start_soon(run, copy)
        finally:
            if copy is not None:
                route.hedges.came_back()
        winner, outcome = next((each for each in outcomes if isinstance(each[1], Decoded)), outcomes[-1])
        if copy is not None:
            self._observe(RequestHedged(route.name, len(attempt.batch), winner is copy, len(outcomes) == 1))
        return outcome

    async def _hedge(self, route: Route, attempt: Attempt, delay: float, out: set[Lease]) -> Lease | None:
        """A lease for a copy, as soon as there is room and budget for it; ``None`` if the reply is there before."""
        await anyio.sleep(delay)
        copy = self._try_hedge(route, attempt, first=True) if out else None
        while out and copy is None:
            await anyio.sleep(delay / 4)
            copy = self._try_hedge(route, attempt, first=False) if out else None
        return copy

    def _try_hedge(self, route: Route, attempt: Attempt, *, first: bool) -> Lease | None:
        account = attempt.account
        if account.closed or not route.hedges.may_spend(first=first) or not account.try_reserve(attempt.bound):
            return None
        copy = route.limiter.try_acquire(route.estimate(attempt.batch))
        if copy is None:
            account.give_back(attempt.bound)
        else:
            route.hedges.spend()
        return copy

    async def _send(self, route: Route, lease: Lease, attempt: Attempt) -> Outcome:
        outcome: Outcome | None = None
        attempt.account.usage += Usage(requests=1)
        try:
            outcome, reply = await self._ask(route, attempt)
            if isinstance(outcome, Fault):
                _let_go(outcome.error)
                if reply is not None and attempt.may_renew:
                    outcome = await self._renew(route, outcome, reply)
                outcome = self._set_aside(route, outcome)
                if route.transport.is_closed:  # from this side: nothing was learned about the endpoint
                    route.limiter.withdraw(lease)
                    return outcome
            quota = read_quota(reply.headers) if reply is not None and route.reads_rates else _NOTHING_SAID
            if isinstance(outcome, Fault):
                self._note_fault(route, lease, outcome, attempt, quota)
            else:
                assert reply is not None
                self._note_reply(route, lease, outcome, attempt, quota, reply)
        finally:
            if not lease.is_over:
                route.limiter.withdraw(lease)
            attempt.account.settle(attempt.bound, _cost(outcome, attempt.bound))
        return outcome

    async def _renew(self, route: Route, fault: Fault, reply: Reply) -> Fault:
        """Ask for another key where that of the request was refused. With it the request may go again."""
        refused = isinstance(fault.error, AuthenticationError) and reply.status != 403
        try:
            if refused and await route.transport.credentials.renew(reply.key):
                return replace(fault, action=Action.AGAIN, trouble=Trouble.NONE)
        except AuthenticationError as error:
            fault.error.args = (f"{fault.error} {error}",)
            fault.error.__cause__ = error
        return fault

    def _set_aside(self, route: Route, fault: Fault) -> Fault:
        """Do without *route* if it cannot be used at all and there is another; if there is none, end all runs."""
        stops = fault.action is Action.STOP
        if not stops and not (isinstance(fault.error, DimensionsError) and len(self._router.routes) > 1):
            return fault
        if self._router.set_aside(route, anyio.current_time()):
            return replace(fault, action=Action.WAIT)
        if stops:
            for account in self.accounts:  # before the lease ends: with it the next request would go
                account.close(fault.error)
        return fault

    async def _ask(self, route: Route, attempt: Attempt) -> tuple[Outcome, Reply | None]:
        """Send the bytes; judge what comes back, and decode it if it is good."""
        batch = attempt.batch
        # More bytes than the vectors can have, so that an endless reply does not fill the memory.
        max_reply = 65_536 + len(batch) * (self.dimensions or 16_384) * _BYTES_PER_NUMBER
        body = Body(len(batch), attempt.rows)
        try:
            sent = route.template.body(batch, attempt.form, attempt.account.fields)
            reply = await route.transport.send(sent, body, max_reply=max_reply)
        except RequestError as error:
            if route.transport.is_closed:
                return Fault(Action.STOP, error), None
            if isinstance(error, AuthenticationError):  # there is no key
                return Fault(Action.WAIT if route.is_proven else Action.STOP, error), None
            slow = isinstance(error, AttemptTimeoutError)
            return Fault(Action.WAIT, error, Trouble.SLOWNESS if slow else Trouble.FAILURE), None
        rule = partial(judge, proven=route.is_proven, max_wait=self._retries.max_server_wait, meanings=route.refusals)
        if not 200 <= reply.status < 300:
            return rule(reply.status, reply.headers, body.text), reply
        read = partial(self._read, body, request_id=read_request_id(reply.headers))
        try:
            decoded = await self._in_thread(read) if is_slow(body) else read()
            if self.dimensions and decoded.dimensions not in (0, self.dimensions):
                decoded = read()  # meanwhile another endpoint has told the size: this raises
            return decoded, reply
        except InvalidReplyError as error:
            if isinstance(error, DimensionsError) and route.forms.first.dimensions and not attempt.form.dimensions:
                error.args = (f"{error}. It refuses to be asked for a size",)
            if holds_error(body.text):
                return rule(200, reply.headers, body.text), reply
            trouble = Trouble.FAILURE if isinstance(error, MalformedReplyError) else Trouble.NONE
            return Fault(Action.WAIT, error, trouble), reply

    def _read(self, body: Body, *, request_id: str | None) -> Decoded:
        """The vectors in *body*, in their shape."""
        decoded = decode(body, dimensions=self.dimensions, request_id=request_id)
        return self._shape.apply(decoded, request_id=request_id)

    def _note_fault(self, route: Route, lease: Lease, fault: Fault, attempt: Attempt, quota: QuotaHeaders) -> None:
        seconds = anyio.current_time() - lease.sent_at
        batch = attempt.batch
        was_away, away_for = route.limiter.is_away, route.limiter.away_for
        requested = (fault.overrun.requested if fault.overrun and fault.overrun.resource == "tokens" else None) or 0
        if requested >= _PRECISE:
            route.ratio.see(sum(map(len, batch.inputs)), requested)
        longer = route.limiter.fault(lease, fault, quota)
        waits = fault.action in (Action.WAIT, Action.AGAIN)
        if was_away and not route.limiter.is_away:
            self._observe(EndpointBack(route.name, away_for))
        self._observe(AttemptFailed(route.name, len(batch), attempt.number, seconds, fault.kind, fault.error, waits))
        if longer > 0:
            self._observe(EndpointPaused(route.name, longer))
        if route.limiter.is_away and not was_away:
            self._observe(EndpointAway(route.name, fault.error))
        if self._router.failed_probes() >= self._retries.max_attempts and fault.trouble not in FOR_A_RATE:
            # Whoever does not wait may not have had a probe of its own, nor one who shares the limiter.
            for account in {**self.accounts, **route.limiter.accounts}:
                if not account.waits_for_outages:
                    account.close(fault.error)

    def _note_reply(
        self, route: Route, lease: Lease, decoded: Decoded, attempt: Attempt, quota: QuotaHeaders, reply: Reply
    ) -> None:
        now = anyio.current_time()
        batch = attempt.batch
        sent_bytes = sum(map(len, batch.inputs))
        if len(decoded.bad_rows) < len(batch):
            route.is_proven = True
            self.dimensions = self.dimensions or decoded.dimensions
        route.good_at = now
        route.hedges.note(now - lease.sent_at)
        was_away, away_for = route.limiter.is_away, route.limiter.away_for
        counted = route.limiter.answer(lease, quota)
        if not any(batch.tokens):  # what was counted, or came as tokens, needs no ratio
            self._learn_ratio(route, lease, sent_bytes, counted or 0.0, decoded.prompt_tokens or 0)
        if was_away and not route.limiter.is_away:
            self._observe(EndpointBack(route.name, away_for))
        attempt.account.budget.earn()
        attempt.account.usage += Usage(
            replies=1,
            replies_without_usage=decoded.total_tokens is None,
            prompt_tokens=decoded.prompt_tokens,
            total_tokens=decoded.total_tokens,
        )
        self._observe(
            BatchAnswered(
                endpoint=route.name,
                inputs=len(batch),
                bad_vectors=len(decoded.bad_rows),
                sent_bytes=sent_bytes,
                queue_seconds=attempt.waited,
                header_seconds=reply.header_seconds,
                seconds=now - lease.sent_at,
                prompt_tokens=decoded.prompt_tokens,
                total_tokens=decoded.total_tokens,
            )
        )
        self._look_for_shortening(route, batch, decoded.prompt_tokens)

    def _look_for_shortening(self, route: Route, batch: Batch, used: int | None) -> None:
        """Say so, once, if the endpoint's count of *batch* shows that it cuts long inputs."""
        limit = route.shortening.note(batch.tokens, used)
        if limit is None:
            return
        self._observe(InputsShortened(route.name, limit, max(batch.tokens)))
        warnings.warn(
            f"{route.name} shortens inputs without a word: of {sum(batch.tokens):,} tokens in a request it counted "
            f"{used:,}, as if each input ended after {limit:,}. The rest is not in the vectors. Pass max_input_tokens="
            f"{limit}, and long documents are cut as long_input= says. (Or the tokenizer is not that of the model.)",
            stacklevel=2,
        )

    def _learn_ratio(self, route: Route, lease: Lease, sent_bytes: int, counted: float, used: int) -> None:
        """
        Compare the bytes with what the limiter was seen to have *counted* for them, or else with what was *used*.

        What somebody else took from the same quota looks as if it had been counted, so it has to be near the usage.
        """
        if counted >= _PRECISE and 0.15 * used < counted < 1.6 * used:
            route.ratio.see(sent_bytes, counted)
        elif used and not route.ratio.is_seen:
            route.limiter.correct(lease, min(max(used, 0.05 * sent_bytes), sent_bytes))
            route.ratio.learn(sent_bytes, used)


def _let_go(error: BaseException) -> None:
    """Empty the frames in which *error* came up: they hold the body and its rows, and a failure may be kept long."""
    found: BaseException | None = error
    while found is not None:
        traceback.clear_frames(found.__traceback__)
        found = found.__cause__ or found.__context__


def _cost(outcome: Outcome | None, bound: int) -> int:
    """What a request that was sent counts against ``max_spend_tokens``: in doubt, the most it can have cost."""
    if isinstance(outcome, Decoded):
        return outcome.total_tokens or bound
    if isinstance(outcome, Fault):
        never_worked_on = (
            isinstance(outcome.error, ConnectionFailedError | AuthenticationError)
            or 300 <= (outcome.error.status or 0) < 500
        )
        return 0 if never_worked_on else bound
    return bound
