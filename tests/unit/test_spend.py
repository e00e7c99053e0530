"""How many tokens a run may still spend: never more than it was allowed to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.spend import Spend


@given(
    st.integers(0, 1_000),
    st.lists(st.tuples(st.booleans(), st.integers(0, 300), st.floats(0, 1)), max_size=60),
)
def test_no_order_of_events_passes_the_limit(limit: int, steps: list[tuple[bool, int, float]]) -> None:
    """If what does not fit is not sent, spent + reserved stays within the limit, whatever is settled when, for what."""
    spend = Spend(limit)
    in_flight: list[int] = []
    for sends, tokens, share in steps:
        if sends and spend.fits(tokens):
            spend.reserve(tokens)
            in_flight.append(tokens)
        elif in_flight:
            reserved = in_flight.pop(int(share * (len(in_flight) - 1)))
            spend.settle(reserved, int(reserved * share))
        assert spend.spent + spend.reserved <= limit
        assert spend.reserved == sum(in_flight)


@given(st.integers(0, 1_000), st.integers(0, 1_000), st.integers(0, 1_000), st.integers(0, 1_500))
def test_what_may_fit_later_fits_once_the_rest_costs_nothing(
    limit: int, spent: int, reserved: int, tokens: int
) -> None:
    """may_fit_later is true exactly when something is in flight and, should it cost nothing, the tokens fit."""
    spend = Spend(limit, spent=spent, reserved=reserved)
    at_best = Spend(limit, spent=spent)

    assert spend.may_fit_later(tokens) == (reserved > 0 and at_best.fits(tokens))
    if spend.fits(tokens) and reserved:
        assert spend.may_fit_later(tokens)


def test_the_last_token_fits() -> None:
    """Of 100 tokens, 60 spent and 30 reserved, 10 remain: 10 fit and 11 do not; 40 may fit later, 41 never."""
    spend = Spend(100, spent=60, reserved=30)

    assert spend.remaining == 10
    assert [spend.fits(tokens) for tokens in (10, 11)] == [True, False]
    assert [spend.may_fit_later(tokens) for tokens in (40, 41)] == [True, False]


def test_without_a_limit_everything_fits() -> None:
    """With max_tokens=None there is nothing to count against."""
    spend = Spend(None, spent=10**12, reserved=10**12)

    assert spend.remaining is None
    assert spend.fits(10**12)
    assert spend.may_fit_later(10**12)


def test_a_limit_of_zero_lets_nothing_go() -> None:
    """max_spend_tokens=0 is a limit, not the absence of one."""
    assert not Spend(0).fits(1)
    assert not Spend(0).may_fit_later(1)


def test_a_request_that_costs_more_than_it_could_is_counted_in_full() -> None:
    """A server that counts 15 tokens where 10 were reserved has cost 15: nothing more fits into 15."""
    spend = Spend(15)
    spend.reserve(10)
    spend.settle(10, 15)

    assert (spend.spent, spend.reserved) == (15, 0)
    assert not spend.fits(1)
