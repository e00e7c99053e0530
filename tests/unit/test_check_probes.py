"""What a check sends: the search for the most inputs, and the texts that are too long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedbatch.check.probes import BatchSearch, batch, first_round, long_text, plain, second_round, shortened_text


@given(limit=st.integers(1, 2_048), cap=st.integers(1, 4_096), named=st.none() | st.integers(-1, 5_000))
def test_the_search_ends_at_the_cap(limit: int, cap: int, named: int | None) -> None:
    """It is found if a refusal names it, or no number; whatever a refusal names, the search ends, and below the cap."""
    search = BatchSearch(limit, 1)
    tried = []
    while (size := search.next) is not None and len(tried) < BatchSearch.most_requests(limit):
        tried.append(size)
        if size <= cap:
            search.accept(size)
        else:
            search.refuse(size, named)

    assert len(set(tried)) == len(tried)
    assert max(tried, default=0) <= limit
    assert search.accepted <= cap
    if named in (None, cap):
        assert search.next is None
        assert search.accepted == min(limit, cap)
        assert (search.refused is None) is (limit <= cap)


@given(st.integers(1, 20_000))
def test_a_long_text_is_longer_than_the_limit_and_its_end_is_unlike_the_rest(limit: int) -> None:
    """Every word is at least a token, so both texts reach the limit, and the longer one is above it."""
    whole, shortened = long_text(limit), shortened_text(limit)

    assert whole.startswith(f"{shortened} ")
    assert len(shortened.split()) == limit < len(whole.split())
    assert not set(shortened.split()) & set(whole.removeprefix(shortened).split())


def test_every_request_has_a_name_and_a_text_of_its_own() -> None:
    """Answers are kept by name; a cache must not answer for the largest request."""
    probes = [plain(), *first_round(512), *second_round(64, 512), batch(8)]

    assert len({probe.name for probe in probes}) == len(probes)
    assert len(set(batch(2_048).inputs or ())) == 2_048


@given(st.integers(1, 2_048))
def test_the_bound_counts_all_inputs(inputs: int) -> None:
    """Of texts by what it is given, of token arrays by their tokens."""
    assert batch(inputs).bound(lambda text: 3) == 3 * inputs
    assert sum(probe.bound(lambda text: 0) for probe in first_round(8)) == 6 + 3
