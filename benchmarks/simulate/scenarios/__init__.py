"""All scenarios, by theme."""

from __future__ import annotations

from ..scenario import Scenario
from . import capacity, faults, quotas, refusals, sharing

SCENARIOS: tuple[Scenario, ...] = (
    *quotas.SCENARIOS,
    *capacity.SCENARIOS,
    *faults.SCENARIOS,
    *refusals.SCENARIOS,
    *sharing.SCENARIOS,
)
