"""Counting what happened: the consumer of events behind ``Embedder.stats()``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .events import AttemptFailed, BatchAnswered, DocumentCut, DocumentFailed, DocumentsEmbedded, EndpointPaused, Event

__all__ = ["Stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """
    What an embedder has done since it was made, over all its runs.

    *documents* and *vectors* were handed out; *requests* were sent, *replies* of them were good; *faults* counts
    the others by kind, such as ``{"RateLimited": 3}``. *prompt_tokens* is what the endpoint said, where it did.
    *in_flight* and *waiting* are requests at this moment; *paused_seconds* is the sum of the pauses it asked for.
    """

    documents: int = 0
    vectors: int = 0
    failures: int = 0
    cut: int = 0
    requests: int = 0
    replies: int = 0
    prompt_tokens: int = 0
    sent_bytes: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)
    paused_seconds: float = 0.0
    in_flight: int = 0
    waiting: int = 0


class Tally:
    """Counts events."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._paused_seconds = 0.0

    def observe(self, event: Event) -> None:
        """Count one event."""
        counts = self._counts
        match event:
            case BatchAnswered():
                counts["requests"] += 1
                counts["replies"] += 1
                counts["prompt_tokens"] += event.prompt_tokens or 0
                counts["sent_bytes"] += event.sent_bytes
            case AttemptFailed():
                counts["requests"] += 1
                self._faults[event.kind] += 1
            case DocumentsEmbedded():
                counts["documents"] += event.documents
                counts["vectors"] += event.rows
            case DocumentFailed():
                counts["failures"] += 1
            case DocumentCut():
                counts["cut"] += 1
            case EndpointPaused():
                self._paused_seconds += event.seconds
            case _:
                pass

    def stats(self, *, in_flight: int, waiting: int) -> Stats:
        """The counts so far."""
        return Stats(
            **self._counts,
            faults=dict(self._faults),
            paused_seconds=self._paused_seconds,
            in_flight=in_flight,
            waiting=waiting,
        )
