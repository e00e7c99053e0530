"""
What happened, as frozen records given to one ``observe=`` callable.

``stats()``, progress bars, logs and reports are consumers of these; nothing in the flow counts for them.
The callable runs inside the event loop: it must be quick, and an exception in it ends the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .errors import EmbedbatchError
from .values import Cut, Failure, Id

__all__ = [
    "AttemptFailed",
    "BatchAnswered",
    "BatchSplit",
    "CapLearned",
    "DocumentCut",
    "DocumentFailed",
    "DocumentRepaired",
    "DocumentsEmbedded",
    "EndpointAway",
    "EndpointBack",
    "EndpointPaused",
    "Event",
    "FormLearned",
    "RequestHedged",
    "RunStopped",
]


@dataclass(frozen=True, slots=True)
class BatchAnswered:
    """
    A request was answered, and its vectors are proven to be aligned; *bad_vectors* of them cannot be used.

    *queue_seconds* it waited for capacity. On the wire it was *header_seconds* until the reply's headers, *seconds*
    until its end.
    """

    endpoint: str
    inputs: int
    bad_vectors: int
    sent_bytes: int
    queue_seconds: float
    header_seconds: float
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
class EndpointAway:
    """An endpoint brings nothing but faults, *error* the last. From now on it is only probed."""

    endpoint: str
    error: EmbedbatchError


@dataclass(frozen=True, slots=True)
class EndpointBack:
    """An endpoint that was away for *seconds* has answered."""

    endpoint: str
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchSplit:
    """A request of *inputs* inputs was refused with *error*; parts of it are sent now."""

    endpoint: str
    inputs: int
    error: EmbedbatchError


@dataclass(frozen=True, slots=True)
class CapLearned:
    """An endpoint takes no more than *number* inputs, tokens or bytes in one request, as *unit* says."""

    endpoint: str
    unit: Literal["inputs", "tokens", "bytes"]
    number: int


@dataclass(frozen=True, slots=True)
class FormLearned:
    """
    An endpoint refuses a *field* as it was sent. It is sent otherwise from now on: ``encoding_format`` as ``"float"``
    or ``"omitted"``, ``dimensions`` as ``"omitted"``, ``token_arrays`` as ``"texts"``.
    """

    endpoint: str
    field: Literal["encoding_format", "dimensions", "token_arrays"]
    instead: str


@dataclass(frozen=True, slots=True)
class RequestHedged:
    """
    A request with *inputs* inputs was late, and sent a second time. *won* tells that the copy's vectors were taken;
    *cancelled*, that the slower of the two was cancelled: no other event tells of it.
    """

    endpoint: str
    inputs: int
    won: bool
    cancelled: bool


@dataclass(frozen=True, slots=True)
class DocumentsEmbedded:
    """
    Results of *documents* documents were handed out, as *rows* vectors; *bytes* of their input are done with.

    From entering to being handed out they took *seconds* together, and *longest* the one that took longest.
    """

    documents: int
    rows: int
    bytes: int
    seconds: float = 0.0
    longest: float = 0.0


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
    | EndpointAway
    | EndpointBack
    | BatchSplit
    | CapLearned
    | FormLearned
    | RequestHedged
    | DocumentsEmbedded
    | DocumentFailed
    | DocumentCut
    | DocumentRepaired
    | RunStopped
)
Observe: TypeAlias = Callable[[Event], object]


def observe_nothing(event: Event) -> None:
    """The default observer."""
