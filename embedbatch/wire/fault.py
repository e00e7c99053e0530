"""
Status, headers and body of a bad reply become a fault: what it means, and what to do.

    wait      it may succeed later: try the same request again, after a pause
    again     what was wrong is put right: try the same request again, at once
    split     this request will never be accepted as it stands; a part of it may be
    refuse    it will not be accepted, and the server says not to try
    stop      no request will be accepted: the run ends, everything done is kept

Codes decide before statuses, and statuses before words: servers put billing into 429, configuration into 503 and
rate limits into 200. Which server does what is listed, with sources, in docs/explanation/faults.md.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from ..endpoints import Meaning
from ..errors import (
    AttemptTimeoutError,
    AuthenticationError,
    MalformedReplyError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestError,
    RequestRefusedError,
    ServerError,
)
from .quota import Overrun, read_overrun
from .refusal import (
    Field,
    is_form_in_disguise,
    is_invalid_in_disguise,
    is_overload,
    is_size_in_disguise,
    read_field,
)


class Action(enum.Enum):
    """What to do about a fault."""

    WAIT = "wait"
    AGAIN = "again"
    SPLIT = "split"
    REFUSE = "refuse"
    STOP = "stop"


class Trouble(enum.Enum):
    """What a fault says about the endpoint, and so about the requests after it."""

    NONE = "none"  # it works; this request is the matter
    RATE = "rate"  # too much in a time
    GROWTH = "growth"  # more than before too quickly
    OVERLOAD = "overload"  # too much at once
    UNNAMED = "unnamed"  # too much, of whatever
    SLOWNESS = "slowness"  # no reply in time
    FAILURE = "failure"  # it does not work, or is not there


FOR_A_RATE = (Trouble.RATE, Trouble.GROWTH, Trouble.UNNAMED)


@dataclass(frozen=True, slots=True)
class Fault:
    """
    What a bad reply means.

    *retry_after* is the time the server asked for, in seconds; everyone who sends to this endpoint waits for it.
    *overrun* is the rate limit that it named, *field* the field of the request.
    """

    action: Action
    error: RequestError
    trouble: Trouble = Trouble.NONE
    retry_after: float | None = None
    overrun: Overrun | None = None
    field: Field | None = None

    @property
    def kind(self) -> str:
        """A short name for counting: the error's class."""
        return type(self.error).__name__.removesuffix("Error")


class ServerMessage(NamedTuple):
    """The endpoint's own words, wherever in the body it put them."""

    message: str
    code: str | None
    type: str | None
    param: str | None = None


# OpenAI's error-code guide; one-api and new-api sources for the last two. Waiting never helps with these.
_BILLING = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_user_quota",
    "pre_consume_token_quota_failed",
}
_BILLING_SUFFIXES = ("_spend_limit_exceeded", "_usage_limit_exceeded")
# What gateways say in words of their own, whatever the status: one-api and new-api, relay and i18n/locales.
_GATEWAYS: dict[str, Meaning] = {
    "该令牌额度已用尽": "quota",  # with 401
    "无可用渠道": "model",  # with 503
    "無可用管道": "model",
    "no available channel": "model",
    "no_available_channel": "model",
    "token_concurrency_limit_reached": "overload",
}
_KINDS: dict[Meaning, type[RequestError]] = {
    "rate": RateLimitedError,
    "overload": RateLimitedError,
    "quota": QuotaExhaustedError,
    "key": AuthenticationError,
    "model": ModelNotFoundError,
    "request": RequestRefusedError,
    "failure": ServerError,
}
_TROUBLES: dict[Meaning | None, Trouble] = {"rate": Trouble.RATE, "overload": Trouble.OVERLOAD}
_RATE_LIMIT = {"rate_limit_exceeded", "rate_limit_error", "slow_down", "throttling_error", "too_many_requests"}
_RETRIED = frozenset({408, 409, 424, 425, 429, 529})  # 424: the backend behind text-embeddings-inference failed
_MAX_MESSAGE = 500  # some servers echo every input in the error


def judge(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    proven: bool,
    max_wait: float = math.inf,
    meanings: Mapping[str, Meaning] = MappingProxyType({}),
) -> Fault:
    """
    Decide about a reply whose status is not 200, or whose body is an error.

    *proven* tells that this endpoint has answered before, with this key and model: then a refused key may be
    the gateway's own upstream's, and a missing model a channel that is down for the moment. *max_wait* is the
    longest pause, in seconds, that the caller accepts from the server. *meanings* are those that codes, types and words
    have at this endpoint.
    """
    words = read_message(body)
    headers = {name.lower(): value for name, value in headers.items()}
    meaning = _meaning(status, words, meanings)
    action, kind = _verdict_of(meaning, proven) if meaning else _classify(status, words, proven)
    field = read_field(words.message, words.param)
    if kind in (ServerError, MalformedReplyError) and action is Action.WAIT and is_form_in_disguise(words.message):
        action, kind = Action.SPLIT, RequestRefusedError  # gateways turn an upstream's 400 into a 500, or a 200
    overrun = read_overrun(words.message) if kind is RateLimitedError else None
    if overrun is not None and overrun.requested is not None and overrun.requested > overrun.limit:
        action = Action.SPLIT  # it can never pass, however long it waits
    waits = action is Action.WAIT
    said = headers.get("x-should-retry", "").lower()
    if said == "false" and action is Action.WAIT:
        action = Action.REFUSE
    elif said == "true" and action is Action.SPLIT:
        action = Action.WAIT
    retry_after = read_retry_after(headers) if action is Action.WAIT else None
    if retry_after is None and overrun is not None and action is Action.WAIT:
        retry_after = overrun.retry_after
    advice = _ADVICE.get(kind, "")
    if retry_after is not None and retry_after > max_wait:
        action = Action.STOP
        advice = f"It asks to wait {retry_after:,.0f} s, more than max_server_wait={max_wait:,.0f}."
        retry_after = None  # the run ends; the next one asks again
    message = f"HTTP {status}: {words.message or 'no message'}"
    error = kind(
        f"{message}{'' if message.endswith(('.', '!', '?')) else '.'} {advice}".rstrip(),
        status=status,
        code=words.code,
        type=words.type,
        request_id=read_request_id(headers),
    )
    if not waits:
        return Fault(action, error, retry_after=retry_after, field=field if action is Action.SPLIT else None)
    trouble = _TROUBLES.get(meaning) or _trouble(_inner_status(status, words), words, kind, retry_after, overrun)
    return Fault(action, error, trouble, retry_after, overrun)


_Verdict = tuple[Action, type[RequestError]]


def _classify(status: int, words: ServerMessage, proven: bool) -> _Verdict:
    names = _names(words)
    if status == 402 or names & _BILLING or any(name.endswith(_BILLING_SUFFIXES) for name in names):
        return Action.STOP, QuotaExhaustedError
    if status == 200:
        return _classify_error_in_200(words, names, proven)
    if "model_not_found" in names or status == 404:
        return (Action.WAIT if proven else Action.STOP), ModelNotFoundError
    if status in (401, 403):
        return (Action.WAIT if proven else Action.STOP), AuthenticationError
    if 300 <= status < 400:
        return Action.STOP, RequestRefusedError
    if status == 429 or names & _RATE_LIMIT:
        return Action.WAIT, RateLimitedError
    if status == 408:
        return Action.WAIT, AttemptTimeoutError
    if is_size_in_disguise(status, words.message) or is_invalid_in_disguise(status, words.message):
        return Action.SPLIT, RequestRefusedError
    if status in _RETRIED or status >= 500:
        return Action.WAIT, ServerError
    return Action.SPLIT, RequestRefusedError


def _meaning(status: int, words: ServerMessage, meanings: Mapping[str, Meaning]) -> Meaning | None:
    """What *words* mean at this endpoint, or at every gateway. A refused input may be echoed: that says nothing."""
    names, message = _names(words), words.message.lower()
    for known in (meanings, _GATEWAYS):
        reads_on = known is meanings or status not in (400, 413, 422)
        for name, meaning in known.items():
            if name.lower() in names or (reads_on and name.lower() in message):
                return meaning
    return None


def _verdict_of(meaning: Meaning, proven: bool) -> _Verdict:
    if meaning in ("key", "model"):
        return (Action.WAIT if proven else Action.STOP), _KINDS[meaning]
    return {"quota": Action.STOP, "request": Action.SPLIT}.get(meaning, Action.WAIT), _KINDS[meaning]


def _classify_error_in_200(words: ServerMessage, names: set[str], proven: bool) -> _Verdict:
    """Gateways wrap an upstream's error into a 200; its code may be the upstream's status."""
    inner = _inner_status(200, words)
    if inner != 200:
        return _classify(inner, words._replace(code=None), proven)
    if "model_not_found" in names:
        return (Action.WAIT if proven else Action.STOP), ModelNotFoundError
    if names & _RATE_LIMIT:
        return Action.WAIT, RateLimitedError
    return Action.WAIT, MalformedReplyError


def _inner_status(status: int, words: ServerMessage) -> int:
    """The status that a gateway has wrapped into a 200, if it did."""
    code = words.code or ""
    wrapped = status == 200 and len(code) == 3 and code.isdecimal() and 400 <= int(code) < 600
    return int(code) if wrapped else status


def _names(words: ServerMessage) -> set[str]:
    return {name.lower() for name in (words.code, words.type) if name}


def _trouble(
    status: int, words: ServerMessage, kind: type[RequestError], retry_after: float | None, overrun: Overrun | None
) -> Trouble:
    if kind is AttemptTimeoutError:
        return Trouble.SLOWNESS
    names = _names(words)
    if "slow_down" in names:
        return Trouble.GROWTH
    if is_overload(status, words.message, words.type) or (status in (503, 529) and kind is ServerError):
        return Trouble.OVERLOAD
    if kind is not RateLimitedError:
        return Trouble.FAILURE
    named = overrun is not None or retry_after is not None or names & _RATE_LIMIT
    return Trouble.RATE if named else Trouble.UNNAMED


_ADVICE: dict[type[RequestError], str] = {
    AuthenticationError: "Check api_key=, or the variable that it is taken from.",
    ModelNotFoundError: "Check the model's name and base_url=.",
    QuotaExhaustedError: "Waiting does not help: check the plan and billing of this key.",
}


def read_message(body: bytes) -> ServerMessage:
    """
    The message, code and type in an error body.

    Known shapes: ``{error: {message, type, code}}``, ``{error: "…"}``, ``{message, code, type}``,
    ``{detail: "…"}``, ``{detail: [{msg}]}``, ``{errors: [{message}]}``, two objects one after the other, plain
    text, HTML, and nothing at all. A code may be a string, a number or null.
    """
    text = body.decode("utf-8", "replace").strip()
    found = _first_json(text)
    if not isinstance(found, dict):
        return ServerMessage(_shorten(text), None, None)
    inner = found.get("error") or found.get("errors") or found.get("detail") or found
    while isinstance(inner, list) and inner:
        inner = inner[0]
    if not isinstance(inner, dict):
        return ServerMessage(_shorten(str(inner)), _name(found.get("code")), _name(found.get("type")))
    message = inner.get("message") or inner.get("msg") or inner.get("detail") or text
    place = inner.get("loc")  # of FastAPI's validation: ["body", "dimensions"]
    param = place[1] if isinstance(place, list) and len(place) > 1 else inner.get("param")
    return ServerMessage(_shorten(str(message)), _name(inner.get("code")), _name(inner.get("type")), _name(param))


def holds_error(body: bytes) -> bool:
    """True if the body of a 200 is an error in disguise, and not merely something else than embeddings."""
    found = _first_json(body.decode("utf-8", "replace").strip())
    return (
        isinstance(found, dict)
        and not found.get("data")
        and any(found.get(name) for name in ("error", "errors", "detail", "message"))
    )


def _first_json(text: str) -> Any:
    """The JSON value that *text* begins with, or ``None``."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return value


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """
    Seconds the server asks to wait, or ``None``.

    ``retry-after-ms`` first, then ``retry-after`` (seconds or an HTTP date, read against the reply's own
    ``date``: clocks differ), then LiteLLM's ``llm_provider-retry-after``. Negative, infinite and unreadable
    values are ignored.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    for name in ("retry-after", "llm_provider-retry-after"):
        value = headers.get(name)
        seconds = _seconds(value)
        if seconds is None:
            seconds = _seconds_until(value, headers.get("date"))
        if seconds is not None:
            return seconds
    return None


def read_request_id(headers: Mapping[str, str]) -> str | None:
    """The id that the endpoint's support will ask for."""
    for name in ("x-request-id", "apim-request-id", "mistral-correlation-id", "x-oneapi-request-id", "cf-ray"):
        if name in headers:
            return headers[name]
    return None


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _seconds_until(value: str | None, date: str | None) -> float | None:
    try:
        seconds = (parsedate_to_datetime(value or "") - parsedate_to_datetime(date or "")).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return seconds if seconds >= 0 else None


def _name(value: Any) -> str | None:
    return None if value is None or value == "" else _shorten(str(value))


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "…"
