"""How many bonus tokens are prepared for each outcome, and how the law behind it is learnt."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldpilot.models.language.fan_out import Outcomes, fan_out, outcome_probabilities


def test_outcomes_follow_a_capped_geometric_law() -> None:
    assert outcome_probabilities([0.8, 0.8]) == pytest.approx([0.2, 0.16, 0.64])
    assert outcome_probabilities([0.8, 1.0, 0.8]) == pytest.approx([0.2, 0.0, 0.16, 0.64])  # the second was forced
    assert outcome_probabilities([0.8, 0.8], ends=True) == pytest.approx([0.2, 0.16, 0.0])
    assert outcome_probabilities([]) == pytest.approx([1.0])


def test_the_shares_are_theorem_12s() -> None:
    """F_k = F_0 a^(k/(1+r)) for k < K and F_K = F_0 (a^K / (1 - a))^(1/(1+r)), but for rounding."""
    a, r, lookahead, budget = 0.8, 0.7, 5, 100_000
    sizes = np.array(fan_out(outcome_probabilities([a] * lookahead), r, budget, [budget] * (lookahead + 1)))
    expected = [a ** (k / (1 + r)) for k in range(lookahead)] + [(a**lookahead / (1 - a)) ** (1 / (1 + r))]
    assert sizes / sizes[0] == pytest.approx(expected, rel=1e-3)


@given(
    acceptance=st.lists(st.sampled_from([0.1, 0.5, 0.9, 1.0]), max_size=8),
    exponent=st.floats(0.2, 4),
    budget=st.integers(0, 40),
    ends=st.booleans(),
    data=st.data(),
)
def test_the_budget_is_spent_and_never_exceeded(
    acceptance: list[float], exponent: float, budget: int, ends: bool, data: st.DataObject
) -> None:
    outcomes = outcome_probabilities(acceptance, ends)
    available = data.draw(st.lists(st.integers(0, 20), min_size=len(outcomes), max_size=len(outcomes)))
    sizes = fan_out(outcomes, exponent, budget, available)
    useful = [n if p > 0 else 0 for n, p in zip(available, outcomes, strict=True)]
    assert sum(sizes) == min(budget, sum(useful))
    assert all(0 <= size <= most for size, most in zip(sizes, useful, strict=True))


@given(acceptance=st.floats(0.05, 0.98), exponent=st.floats(0.2, 4), budget=st.integers(1, 60))
def test_likelier_outcomes_get_no_less(acceptance: float, exponent: float, budget: int) -> None:
    outcomes = outcome_probabilities([acceptance] * 6)
    sizes = fan_out(outcomes, exponent, budget, [budget] * 7)
    order = np.argsort(-outcomes)
    assert all(sizes[a] >= sizes[b] - 1 for a, b in itertools.pairwise(order))


def test_the_shares_are_the_best_there_are() -> None:
    """No other whole numbers of the same sum promise fewer misses under F^-r than a rounding's worth."""
    outcomes, r, budget = outcome_probabilities([0.7] * 2), 1.0, 12

    def misses(sizes: tuple[int, ...]) -> float:
        return float((outcomes * np.array(sizes, float) ** -r).sum())

    best = min(misses((i, j, budget - i - j)) for i in range(1, budget) for j in range(1, budget - i))
    assert misses(tuple(fan_out(outcomes, r, budget, [budget] * 3))) < 1.05 * best


@pytest.mark.parametrize(("a", "r"), [(0.6, 0.8), (0.93, 2.0)])
def test_acceptance_and_exponent_are_learnt(a: float, r: float) -> None:
    rng = np.random.default_rng(0)
    estimates = Outcomes()
    for _ in range(5000):
        accepted = min(int(rng.geometric(1 - a)) - 1, 6)
        rank = int(np.floor(rng.random() ** (-1 / r)))  # P(rank > F) = (F + 1)^-r
        estimates.observe(accepted, accepted < 6, rank)
    assert estimates.acceptance == pytest.approx(a, abs=0.02)
    assert estimates.exponent == pytest.approx(r, rel=0.06)
    outcomes = outcome_probabilities([a] * 6)
    sizes = fan_out(outcomes, estimates.exponent, 16, [16] * 7)
    expected = (outcomes * (1 - (np.array(sizes) + 1.0) ** -r)).sum()
    assert estimates.hit_rate(outcomes, sizes) == pytest.approx(expected, abs=0.03)


def test_estimates_stay_within_bounds() -> None:
    estimates = Outcomes(0.7, 1.5)
    assert estimates.acceptance == pytest.approx(0.7)
    assert estimates.exponent == pytest.approx(1.5, rel=0.03)
    for _ in range(1000):
        estimates.observe(8, False, 1)
    assert (estimates.acceptance, estimates.exponent) == (0.98, pytest.approx(4.0))
    for _ in range(200_000):
        estimates.observe(0, True, 1000)
    assert (estimates.acceptance, estimates.exponent) == (0.05, pytest.approx(0.2))
