"""
What happened, as frozen records given to one ``observe=`` callable.

``stats()``, progress bars, logs and reports are consumers of these; nothing in the flow counts for them.
The callable runs inside the event loop: it must be quick, and an exception in it ends the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .errors import EmbedbatchError
from .values import Cut, Failure, Id

__all__ = [
    "AttemptFailed",
    "BatchAnswered",
    "DocumentCut",
    "DocumentFailed",
    "DocumentRepaired",
    "DocumentsEmbedded",
    "EndpointPaused",
    "Event",
    "RunStopped",
]


@dataclass(frozen=True, slots=True)
class BatchAnswered:
    """
    A request was answered, and its vectors are proven to be aligned; *bad_vectors* of them cannot be used.

    *seconds* is the time on the wire.
    """

    endpoint: str
    inputs: int
    bad_vectors: int
    sent_bytes: int
    seconds: float
    prompt_tokens: int | None
    total_tokens: int | None


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """
    An attempt brought no usable answer. *waits* tells that it may succeed later; it is tried again while there are
    attempts left.
    """

    endpoint: str
    inputs: int
    attempt: int
    seconds: float
    kind: str
    error: EmbedbatchError
    waits: bool


@dataclass(frozen=True, slots=True)
class EndpointPaused:
    """Nothing goes to this endpoint for *seconds*, or for *seconds* more if it is paused already."""

    endpoint: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DocumentsEmbedded:
    """Results of *documents* documents were handed out, as *rows* vectors; *bytes* of their input are done with."""

    documents: int
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DocumentFailed:
    """A document ended in a failure."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class DocumentCut:
    """A document was longer than the model takes."""

    cut: Cut


@dataclass(frozen=True, slots=True)
class DocumentRepaired:
    """Lone surrogates in a text became U+FFFD."""

    id: Id
    position: int


@dataclass(frozen=True, slots=True)
class RunStopped:
    """A run ends early: nothing more is sent."""

    error: EmbedbatchError


Event: TypeAlias = (
    BatchAnswered
    | AttemptFailed
    | EndpointPaused
    | DocumentsEmbedded
    | DocumentFailed
    | DocumentCut
    | DocumentRepaired
    | RunStopped
)
Observe: TypeAlias = Callable[[Event], object]


def observe_nothing(event: Event) -> None:
    """The default observer."""
