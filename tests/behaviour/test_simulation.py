"""
embedbatch against simulated providers reaches every bar, and loses nothing whatever they do.

Five seeds for each scenario; EMBEDBATCH_SEEDS=20 takes more. `./scripts/simulate` prints the same as a table.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.simulate.measures import time_to_speed, waits_against_arrivals, waits_against_queue
from benchmarks.simulate.running import play, run
from benchmarks.simulate.scenario import PER_SECOND, Answered, Call, Job, Scenario, at_least, at_most, exactly, told
from benchmarks.simulate.scenarios import SCENARIOS
from embedbatch import Limits
from embedbatch.testing import Capacity, Latency, OtherClient, Outage, ProviderSimulator, Quota, RequestRecord

SEEDS = int(os.environ.get("EMBEDBATCH_SEEDS", "5"))
HELD = [scenario for scenario in SCENARIOS if any(bar.demands for bar in scenario.bars)]
POISON = "poison"

few = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("scenario", HELD, ids=str)
def test_a_scenario_reaches_its_bars(scenario: Scenario, seed: int) -> None:
    """With this seed every figure of the scenario reaches its bar."""
    figures = run(scenario, seed=seed)

    missed = [
        f"{bar.figure}: {bar.show(figures[bar.figure])}, {bar}" for bar in scenario.bars if not bar.is_met(figures)
    ]
    assert not missed, scenario.title


# laws ---------------------------------------------------------------------------------------------------------


@st.composite
def outages(draw: st.DrawFn) -> list[Outage]:
    """Up to three outages in the first minutes."""
    starts = draw(st.lists(st.integers(0, 200), max_size=3))
    kinds = st.sampled_from(["503", "500", "refused", "silence"])
    return [Outage(start=start, end=start + draw(st.integers(1, 90)), kind=draw(kinds)) for start in starts]


@st.composite
def providers(draw: st.DrawFn) -> dict[str, Any]:
    """Any mixture of what a provider can do to a client."""

    def maybe(strategy: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | strategy)

    quota = maybe(
        st.builds(
            Quota,
            requests_per_minute=st.none() | st.integers(30, 3_000),
            tokens_per_minute=st.none() | st.integers(5_000, 100_000),
            window=st.sampled_from([1.0, 5.0, 60.0]),
            style=st.sampled_from(["bucket", "fixed"]),
            tokens_per_byte=st.sampled_from([0.2, 0.25, 0.4]),
            noise=st.sampled_from([0.0, 0.2]),
        )
    )
    others = (
        [] if quota is None else draw(st.sampled_from([[], [OtherClient(start=5, end=90, tokens_per_minute=3_000)]]))
    )
    status = draw(st.sampled_from([429, 503]))
    return {
        "quota": quota,
        "others": others,
        "latency": Latency(tail_share=draw(st.sampled_from([0.0, 0.1])), uplink=draw(st.sampled_from([0.0, 0.3]))),
        "capacity": Capacity(sheds_above=maybe(st.integers(1, 8)), workers=maybe(st.integers(1, 8)), status=status),
        "headers": draw(st.booleans()),
        "retry_after": draw(st.booleans()),
        "detailed": draw(st.booleans()),
        "announce_caps": draw(st.booleans()),
        "max_inputs": maybe(st.integers(1, 30)),
        "max_request_bytes": maybe(st.integers(200, 20_000)),
        "credit_tokens": maybe(st.integers(100, 20_000)),
        "outages": draw(outages()),
    }


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A few documents, some of them poisoned, at one or two providers of any kind, with any settings."""
    options = draw(st.lists(providers(), min_size=1, max_size=2))
    documents = draw(st.integers(1, 300))
    poisoned = draw(st.sets(st.integers(0, documents - 1), max_size=3))
    changed = {position: f"{POISON} {position}" for position in poisoned}
    limits = Limits(
        max_concurrent_requests=draw(st.integers(1, 16)),
        max_batch_inputs=draw(st.integers(1, 40)),
        max_tokens_per_minute=draw(st.none() | st.integers(5_000, 100_000)),
    )
    return Scenario(
        name="any",
        title="anything may happen",
        servers=lambda seed: {
            f"{number}.test": ProviderSimulator(seed=seed + number, poison=is_poison, **kinds)
            for number, kinds in enumerate(options)
        },
        job=Job(
            documents=documents,
            text_bytes=120,
            changed=lambda seed: changed,
            limits=limits,
            retries={"hedge": draw(st.booleans())},
            on_outage=draw(st.sampled_from(["stop", "wait"])),
            checked=1,
        ),
        horizon=math.inf,
        measure=lambda run: {},
        bars=(),
    )


def is_poison(text: str) -> bool:
    """True for a text that the server cannot stand."""
    return text.startswith(POISON)


@pytest.mark.slow
@few
@given(scenario=scenarios(), seed=st.integers(0, 2**31))
def test_every_document_is_accounted_for(scenario: Scenario, seed: int) -> None:
    """Whatever the provider does, each document has an embedding, a failure, or was not attempted."""
    outcome = play(scenario, seed=seed).outcome

    assert outcome.embedded + outcome.failed + outcome.not_attempted == outcome.taken


@pytest.mark.slow
@few
@given(scenario=scenarios(), seed=st.integers(0, 2**31))
def test_every_vector_is_that_of_its_text(scenario: Scenario, seed: int) -> None:
    """Whatever the provider does, no vector belongs to another text."""
    assert play(scenario, seed=seed).outcome.wrong == 0


@pytest.mark.slow
@few
@given(scenario=scenarios(), seed=st.integers(0, 2**31))
def test_the_same_seed_gives_the_same_run(scenario: Scenario, seed: int) -> None:
    """Two runs with one seed send the same requests at the same times, and get the same answers."""

    def trace() -> Mapping[str, list[tuple[float, int | None, int]]]:
        servers = play(scenario, seed=seed).servers
        return {host: [(r.at, r.status, r.inputs) for r in server.requests] for host, server in servers.items()}

    assert trace() == trace()


# the measuring itself -----------------------------------------------------------------------------------------


def server_with(*granted: tuple[float, float]) -> ProviderSimulator:
    """A server that has granted requests: (when, how many tokens)."""
    server = ProviderSimulator()
    for number, (at, tokens) in enumerate(granted, start=1):
        server.requests.append(RequestRecord(number, at, 1, 1, 1, tokens, granted=True, status=200, answered_at=at))
    return server


def called(at: float, tokens: float, *, took: float, waiting: int = 0) -> Answered:
    """A call of so many tokens that was over after some time."""
    return Answered(Call(at=at, texts=1), at, waiting, int(4 * tokens), at + took)


def test_a_bar_is_met_from_its_side() -> None:
    """At least, at most and exactly mean what they say, with the bar itself inside; nothing measured is a miss."""
    assert at_least("x", 0.9).is_met({"x": 0.9}) and not at_least("x", 0.9).is_met({"x": 0.89})
    assert at_most("x", 0.1).is_met({"x": 0.1}) and not at_most("x", 0.1).is_met({"x": 0.11})
    assert exactly("x", 7).is_met({"x": 7}) and not exactly("x", 7).is_met({"x": 8})
    assert not at_most("x", 0.1).is_met({"x": math.nan}) and told("x").is_met({"x": math.nan})


def test_a_bar_may_excuse_one_request() -> None:
    """A share above its bar is excused by so small a count."""
    bar = at_most("share", 0.001, unless=("requests", 1))

    assert bar.is_met({"share": 0.01, "requests": 1})
    assert not bar.is_met({"share": 0.01, "requests": 2})


def test_the_time_to_speed_is_the_begin_of_five_fast_seconds() -> None:
    """Slow until 10, then 100 tokens each second: at a speed of 90 a second the time is 10 s after the start."""
    slow = [(float(at), 10.0) for at in range(10)]
    fast = [(float(at), 100.0) for at in range(10, 30)]

    assert time_to_speed(server_with(*slow, *fast), 0.0, 30.0, 90.0) == 10.0
    assert time_to_speed(server_with(*slow), 0.0, 30.0, 90.0) == math.inf


def test_a_wait_is_compared_with_what_had_arrived_before() -> None:
    """A call that arrives behind two seconds' worth, and takes six seconds with its own one, waited twice as long."""
    second = PER_SECOND
    calls = [called(0.0, 2 * second, took=2.0), called(0.0, second, took=6.0)]

    ratios = [wait.ratio for wait in waits_against_arrivals(calls, server_with(), 0.0)]
    assert ratios == pytest.approx([1.0, 2.0], rel=0.01)


def test_a_wait_is_compared_with_what_was_waiting() -> None:
    """A call that finds one request of a second's worth waiting, and returns after four seconds, waited four times."""
    calls = [called(10.0, 1.0, took=4.0, waiting=1)]
    server = server_with((9.0, 9 * PER_SECOND), (11.0, PER_SECOND), (12.0, PER_SECOND))

    (wait,) = waits_against_queue(calls, server, 0.0)
    assert wait.ratio == pytest.approx(4.0, rel=0.01)
