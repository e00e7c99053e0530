"""How many requests may be in flight, from what came back. Pure."""

from __future__ import annotations

import math

START = 4  # in flight once the endpoint has answered for the first time; before, one
START_PACED = 16  # where a rate is set or told
QUICK = 32  # in flight up to which the number is doubled
FULL_GROWTH = 1.5  # and beyond, multiplied by this where the last growth came back as throughput,
FULLY = 0.9  # this much of it at least
GROWTH = 1.15  # or by this, where it did not
WORTH_IT = 0.25  # of the growth in flight has to come back as growth in throughput
FIRST_HOLD = 2.0  # seconds
MAX_HOLD = 60.0  # seconds
BLOCKED = 0.5  # of a round has a request to wait for nothing but a place, for the round to say something
FADING = 0.5  # of what was seen counts at the next look
STEP = 0.2  # of the number in flight, to look left and right
USUAL = 0.9  # of the replies of a round, the quickest, are looked at: a few may take many times as long for no reason
CROWDED = 1.4  # times the latency of an endpoint with little to do
BACK_OFF = 0.7  # of the number in flight is kept after a timeout


class Concurrency:
    """
    Looks for the number in flight that serves best, between one and *max_limit*, from *initial* on.

    It grows while throughput grows with it. A refusal for overload sets a cap just below the number that was
    refused; the cap is raised by one after a hold, which doubles each time that proves wrong. When nothing is
    refused, it looks a little above, and where replies take long a little below, whether throughput is better.
    Throughput is measured in rounds: as many replies as it takes, all of them sent with every place taken.
    """

    def __init__(self, max_limit: int, initial: int | None = None) -> None:
        self._max_limit = max_limit
        self._initial = initial
        self.limit = 1
        self._is_cold = True
        self._growing = True
        self._cap = float(max_limit)
        self._cap_hold = FIRST_HOLD
        self._cap_until = -math.inf
        self._is_raised = False  # since the last refusal
        self._cut_at = -math.inf
        self._seen: dict[int, tuple[float, float]] = {}  # work and seconds with so many in flight
        self._is_checked = False
        self._checked = 1
        self._hold = FIRST_HOLD
        self._hold_until = -math.inf
        self._trying: int | None = None  # the number to come back to, while another is tried
        self._downwards = False
        self._least_seconds = math.inf
        self._seconds = 0.0
        self._saved: tuple[int, float] = (1, float(max_limit))
        self._begun_at = -math.inf
        self._replies: list[tuple[float, float]] = []  # the seconds and the work of each
        self._round = 1
        self._blocked = 0.0  # seconds of the round in which a request waited for nothing but a place
        self._blocked_at: float | None = None

    @property
    def is_cold(self) -> bool:
        """True until the endpoint has answered for the first time."""
        return self._is_cold

    def answer(self, sent_with: int, work: float, sent_at: float, now: float, *, paced: bool = False) -> None:
        """
        Note a good reply to a request of *work* units that left at *sent_at* with *sent_with* in flight.

        *paced* tells that the endpoint's rate is known: then that holds back, and more may be in flight at first.
        """
        seconds = now - sent_at
        self._seconds += ((seconds - self._seconds) / 16) if self._seconds else seconds
        if self._is_cold:
            self._is_cold = False
            self.limit = min(self._initial or (START_PACED if paced else START), self._max_limit)
            self._begin_round(now)
            return
        self._saved = (self.limit, self._cap)
        if now >= self._cap_until and self._cap < self._max_limit and sent_with >= int(self._cap):
            if self._is_raised:  # and that was right
                self._cap_hold = max(FIRST_HOLD, self._cap_hold / 2)
            self._is_raised = True
            self._cap += 1 if self._cap_hold > FIRST_HOLD else max(1.0, self._cap * 0.1)
            self._cap_until = now + self._cap_hold
            if not self._growing and self._trying is None and self.limit >= sent_with:
                self._move(min(self.limit + 1, int(self._cap)), now)
        if sent_at < self._begun_at:
            return  # it left when another number was in flight
        self._replies.append((seconds, work))
        if len(self._replies) > self._round:
            self.block(now, blocked=self._blocked_at is not None)
            if self._blocked < BLOCKED * (now - self._begun_at):
                self._begin_round(now)  # something else was short
            else:
                usual = sorted(self._replies)[: math.ceil(USUAL * len(self._replies))]
                together = sum(seconds for seconds, _ in usual)
                self._judge(sum(work for _, work in usual), together / self.limit, now)

    def block(self, now: float, *, blocked: bool) -> None:
        """Note whether, from now on, a request waits for nothing but a place."""
        if self._blocked_at is not None:
            self._blocked += now - self._blocked_at
        self._blocked_at = now if blocked else None

    def refuse(self, sent_with: int, sent_at: float, now: float) -> None:
        """Note that a request which left at *sent_at* with *sent_with* in flight was too many."""
        if self._is_cold:
            return  # the only one in flight was not one too many
        cap = max(1, sent_with - 1)
        self._is_raised = False
        if sent_at <= self._cut_at:
            self._cap = min(self._cap, max(cap, 1))
        else:
            self._cap_hold = min(MAX_HOLD, 2 * self._cap_hold) if self._cap_until > -math.inf else FIRST_HOLD
            self._cap = min(self._cap, cap)
            self._cut_at = now
        self._cap_until = now + self._cap_hold
        self._growing = False
        self._trying = None
        self._move(min(self.limit, int(self._cap)), now)

    def time_out(self, sent_at: float, now: float) -> None:
        """Note that a request which left at *sent_at* was not answered in time."""
        if sent_at > self._cut_at:
            self._cut_at = now
            self._growing = False
            self._trying = None
            self._move(max(1, int(self.limit * BACK_OFF)), now)

    def restore(self, now: float) -> None:
        """Return to the last number that served well: the endpoint was away, and that says nothing about it."""
        limit, self._cap = self._saved
        self._move(limit, now)

    def _judge(self, work: float, seconds: float, now: float) -> None:
        """Decide what to do after a full round at the present number."""
        old_work, old_seconds = self._seen.get(self.limit, (0.0, 0.0))
        self._seen[self.limit] = (FADING * old_work + work, FADING * old_seconds + seconds)
        if self._growing or self._trying is None:
            self._least_seconds = min(self._least_seconds, self._seconds)
        if self._growing:
            self._grow(now)
        elif self._trying is not None:
            self._compare(now)
        elif now >= self._hold_until:
            self._look(now)
        else:
            self._begin_round(now)

    def _rate(self, number: int) -> float:
        """Work per second with *number* in flight, as far as it was seen."""
        work, seconds = self._seen.get(number, (0.0, 0.0))
        return work / seconds if seconds > 0 else 0.0

    def _grow(self, now: float) -> None:
        reached = self._checked if self._is_checked else self.limit
        before = self._trying or reached  # the number that was the last to be worth it
        if self._rate(reached) >= self._rate(before) * (1 + WORTH_IT * (reached / before - 1)):
            self._is_checked = False
            self._trying = reached
            if reached >= min(self._max_limit, int(self._cap)):
                self._end_growth(reached, now)
            else:
                in_full = self._rate(reached) * before > FULLY * self._rate(before) * reached
                step = 2.0 if reached < QUICK else FULL_GROWTH if in_full else GROWTH
                self._move(math.ceil(step * reached), now)
        elif self._is_checked:  # the number before was looked at again
            self._end_growth(max((before, reached), key=self._rate), now)
        else:
            self._checked, self._is_checked = reached, True
            self._move(before, now)

    def _end_growth(self, number: int, now: float) -> None:
        self._growing = False
        self._trying = None
        self._settle(number, now)

    def _look(self, now: float) -> None:
        """Try another number for a round, now above and now below."""
        crowded = self._seconds > CROWDED * self._least_seconds
        self._downwards = crowded and not self._downwards
        away = max(1, round(self.limit * STEP))
        other = self.limit - away if self._downwards else self.limit + away
        other = max(1, min(other, self._max_limit, int(self._cap)))
        if other == self.limit:
            self._settle(self.limit, now)
        else:
            self._trying = self.limit
            self._move(other, now)

    def _compare(self, now: float) -> None:
        back, self._trying = self._trying, None
        assert back is not None
        better = self._rate(self.limit) >= self._rate(back) * (0.99 if self._downwards else 1.02)
        self._hold = FIRST_HOLD if better else min(MAX_HOLD, 2 * self._hold)
        if better and not self._downwards:
            self._growing, self._is_checked, self._trying = True, False, back  # growth had ended too early
            self._grow(now)
        else:
            self._settle(self.limit if better else back, now)

    def _settle(self, number: int, now: float) -> None:
        self._hold_until = now + self._hold
        self._move(number, now)

    def _move(self, number: int, now: float) -> None:
        self.limit = max(1, min(number, self._max_limit, int(self._cap)))
        self._begin_round(now)

    def _begin_round(self, now: float) -> None:
        self._begun_at = now
        self._replies.clear()
        self.block(now, blocked=self._blocked_at is not None)
        self._blocked = 0.0
        if self._growing:
            self._round = max(8, self.limit if self.limit <= QUICK else 2 * self.limit)
        else:
            self._round = max(24, 2 * self.limit)
