"""What a provider grants, and what it tells about it. Pure: `now` is in seconds since the provider began."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

from ..errors import ConfigurationError

ROUNDING = 1e-6  # of a request or token: what floating-point time may lack at the moment that was promised
RAMP_FREE = 1_000_000  # input tokens a minute from which OpenAI's ramp rule holds
RAMP_GROWTH = 1.5
RAMP_MINUTES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """
    How much a provider grants, for all its clients together; None: no such limit.

    *window* is the time in seconds over which the rates are enforced; providers do so over less than a minute, and
    do not say it. A ``"bucket"`` holds rate × window, begins full and refills steadily. ``"fixed"`` windows begin with
    the provider, one after the other, and grant rate × window each.

    Tokens are the provider's own estimate, which is not `usage`: *tokens_per_byte* times the UTF-8 bytes of the
    texts, times 1 ± *noise*, drawn for each request; token arrays count their length. A refused request counts like
    any other, so whoever keeps sending gets nothing.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    window: float = 60.0
    style: Literal["bucket", "fixed"] = "bucket"
    tokens_per_byte: float = 0.25
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "window", "tokens_per_byte"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigurationError(f"{name}: expected a number above 0, got {value!r}")
        if not 0 <= self.noise < 1:
            raise ConfigurationError(f"noise: expected a share from 0 to below 1, got {self.noise!r}")
        if self.style not in ("bucket", "fixed"):
            raise ConfigurationError(f"style: expected 'bucket' or 'fixed', got {self.style!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherClient:
    """
    Somebody else with the same key, from *start* to *end*, in seconds since the provider began.

    Sends at a steady pace: *requests_per_minute* if that is given, otherwise requests of *request_tokens* each. Takes
    from the same quota what fits; a request of its own that does not fit is dropped and costs nothing.
    """

    start: float
    end: float
    tokens_per_minute: float
    requests_per_minute: float = 0.0
    request_tokens: int = 4_000

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ConfigurationError(f"start, end: expected 0 <= start <= end, got {self.start!r} and {self.end!r}")
        if self.tokens_per_minute < 0 or self.requests_per_minute < 0 or self.request_tokens < 1:
            raise ConfigurationError(f"expected rates of at least 0 and request_tokens of at least 1, got {self!r}")
        if not self.tokens_per_minute and not self.requests_per_minute:
            raise ConfigurationError("tokens_per_minute: expected a number above 0, got 0 without requests_per_minute")

    @property
    def interval(self) -> float:
        """Seconds between two of its requests."""
        return 60 / (self.requests_per_minute or self.tokens_per_minute / self.request_tokens)

    @property
    def tokens(self) -> float:
        """Tokens of each of its requests."""
        return self.tokens_per_minute * self.interval / 60


class Refusal(NamedTuple):
    """
    Why a request is refused: which limit, per minute, how much of it is used, and the seconds until it would fit.

    *wait* is infinite for a request that never fits.
    """

    kind: Literal["requests", "tokens"]
    limit: float
    used: float
    requested: float
    wait: float


class FillingBucket:
    """Refills steadily up to a ceiling, and begins full. What is taken below 0 is forgotten."""

    __slots__ = ("_level", "_read_at", "ceiling", "per_second")

    def __init__(self, ceiling: float, per_second: float) -> None:
        self.ceiling = ceiling
        self.per_second = per_second
        self._level = ceiling
        self._read_at = 0.0

    def level(self, now: float) -> float:
        """What may be taken at once."""
        return min(self.ceiling, self._level + max(0.0, now - self._read_at) * self.per_second)

    def wait(self, amount: float, now: float) -> float:
        """Seconds until *amount* is there, if nothing is taken before."""
        if amount > self.ceiling + ROUNDING:
            return math.inf
        missing = amount - self.level(now)
        return missing / self.per_second if missing > ROUNDING else 0.0

    def take(self, amount: float, now: float) -> None:
        """Spend *amount*, or what there is of it."""
        self._level = max(0.0, self.level(now) - amount)
        self._read_at = now

    def reset(self, now: float) -> float:
        """Seconds until it is full."""
        return (self.ceiling - self.level(now)) / self.per_second


class FixedWindow:
    """Windows of so many seconds, one after the other from 0, with *ceiling* to take in each."""

    __slots__ = ("_left", "_number", "ceiling", "seconds")

    def __init__(self, ceiling: float, seconds: float) -> None:
        self.ceiling = ceiling
        self.seconds = seconds
        self._number = 0
        self._left = ceiling

    def level(self, now: float) -> float:
        """What may be taken at once."""
        return self._left if self._number_at(now) == self._number else self.ceiling

    def wait(self, amount: float, now: float) -> float:
        """Seconds until *amount* is there, if nothing is taken before."""
        if amount > self.ceiling + ROUNDING:
            return math.inf
        if amount <= self.level(now) + ROUNDING:
            return 0.0
        return (self._number_at(now) + 1) * self.seconds - now

    def take(self, amount: float, now: float) -> None:
        """Spend *amount*, or what there is of it."""
        self._left = max(0.0, self.level(now) - amount)
        self._number = self._number_at(now)

    def _number_at(self, now: float) -> int:
        # A client that waits as long as it was told must not be early by a rounding of its clock.
        return math.floor(now / self.seconds + 1e-9)


class Meter:
    """Requests and tokens of one quota: what is enforced, and what the headers say."""

    def __init__(self, quota: Quota, others: Sequence[OtherClient], rng: Random) -> None:
        self._quota = quota
        self._rng = rng
        self._others = others
        self._due = [(other.start, index, 0) for index, other in enumerate(others)]
        heapq.heapify(self._due)
        self._limits: list[_Limit] = []
        if quota.requests_per_minute is not None:
            self._limits.append(_Limit("requests", quota.requests_per_minute, quota))
        if quota.tokens_per_minute is not None:
            self._limits.append(_Limit("tokens", quota.tokens_per_minute, quota))

    def estimate(self, text_bytes: int, array_tokens: int) -> float:
        """The tokens that a request counts as; asked once for each, because it is drawn."""
        noise = self._quota.noise
        factor = self._rng.uniform(1 - noise, 1 + noise) if noise else 1.0
        return (text_bytes * self._quota.tokens_per_byte + array_tokens) * factor

    def offer(self, tokens: float, now: float) -> Refusal | None:
        """
        Count a request that arrives now; return why it is refused, if it is.

        Used and wait are those after it was counted: who comes back after that time, alone, is let through.
        """
        self._let_others_take(now)
        lacking = self._lacking(tokens, now)
        self._take(tokens, now)
        if not lacking:
            return None
        waits = {limit.kind: limit.enforced.wait(limit.amount(tokens), now) for limit in self._limits}
        worst = max(lacking, key=lambda limit: waits[limit.kind])
        used = worst.per_minute - worst.enforced.level(now)
        return Refusal(worst.kind, worst.per_minute, used, worst.amount(tokens), max(waits.values()))

    def headers(self, now: float) -> dict[str, str]:
        """
        The rate limit headers, as OpenAI writes them.

        They describe a bucket of one minute, whatever is enforced; reset is the time until that is full.
        """
        self._let_others_take(now)
        headers = {}
        for limit in self._limits:
            headers[f"x-ratelimit-limit-{limit.kind}"] = str(math.floor(limit.per_minute))
            headers[f"x-ratelimit-remaining-{limit.kind}"] = str(math.floor(limit.minute.level(now) + ROUNDING))
            headers[f"x-ratelimit-reset-{limit.kind}"] = format_seconds(limit.minute.reset(now))
        return headers

    def _lacking(self, tokens: float, now: float) -> list[_Limit]:
        return [limit for limit in self._limits if limit.enforced.wait(limit.amount(tokens), now) > 0]

    def _take(self, tokens: float, now: float) -> None:
        for limit in self._limits:
            amount = limit.amount(tokens)
            limit.enforced.take(amount, now)
            limit.minute.take(amount, now)

    def _let_others_take(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            at, index, sent = heapq.heappop(self._due)
            other = self._others[index]
            if at >= other.end:
                continue
            if not self._lacking(other.tokens, at):
                self._take(other.tokens, at)
            heapq.heappush(self._due, (other.start + (sent + 1) * other.interval, index, sent + 1))


class _Limit:
    """One dimension of a quota: what is enforced, and the bucket of a minute that the headers describe."""

    __slots__ = ("enforced", "kind", "minute", "per_minute")

    def __init__(self, kind: Literal["requests", "tokens"], per_minute: float, quota: Quota) -> None:
        self.kind = kind
        self.per_minute = per_minute
        per_second = per_minute / 60
        ceiling = per_second * quota.window
        if kind == "requests":
            ceiling = max(1.0, ceiling)  # less than one request would never be granted
        self.minute = FillingBucket(max(1.0, per_minute), per_second)
        self.enforced: FillingBucket | FixedWindow = (
            FillingBucket(ceiling, per_second) if quota.style == "bucket" else FixedWindow(ceiling, quota.window)
        )

    def amount(self, tokens: float) -> float:
        """What a request of *tokens* takes of this."""
        return 1.0 if self.kind == "requests" else tokens


class Ramp:
    """
    OpenAI's ramp rule: above 1,000,000 input tokens a minute, no more than half as much again every 15 minutes.

    The last 60 seconds may hold 1.5 times the busiest minute of those that began 15 to 30 minutes ago, or 1.5
    million if that is more.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque()
        self._sum = 0.0
        self._minutes: dict[int, float] = {}

    def allowed(self, now: float) -> float:
        """Tokens that the last 60 seconds may hold."""
        minute = int(now // 60)
        past = range(minute - 2 * RAMP_MINUTES + 1, minute - RAMP_MINUTES + 1)
        return RAMP_GROWTH * max(RAMP_FREE, *(self._minutes.get(number, 0.0) for number in past))

    def offer(self, tokens: float, now: float) -> float:
        """Count a request if it may go; otherwise return the seconds until it may."""
        while self._recent and self._recent[0][0] <= now - 60 + ROUNDING:
            self._sum -= self._recent.popleft()[1]
        surplus = self._sum + tokens - self.allowed(now)
        if surplus <= ROUNDING:
            self._recent.append((now, tokens))
            self._sum += tokens
            minute = int(now // 60)
            self._minutes[minute] = self._minutes.get(minute, 0.0) + tokens
            return 0.0
        for at, amount in self._recent:
            surplus -= amount
            if surplus <= ROUNDING:
                return at + 60 - now
        return math.inf


def format_seconds(seconds: float) -> str:
    """A time as OpenAI's headers have it: ``"12ms"``, ``"1.2s"``, ``"6m0s"``, rounded up to a millisecond."""
    milliseconds = math.ceil(round(seconds * 1_000, 6))
    if milliseconds < 1_000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1_000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
