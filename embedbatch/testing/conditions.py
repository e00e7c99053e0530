"""How a provider fares: how long it takes, how much it can do at once, and when it is out. Seconds throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

from ..errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """
    How long a reply takes, in seconds: lognormal around *median*, and *per_token* for each token the provider counts.

    *sigma* is the spread of the logarithm; 0 means always *median*. A *tail_share* of the replies take
    *tail_factor* times as long. *uplink* is the most that a request is on its way before the quota sees it, drawn
    evenly from 0. A *refusal* is answered this quickly.
    """

    median: float = 0.2
    sigma: float = 0.3
    per_token: float = 0.0
    tail_share: float = 0.0
    tail_factor: float = 20.0
    uplink: float = 0.0
    refusal: float = 0.03

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(f"{name}: expected a number of at least 0, got {getattr(self, name)!r}")
        if self.tail_share > 1:
            raise ConfigurationError(f"tail_share: expected a share from 0 to 1, got {self.tail_share!r}")

    def draw(self, tokens: float, rng: Random) -> float:
        """Seconds of work for a request of so many tokens."""
        seconds = self.median * math.exp(rng.gauss(0.0, self.sigma)) if self.sigma else self.median
        if self.tail_share and rng.random() < self.tail_share:
            seconds *= self.tail_factor
        return seconds + self.per_token * tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """
    What a server of one's own can do at once; None: no such limit.

    With *sheds_above* requests accepted and not answered, the next is refused with *status*, without Retry-After.
    Only *workers* are worked on at once; the others wait, first come, first served. *contention_peak* is the number
    worked on at once with the highest throughput: n of them together take 1 + n·(n - 1)/peak² times as long as one
    alone. The factor is that of the moment at which the work on a request begins, and stays.
    """

    sheds_above: int | None = None
    status: Literal[429, 503] = 503
    workers: int | None = None
    contention_peak: float | None = None

    def __post_init__(self) -> None:
        for name in ("sheds_above", "workers", "contention_peak"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name}: expected a number of at least 1, got {value!r}")
        if self.status not in (429, 503):
            raise ConfigurationError(f"status: expected 429 or 503, got {self.status!r}")

    def stretch(self, working: int) -> float:
        """How much longer work takes with so many requests worked on, this one counted."""
        peak = self.contention_peak
        return 1.0 if peak is None else 1 + working * (working - 1) / peak**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """
    What happens to requests that arrive from *start* to *end*, in seconds since the provider began.

    ``"503"`` and ``"500"`` are answered so, ``"refused"`` finds no connection, ``"silence"`` gets no answer however
    long the client waits. Requests that were accepted before are answered.
    """

    start: float
    end: float
    kind: Literal["503", "500", "refused", "silence"] = "503"

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ConfigurationError(f"start, end: expected 0 <= start <= end, got {self.start!r} and {self.end!r}")
        if self.kind not in ("503", "500", "refused", "silence"):
            raise ConfigurationError(f"kind: expected '503', '500', 'refused' or 'silence', got {self.kind!r}")
