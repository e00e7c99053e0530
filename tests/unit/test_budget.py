"""How many retries a run may make: a bounded number at an endpoint that is dead, any number at one that answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.budget import Budget
from embedbatch.settings import Retries

budgets = st.integers(1, 100)
shares = st.floats(1e-3, 2)


@given(budgets, shares, st.lists(st.booleans(), max_size=300))
def test_no_more_is_spent_than_there_was_and_was_earned(capacity: int, share: float, replies: list[bool]) -> None:
    """In any order of good replies (true) and retries: 0 ≤ left ≤ budget, and spent ≤ budget + share · replies."""
    budget = Budget(Retries(budget=capacity, budget_share=share))
    earned = spent = 0
    for good in replies:
        if good:
            budget.earn()
            earned += 1
        else:
            before = budget.left
            may = budget.spend()
            spent += may
            assert may is (before >= 1)
            assert budget.left == before - may
        assert 0 <= budget.left <= capacity
        assert spent <= capacity + share * earned + 1e-9


@given(budgets, shares)
def test_a_dead_endpoint_costs_the_budget_exactly(capacity: int, share: float) -> None:
    """Without a good reply there are as many retries as the budget, and then none."""
    budget = Budget(Retries(budget=capacity, budget_share=share))

    assert [budget.spend() for _ in range(capacity + 3)] == [True] * capacity + [False] * 3


@given(budgets, st.floats(0.1, 2))
def test_a_run_that_gets_on_may_retry_for_ever(capacity: int, share: float) -> None:
    """With 1/share good replies for each retry there is always one left, and what is not used is not saved up."""
    budget = Budget(Retries(budget=capacity, budget_share=share))
    for _ in range(500):
        assert budget.spend()
        for _ in range(int(1 / share) + 1):
            budget.earn()
    assert budget.left <= capacity
