"""A timeline keeps what was seen, in a bounded number of bins."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import ServerError
from embedbatch.events import (
    AttemptFailed,
    BatchAnswered,
    DocumentFailed,
    DocumentsEmbedded,
    EndpointAway,
    EndpointBack,
    EndpointPaused,
    Event,
    RequestHedged,
    RunStopped,
)
from embedbatch.jobs.timeline import Bin, Latencies, Timeline, merged
from embedbatch.stats import Capacity, Tally
from embedbatch.values import Failure

ERROR = ServerError("HTTP 500")
names = st.sampled_from(["e", "f"])
counts = st.integers(0, 1_000)
seconds = st.floats(0, 100)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        BatchAnswered,
        endpoint=names,
        inputs=counts,
        bad_vectors=st.just(0),
        sent_bytes=counts,
        queue_seconds=seconds,
        header_seconds=st.just(0.0),
        seconds=seconds,
        prompt_tokens=st.just(None),
        total_tokens=st.none() | counts,
    ),
    st.builds(
        AttemptFailed,
        names,
        counts,
        st.just(1),
        seconds,
        st.sampled_from(["Server", "RateLimited"]),
        st.just(ERROR),
        st.booleans(),
    ),
    st.builds(EndpointPaused, names, seconds),
    st.builds(EndpointAway, names, st.just(ERROR)),
    st.builds(EndpointBack, names, seconds),
    st.builds(RequestHedged, names, counts, st.booleans(), st.booleans()),
    st.builds(DocumentsEmbedded, counts, counts, counts),
    st.just(DocumentFailed(Failure("d", 0, ERROR))),
    st.just(DocumentFailed(Failure("d", 0, ERROR, skipped=True))),
    st.just(RunStopped(ERROR)),
)
# What happens next, and after how many seconds: often at once, sometimes after days.
courses = st.lists(st.tuples(st.floats(0, 5) | st.floats(0, 1_000_000), events), max_size=60)


def answered(seconds: float, tokens: int | None = 100) -> BatchAnswered:
    return BatchAnswered("e", 1, 0, 400, 0.0, 0.0, seconds, None, tokens)


def failed(seconds: float, kind: str = "Server") -> AttemptFailed:
    return AttemptFailed("e", 1, 1, seconds, kind, ERROR, waits=True)


def capacity(name: str = "e", *, tokens: float = math.inf, in_flight: int = 1, away: float = 0.0) -> Capacity:
    return Capacity(
        endpoint=name,
        in_flight=in_flight,
        places=4,
        waiting=0,
        requests_per_second=math.inf,
        tokens_per_second=tokens,
        away_seconds=away,
    )


def lived(course: list[tuple[float, Event]], **options: int) -> Timeline:
    """A timeline that has seen the *course*."""
    timeline = Timeline(began_at=100.0, **options)
    now = 100.0
    for after, event in course:
        now += after
        timeline.see(event, now)
    return timeline


def assert_same(one: Bin, other: Bin) -> None:
    """The same counts, and the same seconds up to rounding."""
    for name in Bin.__slots__:
        ours, theirs = getattr(one, name), getattr(other, name)
        assert ours == (pytest.approx(theirs, abs=1e-6) if isinstance(theirs, float) else theirs), name


@given(courses, st.sampled_from([1, 2, 7, 600]))
def test_bins_never_exceed_their_number_and_their_sum_is_what_was_seen(
    course: list[tuple[float, Event]], max_bins: int
) -> None:
    """However long a run is, it has at most so many bins; added up they are the total, which is what stats() says."""
    timeline = lived(course, max_bins=max_bins)
    tally = Tally()
    for _, event in course:
        tally.observe(event)
    stats = tally.stats(())

    total = timeline.total
    assert len(timeline) <= max_bins
    assert_same(merged(each.counts for each in timeline.slices()), total)
    assert (total.sent, total.replies, total.documents) == (stats.requests, stats.replies, stats.documents)
    assert dict(total.faults) == stats.faults
    assert total.latencies.count == stats.attempt.count and total.latencies.longest == stats.attempt.longest
    assert total.failures == sum(isinstance(e, DocumentFailed) and not e.failure.skipped for _, e in course)
    assert total.tokens == sum(e.total_tokens or 0 for _, e in course if isinstance(e, BatchAnswered))


@given(courses, st.integers(1, 200))
def test_slices_follow_one_another_and_keep_the_sum(course: list[tuple[float, Event]], at_most: int) -> None:
    """At most so many slices, from the beginning to the end without a gap; merging bins into them loses nothing."""
    timeline = lived(course)

    slices = timeline.slices(at_most)

    assert len(slices) <= at_most
    assert_same(merged(each.counts for each in slices), timeline.total)
    ends = [0.0] + [each.start + each.seconds for each in slices]
    assert [each.start for each in slices] == pytest.approx(ends[:-1])
    assert all(each.seconds > 0 for each in slices)
    assert timeline.seconds == 0 or ends[-1] >= timeline.seconds * (1 - 1e-9)


@given(st.lists(st.floats(0.001, 1_000), min_size=1, max_size=100), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_percentiles_are_right_within_a_tenth(several: list[float], part: float) -> None:
    """The p50, p90 and p99 of a histogram are those of the numbers themselves, within the width of a bucket."""
    latencies, left, right = Latencies(), Latencies(), Latencies()
    for number, each in enumerate(several):
        latencies.add(each)
        (left if number % 2 else right).add(each)
    left.merge(right)
    exact = sorted(several)[max(0, math.ceil(part * len(several)) - 1)]

    found = latencies.percentile(part)

    assert found is not None
    assert exact / 1.101 <= found <= exact * 1.101
    assert found <= max(several)
    assert left.percentile(part) == found


def test_of_nothing_there_is_no_percentile() -> None:
    """Without replies there is no latency, and a time of 0 is the shortest there is."""
    latencies = Latencies()
    assert latencies.percentile(0.5) is None
    latencies.add(0.0)
    assert latencies.percentile(0.5) == 0.0


def test_a_request_is_sent_in_one_bin_and_answered_in_another() -> None:
    """It counts as sent when it was, as answered when the reply came, and is in flight in between."""
    timeline = Timeline(began_at=0.0, width=1.0)
    timeline.see(answered(2.0), 2.5)
    timeline.see(failed(0.25, "RateLimited"), 3.5)

    slices = timeline.slices()

    assert [each.counts.sent for each in slices] == [1, 0, 0, 1]
    assert [each.counts.replies for each in slices] == [0, 0, 1, 0]
    assert [each.counts.busy for each in slices] == [0.5, 1.0, 0.5, 0.25]
    assert slices[3].counts.faults == {"RateLimited": 1}
    assert slices[3].counts.retries == 1


def test_pauses_and_outages_are_seconds_of_the_bins_in_which_they_passed() -> None:
    """A pause that is asked for twice is longer; two endpoints paused together are one pause; an outage has an end."""
    timeline = Timeline(began_at=0.0, width=10.0)
    timeline.see(EndpointPaused("e", 4.0), 8.0)
    timeline.see(EndpointPaused("e", 1.0), 9.0)  # until 13
    timeline.see(EndpointPaused("f", 2.0), 12.0)  # until 14
    assert timeline.paused_until == {"e": 13.0, "f": 14.0}
    timeline.see(EndpointAway("f", ERROR), 20.0)
    assert not timeline.paused_until and set(timeline.away) == {"f"}
    timeline.see(EndpointBack("f", 15.0), 35.0)
    timeline.see(answered(0.0), 39.0)

    slices = timeline.slices()

    assert not timeline.away
    assert [each.counts.paused for each in slices] == pytest.approx([2.0, 4.0, 0.0, 0.0])
    assert [each.counts.away for each in slices] == pytest.approx([0.0, 0.0, 10.0, 5.0])


def test_what_endpoints_grant_is_averaged_where_it_is_known() -> None:
    """Limits are the mean of what was seen; an endpoint that is away grants nothing, and infinite is not known."""
    timeline = Timeline(began_at=0.0, width=1.0)
    timeline.sample([capacity(tokens=100.0, in_flight=3), capacity("f", tokens=50.0)], 0.1)
    timeline.sample([capacity(tokens=100.0), capacity("f", tokens=50.0, away=5.0)], 0.2)
    timeline.sample([capacity()], 1.1)
    timeline.sample([capacity(away=1.0, in_flight=2)], 2.9)

    first, second, third = (each.counts for each in timeline.slices())

    assert (first.in_flight, first.places, first.tokens_limit.mean) == (4, 8, 125.0)
    assert (second.in_flight, second.places, second.tokens_limit.mean) == (1, 4, None)
    assert (third.in_flight, third.places, third.tokens_limit.mean) == (2, 0, None)
    assert timeline.is_empty


def test_a_week_is_kept_in_bins_of_half_an_hour() -> None:
    """Bins double: a week of a request every ten minutes is 300 to 600 bins, each request still there."""
    timeline = Timeline()
    for number in range(7 * 24 * 6):
        timeline.see(answered(1.0), 1_000.0 + 600.0 * number)

    assert 300 <= len(timeline) <= 600
    assert 1_000 < timeline.width < 2_000
    assert timeline.total.replies == sum(each.counts.replies for each in timeline.slices(100)) == 7 * 24 * 6
    assert timeline.seconds == 600.0 * (7 * 24 * 6 - 1)


def test_nothing_seen_is_no_bins() -> None:
    """Before the first event a timeline is empty; without a beginning, it begins with what is seen first."""
    timeline = Timeline()
    assert timeline.is_empty and timeline.slices() == [] and timeline.seconds == 0.0
    timeline.see(answered(5.0), 50.0)
    assert timeline.seconds == 0.0
    (only,) = timeline.slices(10)
    assert only.counts.sent == 1 and only.seconds > 0


@given(courses, st.randoms(use_true_random=False))
def test_time_does_not_go_back(course: list[tuple[float, Event]], rng: Random) -> None:
    """An event with an earlier time than the one before it counts as of the same moment, and is not lost."""
    timeline = Timeline(began_at=0.0)
    for after, event in course:
        timeline.see(event, rng.uniform(-100, 100) + after)

    assert_same(merged(each.counts for each in timeline.slices()), timeline.total)
