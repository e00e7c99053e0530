"""How many requests and tokens may go, given `now`. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..settings import Limits
from ..wire.quota import Allowance, Overrun, QuotaHeaders
from .blame import Blame
from .ceiling import Ceiling
from .meter import Meter

ROUNDING = 1e-6  # of a request or token: what floating-point time may lack at the moment it was promised for
BATCH = 0.2  # seconds' worth of the token rate that one request holds
LOW = 0.05  # of a quota: below it less is sent than the rate, so that others who use it and we meet without refusals
LEAST = 0.05  # of the rate is sent even when the quota seems used up
ASK_AGAIN = 0.5  # seconds after which a rate that changes by itself is looked at again
ENOUGH = 4  # requests, before a rate is concluded from a refusal
MINUTE = 60.0  # seconds
SECOND = 1.25  # seconds, with tolerance: until a quota by the second is there again
METER = 5.0  # seconds over which the rate of what goes is measured
CHANGES_WITHIN = 600.0  # seconds
CHANGES = 3  # of a told limit after which its headers are not believed: a gateway's describe a random account
RAMP_FROM = 1_000_000 / 60  # tokens a second: OpenAI, error-code guide on `slow_down`
RAMP_GROWTH = 1.5  # every
RAMP_PERIOD = 1_020.0  # seconds: 15 minutes, and two for a rule that looks at whole minutes
RAMP_LOOK = 60.0  # seconds of traffic from which growth starts


@dataclass(slots=True)
class Bucket:
    """
    Capacity that refills steadily up to a ceiling. The caller says what time it is.

    No window of time is granted more than max(*ceiling*, the largest grant) + *per_second* · window. An amount
    above the ceiling is granted from a full bucket, which then owes the rest. The first amount goes at once, and
    leaves the bucket empty: a server's own window may be shorter than what a full one would let go.
    """

    ceiling: float
    per_second: float
    _level: float = 0.0
    _read_at: float = -math.inf

    def ready_at(self, amount: float, now: float) -> float:
        """The time from which *amount* may be taken, if nothing else is taken before."""
        missing = min(amount, self.ceiling) - self._level_at(now)
        return now if missing <= ROUNDING else now + missing / self.per_second

    def take(self, amount: float, now: float) -> None:
        """Spend *amount*; the caller has seen that it is ready. A negative amount gives back."""
        level = min(amount, self.ceiling) if self._read_at == -math.inf else self._level_at(now)
        self._level = level - amount
        self._read_at = now

    def drain(self, now: float) -> None:
        """Keep nothing that has been saved up."""
        self._level = min(0.0, self._level_at(now))
        self._read_at = now

    def change(self, per_second: float, ceiling: float, now: float) -> None:
        """From now on refill with *per_second*, up to *ceiling*."""
        if self._read_at != -math.inf:
            self._level = min(ceiling, self._level_at(now))
            self._read_at = now
        self.per_second = per_second
        self.ceiling = ceiling

    def _level_at(self, now: float) -> float:
        # Before the first take this is infinity: full.
        return min(self.ceiling, self._level + max(0.0, now - self._read_at) * self.per_second)


class Ramp:
    """OpenAI's rule for growth above a million input tokens a minute: at most half as much again in 15 minutes."""

    def __init__(self) -> None:
        self._from = math.inf
        self._at = -math.inf

    def begin(self, rate: float, now: float) -> None:
        """Grow from *rate* tokens per second, from now on."""
        self._from, self._at = max(rate, RAMP_FROM), now

    def rate(self, now: float) -> float:
        """Tokens per second; infinite unless the rule was begun."""
        if self._from == math.inf:
            return math.inf
        return self._from * math.pow(RAMP_GROWTH, min(100.0, (now - self._at) / RAMP_PERIOD))


class Throttle:
    """
    How fast one resource of an endpoint, requests or tokens, may be used.

    The rate is the least of what was set, what the endpoint's headers tell, and what was found by being refused.
    Headers lower a rate that was set and never raise it. While they say that little of the quota remains, less
    is used than the rate: somebody else is using it too.
    """

    def __init__(self, per_minute: float | None, burst: float) -> None:
        self.ramp = Ramp()
        self._set = math.inf if per_minute is None else per_minute / 60
        self._burst = burst
        self._told = math.inf
        self._told_changes: list[float] = []  # when
        self._resets_after = 0.0  # seconds, the longest that was told
        self._remaining: tuple[float, float, float] | None = None  # share of the quota, its window, when
        self._found = Ceiling()
        self._bucket: Bucket | None = None
        self._meter = Meter()

    def rate(self, now: float) -> float:
        """Units per second; infinite while nobody named or proved a limit."""
        ceiling = min(self._set, self._told, self.ramp.rate(now))
        found = self._found.rate(now)
        if found != math.inf and found >= ceiling:
            self._found.lift()
        return min(ceiling, found)

    def ready_at(self, amount: float, now: float) -> float:
        """The time from which *amount* may go, or at which to ask again."""
        bucket = self._current(now)
        if bucket is None:
            return now
        ready_at = bucket.ready_at(amount, now)
        return ready_at if self._is_steady(now) else min(ready_at, now + ASK_AGAIN)

    def take(self, amount: float, now: float) -> None:
        """Count *amount*, which goes now; a negative one was counted before and did not go."""
        bucket = self._current(now)
        if bucket is not None:
            bucket.take(amount, now)
        self._meter.add(amount, now)

    def correct(self, amount: float, now: float) -> None:
        """Count *amount* more, or less, for something that was counted before."""
        if self._bucket is not None:
            self._bucket.take(amount, now)
        self._meter.correct(amount)

    def drain(self, now: float) -> None:
        """Keep nothing that has been saved up."""
        if self._bucket is not None:
            self._bucket.drain(now)

    def hear(self, allowance: Allowance, now: float) -> None:
        """Learn from the headers of a reply. A quota over more than a minute is no pace."""
        if allowance.window > 60:
            return
        self._resets_after = max(self._resets_after, allowance.reset_after or 0.0)
        # A server that counts from minute to minute looks, in a minute's last second, as if it counted by the second.
        per_second = allowance.limit / MINUTE if self._resets_after > SECOND else allowance.per_second
        if self._told != math.inf and abs(per_second - self._told) > 0.01 * self._told:
            self._told_changes = [at for at in self._told_changes if at > now - CHANGES_WITHIN] + [now]
        if len(self._told_changes) >= CHANGES:
            self._told, self._remaining = math.inf, None
            return
        self._told = per_second
        if allowance.remaining is not None:
            self._remaining = (allowance.remaining / allowance.limit, allowance.window, now)

    @property
    def is_cut(self) -> bool:
        """True while a rate that was refused is kept in mind."""
        return self._found.is_cut

    def refuse(self, sent_at: float, now: float, overrun: Overrun | None) -> None:
        """Go slower: a request that was sent at *sent_at* was too much."""
        if overrun is not None and overrun.window <= 60 and self._told == math.inf:
            self._told = overrun.limit / overrun.window
        self.drain(now)
        rate = self.rate(now)
        if rate < math.inf:
            if not self.is_named:  # it may have come back to far above what ever went
                rate = min(rate, max(1.0, 2 * self._meter.rate(sent_at, METER)))
            self._found.refuse(rate, sent_at, now, blind=False)
        elif self._meter.count >= ENOUGH:  # of fewer it cannot be told what is too much
            self._found.refuse(max(1.0, self._meter.rate(sent_at, METER)), sent_at, now, blind=True)

    @property
    def is_named(self) -> bool:
        """True if a limit was set, or told by the endpoint."""
        return min(self._set, self._told) < math.inf

    def acquit(self) -> None:
        """Forget what was refused: something else was too much."""
        self._found.lift()

    def suppose_a_minute(self, now: float) -> None:
        """If a rate was found, and not named: what went in the last minute is what a minute has."""
        if self.is_cut and not self.is_named:
            supposed = max(1.0, self._meter.total(now)) / MINUTE
            self._found.refuse(min(self.rate(now), supposed), now, now, blind=False)

    def grow_slowly(self, now: float) -> None:
        """Keep the rule for growth from now on, starting from what went in the last minute."""
        self.ramp.begin(min(self.rate(now), self._meter.rate(now, RAMP_LOOK)), now)

    def _is_steady(self, now: float) -> bool:
        return self._found.rate(now) == math.inf and self._squeeze(now) == 1

    def _squeeze(self, now: float) -> float:
        if self._remaining is None:
            return 1.0
        share, window, at = self._remaining
        return min(1.0, max(LEAST, (share + (now - at) / window) / LOW))

    def _current(self, now: float) -> Bucket | None:
        """The bucket, with the rate of this moment; ``None`` while there is no limit."""
        rate = self.rate(now)
        if rate == math.inf:
            self._bucket = None
            return None
        rate *= self._squeeze(now)
        ceiling = max(1.0, rate * self._burst)
        if self._bucket is None:
            self._bucket = Bucket(ceiling, rate)
            if self._meter.count:  # it was used before it was limited
                self._bucket.take(0, now)
        elif rate != self._bucket.per_second:
            self._bucket.change(rate, ceiling, now)
        return self._bucket


class Pace:
    """
    Requests and tokens per minute of one endpoint, key and model.

    A few seconds' worth may go at once, never a minute's: that would let twice the limit through in the first
    minute.
    """

    def __init__(self, limits: Limits) -> None:
        self._burst = limits.burst
        self._requests = Throttle(limits.max_requests_per_minute, limits.burst)
        self._tokens = Throttle(limits.max_tokens_per_minute, limits.burst)
        self._blame = Blame()
        self._keeps_ramp = limits.ramp

    def ready_at(self, tokens: float, now: float) -> float:
        """The time from which a request of *tokens* may go if none goes before, or at which to ask again."""
        return max(self._requests.ready_at(1, now), self._tokens.ready_at(tokens, now))

    def take(self, tokens: float, now: float) -> None:
        """Count a request of *tokens* that goes now. Failed attempts count as well."""
        if self._keeps_ramp and self._tokens.ramp.rate(now) == math.inf:
            self._tokens.ramp.begin(0.0, now)
        self._requests.take(1, now)
        self._tokens.take(tokens, now)

    def grant(self, tokens: float) -> None:
        """A request of *tokens* was answered."""
        self._blame.grant(tokens)

    def correct(self, tokens: float, now: float) -> None:
        """Count *tokens* more than were taken, or less: what they really were is known now."""
        self._tokens.correct(tokens, now)

    def drain(self, now: float) -> None:
        """Keep nothing that has been saved up, as over a pause."""
        self._requests.drain(now)
        self._tokens.drain(now)

    def hear(self, quota: QuotaHeaders, now: float) -> None:
        """Learn from the headers of a reply."""
        if quota.requests is not None:
            self._requests.hear(quota.requests, now)
        if quota.tokens is not None:
            self._tokens.hear(quota.tokens, now)

    def refuse(
        self, tokens: float, sent_at: float, now: float, overrun: Overrun | None = None, *, too_steep: bool = False
    ) -> None:
        """
        Go slower: a request of *tokens* that was sent at *sent_at* was more than the endpoint grants.

        *overrun* is what it said of the limit; where it said nothing, :class:`Blame` finds out. *too_steep* tells that
        not the traffic is too much, but its growth.
        """
        if too_steep:
            self._tokens.grow_slowly(now)
            return
        resource = self._blame.refuse(tokens, now) if overrun is None else overrun.resource
        if resource == "tokens":
            self._tokens.refuse(sent_at, now, overrun)
            return
        self._requests.refuse(sent_at, now, overrun)
        if overrun is None and self._blame.is_sure:
            self._tokens.acquit()

    def suppose_a_minute(self, now: float) -> None:
        """What went in the last minute is the quota of a minute, where nobody named it: pauses do not help."""
        for throttle in (self._requests, self._tokens):
            throttle.suppose_a_minute(now)

    @property
    def is_named(self) -> bool:
        """True if a limit was set, or told by the endpoint."""
        return self._requests.is_named or self._tokens.is_named

    @property
    def is_cut(self) -> bool:
        """True while a rate that was refused is kept in mind."""
        return self._requests.is_cut or self._tokens.is_cut

    def batch_tokens(self, now: float) -> float:
        """
        The tokens that one request should hold at most: a fraction of a second's worth, so that short windows of
        the server are kept, but as many as it takes to use the tokens within the limit of requests.
        """
        rate = self._tokens.rate(now)
        if rate == math.inf:
            return math.inf
        return min(rate * self._burst, max(rate * BATCH, 1.25 * rate / self._requests.rate(now)))

    def rates(self, now: float) -> tuple[float, float]:
        """Requests and tokens per second that may go; infinite where no limit is known."""
        return self._requests.rate(now), self._tokens.rate(now)
