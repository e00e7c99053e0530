"""Counting what happened: the consumer of events behind ``Embedder.stats()``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .events import (
    AttemptFailed,
    BatchAnswered,
    BatchSplit,
    CapLearned,
    DocumentCut,
    DocumentFailed,
    DocumentsEmbedded,
    EndpointAway,
    EndpointPaused,
    Event,
    FormLearned,
    RequestHedged,
)

__all__ = ["Capacity", "Stats", "Timing"]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long *count* things took, in seconds: all together, and the one that took longest."""

    count: int = 0
    seconds: float = 0.0
    longest: float = 0.0

    @property
    def mean(self) -> float:
        """Seconds of one on average; 0 if there was none."""
        return self.seconds / self.count if self.count else 0.0

    def plus(self, seconds: float, *, count: int = 1, longest: float | None = None) -> Timing:
        """This and *count* more."""
        longest = seconds if longest is None else longest
        return Timing(self.count + count, self.seconds + seconds, max(self.longest, longest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """
    What one endpoint grants at this moment.

    *in_flight* of *places* requests; *requests_per_second* and *tokens_per_second* may go, infinite where no limit is
    known; *away_seconds* it has brought nothing but faults, 0 while it works.
    """

    endpoint: str
    in_flight: int
    places: int
    waiting: int
    requests_per_second: float
    tokens_per_second: float
    away_seconds: float


@dataclass(frozen=True, slots=True)
class Stats:
    """
    What an embedder has done since it was made, over all its runs.

    *documents* and *vectors* were handed out; *requests* were sent, *replies* of them were good; *faults* counts
    the others by kind, such as ``{"RateLimited": 3}``. *prompt_tokens* is what the endpoint said, where it did.
    *splits* requests were refused and sent in parts, *hedges* sent a second time because they were late; *caps* are
    the limits of one request that were learned, such as ``{"openai inputs": 32}``, *forms* what is sent otherwise than
    at first, such as ``{"openai encoding_format": "float"}``; *outages* counts how often an
    endpoint went away, *paused_seconds* is the sum of the pauses it asked for.

    Separate clocks, of good replies: *queue*, waiting for capacity; *headers*, until the reply began; *body*, from
    then on; *attempt*, the whole time on the wire; *document*, from entering to being handed out.

    *in_flight* and *waiting* are requests at this moment; *capacity* says more, for each endpoint.
    """

    documents: int = 0
    vectors: int = 0
    failures: int = 0
    cut: int = 0
    requests: int = 0
    replies: int = 0
    prompt_tokens: int = 0
    sent_bytes: int = 0
    splits: int = 0
    hedges: int = 0
    outages: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)
    caps: Mapping[str, int] = field(default_factory=dict)
    forms: Mapping[str, str] = field(default_factory=dict)
    paused_seconds: float = 0.0
    queue: Timing = Timing()
    headers: Timing = Timing()
    body: Timing = Timing()
    attempt: Timing = Timing()
    document: Timing = Timing()
    in_flight: int = 0
    waiting: int = 0
    capacity: tuple[Capacity, ...] = ()


class Tally:
    """Counts events."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._caps: dict[str, int] = {}
        self._forms: dict[str, str] = {}
        self._timings = dict.fromkeys(("queue", "headers", "body", "attempt", "document"), Timing())
        self._paused_seconds = 0.0

    def observe(self, event: Event) -> None:
        """Count one event."""
        counts = self._counts
        match event:
            case BatchAnswered():
                counts["requests"] += 1
                counts["replies"] += 1
                counts["prompt_tokens"] += event.prompt_tokens or 0
                counts["sent_bytes"] += event.sent_bytes
                self._time("queue", event.queue_seconds)
                self._time("headers", event.header_seconds)
                self._time("body", event.seconds - event.header_seconds)
                self._time("attempt", event.seconds)
            case AttemptFailed():
                counts["requests"] += 1
                self._faults[event.kind] += 1
            case BatchSplit():
                counts["splits"] += 1
            case RequestHedged():
                counts["hedges"] += 1
                counts["requests"] += event.cancelled
            case CapLearned():
                self._caps[f"{event.endpoint} {event.unit}"] = event.number
            case FormLearned():
                self._forms[f"{event.endpoint} {event.field}"] = event.instead
            case DocumentsEmbedded():
                counts["documents"] += event.documents
                counts["vectors"] += event.rows
                self._time("document", event.seconds, count=event.documents, longest=event.longest)
            case DocumentFailed():
                counts["failures"] += 1
            case DocumentCut():
                counts["cut"] += 1
            case EndpointAway():
                counts["outages"] += 1
            case EndpointPaused():
                self._paused_seconds += event.seconds
            case _:
                pass

    def _time(self, clock: str, seconds: float, *, count: int = 1, longest: float | None = None) -> None:
        self._timings[clock] = self._timings[clock].plus(seconds, count=count, longest=longest)

    def stats(self, capacity: tuple[Capacity, ...]) -> Stats:
        """The counts so far, with the *capacity* of this moment."""
        counts: dict[str, Any] = {**self._counts, **self._timings}
        return Stats(
            **counts,
            faults=dict(self._faults),
            caps=dict(self._caps),
            forms=dict(self._forms),
            paused_seconds=self._paused_seconds,
            in_flight=sum(each.in_flight for each in capacity),
            waiting=sum(each.waiting for each in capacity),
            capacity=capacity,
        )
