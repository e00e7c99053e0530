"""Whether an endpoint may be sent to at all: nothing during a pause, one at a time after it, and a way back always."""

from __future__ import annotations

import itertools
import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.gate import FIRST_PROBE, PROBE_EVERY, REENTRY, TRIP, Gate

LONGEST_SPREAD = 2 * REENTRY  # seconds after the end of a pause until the first request goes, at most

seeds = st.integers(0, 2**32)
places = st.integers(1, 64)
pauses = st.floats(0, 300)
events = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "answer", "fault", "fault", "withdraw", "pause"]),
        st.floats(0, 3) | st.just(0.0),
        st.floats(0, 1),
        st.floats(0, 30),
    ),
    max_size=150,
)


class Client:
    """Takes when the gate says so, as the limiter does, and keeps what is out: for each request, if it is a probe."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.now = 0.0
        self.out: list[bool] = []
        self.taken: list[tuple[float, bool]] = []
        self.paused_until = -math.inf

    def take(self) -> None:
        if self.gate.ready_at(self.now) <= self.now:
            self.out.append(self.gate.take(self.now))
            self.taken.append((self.now, self.out[-1]))

    def pause(self, seconds: float) -> None:
        self.gate.pause(seconds, self.now)
        self.paused_until = max(self.paused_until, self.now + seconds)

    def end(self, kind: str, which: float) -> None:
        """Let one of the requests that are out come to this end."""
        if not self.out:
            return
        probe = self.out.pop(int(which * (len(self.out) - 1)))
        if kind == "answer":
            self.gate.answer(self.now, probe=probe)
        elif kind == "fault":
            self.gate.fault(self.now, probe=probe)
        else:
            self.gate.withdraw(probe=probe)

    def play(self, steps: list[tuple[str, float, float, float]]) -> None:
        for kind, gap, which, seconds in steps:
            self.now += gap
            if kind == "take":
                self.take()
            elif kind == "pause":
                self.pause(seconds)
            else:
                self.end(kind, which)

    def take_next(self) -> float:
        """Wait until a request may go, let it go, and return the time."""
        for _ in range(3):
            self.now = max(self.now, self.gate.ready_at(self.now))
        before = len(self.taken)
        self.take()
        assert len(self.taken) == before + 1
        return self.now


def away(seed: int, many: int = 32) -> Client:
    """A client whose last requests have all brought faults, so that an outage was concluded just now."""
    client = Client(Gate(many, Random(seed)))
    for _ in range(TRIP):
        client.take()
        client.end("fault", 0)
    assert client.gate.is_away
    return client


@given(places, seeds, events)
def test_nothing_goes_during_a_pause_and_one_probe_at_a_time(
    many: int, seed: int, steps: list[tuple[str, float, float, float]]
) -> None:
    """Under any events that keep to ready_at: no request before the end of a pause, at most one probe is out."""
    client = Client(Gate(many, Random(seed)))
    for step in steps:
        sent = len(client.taken)
        client.play([step])
        if len(client.taken) > sent:
            assert client.now >= client.paused_until
        assert sum(client.out) <= 1
        if client.now < client.paused_until:
            assert client.gate.ready_at(client.now) >= client.paused_until
            assert not client.gate.is_open
        assert client.gate.is_away <= (not client.gate.is_open)


@given(places, seeds, events, st.sampled_from(["answer", "fault", "withdraw"]))
def test_there_is_always_a_way_back(
    many: int, seed: int, steps: list[tuple[str, float, float, float]], end: str
) -> None:
    """When all that was out has ended, however, the gate is ready a while after the pause; a good probe opens it."""
    client = Client(Gate(many, Random(seed)))
    client.play(steps)
    while client.out:
        client.end(end, 0.5)
    latest = max(client.now + PROBE_EVERY, client.paused_until + LONGEST_SPREAD)
    assert client.take_next() <= latest

    client.end("answer", 1)
    assert client.gate.is_open
    assert not client.gate.is_away
    assert client.gate.away_for(client.now) == client.gate.failed_probes == 0


@given(seeds, st.integers(2, 12))
def test_an_endpoint_that_is_away_is_tried_at_growing_intervals(seed: int, probes: int) -> None:
    """Probe n goes 0.25 · 2ⁿ to 0.5 · 2ⁿ seconds after the fault before, and never later than ten."""
    client = away(seed)
    for number in range(probes):
        interval = min(PROBE_EVERY, FIRST_PROBE * 2**number)
        failed_at = client.now
        assert interval / 2 <= client.take_next() - failed_at <= interval
        assert client.out == [True]
        assert client.gate.ready_at(client.now + 1e6) == math.inf
        assert client.gate.failed_probes == number
        client.now += 0.1
        client.end("fault", 0)


@given(seeds, st.lists(st.floats(0, 20), max_size=30))
def test_late_faults_of_others_hasten_and_delay_no_probe(seed: int, late: list[float]) -> None:
    """Faults of requests that left before the outage change neither the time of the next probe nor the outage's."""
    client = away(seed)
    ready_at, since = client.gate.ready_at(client.now), client.now
    for gap in late:
        client.now += gap
        assert not client.gate.fault(client.now, probe=False)
        assert client.gate.ready_at(client.now) == ready_at
        assert client.gate.away_for(client.now) == client.now - since


@given(places, st.integers(0, 40), st.booleans())
def test_an_outage_begins_with_the_fifth_fault_in_a_row(many: int, good: int, probe: bool) -> None:
    """Four faults, good replies, four faults: nothing; one more and it is away, which is told once."""
    gate = Gate(many, Random(1))
    for _ in range(good):
        told = [gate.fault(0.0, probe=False) for _ in range(TRIP - 1)]
        assert not any(told)
        assert not gate.answer(0.0, probe=False)
    assert gate.is_open
    assert [gate.fault(1.0, probe=False) for _ in range(TRIP + 2)] == [False] * (TRIP - 1) + [True, False, False]
    assert gate.is_away
    assert not gate.is_open


@given(seeds, st.lists(st.sampled_from(["withdraw", "fault"]), max_size=10))
def test_a_probe_that_was_cancelled_makes_way_for_another(seed: int, ends: list[str]) -> None:
    """Whether probes are withdrawn or fail, another follows within ten seconds; the first good one opens the gate."""
    client = away(seed)
    for end in ends:
        before = client.now
        assert client.take_next() - before <= PROBE_EVERY
        client.end(end, 0)
        assert client.gate.is_away
    client.take_next()
    client.end("answer", 0)

    assert client.gate.is_open


def test_good_replies_to_what_left_before_a_pause_do_not_open_the_gate() -> None:
    """Ten that left before the pause come back good: the gate stays closed until a probe has."""
    client = Client(Gate(10, Random(1)))
    for _ in range(10):
        client.take()
    client.pause(5)
    for _ in range(10):
        client.now += 0.1
        client.end("answer", 0)
    assert not client.gate.is_open
    assert client.take_next() >= 5
    assert client.gate.ready_at(client.now) == math.inf
    client.end("answer", 0)

    assert client.gate.is_open


def test_a_probe_does_not_end_a_pause_that_began_while_it_was_out() -> None:
    """A probe is out, another reply asks for 30 s, the probe comes back good: still 30 s, and then a probe."""
    client = Client(Gate(8, Random(1)))
    client.pause(1)
    client.take_next()
    client.pause(30)
    asked_at = client.now
    assert not client.gate.answer(client.now, probe=True)
    client.out.clear()

    assert client.take_next() >= asked_at + 30
    assert client.out == [True]


def test_an_outage_does_not_shorten_a_pause() -> None:
    """During a pause of 30 s the requests that were out all fail: the first probe waits for the end of the pause."""
    client = Client(Gate(8, Random(1)))
    for _ in range(TRIP):
        client.take()
    client.pause(30)
    while client.out:
        client.end("fault", 0)

    assert client.gate.is_away
    assert client.take_next() >= 30


@given(st.lists(st.tuples(st.floats(0, 20), pauses), min_size=1, max_size=20))
def test_a_pause_tells_by_how_much_it_is_longer(asked: list[tuple[float, float]]) -> None:
    """The times that pause() returns add up to the time in which nothing could go; a shorter pause adds none."""
    gate = Gate(8, Random(1))
    now, paused_until, closed = 0.0, 0.0, 0.0
    for gap, seconds in asked:
        now += gap
        expected = max(0.0, now + seconds - max(now, paused_until))
        longer = gate.pause(seconds, now)
        assert abs(longer - expected) <= 1e-9
        paused_until = max(paused_until, now + seconds) if longer else paused_until
        closed += longer
        assert not paused_until or gate.ready_at(now) >= paused_until - 1e-9
    assert closed <= paused_until + 1e-6


@given(seeds, st.integers(2, 64), st.floats(0.1, 100))
def test_requests_come_back_spread_over_a_second(seed: int, many: int, seconds: float) -> None:
    """
    After the probe no two requests go at one moment for as long as the pause was, at most a second; the gaps are at
    most 2/places of that. Then all may go at once.
    """
    spread = min(REENTRY, seconds)
    client = Client(Gate(many, Random(seed)))
    client.pause(seconds)
    assert seconds <= client.take_next() <= seconds + LONGEST_SPREAD
    client.now += 0.2
    client.end("answer", 0)
    opened = client.now
    went = [client.take_next() for _ in range(4 * many + 60)]

    reentry = [at for at in went if at < opened + spread]
    assert all(0 < second - first <= 2 * spread / many + 1e-9 for first, second in itertools.pairwise(reentry))
    assert went[-1] <= opened + spread + 2 * spread / many
    assert went[-1] == went[-2]


def test_where_one_is_in_flight_nobody_is_waited_for() -> None:
    """With one place requests follow each other at once after the probe."""
    client = Client(Gate(1, Random(1)))
    client.pause(10)
    client.take_next()
    client.end("answer", 0)
    opened = client.now

    assert [client.take_next() for _ in range(5)] == [opened] * 5


def test_processes_that_were_told_the_same_do_not_return_together() -> None:
    """Twenty processes that are asked to wait 30 s at one moment come back at different ones, within two seconds."""
    ends = set()
    for seed in range(20):
        gate = Gate(32, Random(seed))
        gate.pause(30, 0.0)
        ends.add(gate.ready_at(0.0))

    assert len(ends) == 20
    assert all(30 <= end <= 30 + LONGEST_SPREAD for end in ends)
