"""An endpoint that shortens inputs is found out by its usage; one that counts something else is not accused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.shortening import LIMITS, Shortening

counts = st.lists(st.integers(1, 9_000), min_size=1, max_size=20)
batches = st.lists(counts, min_size=1, max_size=20)
offsets = st.integers(-2, 3)


@given(batches=batches, offset=offsets)
def test_a_right_count_is_no_sign(batches: list[list[int]], offset: int) -> None:
    """Also where the server leaves out what it adds to every input, or adds what nobody knows of."""
    shortening = Shortening()

    for sizes in batches:
        assert shortening.note(sizes, sum(sizes) - offset * len(sizes)) is None


@given(batches=batches, factor=st.floats(1.3, 8))
def test_a_count_of_something_else_is_no_sign(batches: list[list[int]], factor: float) -> None:
    """Characters, or bytes: more than there are tokens."""
    shortening = Shortening()

    for sizes in batches:
        assert shortening.note(sizes, sum(int(factor * size) + 4 for size in sizes)) is None


@given(batches=batches, used=st.sampled_from([None, 0]))
def test_no_count_is_no_sign(batches: list[list[int]], used: int | None) -> None:
    """Some servers say nothing, some say 0."""
    shortening = Shortening()

    assert [shortening.note(sizes, used) for sizes in batches] == [None] * len(batches)


@given(batches=batches)
def test_inputs_that_were_not_counted_are_no_sign(batches: list[list[int]]) -> None:
    """One of them is enough: what it has is not known."""
    shortening = Shortening()

    for sizes in batches:
        assert shortening.note([*sizes, 0], 64) is None


@given(limit=st.integers(70, 8_192), short=batches, among=st.lists(st.integers(1, 9_000), max_size=9), offset=offsets)
def test_what_is_shortened_is_found_out(limit: int, short: list[list[int]], among: list[int], offset: int) -> None:
    """After any number of right counts, at the third long input of another length at the latest."""
    shortening = Shortening()
    for sizes in short:
        whole = [min(size, limit) for size in sizes]
        assert shortening.note(whole, sum(whole) - offset * len(whole)) is None

    requests = [2 * limit], [*among, 3 * limit + max(among, default=0)], [4 * (limit + 9_000)]
    found = [shortening.note(sizes, sum(min(size, limit) - offset for size in sizes)) for sizes in requests]
    (told,) = [each for each in found if each]
    assert told == limit if short and not offset else abs(told - limit) <= 3


@pytest.mark.parametrize("limit", sorted(LIMITS))
def test_a_usual_limit_is_believed_at_once(limit: int) -> None:
    """One reply far too low shows it, to a long input alone or among others that are whole; and it is told once."""
    alone, among = Shortening(), Shortening()

    assert alone.note([2 * limit], limit) == limit
    assert among.note([10, 2 * limit, limit - 1, 3 * limit], 10 + limit + limit - 1 + limit) == limit
    assert alone.note([2 * limit], limit) is None


@given(batches=st.lists(st.lists(st.integers(5, 400), min_size=1, max_size=20), min_size=1, max_size=30))
def test_another_tokenizer_is_not_accused(batches: list[list[int]]) -> None:
    """One that finds a tenth less, in every text: that is no limit."""
    shortening = Shortening()

    for sizes in batches:
        assert shortening.note(sizes, sum(size - size // 10 for size in sizes)) is None


def test_a_limit_that_a_longer_input_disproves_is_dropped() -> None:
    """Inputs beyond it came through whole before, or do later."""
    before, after = Shortening(), Shortening()

    before.note([600], 600)
    assert before.note([700], 512) is None
    assert before.note([2_000], 512) is None
    after.note([520], 500)
    after.note([600], 600)
    assert after.note([2_000], 500) is None


def test_limits_that_differ_are_none() -> None:
    """A server that shortens does so always at the same length."""
    shortening = Shortening()

    short = ((520, 500), (900, 850), (2_000, 500), (3_000, 500), (4_000, 500))
    assert [shortening.note([size], used) for size, used in short] == [None] * len(short)
