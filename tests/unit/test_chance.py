"""Whether refusals for a rate are many enough to have to do with the rate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.chance import LOOK, MANY, Chance


@given(st.lists(st.booleans(), max_size=200))
def test_as_many_of_the_last_replies_as_that_have_to_be_refusals(replies: list[bool]) -> None:
    """It is a limit when seven of the last forty replies were refusals (true), and as long as they are."""
    chance = Chance()
    for number, refused in enumerate(replies, 1):
        if refused:
            chance.refuse()
        else:
            chance.accept()
        last = replies[max(0, number - LOOK) : number]
        assert chance.is_limit is (sum(last) >= MANY)


def test_nothing_is_a_limit_before_the_first_refusal() -> None:
    """Without replies, and with good ones only, there is no limit."""
    chance = Chance()
    assert not chance.is_limit
    for _ in range(100):
        chance.accept()

    assert not chance.is_limit
