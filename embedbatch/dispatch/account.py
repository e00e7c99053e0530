"""What one run has sent and may still send, and the way to send home whoever waits on its behalf."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from ..errors import ConfigurationError, RequestError, SpendLimitError
from ..settings import DEFAULT_RETRIES, OnOutage, Retries
from ..values import Usage
from .budget import Budget
from .spend import Spend
from .tickets import Ticket, ticket

TOGETHER = 256  # inputs at the beginning of a call that have one place in the queue


class RunClosedError(Exception):
    """The run ended while something waited on its behalf."""


class Account:
    """
    What one run has sent and may still send.

    Once it is *closed* nothing more goes out, and whoever waits on behalf of the run is sent home; requests that
    are in flight are paid for, and are left to finish. *turn* lets one of its batches at a time stand in the queue
    for capacity, so that a run with many batches does not shut out the others. *fields*, a JSON object or
    nothing, go into each of its requests.
    """

    def __init__(
        self,
        *,
        max_spend_tokens: int | None = None,
        urgent: bool = False,
        streams: bool = False,
        on_outage: OnOutage = "stop",
        retries: Retries = DEFAULT_RETRIES,
        fields: bytes = b"",
    ) -> None:
        if max_spend_tokens is not None and not max_spend_tokens > 0:
            raise ConfigurationError(f"max_spend_tokens: expected more than 0, got {max_spend_tokens!r}")
        self.urgent = urgent
        self.fields = fields
        self.waits_for_outages = on_outage == "wait"
        self.usage = Usage()
        self.budget = Budget(retries)
        self._place: Ticket | None = None
        self._together = 0 if streams else TOGETHER
        self.refused_alone = 0  # inputs that were refused by themselves, before the endpoint had accepted any
        self.closed = False
        self.closed_by: RequestError | None = None
        self.turn = anyio.Lock()
        self._spend = Spend(max_spend_tokens)
        self._settled = anyio.Event()
        self._waits: set[anyio.CancelScope] = set()

    @property
    def remaining(self) -> int | None:
        """Tokens that may be spent on top of what is spent and in flight; ``None`` without a limit."""
        return self._spend.remaining

    def take_place(self, inputs: int) -> Ticket:
        """
        A place in the queues for a request of that many *inputs*.

        Calls are served in the order they came: the first inputs of a call all have the place of the first. What is
        beyond, and what a stream brings, takes turns with the others: a run of millions would keep them out for hours.
        """
        if self._place is None or self._together <= 0:
            self._place = ticket(urgent=self.urgent)
        self._together -= inputs
        return self._place

    def close(self, reason: RequestError | None = None) -> None:
        """End the run's sending, for a *reason* that an endpoint gave."""
        self.closed = True
        self.closed_by = self.closed_by or reason
        for scope in self._waits:
            scope.cancel()

    async def take_turn(self) -> None:
        """Wait until no other batch of the run stands in the queue for capacity. Whoever has the *turn* releases it."""
        self.check_open()
        try:
            self.turn.acquire_nowait()
        except anyio.WouldBlock:
            with self.waiting():
                await self.turn.acquire()

    def check_open(self) -> None:
        """Raise :class:`RunClosedError` when the run has ended."""
        if self.closed:
            raise RunClosedError

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that only waits. Raises :class:`RunClosedError` when the run ends meanwhile, or has ended."""
        self.check_open()
        with anyio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.remove(scope)
        if scope.cancelled_caught:
            raise RunClosedError

    async def reserve(self, tokens: int) -> None:
        """Set *tokens* aside, once it is certain that they fit. Raises :class:`SpendLimitError` if they never can."""
        spend = self._spend
        while not spend.fits(tokens):
            if not spend.may_fit_later(tokens):
                raise SpendLimitError(
                    f"max_spend_tokens={spend.max_tokens:,}: {spend.spent:,} tokens are spent, and the next request "
                    f"can cost {tokens:,}"
                )
            if self._settled.is_set():
                self._settled = anyio.Event()
            with self.waiting():
                await self._settled.wait()
        spend.reserve(tokens)

    def give_back(self, tokens: int) -> None:
        """Set *tokens* less aside."""
        if tokens:
            self.settle(tokens, 0)

    def try_reserve(self, tokens: int) -> bool:
        """Set *tokens* aside if they fit now; return whether they did."""
        fits = self._spend.fits(tokens)
        if fits:
            self._spend.reserve(tokens)
        return fits

    def settle(self, reserved: int, spent: int) -> None:
        """Replace what was *reserved* by what was *spent*."""
        self._spend.settle(reserved, spent)
        self._settled.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep on behalf of the run."""
        with self.waiting():
            await anyio.sleep(seconds)
