"""Numbers as people read them."""

from __future__ import annotations

import pytest

from embedbatch.jobs.wording import clock, cost, duration, fault, money, rate, share


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.00042, "0.42 ms"),
        (0.42, "420 ms"),
        (0.9996, "1.0 s"),
        (4.24, "4.2 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (252, "4 min 12 s"),
        (3_599.7, "1 h"),
        (11_100, "3 h 5 min"),
        (86_399, "1 d"),
        (612_000, "7 d 2 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, shown: str) -> None:
    """From parts of a millisecond to days, rounded once."""
    assert duration(seconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.2, "0 s"), (4.6, "5 s"), (59.4, "59 s"), (252.2, "4 min 12 s")])
def test_a_clock_shows_whole_seconds(seconds: float, shown: str) -> None:
    """What goes on has no fractions, which would only flicker."""
    assert clock(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0"), (3, "3"), (0.04, "0.04"), (3.21, "3.2"), (9.99, "10"), (15_980.3, "15,980")]
)
def test_a_rate_is_whole_where_it_is_many(number: float, shown: str) -> None:
    """Few per second have a digit more."""
    assert rate(number) == shown


@pytest.mark.parametrize(
    ("amount", "shown"), [(0, "$0.00"), (0.00001, "under $0.0001"), (0.0123, "$0.0123"), (1_234.5, "$1,234.50")]
)
def test_money_has_digits_that_tell(amount: float, shown: str) -> None:
    """Cents where there are dollars, more digits where there are none."""
    assert money(amount) == shown


@pytest.mark.parametrize(
    ("part", "shown"), [(0, "0 %"), (0.5, "50 %"), (0.995, "99.5 %"), (0.99999, "99.9 %"), (1, "100 %")]
)
def test_nothing_is_complete_before_it_is(part: float, shown: str) -> None:
    """100 % is said only when nothing is missing."""
    assert share(part) == shown


def test_faults_and_costs() -> None:
    """A 429 is called that, what has no word of its own is called by its name; a cost needs tokens and a price."""
    assert fault("RateLimited") == "429"
    assert fault("Unheard") == "Unheard"
    assert cost(1_500_000, 0.02) == 0.03
    assert cost(None, 0.02) is None
    assert cost(5, None) is None
