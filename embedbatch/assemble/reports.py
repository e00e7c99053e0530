"""What a run reports of its documents besides their vectors."""

from __future__ import annotations

from typing import Any

from ..events import DocumentCut, DocumentRepaired, Event, Observe
from ..values import Cut, Document, Id


class Reports:
    """Keeps what a run reports of its documents, and passes every event on."""

    def __init__(self, observe: Observe) -> None:
        self.cut: list[Cut] = []
        self.repaired: list[Id] = []
        self._observe = observe

    def observe(self, event: Event) -> None:
        """Take in one event."""
        if isinstance(event, DocumentCut):
            self.cut.append(event.cut)
        elif isinstance(event, DocumentRepaired):
            self.repaired.append(event.id)
        self._observe(event)


def ids_of(documents: list[Any]) -> list[Id]:
    """The ids of *documents*: their own, or their positions."""
    return [
        document.id if isinstance(document, Document) and document.id is not None else position
        for position, document in enumerate(documents)
    ]
