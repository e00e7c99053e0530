"""How many retries a run may still make. Pure."""

from __future__ import annotations

from ..settings import Retries


class Budget:
    """
    The retries of one run: it starts with *budget*; each takes one, each good reply gives *budget_share* back.

    So a run that gets on may retry for ever, and an endpoint that answers nothing costs a bounded number.
    """

    def __init__(self, retries: Retries) -> None:
        self._capacity = float(retries.budget)
        self._share = retries.budget_share
        self.left = self._capacity

    def earn(self) -> None:
        """Count a good reply."""
        self.left = min(self._capacity, self.left + self._share)

    def spend(self) -> bool:
        """Take one retry; return whether there was one."""
        if self.left < 1:
            return False
        self.left -= 1
        return True
