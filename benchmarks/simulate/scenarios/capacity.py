"""A server of one's own, without a quota and without headers: how many requests at once are best."""

from __future__ import annotations

import functools
from typing import Any

from embedbatch import Limits
from embedbatch.testing import Capacity, Latency, ProviderSimulator

from ..clients import fixed
from ..measures import count, share, texts_answered
from ..running import play
from ..scenario import Figures, Job, Run, Scenario, at_least, at_most, told

WARM_UP = 60.0
HORIZON = 180.0
SHEDS_ABOVE = 40
SHED = (429, 503)
LEVELS = {"sheds": (36, 38, 40), "queues": (24, 32, 40), "peaks": (14, 16, 18, 20)}  # fixed numbers in flight


@functools.cache
def best_fixed(kind: str) -> tuple[float, int]:
    """Texts a second with the best fixed number in flight, and that number: tried out, once for each kind of server."""
    scenario = next(scenario for scenario in SCENARIOS if scenario.name.startswith(kind))
    tried = [
        (texts_answered(play(scenario, fixed(level), seed=0).server, WARM_UP, HORIZON), level) for level in LEVELS[kind]
    ]
    return max(tried)


def capacity_figures(run: Run) -> Figures:
    """Throughput against the best fixed number in flight, and how much was shed, after a minute."""
    server = run.server
    best, level = best_fixed(run.scenario.name.split("-")[0])
    return {
        "throughput / best fixed": texts_answered(server, WARM_UP, HORIZON) / best,
        "share shed": sum(share(server, status, WARM_UP) for status in SHED),
        "share shed from the start": sum(share(server, status, 0.0) for status in SHED),
        "requests shed from the start": sum(count(server.requests, status) for status in SHED),
        "best fixed": level,
    }


def scenario(name: str, title: str, least: float, *, latency: float = 1.5, **capacity: Any) -> Scenario:
    """A server that does so much at once, and takes about so long for a request alone."""
    return Scenario(
        name=name,
        title=f"no headers, {title}",
        servers=lambda seed: {
            "sim": ProviderSimulator(seed=seed, latency=Latency(median=latency), capacity=Capacity(**capacity))
        },
        job=Job(limits=Limits(max_concurrent_requests=128, max_batch_inputs=4), batch=4, text_bytes=200),
        horizon=HORIZON,
        measure=capacity_figures,
        bars=(
            at_least("throughput / best fixed", least, "%"),
            at_most("share shed", 0.005, "%"),
            told("share shed from the start", "%"),
        ),
    )


SCENARIOS = [
    scenario("sheds-503", "sheds above 40 with 503", 0.97, sheds_above=SHEDS_ABOVE),
    scenario("sheds-429", "sheds above 40 with 429", 0.97, sheds_above=SHEDS_ABOVE, status=429),
    scenario("queues-503", "queues from 24, sheds above 40 with 503", 0.97, sheds_above=SHEDS_ABOVE, workers=24),
    scenario(
        "queues-429", "queues from 24, sheds above 40 with 429", 0.97, sheds_above=SHEDS_ABOVE, workers=24, status=429
    ),
    scenario(
        "peaks-503",
        "fastest at 18, sheds above 40 with 503",
        0.88,
        latency=0.5,
        sheds_above=SHEDS_ABOVE,
        contention_peak=18,
    ),
]
