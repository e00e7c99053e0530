"""The seeded schedule of server delays: the k-th request to arrive waits for the k-th of them, whoever sends it."""

from __future__ import annotations

import math
import random

from .case import Case

MEDIAN = 0.1  # seconds
SIGMA = 0.4
TAIL = 0.01  # this share of the requests
TAIL_DELAY = 2.0  # waits for so many seconds


def schedule(case: Case) -> list[float]:
    """One delay for each request of a case, or none."""
    if case.delays is None:
        return []
    rng = random.Random(case.delays)
    count = 2 * math.ceil(case.texts / case.batch) + 64  # some clients send more requests than would do
    return [
        TAIL_DELAY if rng.random() < TAIL else round(rng.lognormvariate(math.log(MEDIAN), SIGMA), 4)
        for _ in range(count)
    ]
