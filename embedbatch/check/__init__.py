"""
What an endpoint accepts, and how it answers: found by asking it.

    probes (what is sent, at what cost) → asking (send) → answers (what came back) → findings (what it says) → a preset

``probes``, ``answers`` and ``findings`` are rules; ``asking`` acts.
"""

from .asking import Check, Cost
from .findings import Finding, preset

__all__ = ["Check", "Cost", "Finding", "preset"]
