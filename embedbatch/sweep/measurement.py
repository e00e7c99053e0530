"""What came back at a point, and what it says. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate

from ..errors import (
    AttemptTimeoutError,
    AuthenticationError,
    ConnectionFailedError,
    DimensionsError,
    EmbedbatchError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestError,
    RequestRefusedError,
    ServerError,
)
from .points import Point

_OVERLOADED = (503, 529)
_ENOUGH_ERRORS = 3  # at one point: it does not work


class Trouble(Enum):
    """What a failed request means for a sweep."""

    FATAL = "fatal"  # no other request would succeed
    LIMIT = "limit"  # too much at once, or too fast
    SIZE = "size"  # a request of this size is not taken
    ACCIDENT = "accident"


def name_trouble(error: EmbedbatchError) -> Trouble:
    """What *error* means at an endpoint that has answered before."""
    match error:
        case AuthenticationError() | ModelNotFoundError() | QuotaExhaustedError() | DimensionsError():
            return Trouble.FATAL
        case RateLimitedError() | AttemptTimeoutError():
            return Trouble.LIMIT
        case ServerError() if error.status in _OVERLOADED:
            return Trouble.LIMIT
        case RequestRefusedError():
            return Trouble.SIZE
        case _:
            return Trouble.ACCIDENT


@dataclass(frozen=True, slots=True)
class Answer:
    """A good reply, and when it was asked for and there."""

    sent_at: float
    answered_at: float
    inputs: int
    tokens: int | None

    @property
    def seconds(self) -> float:
        """From the first byte out until the vectors were there."""
        return self.answered_at - self.sent_at


@dataclass(frozen=True, slots=True)
class Fault:
    """A request that brought no vectors. *pause* is how long the endpoint asked to be left alone, in seconds."""

    error: EmbedbatchError
    pause: float = 0.0

    @property
    def trouble(self) -> Trouble:
        """What it means for the sweep."""
        return name_trouble(self.error)

    @property
    def was_free(self) -> bool:
        """True if the endpoint never worked on it."""
        status = self.error.status if isinstance(self.error, RequestError) else None
        return isinstance(self.error, ConnectionFailedError) or 300 <= (status or 0) < 500


@dataclass(slots=True)
class Log:
    """What came back at one point so far."""

    answers: list[Answer] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """True once sending more could not help: too much is too much, and what does not work does not."""
        troubles = Counter(fault.trouble for fault in self.faults)
        return troubles[Trouble.ACCIDENT] >= _ENOUGH_ERRORS or troubles.total() > troubles[Trouble.ACCIDENT]

    @property
    def pause(self) -> float:
        """The longest pause that was asked for, in seconds."""
        return max((fault.pause for fault in self.faults), default=0.0)

    def first(self, trouble: Trouble) -> EmbedbatchError | None:
        """The first error that means *trouble*."""
        return next((fault.error for fault in self.faults if fault.trouble is trouble), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """
    What a point was measured to do.

    *requests* were answered with *inputs* vectors. The rates are those of *seconds*: from the first request until
    there was nothing left to send, and as long afterwards as it went on as fast. *in_flight* is the mean number of
    requests on the wire in that time. Latencies are those of single requests, in seconds; of fewer than a hundred
    the 99th percentile is the slowest. *refusals* were too much for the endpoint, *errors* failed for another
    reason, *reason* is the first of them. *cpu* is the share of one core that this process used.
    """

    point: Point
    requests: int = 0
    inputs: int = 0
    tokens: int | None = None
    seconds: float = 0.0
    inputs_per_second: float = 0.0
    requests_per_second: float = 0.0
    tokens_per_second: float | None = None
    in_flight: float = 0.0
    p50: float = math.nan
    p90: float = math.nan
    p99: float = math.nan
    refusals: int = 0
    errors: int = 0
    reason: str | None = None
    is_size_refused: bool = False
    cpu: float | None = None

    @property
    def is_good(self) -> bool:
        """True if the endpoint can be used like this."""
        return self.requests > 0 and not self.refusals and not self.is_size_refused and self.errors < _ENOUGH_ERRORS


def summarize(point: Point, log: Log, began_at: float, cpu: float | None = None) -> Measurement:
    """What *log* says about *point*, whose first request went at *began_at*. *cpu* is in seconds."""
    answers = sorted(log.answers, key=lambda answer: answer.answered_at)
    seconds = sorted(answer.seconds for answer in answers)
    count = _steady(answers, point.in_flight, began_at)
    lasted = answers[count - 1].answered_at - began_at if count else 0.0
    rate = 1 / lasted if lasted else 0.0
    known = [answer.tokens for answer in answers if answer.tokens is not None]
    tokens = sum(known) if answers and len(known) == len(answers) else None
    per_input = None if tokens is None else tokens / sum(answer.inputs for answer in answers)
    inputs = sum(answer.inputs for answer in answers[:count])
    everything = answers[-1].answered_at - began_at if answers else 0.0
    troubles = Counter(fault.trouble for fault in log.faults)
    return Measurement(
        point=point,
        requests=len(answers),
        inputs=sum(answer.inputs for answer in answers),
        tokens=tokens,
        seconds=lasted,
        inputs_per_second=inputs * rate,
        requests_per_second=count * rate,
        tokens_per_second=None if per_input is None else inputs * per_input * rate,
        in_flight=sum(_overlap(answer, began_at, began_at + lasted) for answer in answers) * rate,
        p50=percentile(seconds, 0.50),
        p90=percentile(seconds, 0.90),
        p99=percentile(seconds, 0.99),
        refusals=troubles[Trouble.LIMIT],
        errors=troubles[Trouble.ACCIDENT],
        reason=next((str(fault.error) for fault in log.faults), None),
        is_size_refused=troubles[Trouble.SIZE] > 0,
        cpu=cpu / everything if cpu is not None and everything else None,
    )


def _steady(answers: Sequence[Answer], in_flight: int, began_at: float) -> int:
    """
    How many of the *answers*, which are in order of time, to take the rates from: those that make them highest.

    When nothing is left to send the places empty one by one, and the last request may be a slow one: then the rate
    says how the sweep ended, and not what the endpoint does. So only those last answers may be left out.
    """
    least = max(1, len(answers) - in_flight + 1, math.ceil(len(answers) / 2))
    inputs = list(accumulate(answer.inputs for answer in answers))
    best, best_rate = len(answers), 0.0
    for count in range(len(answers), least - 1, -1):
        lasted = answers[count - 1].answered_at - began_at
        if lasted > 0 and inputs[count - 1] / lasted > best_rate:
            best, best_rate = count, inputs[count - 1] / lasted
    return best


def _overlap(answer: Answer, start: float, end: float) -> float:
    return max(0.0, min(answer.answered_at, end) - max(answer.sent_at, start))


def percentile(ascending: Sequence[float], share: float) -> float:
    """The least of *ascending* values that a *share* of them does not exceed (nearest rank); NaN of none."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)] if ascending else math.nan
