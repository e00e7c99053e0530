"""
What an endpoint says about its rate limits: the x-ratelimit headers of any reply, and the message of a 429.

Both are read with suspicion. Servers send −1 and 0 for "unknown", a gateway copies the headers of whichever upstream
answered, and more can remain than the limit allows. What cannot be so counts as not said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

Resource: TypeAlias = Literal["requests", "tokens"]
"""What a provider counts by the minute."""

_MINUTE = 60.0
_WINDOWS = (1.0, _MINUTE, 3_600.0, 86_400.0)
_WINDOW_TOLERANCE = 0.25
_LONGEST_RESET = 90_000.0  # seconds: a day, and an hour for clocks that differ
_LARGEST = 1e12  # requests or tokens

# As in "1000000", "1,000,000" and "150000.000000"; one fraction, so that a full stop after it stays outside.
NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"

_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_UNITS = (("d", 86_400.0), ("h", 3_600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("[uµμ]s", 1e-6), ("ns", 1e-9))
_DURATION = re.compile("".join(rf"(?:([0-9]+(?:\.[0-9]+)?){unit})?" for unit, _ in _UNITS))


@dataclass(frozen=True, slots=True)
class Allowance:
    """
    A rate limit as the headers tell it: *limit* and *remaining* in requests or tokens, *reset_after* in seconds.

    *reset_after* is the time until everything is there again, not until the next request may go.
    """

    limit: float
    remaining: float | None = None
    reset_after: float | None = None

    @property
    def window(self) -> float:
        """
        The seconds in which *limit* is granted: 1, 60, 3,600 or 86,400. A minute, unless the reset tells otherwise.

        Groq's limit of requests is per day: 14,400 with 14,370 remaining and a reset after 3 minutes. More than a
        minute is believed only when the reset is further off than a minute. Servers that count from minute to
        minute send the time to the next one, and at the start of a run that looks like a long window.
        """
        used = self.limit - (self.limit if self.remaining is None else self.remaining)
        all_gone_for_less = not self.remaining and (self.reset_after or 0.0) < _MINUTE  # as at the end of a minute
        if used <= 0 or not self.reset_after or all_gone_for_less:
            return _MINUTE
        told = self.limit * self.reset_after / used
        nearest = min(_WINDOWS, key=lambda window: abs(told - window))
        too_soon = nearest > _MINUTE and self.reset_after <= _MINUTE
        return _MINUTE if too_soon or abs(told - nearest) > _WINDOW_TOLERANCE * nearest else nearest

    @property
    def per_second(self) -> float:
        """The rate at which the allowance refills, in requests or tokens."""
        return self.limit / self.window


class QuotaHeaders(NamedTuple):
    """What the headers of one reply say."""

    requests: Allowance | None
    tokens: Allowance | None


@dataclass(frozen=True, slots=True)
class Overrun:
    """
    The rate limit that a request ran into, by the message of its 429.

    *limit*, *used* and *requested* are requests or tokens, in a *window* of seconds; *retry_after* is in seconds.
    *requested* above *limit* means that this request can never pass, however long it waits.
    """

    resource: Resource
    limit: float
    used: float | None
    requested: float | None
    window: float
    retry_after: float | None


def read_quota(headers: Mapping[str, str]) -> QuotaHeaders:
    """
    The allowances in OpenAI's x-ratelimit headers, whose names are lower-case here.

    Tokens can be limited for the organization and, since June 2026, for the project. The lower rate of the two counts,
    and the smaller share of what remains.
    """
    given = (_read_allowance(headers, "tokens"), _read_allowance(headers, "project-tokens"))
    quotas = [quota for quota in given if quota is not None]
    tokens = min(quotas, key=lambda quota: quota.per_second, default=None)
    shares = [quota.remaining / quota.limit for quota in quotas if quota.remaining is not None]
    if tokens is not None and len(quotas) > 1 and shares:
        tokens = replace(tokens, remaining=min(shares) * tokens.limit)
    return QuotaHeaders(_read_allowance(headers, "requests"), tokens)


def _read_allowance(headers: Mapping[str, str], resource: str) -> Allowance | None:
    limit = read_number(headers.get(f"x-ratelimit-limit-{resource}", ""))
    if limit is None or limit < 1:
        return None
    remaining = read_number(headers.get(f"x-ratelimit-remaining-{resource}", ""))
    if remaining is not None and remaining > limit:
        return None
    reset_after = parse_duration(headers.get(f"x-ratelimit-reset-{resource}", ""))
    if reset_after is not None and reset_after > _LONGEST_RESET:
        reset_after = None
    if remaining == 0 and not reset_after:
        # Nothing left, and no time to wait for: a zero for "unknown".
        remaining = reset_after = None
    return Allowance(limit, remaining, reset_after)


def parse_duration(text: str) -> float | None:
    """
    Seconds, from what servers write: "6m0s", "1h2m3.5s", "12ms", "250µs", "1d2h", or a bare "59.70".

    ``None`` for everything else: negative and endless values, dates, words.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        seconds = float(text)
    elif text and (found := _DURATION.fullmatch(text)):
        parts = zip(found.groups(), _UNITS, strict=True)
        seconds = math.fsum(float(amount) * unit for amount, (_, unit) in parts if amount)
    else:
        return None
    return seconds if seconds < math.inf else None


def read_number(text: str) -> float | None:
    """A number of things from 0 to 10¹², with or without commas between thousands, or ``None``."""
    text = text.strip()
    if not re.fullmatch(NUMBER, text):
        return None
    number = float(text.replace(",", ""))
    return number if number <= _LARGEST else None


# OpenAI: "on tokens per min (TPM): Limit 1000000, Used 976163, Requested 70716. Please try again in 2.812s."
# OpenAI, until 2023: "on tokens per min. Limit: 150000.000000 / min. Current: 160000.000000 / min."
# Groq: "on tokens per day (TPD): Limit 100000, Used 97050, Requested ~3619. Please try again in 9m38.016s."
_LIMIT = re.compile(
    r"\b(requests|tokens) per (sec|min|hour|day)(?:ond|ute)?s?\b[^0-9]{0,20}\blimit:? (" + NUMBER + ")", re.IGNORECASE
)
_USED = re.compile(r"\b(?:used|current):? ~?(" + NUMBER + ")", re.IGNORECASE)
_REQUESTED = re.compile(r"\brequested:? ~?(" + NUMBER + ")", re.IGNORECASE)
_AGAIN = re.compile(r"\b(?:try again|retry) (?:in|after) ([0-9][0-9.a-zµμ]*)")
_SECONDS = {"sec": 1.0, "min": _MINUTE, "hour": 3_600.0, "day": 86_400.0}


def read_overrun(message: str) -> Overrun | None:
    """
    The limit that the message of a 429 names, in the words of OpenAI and Groq, or ``None``.

    Azure's message names none ("exceeded token rate limit of your current pricing tier"), nor do most others'.
    """
    found = _LIMIT.search(message)
    limit = read_number(found[3]) if found else None
    if found is None or limit is None or limit < 1:
        return None
    rest = message[found.end() :]
    again = _AGAIN.search(rest)
    retry_after = parse_duration(again[1].rstrip(".")) if again else None
    return Overrun(
        resource="requests" if found[1].lower() == "requests" else "tokens",
        limit=limit,
        used=_first_number(_USED, rest),
        requested=_first_number(_REQUESTED, rest),
        window=_SECONDS[found[2].lower()],
        retry_after=retry_after if retry_after is not None and retry_after <= _LONGEST_RESET else None,
    )


def _first_number(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.search(text)
    return read_number(found[1]) if found else None
