"""
Which batch size and how many requests in flight serve an endpoint best: found by trying, within a budget.

    grid, budget, texts → plan (which point, how many requests) → lanes (send) → measurement → verdict (the knee)

``plan``, ``measurement``, ``verdict`` and ``ledger`` are rules; ``lanes`` and ``sweeper`` act.
"""

from .measurement import Measurement
from .plan import Reason
from .points import Budget, Grid, Point, Quota
from .sweeper import Step, Sweep
from .texts import Texts, bound_for, generate, repeat
from .verdict import Verdict, is_bound, sustained

__all__ = [
    "Budget",
    "Grid",
    "Measurement",
    "Point",
    "Quota",
    "Reason",
    "Step",
    "Sweep",
    "Texts",
    "Verdict",
    "bound_for",
    "generate",
    "is_bound",
    "repeat",
    "sustained",
]
