"""
The eight parts, each in a module of its own: its cases, how they are shown, and what they must show.

The order of the module is that of a part: sizes, cases, tables, verdicts.
"""

from __future__ import annotations

import math
from typing import Protocol

from ..case import Case
from ..tables import Results, Table, Verdict

QUICK = 64  # dimensions of a quick run


class Part(Protocol):
    """A part of the benchmarks."""

    @property
    def name(self) -> str:
        """What `--only` calls it."""

    @property
    def dimensions(self) -> int:
        """Of the load server's vectors."""

    def cases(self) -> list[Case]:
        """What is measured, in the order of the table."""

    def tables(self, results: Results) -> list[Table]:
        """What was measured."""

    def verdicts(self, results: Results) -> list[Verdict]:
        """What of it has a bar."""

    def most_rounds(self, case: Case) -> float:
        """How many rounds a case gets at most."""
        return math.inf
