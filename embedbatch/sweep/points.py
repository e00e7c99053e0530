"""What a sweep tries, and what it may cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigurationError

BATCH_INPUTS = (1, 4, 16, 64, 256)
IN_FLIGHT = (1, 2, 4, 8, 16, 32)
MOST_IN_FLIGHT = 1_000  # each has a connection of its own


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """So many inputs in a request, and so many requests in flight."""

    batch_inputs: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.batch_inputs:,} × {self.in_flight:,}"

    @property
    def load(self) -> int:
        """Inputs in flight."""
        return self.batch_inputs * self.in_flight

    def is_within(self, other: Point) -> bool:
        """True if *other* asks for as much in both, or more."""
        return self.batch_inputs <= other.batch_inputs and self.in_flight <= other.in_flight


@dataclass(frozen=True, slots=True)
class Grid:
    """The batch sizes and the numbers in flight to try, each ascending."""

    batch_inputs: Sequence[int] = BATCH_INPUTS
    in_flight: Sequence[int] = IN_FLIGHT

    def __post_init__(self) -> None:
        for name, most in (("batch_inputs", None), ("in_flight", MOST_IN_FLIGHT)):
            axis = getattr(self, name)
            if not axis or any(value < 1 or (most is not None and value > most) for value in axis):
                upper = "" if most is None else f" and at most {most:,}"
                raise ConfigurationError(f"{name}: expected numbers of at least 1{upper}, got {list(axis)}")
            object.__setattr__(self, name, tuple(sorted(set(axis))))

    def points(self) -> list[Point]:
        """All of them, the cheap ones first: whatever is in the way is met where it costs little."""
        every = [Point(batch_inputs, in_flight) for batch_inputs in self.batch_inputs for in_flight in self.in_flight]
        return sorted(every, key=lambda point: (point.load, point.in_flight))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a sweep may send, or has left to send."""

    max_requests: int
    max_tokens: int

    def __post_init__(self) -> None:
        for name in ("max_requests", "max_tokens"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name}: expected at least 0, got {getattr(self, name):,}")


@dataclass(frozen=True, slots=True)
class Quota:
    """
    What the endpoint's headers say it grants; infinite where they say nothing.

    *tokens_per_request* is what an embedder puts into one request at most, to keep to it.
    """

    requests_per_second: float = math.inf
    tokens_per_second: float = math.inf
    tokens_per_request: float = math.inf
