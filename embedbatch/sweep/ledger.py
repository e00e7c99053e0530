"""What a sweep has sent: never more than it may. Pure."""

from __future__ import annotations

from ..dispatch.spend import Spend
from .points import Budget


class Ledger:
    """
    The requests and tokens of a sweep.

    A request is counted before it goes, with the most tokens it can cost, and settled when its fate is known.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.requests = 0
        self._tokens = Spend(budget.max_tokens)
        self._counted_inputs = 0
        self._counted_tokens = 0

    @property
    def tokens(self) -> int:
        """Tokens that were spent."""
        return self._tokens.spent

    @property
    def left(self) -> Budget:
        """What may still be sent."""
        return Budget(
            max_requests=self.budget.max_requests - self.requests, max_tokens=max(0, self._tokens.remaining or 0)
        )

    @property
    def tokens_per_input(self) -> float | None:
        """What an input costs by the usage of the replies; ``None`` while there is none."""
        return self._counted_tokens / self._counted_inputs if self._counted_tokens else None

    def take(self, max_tokens: int) -> bool:
        """Count a request that can cost *max_tokens*, which goes now; False if that may be too much."""
        if self.requests >= self.budget.max_requests or not self._tokens.fits(max_tokens):
            return False
        self.requests += 1
        self._tokens.reserve(max_tokens)
        return True

    def settle(self, max_tokens: int, tokens: int | None, inputs: int) -> None:
        """A request that could cost *max_tokens* did cost *tokens*; ``None`` is not known, and counts as the most."""
        self._tokens.settle(max_tokens, max_tokens if tokens is None else tokens)
        if tokens and inputs:
            self._counted_tokens += tokens
            self._counted_inputs += inputs
