"""What a scenario is made of."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, TypeAlias

import httpx

from embedbatch import Limits
from embedbatch.testing import ProviderSimulator

Figures: TypeAlias = dict[str, float]

STOPPED = "runs that stopped early"

QUOTA_TOKENS = 1_000_000  # a minute, wherever a scenario has a quota
QUOTA_REQUESTS = 3_000
PER_SECOND = QUOTA_TOKENS / 60


@dataclass(frozen=True)
class Bar:
    """
    What a figure has to reach: at least, at most, or neither where the figure is only told.

    *unless* names a count that excuses the figure while it is no larger than the number beside it.
    """

    figure: str
    unit: str = ""
    least: float = -math.inf
    most: float = math.inf
    unless: tuple[str, float] | None = None

    def is_met(self, figures: Figures) -> bool:
        """True if these figures reach the bar. A figure that could not be measured does not."""
        if self.unless and figures[self.unless[0]] <= self.unless[1]:
            return True
        return self.least <= figures[self.figure] <= self.most or not self.demands

    @property
    def demands(self) -> bool:
        """True if there is something to reach."""
        return self.least > -math.inf or self.most < math.inf

    def worst(self, values: list[float]) -> float:
        """The one of *values* that is the furthest from the bar."""
        if any(math.isnan(value) for value in values):
            return math.nan
        if self.least == self.most:
            return max(values, key=lambda value: abs(value - self.least))
        return min(values) if self.least > -math.inf else max(values)

    def show(self, value: float) -> str:
        """A value of this figure, for a reader."""
        if math.isnan(value):
            return "none"
        if self.unit == "%":
            return f"{100 * value:.2f} %"
        return f"{value:,.4g}" + (f" {self.unit}" if self.unit else "")

    def __str__(self) -> str:
        if self.least == self.most:
            return f"= {self.show(self.least)}"
        if not self.demands:
            return ""
        shown = f"≥ {self.show(self.least)}" if self.least > -math.inf else f"≤ {self.show(self.most)}"
        return shown + (f" or {self.unless[1]:g} {self.unless[0]}" if self.unless else "")


def at_least(figure: str, value: float, unit: str = "") -> Bar:
    """A bar from below."""
    return Bar(figure, unit, least=value)


def at_most(figure: str, value: float, unit: str = "", *, unless: tuple[str, float] | None = None) -> Bar:
    """A bar from above."""
    return Bar(figure, unit, most=value, unless=unless)


def exactly(figure: str, value: float) -> Bar:
    """A bar from both sides."""
    return Bar(figure, least=value, most=value)


def told(figure: str, unit: str = "") -> Bar:
    """A figure without a bar."""
    return Bar(figure, unit)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A single `embed()` of *texts* texts that begins *at* a time."""

    at: float
    texts: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """
    What a client is asked to do.

    *streams* runs embed *documents* texts of about *text_bytes* bytes each; ``None`` is an endless supply. *calls*
    are made beside them. *changed* makes another text of the one with a given number, for one seed.

    *limits*, *retries* and *on_outage* are embedbatch's settings, and every *checked*-th of its vectors is compared
    with the right one; *requests_per_minute*, *tokens_per_minute* and *batch* are those of the simple clients.
    """

    documents: int | None = None
    text_bytes: int = 1_000
    streams: int = 1
    calls: Callable[[Random], list[Call]] | None = None
    changed: Callable[[int], Mapping[int, str]] | None = None
    limits: Limits = field(default_factory=Limits)
    retries: Mapping[str, Any] = field(default_factory=dict)
    on_outage: str | None = None
    checked: int = 7
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    batch: int = 13


@dataclass(slots=True)
class Answered:
    """What became of a :class:`Call`. *waiting* are the requests that were waiting when it began."""

    call: Call
    began_at: float
    waiting: int
    bytes: int
    ended_at: float = math.nan


@dataclass(slots=True)
class Outcome:
    """What a client has to show for its work. *taken* are the documents that it took from their source."""

    taken: int = 0
    embedded: int = 0
    failed: int = 0
    not_attempted: int = 0
    wrong: int = 0
    ended_at: float = math.nan
    calls: list[Answered] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def unaccounted(self) -> int:
        """Documents that were taken and got neither a vector nor a failure."""
        return self.taken - self.embedded - self.failed - self.not_attempted


@dataclass(frozen=True, kw_only=True)
class Task:
    """A *job* at the *servers*, by host, which *transport* leads to. The client writes down the *outcome*."""

    job: Job
    seed: int
    servers: Mapping[str, ProviderSimulator]
    transport: httpx.AsyncBaseTransport
    outcome: Outcome

    @property
    def base_urls(self) -> dict[str, str]:
        """Where each host is reached."""
        return {host: f"http://{host}/v1" for host in self.servers}


Client: TypeAlias = Callable[[Task], Awaitable[None]]


@dataclass(frozen=True)
class Run:
    """One run of a *client* that is over: its servers by host, and the outcome."""

    scenario: Scenario
    client: Client
    seed: int
    servers: Mapping[str, ProviderSimulator]
    outcome: Outcome

    @property
    def server(self) -> ProviderSimulator:
        """The only server."""
        (server,) = self.servers.values()
        return server


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """
    One scenario: *servers* makes them for a seed, by host; *job* is what a client does until *horizon*, in
    seconds; *measure* reads off the figures that *bars* name.

    *is_for_all* tells whether the simple clients can take part.
    """

    name: str
    title: str
    servers: Callable[[int], Mapping[str, ProviderSimulator]]
    job: Job
    horizon: float
    measure: Callable[[Run], Figures]
    bars: tuple[Bar, ...]
    is_for_all: bool = True

    def __str__(self) -> str:
        return self.name

    def but(self, **changes: Any) -> Scenario:
        """The same scenario with other settings."""
        return replace(self, **changes)
