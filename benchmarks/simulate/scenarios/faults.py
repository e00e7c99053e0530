"""What fails for a while, for ever, or is slow."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from embedbatch import Limits
from embedbatch.testing import Latency, Outage, ProviderSimulator, Quota

from ..measures import between, count, time_to_speed, used
from ..running import play
from ..scenario import (
    PER_SECOND,
    QUOTA_REQUESTS,
    QUOTA_TOKENS,
    Client,
    Figures,
    Job,
    Run,
    Scenario,
    at_least,
    at_most,
    told,
)
from .quotas import KNOWN, MINUTE

GRANTED = Quota(requests_per_minute=QUOTA_REQUESTS, tokens_per_minute=QUOTA_TOKENS)

BEGINS, CHANGES, ENDS = 2 * MINUTE, 4.5 * MINUTE, 7 * MINUTE
STOP_BUDGET = KNOWN.max_concurrent_requests + 50

TAIL_REQUESTS = 2_000
TAIL_BATCH = 4

DEATH = 2 * MINUTE
SURVIVED = 2.5 * MINUTE  # after the death
DOCUMENTS_OF_TWO = 28_000  # 2 minutes of both, 3 of one


def outage(on_outage: str, **changes: Any) -> Scenario:
    """Five minutes of 503, then refused connections."""
    outages = [Outage(start=BEGINS, end=CHANGES, kind="503"), Outage(start=CHANGES, end=ENDS, kind="refused")]
    return Scenario(
        name=f"outage-{on_outage}",
        title=f"5 minutes of 503, then refused connections; on_outage={on_outage!r}",
        servers=lambda seed: {"sim": ProviderSimulator(seed=seed, quota=GRANTED, outages=outages)},
        job=Job(
            limits=KNOWN,
            on_outage=on_outage,
            requests_per_minute=QUOTA_REQUESTS,
            tokens_per_minute=QUOTA_TOKENS,
        ),
        horizon=ENDS + 2 * MINUTE,
        **changes,
    )


def waiting_figures(run: Run) -> Figures:
    """What an outage costs, and how soon it is over for us."""
    return {
        "requests during the outage": sum(1 for _ in between(run.server, BEGINS, ENDS)),
        "time to 90 % of full speed": time_to_speed(run.server, ENDS, run.scenario.horizon, 0.9 * PER_SECOND),
        "failed documents": run.outcome.failed,
    }


def stopping_figures(run: Run) -> Figures:
    """What is sent until the run stops, and whether every document is accounted for."""
    outcome = run.outcome
    return {
        "requests during the outage": sum(1 for _ in between(run.server, BEGINS, math.inf)),
        "documents unaccounted for": outcome.unaccounted if math.isfinite(outcome.ended_at) else math.nan,
        "seconds until it stopped": outcome.ended_at - BEGINS,
    }


def slow_replies(share: float) -> Any:
    """Servers of which a share of the replies is slow."""
    return lambda seed: {"sim": ProviderSimulator(seed=seed, latency=Latency(tail_share=share, tail_factor=20.0))}


@functools.cache
def time_without_tail(client: Client, seed: int) -> float:
    """How long the same job takes where no reply is slow."""
    return play(TAIL.but(servers=slow_replies(0.0)), client, seed).outcome.ended_at


def tail_figures(run: Run) -> Figures:
    """What slow replies cost in time, and hedging in requests."""
    return {
        "time / time without the tail": run.outcome.ended_at / time_without_tail(run.client, run.seed),
        "extra requests": (len(run.server.requests) - TAIL_REQUESTS) / TAIL_REQUESTS,
    }


TAIL = Scenario(
    name="tail",
    title="1 % of the replies take 20 times as long, 2,000 requests, hedging on",
    servers=slow_replies(0.01),
    job=Job(
        documents=TAIL_REQUESTS * TAIL_BATCH,
        text_bytes=200,
        limits=Limits(max_batch_inputs=TAIL_BATCH),
        retries={"hedge": True},
        batch=TAIL_BATCH,
    ),
    horizon=10 * MINUTE,
    measure=tail_figures,
    bars=(at_most("time / time without the tail", 1.15, "×"), at_most("extra requests", 0.05, "%")),
)


def credit_figures(run: Run) -> Figures:
    """What is sent although the server has said that there is no credit left."""
    requests = run.server.requests
    seen_at = min((r.answered_at for r in requests if r.status == 429 and r.answered_at is not None), default=math.nan)
    return {
        "requests after the billing 429": sum(
            1 for _ in between(run.server, math.nextafter(seen_at, math.inf), math.inf)
        )
        if math.isfinite(seen_at)
        else math.nan,
        "documents unaccounted for": run.outcome.unaccounted,
        "billing 429s": count(requests, 429),
    }


def two_endpoints(seed: int) -> Mapping[str, ProviderSimulator]:
    """Two servers with a quota each, of which the first dies."""
    dies = [Outage(start=DEATH, end=math.inf, kind="refused")]
    return {
        "a.test": ProviderSimulator(seed=seed, quota=GRANTED, outages=dies),
        "b.test": ProviderSimulator(seed=seed + 1_000, quota=GRANTED),
    }


def endpoint_figures(run: Run) -> Figures:
    """What the death of one endpoint costs."""
    dead, survivor = run.servers["a.test"], run.servers["b.test"]
    outcome = run.outcome
    unaccounted = outcome.unaccounted if math.isfinite(outcome.ended_at) else 0
    return {
        "documents lost": outcome.failed + outcome.not_attempted + unaccounted,
        "survivor's tokens used / allowed": used(survivor, DEATH, DEATH + SURVIVED),
        "both used / allowed before": used(dead, MINUTE, DEATH) / 2 + used(survivor, MINUTE, DEATH) / 2,
        "requests to the dead one": sum(1 for _ in between(dead, DEATH, math.inf)),
        "share of 429": count([*dead.requests, *survivor.requests], 429) / len([*dead.requests, *survivor.requests]),
        "finished after": outcome.ended_at,
    }


SCENARIOS = [
    outage(
        "wait",
        measure=waiting_figures,
        bars=(
            at_most("requests during the outage", 60),
            at_most("time to 90 % of full speed", 15.0, "s"),
            told("failed documents"),
        ),
    ),
    outage(
        "stop",
        measure=stopping_figures,
        bars=(
            at_most("requests during the outage", STOP_BUDGET),
            at_most("documents unaccounted for", 0),
            told("seconds until it stopped", "s"),
        ),
    ),
    TAIL,
    Scenario(
        name="credit",
        title="the credit is used up in the middle",
        servers=lambda seed: {"sim": ProviderSimulator(seed=seed, credit_tokens=1_000_000)},
        job=Job(documents=10_000, limits=Limits(max_batch_inputs=16), batch=16),
        horizon=10 * MINUTE,
        measure=credit_figures,
        bars=(
            at_most("requests after the billing 429", 0),
            at_most("documents unaccounted for", 0),
            told("billing 429s"),
        ),
    ),
    Scenario(
        name="two-endpoints",
        title="two endpoints with the same quota, one dies",
        servers=two_endpoints,
        job=Job(documents=DOCUMENTS_OF_TWO, limits=KNOWN),
        horizon=8 * MINUTE,
        measure=endpoint_figures,
        bars=(
            at_most("documents lost", 0),
            at_least("survivor's tokens used / allowed", 0.95, "%"),
            told("both used / allowed before", "%"),
            told("requests to the dead one"),
            told("share of 429", "%"),
            told("finished after", "s"),
        ),
        is_for_all=False,
    ),
]
