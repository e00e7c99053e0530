"""What a server does not take: too many inputs, and inputs that it cannot stand."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from random import Random

from embedbatch.testing import ProviderSimulator

from ..measures import count
from ..scenario import Figures, Job, Run, Scenario, at_most, exactly, told

BATCH = 256  # inputs, the default of Limits
SHORT = 60  # bytes

POISONED = 7
DOCUMENTS = 100_000
POISON = "poison"
MOST_EXTRA = 2 * POISONED * math.ceil(math.log2(BATCH)) + POISONED


def cap_figures(run: Run) -> Figures:
    """What learning a cap costs, and what is sent once it is learned: in the second half of the requests."""
    requests = run.server.requests
    later = [request.inputs for request in requests[len(requests) // 2 :]]
    return {
        "refused requests": count(requests, 400),
        "usual batch later": statistics.mode(later),
        "largest batch later": max(later),
        "failed documents": run.outcome.failed,
        "requests": len(requests),
    }


def cap(most: int) -> Scenario:
    """A cold start at a server with a cap that it does not tell."""
    return Scenario(
        name=f"cap-{most}",
        title=f"the server refuses above {most} inputs and does not say so; cold start",
        servers=lambda seed: {"sim": ProviderSimulator(seed=seed, max_inputs=most, announce_caps=False)},
        job=Job(documents=25_000, text_bytes=SHORT, batch=BATCH),
        horizon=600.0,
        measure=cap_figures,
        bars=(
            at_most("refused requests", 8),
            exactly("usual batch later", most),
            exactly("largest batch later", most),
            at_most("failed documents", 0),
            told("requests"),
        ),
    )


def poisoned(seed: int) -> Mapping[int, str]:
    """Seven texts, anywhere."""
    positions = Random(f"{seed} poison").sample(range(DOCUMENTS), POISONED)
    return {position: f"{POISON} {position}" for position in positions}


def poison_figures(run: Run) -> Figures:
    """What is lost to poisoned texts, and how many requests it takes to find them."""
    return {
        "failures": run.outcome.failed,
        "extra requests": len(run.server.requests) - math.ceil(DOCUMENTS / BATCH),
        "documents unaccounted for": run.outcome.unaccounted,
    }


SCENARIOS = [
    cap(32),
    cap(100),
    Scenario(
        name="poison",
        title="7 poisoned texts in 100,000, 256 a batch",
        servers=lambda seed: {"sim": ProviderSimulator(seed=seed, poison=lambda text: text.startswith(POISON))},
        job=Job(documents=DOCUMENTS, text_bytes=SHORT, changed=poisoned, batch=BATCH),
        horizon=3_600.0,
        measure=poison_figures,
        bars=(
            exactly("failures", POISONED),
            at_most("extra requests", MOST_EXTRA),
            at_most("documents unaccounted for", 0),
        ),
    ),
]
