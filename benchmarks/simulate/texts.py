"""Texts that cost little to make, and are all different."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

FILLER = "some words that make it as long as a passage of a document commonly is, " * 30


class Feed:
    """
    Texts of about *size* ASCII bytes, a fifth more or less; without a *number*, they never end.

    Counts what was *taken*, and gives the same text for the same place again.
    """

    def __init__(self, seed: int, size: int, number: int | None = None, changed: Mapping[int, str] | None = None):
        self.taken = 0
        self._seed = seed
        self._number = number
        self._changed = changed or {}
        rng = Random(seed)
        self._sizes = [rng.randint(size - size // 5, size + size // 5) for _ in range(997)]

    def __iter__(self) -> Iterator[str]:
        while self._number is None or self.taken < self._number:
            self.taken += 1
            yield self.text(self.taken - 1)

    def text(self, position: int) -> str:
        """The text at *position*."""
        changed = self._changed.get(position)
        if changed is not None:
            return changed
        return f"{self._seed} {position} {FILLER}"[: self._sizes[position % len(self._sizes)]]
