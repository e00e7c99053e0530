"""How many requests may be in flight: never more than allowed, and nearly as good as the best fixed number."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.concurrency import BACK_OFF, FIRST_HOLD, MAX_HOLD, START, Concurrency

maxima = st.integers(1, 64)
steps = st.lists(
    st.tuples(st.sampled_from(["answer", "answer", "refuse", "time out", "restore"]), st.floats(0, 5), st.floats(0, 1)),
    max_size=120,
)


@given(maxima, steps)
def test_at_least_one_and_at_most_all_places_are_in_use(most: int, events: list[tuple[str, float, float]]) -> None:
    """1 ≤ limit ≤ max_concurrent_requests, whatever comes back in whatever order, and is_cold until an answer."""
    rule = Concurrency(most)
    answered = False
    now = 0.0
    for kind, gap, share in events:
        now += gap
        sent_at = now - share * 3
        sent_with = 1 + int(share * (most - 1))
        if kind == "answer":
            rule.answer(sent_with, 4.0, sent_at, now)
            answered = True
        elif kind == "refuse":
            rule.refuse(sent_with, sent_at, now)
        elif kind == "time out":
            rule.time_out(sent_at, now)
        else:
            rule.restore(now)
        assert 1 <= rule.limit <= most
        assert rule.is_cold is not answered


@given(maxima, st.lists(st.sampled_from(["refuse", "time out", "restore"]), max_size=20))
def test_one_at_a_time_until_the_first_answer(most: int, faults: list[str]) -> None:
    """Before a good reply one request is in flight, whatever the faults; after it START, or as many as are allowed."""
    rule = Concurrency(most)
    for now, kind in enumerate(faults):
        match kind:
            case "refuse":
                rule.refuse(1, now - 0.5, now)
            case "time out":
                rule.time_out(now - 0.5, now)
            case _:
                rule.restore(now)
        assert rule.is_cold
        assert rule.limit == 1
    rule.answer(1, 4.0, 99.0, 100.0)

    assert not rule.is_cold
    assert rule.limit == min(START, most)


@given(maxima, st.integers(1, 100), st.booleans())
def test_the_initial_number_goes_after_the_first_answer(most: int, initial: int, paced: bool) -> None:
    """After the first good reply *initial* are in flight, or as many as are allowed; before it, one."""
    rule = Concurrency(most, initial)
    assert rule.limit == 1
    rule.answer(1, 4.0, 0.0, 0.1, paced=paced)

    assert rule.limit == min(initial, most)


@given(maxima, st.integers(1, 64), st.integers(0, 2**32))
def test_a_refusal_for_overload_caps_below_the_number_refused(most: int, sent_with: int, seed: int) -> None:
    """A request refused as one of n leaves at most n - 1 in flight, one at least; a hold later it is one more."""
    rule, now = warmed_up(most, seed)
    sent_with = min(sent_with, rule.limit)
    rule.refuse(sent_with, now, now + 0.1)
    assert rule.limit == max(1, sent_with - 1)

    capped = rule.limit
    rule.answer(capped, 4.0, now + 0.1, now + 0.1 + FIRST_HOLD * 0.99)
    assert rule.limit == capped
    rule.answer(capped, 4.0, now + 0.1, now + 0.1 + FIRST_HOLD)
    assert rule.limit == min(capped + 1, most)


def test_a_cap_that_proves_right_is_tried_less_and_less_often() -> None:
    """Each time that one more is refused again, the hold before the next try doubles, up to a minute."""
    rule, now = warmed_up(32, seed=1)
    rule.refuse(rule.limit, now, now)
    capped = rule.limit
    holds = []
    for _ in range(9):
        since = now
        while rule.limit == capped:
            now += 0.25
            rule.answer(rule.limit, 4.0, now - 0.25, now)
        assert rule.limit == capped + 1
        holds.append(now - since)
        now += 0.1
        rule.refuse(rule.limit, now - 0.05, now)
        assert rule.limit == capped
    assert holds[:3] == pytest.approx([FIRST_HOLD, 2 * FIRST_HOLD, 4 * FIRST_HOLD], abs=0.6)
    assert holds[6:] == pytest.approx([MAX_HOLD] * 3, abs=0.6)


def test_refusals_of_what_left_together_count_once() -> None:
    """Three that left with 30, 31 and 32 in flight cap at 29, not at what three cuts would leave."""
    rule, now = warmed_up(32, seed=1)
    assert rule.limit == 32
    for sent_with in (32, 31, 30):
        rule.refuse(sent_with, now, now + 0.1)

    assert rule.limit == 29
    assert not rule.is_cold


def test_timeouts_of_what_left_together_count_once() -> None:
    """A timeout keeps seven in ten; others that left before it do nothing; one that left after it cuts again."""
    rule, now = warmed_up(32, seed=1)
    for sent_at in (now, now + 0.5, now + 1):
        rule.time_out(sent_at, now + 1)
    assert rule.limit == int(32 * BACK_OFF)
    rule.time_out(now + 1.5, now + 2)

    assert rule.limit == int(int(32 * BACK_OFF) * BACK_OFF)


@given(maxima, st.integers(0, 2**32), st.lists(st.sampled_from(["refuse", "time out"]), min_size=1, max_size=8))
def test_after_an_outage_it_goes_on_as_before(most: int, seed: int, faults: list[str]) -> None:
    """restore() returns to the number that was in use when the last good reply came, whatever the faults since."""
    rule, now = warmed_up(most, seed)
    before = rule.limit
    rule.answer(1, 4.0, now, now + 0.1)
    for number, kind in enumerate(faults, 1):
        if kind == "refuse":
            rule.refuse(rule.limit, now + number, now + number)
        else:
            rule.time_out(now + number, now + number)
    rule.restore(now + 20)

    assert rule.limit == before


def test_a_run_with_little_to_do_does_not_move_the_number() -> None:
    """While no request waits for a place, replies are no evidence: the number stays for an hour."""
    rule, now = warmed_up(64, seed=3)
    rule.block(now, blocked=False)
    now += 60
    before = rule.limit
    for second in range(3_600):
        rule.answer(1 + second % before, 4.0, now, now + 1)
        now += 1
        assert rule.limit == before


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_a_refusal_before_the_first_answer_costs_nothing(seed: int, refusals: int) -> None:
    """The only request in flight was not one too many: after its refusals the number grows as without them."""
    rules = [Concurrency(64), Concurrency(64)]
    for number in range(refusals):
        rules[0].refuse(1, float(number), number + 0.5)
    for rule in rules:
        Loop(Server(median=0.2), rule, seed=seed).run(until=5)

    assert rules[0].limit == rules[1].limit


# A closed loop: as many requests as are allowed, all the time


@dataclass
class Server:
    """What it can do at once; seconds of a request are lognormal around *median*."""

    median: float = 1.5
    sheds_above: int = 10**9
    workers: int = 10**9
    peak: float = math.inf

    def seconds(self, working: int, rng: Random) -> float:
        return self.median * math.exp(rng.gauss(0, 0.3)) * (1 + working * (working - 1) / self.peak**2)


@dataclass(order=True)
class Sent:
    """A request, and when it is answered."""

    at: float
    number: int
    sent_with: int = field(compare=False)
    sent_at: float = field(compare=False)
    shed: bool = field(compare=False, default=False)


class Loop:
    """A client that keeps every place taken, and counts what is *done* and *shed*."""

    def __init__(self, server: Server, rule: Concurrency | None, *, fixed: int = 0, seed: int = 0) -> None:
        self.server, self.rule, self.fixed, self.rng = server, rule, fixed, Random(seed)
        self.now = 0.0
        self.done = self.shed = 0
        self._numbers = itertools.count()
        self._out: list[Sent] = []
        self._waiting: deque[Sent] = deque()
        self._working = 0

    def run(self, until: float) -> None:
        """Go on until then."""
        while True:
            while len(self._out) + len(self._waiting) < (self.rule.limit if self.rule else self.fixed):
                self._send()
            if self.rule:
                self.rule.block(self.now, blocked=True)
            if self._out[0].at > until:
                return
            self._answer(heapq.heappop(self._out))

    def _send(self) -> None:
        accepted = self._working + len(self._waiting)
        in_flight = len(self._out) + len(self._waiting)
        sent = Sent(self.now + 0.03, next(self._numbers), in_flight + 1, self.now, accepted >= self.server.sheds_above)
        if sent.shed:
            heapq.heappush(self._out, sent)
        else:
            self._waiting.append(sent)
            self._begin()

    def _begin(self) -> None:
        if self._waiting and self._working < self.server.workers:
            self._working += 1
            sent = self._waiting.popleft()
            sent.at = self.now + self.server.seconds(self._working, self.rng)
            heapq.heappush(self._out, sent)

    def _answer(self, sent: Sent) -> None:
        self.now = sent.at
        if sent.shed:
            self.shed += 1
            if self.rule:
                self.rule.refuse(sent.sent_with, sent.sent_at, self.now)
            return
        self.done += 1
        self._working -= 1
        self._begin()
        if self.rule:
            self.rule.answer(sent.sent_with, 4.0, sent.sent_at, self.now)


def warmed_up(most: int, seed: int) -> tuple[Concurrency, float]:
    """A rule after ten seconds with a server that does any number at once, and the time."""
    rule = Concurrency(most)
    loop = Loop(Server(median=0.2), rule, seed=seed)
    loop.run(until=10.0)
    return rule, loop.now


def rate(loop: Loop, since: float, until: float) -> float:
    """Replies a second after *since*."""
    loop.run(since)
    before = loop.done
    loop.run(until)
    return (loop.done - before) / (until - since)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("server", "levels"),
    [
        pytest.param(Server(sheds_above=40), [38, 40], id="sheds above 40"),
        pytest.param(Server(sheds_above=40, workers=24), [24, 32, 40], id="queues from 24"),
        pytest.param(Server(median=0.5, sheds_above=40, peak=18), [14, 16, 18, 20], id="fastest at 18"),
        pytest.param(Server(workers=1), [1, 2], id="one at a time"),
    ],
)
def test_it_is_nearly_as_good_as_the_best_fixed_number(server: Server, levels: list[int], seed: int) -> None:
    """After two minutes at least 90 % of the throughput of the best fixed number, and under 1 % is shed."""
    best = max(rate(Loop(server, None, fixed=level, seed=seed), 120, 240) for level in levels)
    ours = Loop(server, Concurrency(128), seed=seed)

    assert rate(ours, 120, 240) >= 0.9 * best
    assert ours.shed <= 0.01 * ours.done + 10


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [1, 2, 7, 32, 128])
@pytest.mark.parametrize("refused_at_first", [False, True])
def test_all_places_are_taken_where_that_helps(most: int, seed: int, refused_at_first: bool) -> None:
    """With a server that does any number at once 8 of 10 places are in use within four minutes, whatever the start."""
    rule = Concurrency(most)
    if refused_at_first:
        rule.refuse(1, 0.0, 0.1)
    Loop(Server(median=0.2), rule, seed=seed).run(until=240)

    assert rule.limit >= math.floor(0.8 * most)


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_grows_is_noticed(seed: int) -> None:
    """When a server that shed above 10 sheds above 40, within five minutes three times as much is done as before."""
    server = Server(sheds_above=10)
    loop = Loop(server, Concurrency(128), seed=seed)
    before = rate(loop, 60, 120)
    server.sheds_above = 40

    assert rate(loop, 420, 480) >= 3 * before


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_shrinks_is_noticed(seed: int) -> None:
    """When a server that shed above 40 sheds above 10, under 5 % is shed half a minute later."""
    server = Server(sheds_above=40)
    loop = Loop(server, Concurrency(128), seed=seed)
    loop.run(60)
    server.sheds_above = 10
    loop.run(90)
    done, shed = loop.done, loop.shed
    loop.run(150)

    assert loop.shed - shed <= 0.05 * (loop.done - done)
    assert (loop.done - done) / 60 >= 0.9 * 10 / 1.57  # 1.57 s is the mean of a reply
