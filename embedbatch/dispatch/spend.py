"""How many tokens a run may still spend. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Spend:
    """
    The tokens of one run: *spent* by answered requests, *reserved* by those in flight.

    A request reserves the most it can cost and is settled when its fate is known. With ``max_tokens=None``
    everything fits.
    """

    max_tokens: int | None
    spent: int = 0
    reserved: int = 0

    @property
    def remaining(self) -> int | None:
        """What is neither spent nor reserved; ``None`` without a limit."""
        return None if self.max_tokens is None else self.max_tokens - self.spent - self.reserved

    def fits(self, tokens: int) -> bool:
        """True if *tokens* more can never pass the limit."""
        return self.remaining is None or tokens <= self.remaining

    def may_fit_later(self, tokens: int) -> bool:
        """True if *tokens* may fit once the requests in flight turn out to cost less than they reserved."""
        return self.max_tokens is None or (self.reserved > 0 and self.spent + tokens <= self.max_tokens)

    def reserve(self, tokens: int) -> None:
        """Set *tokens* aside for a request that is about to be sent."""
        self.reserved += tokens

    def settle(self, reserved: int, spent: int) -> None:
        """Give back what was *reserved*, and count what was really *spent*."""
        self.reserved -= reserved
        self.spent += spent
