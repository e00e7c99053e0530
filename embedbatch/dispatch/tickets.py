"""Places in the queues for capacity. Pure."""

from __future__ import annotations

from itertools import count
from typing import TypeAlias

Ticket: TypeAlias = tuple[int, int]
"""A place in every queue: urgent calls before bulk work, then order of arrival."""

URGENT, BULK = 0, 1
_numbers = count()  # one for the process: embedders that share a limiter share its queue


def number() -> int:
    """A number higher than all before."""
    return next(_numbers)


def ticket(*, urgent: bool = False) -> Ticket:
    """A place behind everyone who has one of the same urgency."""
    return (URGENT if urgent else BULK, number())
