"""
How the library should behave: frozen, keyword-only, checked on construction.

Every ceiling is ``max_…`` and ``None`` means no limit; every duration is seconds, as a float.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, get_args

from .errors import ConfigurationError

__all__ = ["Limits", "Retries"]

LongInput: TypeAlias = Literal["split", "truncate", "chunks", "error"]
Empty: TypeAlias = Literal["error", "skip"]
Surrogates: TypeAlias = Literal["replace", "error"]
OnFailure: TypeAlias = Literal["raise", "collect"]
TransportName: TypeAlias = Literal["httpx", "aiohttp"]
OnOutage: TypeAlias = Literal["stop", "wait"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """
    What may be sent, and how much may be held.

    Rates: *max_requests_per_minute* and *max_tokens_per_minute* are the quota of one key; up to *burst* seconds'
    worth may go at once. A full minute's burst would let twice the limit through in the first minute. What the
    endpoint tells of its quota lowers these, and stands in for them where they are ``None``. *ramp* keeps OpenAI's
    rule for growth above a million tokens a minute, +50 % in 15 minutes, before the endpoint asks for it.

    At once: at most *max_concurrent_requests* are in flight at one endpoint; fewer where fewer do better. After the
    first reply there are *initial_concurrent_requests*; ``None`` is 4, or 16 where a rate is known.

    Per request: *max_batch_inputs*, *max_batch_tokens* (proven or exact) and *max_batch_bytes* (of the body). The
    endpoint's own caps apply as well; the lower one wins.

    Memory: *max_window_rows* and *max_window_bytes* bound what has been read and not yet been handed out.
    """

    max_requests_per_minute: float | None = None
    max_tokens_per_minute: float | None = None
    burst: float = 2.0
    ramp: bool = False
    max_concurrent_requests: int = 32
    initial_concurrent_requests: int | None = None
    max_batch_inputs: int = 256
    max_batch_tokens: int = 300_000
    max_batch_bytes: int = 1_200_000
    max_window_rows: int = 16_384
    max_window_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        _check_positive(self)


@dataclass(frozen=True, kw_only=True)
class Retries:
    """
    How often and how patiently one request is tried.

    The wait after failed attempt *k* is uniform between 0 and min(*max_wait*, *initial_wait* · 2^(k−1)) — full
    jitter — and never less than the time the server asked for. A server that asks for more than
    *max_server_wait* is taken at its word by failing. *max_time* bounds the attempts and waits of one request
    together. Waiting for capacity, or for an endpoint that is away, spends neither.

    A run has a *budget* of retries: each takes one, each good reply gives *budget_share* back. When none is left
    the run stops, so a dead endpoint costs it no more than this. Under ``on_outage="wait"`` it waits instead, for
    at most *max_outage* seconds.

    *hedge* sends a second copy of a request that is slower than 95 % of those before, when there is room for it.
    """

    max_attempts: int = 6
    initial_wait: float = 0.5
    max_wait: float = 30.0
    max_server_wait: float = 300.0
    max_time: float = 900.0
    budget: int = 50
    budget_share: float = 0.5
    max_outage: float = 3_600.0
    hedge: bool = False

    def __post_init__(self) -> None:
        _check_positive(self)


def _check_positive(settings: Limits | Retries) -> None:
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        if value is None and setting.default is None:
            continue
        if isinstance(setting.default, bool):
            if not isinstance(value, bool):
                raise ConfigurationError(f"{setting.name}: expected True or False, got {value!r}")
            continue
        kinds, kind = (int, "an int") if str(setting.type).startswith("int") else (int | float, "a number")
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ConfigurationError(f"{setting.name}: expected {kind}, got {value!r}")
        if not value > 0:
            raise ConfigurationError(f"{setting.name}: expected more than 0, got {value!r}")


def check_choice(name: str, value: object, choices: object) -> None:
    """Raise unless *value* is one of the literals of *choices*."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ConfigurationError(f"{name}: expected one of {', '.join(map(repr, allowed))}; got {value!r}")


DEFAULT_LIMITS = Limits()
DEFAULT_RETRIES = Retries()
DEFAULT_TIMEOUT = 60.0  # one attempt, from the first byte out to the last byte in
CONNECT_TIMEOUT = 5.0
LINGER = 0.05  # how long a partly filled batch waits for the next document of a slow source
MAX_LINGER = 0.5  # and how long altogether
