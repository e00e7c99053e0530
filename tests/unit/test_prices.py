"""What models cost: whose price holds where, and what an amount of money buys."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.errors import ConfigurationError
from embedbatch.prices import PRICES, Price, max_spend_for, price_of

OPENAI = "https://api.openai.com/v1"
PRICE = st.floats(min_value=1e-6, max_value=1e4, allow_nan=False).map(lambda usd: Price(usd_per_million=usd))


@pytest.mark.parametrize(
    ("model", "usd"),
    [("text-embedding-3-small", 0.02), ("text-embedding-3-large", 0.13), ("text-embedding-ada-002", 0.1)],
)
def test_the_prices_of_openai_are_known(model: str, usd: float) -> None:
    """A million tokens cost that much, and ten million ten times as much."""
    price = price_of(model, OPENAI)

    assert price is not None
    assert (price.cost(1_000_000), price.cost(10_000_000), price.cost(0)) == (usd, 10 * usd, 0)


def test_the_embedded_model_is_free() -> None:
    """It runs here."""
    assert price_of("local", "http://embedbatch.local/v1") == Price(usd_per_million=0)


@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("text-embedding-3-small", "https://gateway.example/v1"),
        ("text-embedding-3-small", "https://api.openai.com.gateway.example/v1"),
        ("text-embedding-3-small", "https://gateway.example/api.openai.com/v1"),
        ("text-embedding-3-small", "https://my-resource.openai.azure.com/openai"),
        ("text-embedding-3-small", "http://[::1"),
        ("text-embedding-3-small", ""),
        ("text-embedding-4", OPENAI),
        ("mistral-embed", OPENAI),
        ("local", "http://localhost:8080/v1"),
    ],
)
def test_a_price_holds_at_the_vendors_own_address_only(model: str, base_url: str) -> None:
    """Another host, whatever its address looks like, or a model of another vendor, has no price that is known."""
    assert price_of(model, base_url) is None


def test_a_price_holds_whatever_the_address_is_written_like() -> None:
    """Capitals, a port, a path and a password make no difference."""
    assert price_of("text-embedding-3-small", "https://user:key@API.openai.com:443/other") is not None


def test_every_price_has_a_date_and_a_source() -> None:
    """A year, maybe with a month, and an address; but for what costs nothing."""
    for price in PRICES.values():
        if price.usd_per_million:
            assert re.fullmatch(r"20\d\d(-[01]\d)?", price.as_of or "")
            assert (price.source or "").startswith("https://")


@given(price=PRICE, max_cost=st.floats(min_value=1e-3, max_value=1e6, allow_nan=False))
def test_what_an_amount_buys_costs_no_more_and_one_token_more_does(price: Price, max_cost: float) -> None:
    """The law of `max_spend_for`."""
    try:
        tokens = max_spend_for(max_cost, price)
    except ConfigurationError:
        assert price.cost(1) > max_cost
    else:
        assert tokens is not None
        assert price.cost(tokens) <= max_cost <= price.cost(tokens + 1)


def test_an_amount_is_taken_as_it_is_written() -> None:
    """0.1 divided by 0.02 is five, and three dimes are 30 cents: binary fractions do not cost a token."""
    assert max_spend_for(0.1, Price(usd_per_million=0.02)) == 5_000_000
    assert max_spend_for(0.3, Price(usd_per_million=0.1)) == 3_000_000
    assert Price(usd_per_million=0.1).cost(3_000_000) == 0.3


def test_what_is_free_has_no_limit() -> None:
    """None is what `max_spend_tokens` takes for it."""
    assert max_spend_for(5, Price(usd_per_million=0)) is None


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), True, "1", None])
def test_what_is_no_amount_is_refused(amount: Any) -> None:
    """Of a price, and of what may be spent: less than nothing, no number, or not finite."""
    with pytest.raises(ConfigurationError, match="price: expected US dollars of at least 0, got"):
        Price(usd_per_million=amount)
    with pytest.raises(ConfigurationError, match="max_cost: expected US dollars of at least 0, got"):
        max_spend_for(amount, Price(usd_per_million=1))


@pytest.mark.parametrize("max_cost", [0, 1e-9])
def test_an_amount_that_buys_nothing_is_refused(max_cost: float) -> None:
    """A run that may not send a token is no run."""
    with pytest.raises(ConfigurationError, match="do not buy a token"):
        max_spend_for(max_cost, Price(usd_per_million=0.02))
