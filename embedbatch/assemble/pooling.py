"""The chunk vectors of one document become one vector: a running weighted mean, renormalised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..values import Vector


class WeightedMean:
    """
    The mean of chunk vectors, weighted by their tokens, scaled to length 1: Σ wᵢ·vᵢ / ‖Σ wᵢ·vᵢ‖.

    Summed in float64 and in the order of the chunks, so that the order of arrival changes no bit. Vectors that
    come early are kept until it is their turn.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = weights
        self._next = 0
        self._early: dict[int, Vector] = {}
        self._sum: npt.NDArray[np.float64] | None = None

    @property
    def is_complete(self) -> bool:
        """True once every chunk has been added."""
        return self._next == len(self._weights)

    def add(self, part: int, vector: Vector) -> None:
        """Take in the vector of chunk number *part*: float32, shape (dimensions,)."""
        # A copy: a view would keep the whole reply's array alive.
        self._early[part] = vector.copy()
        while self._next in self._early:
            weighted = self._early.pop(self._next) * np.float64(self._weights[self._next])
            self._sum = weighted if self._sum is None else self._sum + weighted
            self._next += 1

    def result(self) -> Vector:
        """
        The document's vector: float32, shape (dimensions,).

        Chunks that cancel each other out exactly have no direction; their plain sum, all zeros, would look like
        a vector, so the result is NaN then.
        """
        assert self._sum is not None
        assert self.is_complete
        length = np.linalg.norm(self._sum)
        if length == 0:
            return np.full(len(self._sum), np.nan, np.float32)
        return (self._sum / length).astype(np.float32)
