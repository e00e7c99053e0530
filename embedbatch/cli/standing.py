"""How a job stands: what a live view shows, before it is drawn. Time is handed in."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from .. import jobs
from ..events import Event
from ..jobs.timeline import Bin, Timeline, merged
from ..jobs.wording import clock, cost
from ..stats import Capacity
from .shown import shortened

RECENT = 40  # stretches of time whose speed is drawn
STRETCH = 3.0  # seconds of each
SPEED_OVER = 4  # stretches that say how fast it is now, and how long a request takes

_TELLING = 3.0  # seconds of work after which a speed tells something about the time left
_MARKS = 60  # how far a job was, at moments a second or more apart: what the time left is told from
_BLINK = 0.5  # seconds of a pause that are not worth a word


class _Mark(NamedTuple):
    """How far a job was, after *worked* seconds in which something could go."""

    worked: float
    progress: jobs.Progress


class Standing:
    """
    How a job that began at *began_at* stands.

    *total_tokens* is what it will take, if that is known; *price* is in dollars per million tokens. What passed is in
    *timeline*, what the endpoints grant at the moment in *capacity*.
    """

    def __init__(self, began_at: float, *, total_tokens: int | None = None, price: float | None = None) -> None:
        self.timeline = Timeline(began_at=began_at)
        self.capacity: Sequence[Capacity] = ()
        self.progress: jobs.Progress | None = None
        self._total_tokens = total_tokens
        self._price = price
        self._began_at = self._now = began_at
        self._worked = 0.0
        self._marks: deque[_Mark] = deque(maxlen=_MARKS)
        self._recent: deque[tuple[int, Bin]] = deque(maxlen=RECENT)

    # what comes in ------------------------------------------------------------------------------------------------

    def see(self, event: Event, now: float) -> None:
        """Take in an event."""
        self._advance(now)
        self.timeline.see(event, now)
        self._recent[-1][1].count(event)

    def sample(self, capacity: Sequence[Capacity], now: float) -> None:
        """Take in what the endpoints grant."""
        self._advance(now)
        self.timeline.sample(capacity, now)
        self.capacity = capacity

    def move(self, progress: jobs.Progress, now: float) -> None:
        """Take in how far it is."""
        self._advance(now)
        self.progress = progress
        if not self._marks or self._worked >= self._marks[-1].worked + 1.0:
            self._marks.append(_Mark(self._worked, progress))

    def _advance(self, now: float) -> None:
        timeline = self.timeline
        out = timeline.away.keys() | timeline.paused_until.keys()
        if len(out) < max(1, len(self.capacity)):
            self._worked += max(0.0, now - self._now)
        self._now = max(now, self._now)
        number = self._stretch()
        if not self._recent or self._recent[-1][0] != number:
            self._recent.append((number, Bin()))

    def _stretch(self) -> int:
        return math.floor((self._now - self._began_at) / STRETCH)

    # what is shown ------------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._now - self._began_at

    @property
    def part(self) -> float | None:
        """The part that is done, from 0 to 1, in tokens or bytes; ``None`` before that is known."""
        if self.progress is None:
            return None
        if self.progress.documents >= self.progress.total_documents:
            return 1.0
        total = self._total()
        return min(1.0, self._done(self.progress) / total) if total else 0.0

    @property
    def seconds_left(self) -> float | None:
        """By the speed of the last minute in which something could go; ``None`` if it tells nothing yet."""
        if self.progress is None or not self._marks:
            return None
        first = self._marks[0]
        worked = self._worked - first.worked
        now_done = self._done(self.progress)
        done = now_done - self._done(first.progress)
        if worked < _TELLING or done <= 0:
            return None
        pause = max((until - self._now for until in self.timeline.paused_until.values()), default=0.0)
        return max(0.0, self._total() - now_done) * worked / done + max(0.0, pause)

    @property
    def speed(self) -> float:
        """Tokens per second, over the last seconds."""
        first = max(0, self._stretch() + 1 - SPEED_OVER)
        seconds = self.seconds - first * STRETCH
        tokens = sum(each.tokens for number, each in self._recent if number >= first)
        return tokens / seconds if seconds > 0 else 0.0

    @property
    def curve(self) -> list[float]:
        """Tokens per second in the last stretches that are over, the latest at last."""
        known = {number: each.tokens / STRETCH for number, each in self._recent}
        end = self._stretch()
        return [known.get(number, 0.0) for number in range(max(0, end + 1 - RECENT), end)]

    @property
    def recent(self) -> Bin:
        """What happened in the last seconds."""
        first = self._stretch() + 1 - SPEED_OVER
        return merged(each for number, each in self._recent if number >= first)

    @property
    def limits(self) -> tuple[float, float]:
        """Tokens and requests per second that may go; infinite where that is not known."""
        there = [each for each in self.capacity if not each.away_seconds]
        if not there:
            return math.inf, math.inf
        return sum(each.tokens_per_second for each in there), sum(each.requests_per_second for each in there)

    @property
    def costs(self) -> tuple[float | None, float | None]:
        """Dollars spent, in all runs, and what it will be in the end; ``None`` where that is not known."""
        spent = cost(self.progress.tokens if self.progress else None, self._price)
        return spent, cost(self._total_tokens, self._price)

    @property
    def trouble(self) -> str | None:
        """The pause or outage that it waits for."""
        timeline = self.timeline
        for name, event in timeline.away.items():
            since = next((each.away_seconds for each in self.capacity if each.endpoint == name), 0.0)
            for_long = f" for {clock(since)}" if since >= 1 else ""
            return f"{name}, which is away{for_long}: {shortened(str(event.error))}"
        for name, until in timeline.paused_until.items():
            if until > self._now + _BLINK:
                return f"{name}, which asked for a pause: {clock(math.ceil(until - self._now))} more"
        return None

    @property
    def waits_for(self) -> str | None:
        """What holds it up now, besides trouble."""
        in_flight = sum(each.in_flight for each in self.capacity)
        places = sum(each.places for each in self.capacity)
        if not self.capacity or self.part == 1.0:
            return None
        if not in_flight:
            return "the quota" if any(each.waiting for each in self.capacity) else "the source"
        if in_flight >= places:
            return "replies: every place is taken"
        return "the quota" if any(each.waiting for each in self.capacity) else "replies"

    def _counts_tokens(self) -> bool:
        """True if tokens are the measure: how many it will take is known, and was not too few."""
        tokens = self.progress.tokens if self.progress else None
        return self._total_tokens is not None and tokens is not None and tokens < self._total_tokens

    def _total(self) -> float:
        assert self.progress is not None
        return (self._total_tokens or 0) if self._counts_tokens() else self.progress.total_bytes

    def _done(self, progress: jobs.Progress) -> float:
        return (progress.tokens or 0) if self._counts_tokens() else progress.bytes
