"""
What happened when: a consumer of events that keeps the course of a run in a bounded number of bins. Pure.

    timeline = Timeline()
    timeline.see(event, now)  # for every event
    timeline.sample(embedder.stats().capacity, now)  # from time to time

Bins are of equal width and begin with the run. When there are too many, each two become one. A request counts as sent
in the bin in which it was sent, and for everything else in the bin in which it ended: events come at the end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from ..events import (
    AttemptFailed,
    BatchAnswered,
    DocumentFailed,
    DocumentsEmbedded,
    EndpointAway,
    EndpointBack,
    EndpointPaused,
    Event,
    RequestHedged,
)
from ..stats import Capacity

MAX_BINS = 600
WIDTH = 0.1  # seconds of a bin at first

RATE_LIMITED = "RateLimited"  # the kind of a 429

_STEP = math.log(1.1)  # of the histogram's buckets: a percentile is off by 5 % at most
_SHORTEST, _LONGEST = 1e-4, 1e6

_Seconds: TypeAlias = Literal["busy", "paused", "away"]


@dataclass(slots=True)
class Latencies:
    """A histogram of seconds, from 0.1 ms on, in buckets that grow by a tenth."""

    count: int = 0
    longest: float = 0.0
    buckets: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.longest = max(self.longest, seconds)
        self.buckets[math.floor(math.log(min(max(seconds, _SHORTEST), _LONGEST)) / _STEP)] += 1

    def merge(self, other: Latencies) -> None:
        """Count those of *other* too."""
        self.count += other.count
        self.longest = max(self.longest, other.longest)
        self.buckets.update(other.buckets)

    def percentile(self, share: float) -> float | None:
        """The seconds that a *share* of them does not exceed, such as 0.9; ``None`` if there are none."""
        if not self.count:
            return None
        wanted = max(1.0, share * self.count)
        below = 0
        for bucket in sorted(self.buckets):
            count = self.buckets[bucket]
            if below + count >= wanted:
                break
            below += count
        return min(math.exp((bucket + (wanted - below) / count) * _STEP), self.longest)


@dataclass(slots=True)
class Samples:
    """The mean of numbers that were looked at from time to time."""

    sum: float = 0.0
    count: int = 0

    def add(self, number: float) -> None:
        """Take in one, unless it is infinite: then it is not known."""
        if number != math.inf:
            self.sum += number
            self.count += 1

    def merge(self, other: Samples) -> None:
        """Take in those of *other*."""
        self.sum += other.sum
        self.count += other.count

    @property
    def mean(self) -> float | None:
        """``None`` if there was none."""
        return self.sum / self.count if self.count else None


@dataclass(slots=True)
class Bin:
    """
    What happened in a stretch of time.

    *sent* requests began in it, *replies* came, with *tokens* of input as the endpoint counted them; *faults* counts
    attempts that failed, by kind, and *retries* those of them that may succeed later. *documents* were handed out,
    *failures* of them without a vector.

    In seconds: *busy*, of all requests in flight together; *paused*, while an endpoint had asked for a pause; *away*,
    while one brought nothing but faults.

    *places* and *in_flight* are the most that were seen, *tokens_limit* and *requests_limit* what could go per second.
    """

    sent: int = 0
    replies: int = 0
    tokens: int = 0
    documents: int = 0
    failures: int = 0
    retries: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    busy: float = 0.0
    paused: float = 0.0
    away: float = 0.0
    in_flight: int = 0
    places: int = 0
    tokens_limit: Samples = field(default_factory=Samples)
    requests_limit: Samples = field(default_factory=Samples)

    @property
    def kinds(self) -> list[str]:
        """The kinds of its faults: rate limits first, then those that there are most of."""
        return sorted(self.faults, key=lambda kind: (kind != RATE_LIMITED, -self.faults[kind], kind))

    def count(self, event: Event) -> None:
        """Count one event. When a request was sent is another matter."""
        match event:
            case BatchAnswered():
                self.replies += 1
                self.tokens += event.total_tokens or event.prompt_tokens or 0
                self.latencies.add(event.seconds)
            case AttemptFailed():
                self.faults[event.kind] += 1
                self.retries += event.waits
            case DocumentsEmbedded():
                self.documents += event.documents
            case DocumentFailed():
                self.failures += not event.failure.skipped
            case _:
                pass

    def sample(self, capacity: Sequence[Capacity]) -> None:
        """Take in what the endpoints grant at a moment; those that are away grant nothing."""
        self.in_flight = max(self.in_flight, sum(each.in_flight for each in capacity))
        there = [each for each in capacity if not each.away_seconds]
        if there:
            self.places = max(self.places, sum(each.places for each in there))
            self.tokens_limit.add(sum(each.tokens_per_second for each in there))
            self.requests_limit.add(sum(each.requests_per_second for each in there))

    def merge(self, other: Bin) -> None:
        """Add what happened in *other*."""
        for name in ("sent", "replies", "tokens", "documents", "failures", "retries", "busy", "paused", "away"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.faults.update(other.faults)
        self.latencies.merge(other.latencies)
        self.in_flight = max(self.in_flight, other.in_flight)
        self.places = max(self.places, other.places)
        self.tokens_limit.merge(other.tokens_limit)
        self.requests_limit.merge(other.requests_limit)


class Slice(NamedTuple):
    """A stretch of a run: *start*, in seconds since the run began, how many *seconds* it is long, and what happened."""

    start: float
    seconds: float
    counts: Bin


class Timeline:
    """
    The course of a run that began at *began_at*, or with what is seen first.

    It has at most *max_bins* bins, each at first of *width* seconds. *total* is the sum of all of them.
    *paused_until* and *away* are the endpoints that nothing goes to now, or next to nothing.
    """

    def __init__(self, *, began_at: float | None = None, max_bins: int = MAX_BINS, width: float = WIDTH) -> None:
        self.total = Bin()
        self.width = width
        self.paused_until: dict[str, float] = {}
        self.away: dict[str, EndpointAway] = {}
        self._max_bins = max_bins
        self._bins: list[Bin] = []
        self._began_at = began_at
        self._now = -math.inf

    def __len__(self) -> int:
        return len(self._bins)

    @property
    def seconds(self) -> float:
        """From the beginning to what was seen last."""
        return 0.0 if self._began_at is None else max(0.0, self._now - self._began_at)

    @property
    def is_empty(self) -> bool:
        """True if nothing was sent, and nothing handed out."""
        total = self.total
        return not (total.sent or total.documents or total.failures)

    def see(self, event: Event, now: float) -> None:
        """Take in an event of this moment."""
        now = self._advance(now)
        for each in (self._bins[self._index(now)], self.total):
            each.count(event)
        match event:
            case BatchAnswered(seconds=seconds) | AttemptFailed(seconds=seconds):
                self._sent(now - seconds)
                self._spread("busy", now - seconds, now)
            case RequestHedged(cancelled=True):
                self._sent(now)
            case EndpointPaused():
                until = self.paused_until.get(event.endpoint, now)
                self.paused_until[event.endpoint] = max(until, now) + event.seconds
            case EndpointAway():
                self.away[event.endpoint] = event
            case EndpointBack():
                self.away.pop(event.endpoint, None)
                self.paused_until.pop(event.endpoint, None)
            case _:
                pass

    def sample(self, capacity: Sequence[Capacity], now: float) -> None:
        """Take in what the endpoints grant at this moment."""
        now = self._advance(now)
        for each in (self._bins[self._index(now)], self.total):
            each.sample(capacity)

    def slices(self, at_most: int | None = None) -> list[Slice]:
        """
        The run in equal slices: the bins, or *at_most* so many of several bins each.

        What is left at the end, less than half a slice, belongs to the last one.
        """
        if not self._bins:
            return []
        several = math.ceil(len(self._bins) / (at_most or len(self._bins)))
        seconds = several * self.width
        whole = max(1, math.floor(self.seconds / seconds + 0.5))
        slices = []
        for number in range(whole):
            end = None if number == whole - 1 else (number + 1) * several
            start = number * seconds
            length = seconds if end else max(self.seconds - start, seconds / 2)
            slices.append(Slice(start, length, merged(self._bins[number * several : end])))
        return slices

    def _advance(self, now: float) -> float:
        """Make it this late; time does not go back."""
        if self._began_at is None:
            self._began_at = now
        before, self._now = self._now, max(now, self._now, self._began_at)
        now = self._now
        while self._index(now) >= self._max_bins:
            pairs = range(0, len(self._bins), 2)
            self._bins = [merged(self._bins[first : first + 2]) for first in pairs]
            self.width *= 2
        self._bins.extend(Bin() for _ in range(len(self._bins), self._index(now) + 1))
        if before < now:
            if self.away:
                self._spread("away", before, now)
            paused_until = min(now, max(self.paused_until.values(), default=now))
            if self.paused_until and before < paused_until:
                self._spread("paused", before, paused_until)
            self.paused_until = {name: until for name, until in self.paused_until.items() if until > now}
        return now

    def _index(self, at: float) -> int:
        assert self._began_at is not None
        return max(0, math.floor((at - self._began_at) / self.width))

    def _sent(self, at: float) -> None:
        self._bins[self._index(at)].sent += 1
        self.total.sent += 1

    def _spread(self, name: _Seconds, start: float, end: float) -> None:
        """Divide the seconds from *start* to *end* among the bins in which they passed."""
        assert self._began_at is not None
        start = max(start, self._began_at)
        setattr(self.total, name, getattr(self.total, name) + end - start)
        for index in range(self._index(start), self._index(end) + 1):
            opens = self._began_at + index * self.width
            inside = min(end, opens + self.width) - max(start, opens)
            if inside > 0:
                setattr(self._bins[index], name, getattr(self._bins[index], name) + inside)


def merged(bins: Iterable[Bin]) -> Bin:
    """The sum of *bins*."""
    whole = Bin()
    for each in bins:
        whole.merge(each)
    return whole
