"""stats() counts events: each once, under its name, whatever order they came in."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import ServerError
from embedbatch.events import (
    AttemptFailed,
    BatchAnswered,
    DocumentCut,
    DocumentFailed,
    DocumentRepaired,
    DocumentsEmbedded,
    EndpointPaused,
    Event,
    RunStopped,
)
from embedbatch.stats import Stats, Tally
from embedbatch.values import Cut, Failure

ERROR = ServerError("HTTP 500")
counts = st.integers(0, 1_000)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(BatchAnswered, st.just("e"), counts, counts, st.just(0.1), st.none() | counts, st.none() | counts),
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
    st.builds(EndpointPaused, st.just("e"), st.integers(0, 100).map(float)),
    st.builds(DocumentsEmbedded, counts, counts, counts),
    st.just(DocumentFailed(Failure("d", 0, ERROR))),
    st.just(DocumentCut(Cut("d", 0, "split", None, ()))),
    st.just(DocumentRepaired("d", 0)),
    st.just(RunStopped(ERROR)),
)


def tally(several: list[Event]) -> Stats:
    counting = Tally()
    for event in several:
        counting.observe(event)
    return counting.stats(in_flight=3, waiting=5)


def test_nothing_happened_is_all_zeros() -> None:
    """Before the first event everything is 0, except what is in flight and waiting at the moment."""
    assert tally([]) == Stats(in_flight=3, waiting=5)


def test_each_event_is_counted_under_its_name() -> None:
    """Two replies, three faults of two kinds, a pause, a cut and a failure are found again, one by one."""
    stats = tally(
        [
            BatchAnswered("e", 10, 0, 500, 0.1, 50, 60),
            BatchAnswered("e", 5, 1, 300, 0.1, None, None),
            AttemptFailed("e", 10, 1, 0.1, "RateLimited", ERROR, True),
            AttemptFailed("e", 10, 2, 0.1, "RateLimited", ERROR, True),
            AttemptFailed("e", 5, 1, 0.1, "Server", ERROR, False),
            EndpointPaused("e", 2.5),
            DocumentsEmbedded(12, 15, 700),
            DocumentFailed(Failure("d", 0, ERROR)),
            DocumentCut(Cut("d", 1, "chunks", None, ())),
            DocumentRepaired("d", 1),
            RunStopped(ERROR),
        ]
    )

    assert stats == Stats(
        documents=12,
        vectors=15,
        failures=1,
        cut=1,
        requests=5,
        replies=2,
        prompt_tokens=50,
        sent_bytes=800,
        faults={"RateLimited": 2, "Server": 1},
        paused_seconds=2.5,
        in_flight=3,
        waiting=5,
    )


@given(st.lists(events, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(several: list[Event], rng: Random) -> None:
    """Any order of the same events gives the same stats; requests are replies and faults."""
    shuffled = list(several)
    rng.shuffle(shuffled)
    stats = tally(several)

    assert tally(shuffled) == stats
    assert stats.requests == stats.replies + sum(stats.faults.values())


def test_stats_do_not_change_afterwards() -> None:
    """What was asked for is a record of that moment: later events do not show in it."""
    counting = Tally()
    before = counting.stats(in_flight=0, waiting=0)
    counting.observe(AttemptFailed("e", 1, 1, 0.1, "Server", ERROR, True))

    assert before == Stats()
    assert counting.stats(in_flight=0, waiting=0).faults == {"Server": 1}
    with pytest.raises(AttributeError):
        before.requests = 5  # type: ignore[misc]
