"""What one run has sent and may still send, and the way to send home whoever waits on its behalf."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from ..errors import ConfigurationError, SpendLimitError
from ..values import Usage
from .spend import Spend


class RunClosedError(Exception):
    """The run ended while something waited on its behalf."""


class Account:
    """
    What one run has sent and may still send.

    Once it is *closed* nothing more goes out, and whoever waits on behalf of the run is sent home; requests that
    are in flight are paid for, and are left to finish.
    """

    def __init__(self, *, max_spend_tokens: int | None = None, urgent: bool = False) -> None:
        if max_spend_tokens is not None and not max_spend_tokens > 0:
            raise ConfigurationError(f"max_spend_tokens: expected more than 0, got {max_spend_tokens!r}")
        self.urgent = urgent
        self.usage = Usage()
        self.closed = False
        self._spend = Spend(max_spend_tokens)
        self._settled = anyio.Event()
        self._waits: set[anyio.CancelScope] = set()

    @property
    def remaining(self) -> int | None:
        """Tokens that may be spent on top of what is spent and in flight; ``None`` without a limit."""
        return self._spend.remaining

    def close(self) -> None:
        """End the run's sending."""
        self.closed = True
        for scope in self._waits:
            scope.cancel()

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

    def settle(self, reserved: int, spent: int) -> None:
        """Replace what was *reserved* by what was *spent*."""
        self._spend.settle(reserved, spent)
        self._settled.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep on behalf of the run."""
        with self.waiting():
            await anyio.sleep(seconds)
