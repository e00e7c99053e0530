"""stats() counts events: each once, under its name, whatever order they came in."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import ServerError
from embedbatch.events import (
    AttemptFailed,
    BatchAnswered,
    BatchSplit,
    CapLearned,
    DocumentCut,
    DocumentFailed,
    DocumentRepaired,
    DocumentsEmbedded,
    EndpointAway,
    EndpointBack,
    EndpointPaused,
    Event,
    RequestHedged,
    RunStopped,
)
from embedbatch.stats import Capacity, Stats, Tally, Timing
from embedbatch.values import Cut, Failure

ERROR = ServerError("HTTP 500")
CAPACITY = (
    Capacity(
        endpoint="e",
        in_flight=3,
        places=4,
        waiting=5,
        requests_per_second=math.inf,
        tokens_per_second=1_000.0,
        away_seconds=0.0,
    ),
    Capacity(
        endpoint="f",
        in_flight=1,
        places=1,
        waiting=5,
        requests_per_second=10.0,
        tokens_per_second=math.inf,
        away_seconds=2.5,
    ),
)
counts = st.integers(0, 1_000)
seconds = st.integers(0, 64).map(float)  # exact, so that their sum does not depend on the order
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        BatchAnswered,
        endpoint=st.just("e"),
        inputs=counts,
        bad_vectors=counts,
        sent_bytes=counts,
        queue_seconds=seconds,
        header_seconds=seconds,
        seconds=seconds,
        prompt_tokens=st.none() | counts,
        total_tokens=st.none() | counts,
    ),
    st.builds(
        AttemptFailed,
        st.just("e"),
        counts,
        counts,
        st.just(0.1),
        st.sampled_from(["Server", "RateLimited"]),
        st.just(ERROR),
        st.booleans(),
    ),
    st.builds(EndpointPaused, st.just("e"), seconds),
    st.just(EndpointAway("e", ERROR)),
    st.builds(EndpointBack, st.just("e"), seconds),
    st.builds(BatchSplit, st.just("e"), counts, st.just(ERROR)),
    st.builds(RequestHedged, st.just("e"), counts, st.booleans(), st.booleans()),
    st.builds(DocumentsEmbedded, counts, counts, counts, seconds, seconds),
    st.just(DocumentFailed(Failure("d", 0, ERROR))),
    st.just(DocumentCut(Cut("d", 0, "split", None, ()))),
    st.just(DocumentRepaired("d", 0)),
    st.just(RunStopped(ERROR)),
)


def answered(inputs: int, sent_bytes: int, tokens: int | None, **seconds: float) -> BatchAnswered:
    return BatchAnswered(
        endpoint="e",
        inputs=inputs,
        bad_vectors=0,
        sent_bytes=sent_bytes,
        prompt_tokens=tokens,
        total_tokens=tokens,
        **seconds,
    )


def tally(several: list[Event]) -> Stats:
    counting = Tally()
    for event in several:
        counting.observe(event)
    return counting.stats(CAPACITY)


def test_nothing_happened_is_all_zeros() -> None:
    """Before the first event everything is 0, except what the endpoints grant, and have in flight, at the moment."""
    assert tally([]) == Stats(in_flight=4, waiting=10, capacity=CAPACITY)
    assert Tally().stats(()) == Stats()


def test_each_event_is_counted_under_its_name() -> None:
    """Two replies, three faults of two kinds, a cancelled copy and one of all else are found again, one by one."""
    stats = tally(
        [
            answered(10, 500, 50, queue_seconds=0.5, header_seconds=1.0, seconds=1.25),
            answered(5, 300, None, queue_seconds=0.0, header_seconds=3.0, seconds=3.5),
            AttemptFailed("e", 10, 1, 0.1, "RateLimited", ERROR, True),
            AttemptFailed("e", 10, 2, 0.1, "RateLimited", ERROR, True),
            AttemptFailed("e", 5, 1, 0.1, "Server", ERROR, False),
            EndpointPaused("e", 2.5),
            EndpointAway("e", ERROR),
            EndpointBack("e", 7.0),
            BatchSplit("e", 10, ERROR),
            RequestHedged("e", 10, won=True, cancelled=True),
            RequestHedged("e", 10, won=False, cancelled=False),
            CapLearned("e", "inputs", 32),
            CapLearned("e", "bytes", 5_000),
            CapLearned("f", "inputs", 16),
            CapLearned("e", "inputs", 25),
            DocumentsEmbedded(12, 15, 700, 24.0, 5.0),
            DocumentsEmbedded(2, 2, 20, 3.0, 2.0),
            DocumentFailed(Failure("d", 0, ERROR)),
            DocumentCut(Cut("d", 1, "chunks", None, ())),
            DocumentRepaired("d", 1),
            RunStopped(ERROR),
        ]
    )

    assert stats == Stats(
        documents=14,
        vectors=17,
        failures=1,
        cut=1,
        requests=6,
        replies=2,
        prompt_tokens=50,
        sent_bytes=800,
        splits=1,
        hedges=2,
        outages=1,
        faults={"RateLimited": 2, "Server": 1},
        caps={"e inputs": 25, "e bytes": 5_000, "f inputs": 16},
        paused_seconds=2.5,
        queue=Timing(2, 0.5, 0.5),
        headers=Timing(2, 4.0, 3.0),
        body=Timing(2, 0.75, 0.5),
        attempt=Timing(2, 4.75, 3.5),
        document=Timing(14, 27.0, 5.0),
        in_flight=4,
        waiting=10,
        capacity=CAPACITY,
    )
    assert stats.attempt.mean == 4.75 / 2


@given(st.lists(events, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(several: list[Event], rng: Random) -> None:
    """In any order they give the same stats; requests are replies, faults and cancelled copies; replies are timed."""
    shuffled = list(several)
    rng.shuffle(shuffled)
    stats = tally(several)

    assert tally(shuffled) == stats
    cancelled = sum(isinstance(event, RequestHedged) and event.cancelled for event in several)
    assert stats.requests == stats.replies + sum(stats.faults.values()) + cancelled
    assert {clock.count for clock in (stats.queue, stats.headers, stats.body, stats.attempt)} == {stats.replies}
    assert stats.headers.seconds + stats.body.seconds == stats.attempt.seconds
    assert stats.document.count == stats.documents


def test_of_nothing_there_is_no_mean() -> None:
    """The mean of no reply is 0, and adding one makes it that one's."""
    assert Timing().mean == 0.0
    assert Timing().plus(2.0) == Timing(1, 2.0, 2.0)
    assert Timing(1, 2.0, 2.0).plus(6.0, count=3, longest=1.5) == Timing(4, 8.0, 2.0)


def test_stats_do_not_change_afterwards() -> None:
    """What was asked for is a record of that moment: later events do not show in it."""
    counting = Tally()
    before = counting.stats(())
    counting.observe(AttemptFailed("e", 1, 1, 0.1, "Server", ERROR, True))
    counting.observe(CapLearned("e", "tokens", 600))
    after = counting.stats(())

    assert before == Stats()
    assert after == replace(Stats(), requests=1, faults={"Server": 1}, caps={"e tokens": 600})
    with pytest.raises(AttributeError):
        before.requests = 5  # type: ignore[misc]
