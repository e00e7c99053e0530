"""When a second copy of a request is sent: late, and seldom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.hedges import BUDGET, ENOUGH, KEPT, LEAST, MAX_OUT, REMEMBERED, Hedges

seconds = st.floats(1e-3, 100)


@given(st.lists(seconds, max_size=ENOUGH - 1))
def test_nothing_is_concluded_from_a_few_replies(few: list[float]) -> None:
    """Until 20 replies are known there is no delay, and so no copy."""
    hedges = Hedges()
    for each in few:
        hedges.note(each)

    assert hedges.delay() is None


@given(st.lists(seconds, min_size=ENOUGH, max_size=REMEMBERED + 60))
def test_a_request_is_late_when_it_is_later_than_95_of_100(replies: list[float]) -> None:
    """At most 5 % of the last 200 replies took longer than the delay, and at most 95 % less, or 10 ms."""
    hedges = Hedges()
    for each in replies:
        hedges.note(each)
    delay = hedges.delay()
    last = replies[-REMEMBERED:]

    assert delay == LEAST or delay in last
    assert sum(each > delay for each in last) <= 0.05 * len(last)
    assert delay == LEAST or sum(each < delay for each in last) <= 0.95 * len(last)
    assert hedges.delay() == delay


def test_what_was_long_ago_is_forgotten() -> None:
    """After 200 replies of a second, those of ten seconds before them count no more."""
    hedges = Hedges()
    for each in [10.0] * 500 + [1.0] * REMEMBERED:
        hedges.note(each)

    assert hedges.delay() == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=600))
def test_copies_are_fewer_than_5_in_100_requests(looks: list[tuple[bool, bool]]) -> None:
    """In any order of replies (true, …) and looks at late requests, copies ≤ 4.5 % of the replies."""
    hedges = Hedges()
    replies = copies = 0
    for is_reply, first in looks:
        if is_reply:
            hedges.note(1.0)
            replies += 1
        elif hedges.may_spend(first=first):
            hedges.spend()
            hedges.came_back()
            copies += 1
        assert copies <= BUDGET * replies + 1e-9


def test_some_copies_are_kept_for_a_second_look() -> None:
    """However many requests are looked at for the first time, five copies are left for those that stay away."""
    hedges = Hedges()
    for _ in range(1_000):
        hedges.note(1.0)
    while hedges.may_spend(first=True):
        hedges.spend()
        hedges.came_back()
    kept = 0
    while hedges.may_spend(first=False):
        hedges.spend()
        hedges.came_back()
        kept += 1

    assert kept == KEPT


def test_a_long_quiet_time_saves_up_ten_copies_at_most() -> None:
    """After 10,000 replies without a copy, ten may go at once."""
    hedges = Hedges()
    for _ in range(10_000):
        hedges.note(1.0)
    copies = 0
    while hedges.may_spend(first=False):
        hedges.spend()
        hedges.came_back()
        copies += 1

    assert copies == 10


def test_a_tail_is_cut() -> None:
    """Of replies of which 1 in 33 takes 20 times as long, the delay is that of the slowest of the others."""
    hedges = Hedges()
    for number in range(REMEMBERED):
        hedges.note(20.0 if number % 33 == 0 else 1 + number % 5 / 20)

    assert hedges.delay() == 1.2


def test_eight_copies_are_out_at_most() -> None:
    """With budget for ten the ninth copy waits until one has come back."""
    hedges = Hedges()
    for _ in range(1_000):
        hedges.note(1.0)
    for _ in range(MAX_OUT):
        assert hedges.may_spend(first=False)
        hedges.spend()
    assert not hedges.may_spend(first=False)
    hedges.came_back()

    assert hedges.may_spend(first=False)
