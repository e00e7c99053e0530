"""
Figures, read off the requests that a server saw.

Times are in seconds since the run began. A request belongs to the time at which it arrived, a reply to the time at
which it went out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from embedbatch.testing import ProviderSimulator, RequestRecord

from .scenario import PER_SECOND, Answered, Call, Figures, Run


class Wait(NamedTuple):
    """How long a call took, and how long it would take in fair order."""

    call: Call
    seconds: float
    fair: float

    @property
    def ratio(self) -> float:
        """1 is fair, more is worse."""
        return self.seconds / self.fair


SPAN = 5.0  # seconds over which speed is averaged


def between(server: ProviderSimulator, start: float, end: float) -> Iterator[RequestRecord]:
    """The requests that arrived from *start* to *end*."""
    return (request for request in server.requests if start <= request.at < end)


def used(server: ProviderSimulator, start: float, end: float, per_second: float = PER_SECOND) -> float:
    """
    Tokens used / tokens allowed, from *start* to *end*.

    Used are those that the server's quota let through, in its own count: each is answered 200, if time is left.
    """
    return server.granted_tokens(start, end) / (per_second * (end - start))


def count(requests: Iterable[RequestRecord], status: int) -> int:
    """How many of *requests* were answered so."""
    return sum(request.status == status for request in requests)


def share(server: ProviderSimulator, status: int, start: float, end: float = math.inf) -> float:
    """The share of the requests from *start* to *end* that were answered so."""
    requests = list(between(server, start, end))
    return count(requests, status) / len(requests) if requests else math.nan


def texts_answered(server: ProviderSimulator, start: float, end: float) -> float:
    """Texts a second whose vectors went out from *start* to *end*."""
    done = (
        request.inputs
        for request in server.requests
        if request.status == 200 and request.answered_at is not None and start <= request.answered_at < end
    )
    return sum(done) / (end - start)


def in_flight_at(server: ProviderSimulator, time: float) -> int:
    """Requests that had arrived before *time* and were not answered yet."""
    return sum(
        request.at < time and (request.answered_at is None or request.answered_at >= time)
        for request in server.requests
    )


def time_to_speed(server: ProviderSimulator, start: float, end: float, per_second: float) -> float:
    """
    Seconds from *start* until the server grants *per_second* tokens.

    The first moment that begins 5 seconds with an average of at least that much. Infinite if *end* comes first.
    """
    requests = [request for request in between(server, start, end) if request.granted]
    moments = [start, *(request.at for request in requests)]
    last = 0
    tokens = 0.0
    first = 0
    for moment in moments:
        while last < len(requests) and requests[last].at < moment + SPAN:
            tokens += requests[last].tokens
            last += 1
        while first < last and requests[first].at < moment:
            tokens -= requests[first].tokens
            first += 1
        if moment + SPAN > end:
            break
        if tokens >= per_second * SPAN:
            return moment - start
    return math.inf


def most_in_a_window(server: ProviderSimulator, seconds: float) -> float:
    """The most tokens that were granted in any window of so many seconds."""
    requests = [request for request in server.requests if request.granted]
    most = tokens = 0.0
    first = 0
    for request in requests:
        tokens += request.tokens
        while requests[first].at <= request.at - seconds:
            tokens -= requests[first].tokens
            first += 1
        most = max(most, tokens)
    return most


def quota_figures(run: Run, start: float) -> Figures:
    """What is used of a quota, and how much is refused, from *start* to the end and altogether."""
    server, end = run.server, run.scenario.horizon
    return {
        "tokens used / allowed": used(server, start, end),
        "share of 429": share(server, 429, start),
        "requests answered 429": count(between(server, start, math.inf), 429),
        "share of 429 from the start": share(server, 429, 0.0),
        "requests": len(server.requests),
    }


def waits_against_arrivals(calls: list[Answered], server: ProviderSimulator, latency: float) -> list[Wait]:
    """
    How long calls wait against fair order, which is first come, first served.

    For each call: the time until it returned, divided by the time it would take if all the tokens that had arrived
    before it and were not granted yet, and then its own, went at the rate of the quota, and one latency passed.
    Tokens are bytes / 4, as the server counts them; of calls that arrived at one moment, each is ahead of the next.
    """
    waits = []
    requests = deque(request for request in server.requests if request.granted)
    arrived = taken = 0.0
    for answered in sorted(calls, key=lambda answered: answered.began_at):
        own = answered.bytes / 4
        arrived += own
        while requests and requests[0].at < answered.began_at:
            taken += requests.popleft().tokens
        waits.append(_wait(answered, max(arrived - taken, own), latency))
    return waits


def waits_against_queue(calls: list[Answered], server: ProviderSimulator, latency: float) -> list[Wait]:
    """
    How long calls wait against fair order, which is first come, first served, among long runs.

    For each call: the time until it returned, divided by the time it would take if the requests that were waiting at
    the gate when it arrived, and then its own, went at the rate of the quota, and one latency passed. How many were
    waiting is what `Embedder.stats()` said at that moment, n; first come, first served, they are the next n that
    the server grants. (Where the run ends before that, the others are taken to be as large on average.)
    """
    waits = []
    requests = [request for request in server.requests if request.granted]
    for answered in calls:
        ahead = [request.tokens for request in requests if request.at >= answered.began_at][: answered.waiting]
        waiting = sum(ahead) * answered.waiting / len(ahead) if ahead else 0.0
        waits.append(_wait(answered, waiting + answered.bytes / 4, latency))
    return waits


def _wait(answered: Answered, tokens: float, latency: float) -> Wait:
    seconds = math.inf if math.isnan(answered.ended_at) else answered.ended_at - answered.began_at
    return Wait(answered.call, seconds, tokens / PER_SECOND + latency)
