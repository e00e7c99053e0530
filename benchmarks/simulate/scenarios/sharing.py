"""Several callers of one embedder, at the limit."""

from __future__ import annotations

import functools
import math
from random import Random

from embedbatch.testing import Latency, ProviderSimulator, Quota

from ..measures import count, most_in_a_window, used, waits_against_arrivals, waits_against_queue
from ..scenario import (
    PER_SECOND,
    QUOTA_REQUESTS,
    QUOTA_TOKENS,
    Call,
    Figures,
    Job,
    Run,
    Scenario,
    at_most,
    told,
)
from .quotas import KNOWN, MINUTE

LATENCY = 0.2  # always the same, so that what is waited for is the gate

HUGE, TINY = 200, 1  # texts
HUGE_CALLS, TINY_CALLS = 30, 2_000
MIXED_FOR = (HUGE_CALLS * HUGE + TINY_CALLS * TINY) * 250 / PER_SECOND  # at exactly the limit

CALLS = 50
SHARED_FOR = 2 * MINUTE


def mixed_calls(rng: Random) -> list[Call]:
    """Calls with one text and with 200, at random times."""
    sizes = [HUGE] * HUGE_CALLS + [TINY] * TINY_CALLS
    return [Call(at=rng.uniform(0.0, MIXED_FOR), texts=texts) for texts in sizes]


def single_calls(rng: Random) -> list[Call]:
    """Calls with one text, at random times."""
    return [Call(at=rng.uniform(10.0, SHARED_FOR - 30.0), texts=1) for _ in range(CALLS)]


def server(seed: int, window: float = 60.0) -> dict[str, ProviderSimulator]:
    """A server with a quota, whose latency does not vary."""
    granted = Quota(requests_per_minute=QUOTA_REQUESTS, tokens_per_minute=QUOTA_TOKENS, window=window)
    return {"sim": ProviderSimulator(seed=seed, quota=granted, latency=Latency(median=LATENCY, sigma=0.0))}


def mixed_figures(run: Run) -> Figures:
    """How unfair it is at worst: see `waits_against_arrivals`."""
    waits = waits_against_arrivals(run.outcome.calls, run.server, LATENCY)
    tiny = [wait for wait in waits if wait.call.texts == TINY]
    huge = [wait for wait in waits if wait.call.texts == HUGE]
    return {
        "longest wait / fair wait": max(wait.ratio for wait in waits),
        "that of calls with one text": max(wait.ratio for wait in tiny),
        "that of calls with 200 texts": max(wait.ratio for wait in huge),
        "longest wait of a call with one text": max(wait.seconds for wait in tiny),
        "longest wait of a call with 200 texts": max(wait.seconds for wait in huge),
        "longest fair wait": max(wait.fair for wait in waits),
        "requests answered 429": count(run.server.requests, 429),
    }


def shared_figures(run: Run) -> Figures:
    """
    Whether the limit holds, and how unfair it is at worst: see `waits_against_queue`.

    A call that has not returned at the end counts as if it returned then.
    """
    for answered in run.outcome.calls:
        if math.isnan(answered.ended_at):
            answered.ended_at = run.scenario.horizon
    waits = waits_against_queue(run.outcome.calls, run.server, LATENCY)
    return {
        "requests answered 429": count(run.server.requests, 429),
        "most tokens in 60 s / limit": most_in_a_window(run.server, 60.0) / QUOTA_TOKENS,
        "longest wait / fair wait": max(wait.ratio for wait in waits),
        "longest wait": max(wait.seconds for wait in waits),
        "tokens used / allowed": used(run.server, MINUTE, SHARED_FOR),
    }


SCENARIOS = [
    Scenario(
        name="mixed",
        title="calls with one text and with 200 mixed, at the token limit",
        servers=server,
        job=Job(streams=0, calls=mixed_calls, limits=KNOWN),
        horizon=10 * MINUTE,
        measure=mixed_figures,
        bars=(
            at_most("longest wait / fair wait", 2.0, "×"),
            told("that of calls with one text", "×"),
            told("that of calls with 200 texts", "×"),
            told("longest wait of a call with one text", "s"),
            told("longest wait of a call with 200 texts", "s"),
            told("longest fair wait", "s"),
            told("requests answered 429"),
        ),
        is_for_all=False,
    ),
    *(
        Scenario(
            name=f"shared-{window:g}s",
            title=f"3 runs and 50 calls with one text on one embedder, windows of {window:g} s",
            servers=functools.partial(server, window=window),
            job=Job(streams=3, calls=single_calls, limits=KNOWN),
            horizon=SHARED_FOR,
            measure=shared_figures,
            bars=(
                at_most("requests answered 429", 0),
                at_most("most tokens in 60 s / limit", 1 + KNOWN.burst / 60 + 0.001, "×"),
                at_most("longest wait / fair wait", 2.0, "×"),
                told("longest wait", "s"),
                told("tokens used / allowed", "%"),
            ),
            is_for_all=False,
        )
        for window in (1.0, 5.0, 60.0)
    ),
]
