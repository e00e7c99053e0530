"""Settings are checked when they are made, and each error names the setting."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from embedbatch.errors import ConfigurationError
from embedbatch.settings import Empty, Limits, LongInput, Retries, check_choice

ALL = [(kind, setting.name) for kind in (Limits, Retries) for setting in dataclasses.fields(kind)]
SWITCHES = [(Limits, "ramp"), (Retries, "hedge")]
EVERY = [each for each in ALL if each not in SWITCHES]
RATES = {"max_requests_per_minute", "max_tokens_per_minute"}
OPTIONAL = RATES | {"initial_concurrent_requests"}
NUMBERS = RATES | {"burst", "initial_wait", "max_wait", "max_server_wait", "max_time", "budget_share", "max_outage"}


@pytest.mark.parametrize(("kind", "name"), EVERY)
@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, math.nan, -math.inf])
def test_a_setting_is_more_than_nothing(kind: Any, name: str, value: float) -> None:
    """Zero, less than zero and NaN are refused for each of the settings that count something; the error names it."""
    with pytest.raises(ConfigurationError, match=rf"^{name}: expected (more than 0|an int), got "):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "name"), EVERY)
@pytest.mark.parametrize("value", ["5", True, False, [5], 5j, b"5"])
def test_a_setting_is_a_number(kind: Any, name: str, value: Any) -> None:
    """Texts, bools and lists are refused, also where they could pass for a number."""
    with pytest.raises(ConfigurationError, match=rf"^{name}: expected (a number|an int), got "):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "name"), EVERY)
@pytest.mark.parametrize("value", [0.5, 2.5, math.inf])
def test_a_count_is_an_int(kind: Any, name: str, value: float) -> None:
    """Half a place in flight is no place: fractions and infinity are taken for rates and seconds only."""
    if name in NUMBERS:
        assert getattr(kind(**{name: value}), name) == value
    else:
        with pytest.raises(ConfigurationError, match=rf"^{name}: expected an int, got {value}$"):
            kind(**{name: value})


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_only_a_quota_may_be_absent(kind: Any, name: str) -> None:
    """None means "no limit" for the rates, "by itself" for the initial number; elsewhere it is refused, and at once."""
    if name in OPTIONAL:
        assert getattr(kind(**{name: None}), name) is None
    else:
        with pytest.raises(ConfigurationError, match=rf"^{name}: expected (a number|an int), got None$"):
            kind(**{name: None})


@pytest.mark.parametrize(("kind", "name"), SWITCHES)
def test_a_switch_is_on_or_off(kind: Any, name: str) -> None:
    """True and False are taken; what could pass for either is refused, and the error names the switch."""
    assert [getattr(kind(**{name: value}), name) for value in (True, False)] == [True, False]
    assert getattr(kind(), name) is False
    for value in (0, 1, None, "yes", 1.0, []):
        with pytest.raises(ConfigurationError, match=rf"^{name}: expected True or False, got "):
            kind(**{name: value})


def test_the_tables_cover_every_setting() -> None:
    """The tables above cover every setting there is."""
    assert len(ALL) == 20
    assert set(ALL) == {*EVERY, *SWITCHES}
    assert {name for _, name in EVERY} >= NUMBERS


@pytest.mark.parametrize("kind", [Limits, Retries])
def test_settings_are_frozen_and_named(kind: Any) -> None:
    """A setting cannot be changed afterwards, and none can be given by its position."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().max_attempts = 5
    with pytest.raises(TypeError):
        kind(5)


def test_settings_show_what_they_are() -> None:
    """The repr of settings names every one of them."""
    limits = Limits(max_requests_per_minute=3_000, burst=1.5)

    assert repr(limits).startswith("Limits(max_requests_per_minute=3000, max_tokens_per_minute=None, burst=1.5, ")
    assert repr(Retries(max_attempts=3)).startswith("Retries(max_attempts=3, initial_wait=0.5, ")


def test_a_choice_is_one_of_its_literals() -> None:
    """A policy that does not exist is refused, and the error lists those that do."""
    check_choice("empty", "skip", Empty)
    with pytest.raises(ConfigurationError, match=r"^empty: expected one of 'error', 'skip'; got 'ignore'$"):
        check_choice("empty", "ignore", Empty)
    for value in (None, ["split"], 1):
        with pytest.raises(
            ConfigurationError, match=r"^long_input: expected one of 'split', 'truncate', 'chunks', 'error'; "
        ):
            check_choice("long_input", value, LongInput)
