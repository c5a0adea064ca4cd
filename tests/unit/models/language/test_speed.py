"""The formulas of speed, against a simulation of the rounds they describe."""

import numpy as np
import pytest

from worldpilot.models.language.fan_out import Outcomes
from worldpilot.models.language.speed import (
    Times,
    ar_rate,
    expected_tokens,
    hit_rate,
    longest_hidden,
    sd_rate,
    ssd_rate,
)

TIMES = Times({0: 0.025, 8: 0.029, 16: 0.037}, step=0.0014, tree_step=0.0026)


def test_times_are_interpolated_and_beyond_the_last_in_proportion() -> None:
    assert TIMES.verification(0) == 0.025
    assert TIMES.verification(4) == pytest.approx(0.027)
    assert TIMES.verification(33) == pytest.approx(0.074)
    assert TIMES.build(4) == pytest.approx(0.0118)


@pytest.mark.parametrize(("a", "k", "hits"), [(0.6, 4, 0.7), (0.93, 8, 0.9)])
def test_rates_are_those_of_simulated_rounds(a: float, k: int, hits: float) -> None:
    rng = np.random.default_rng(0)
    rounds = 200_000
    tokens = np.minimum(rng.geometric(1 - a, rounds), k + 1)
    hit = rng.random(rounds) < hits
    verify = TIMES.verification(k)
    serial = rounds * (verify + k * TIMES.step)
    beside = np.where(hit, max(verify, TIMES.build(k)), verify + k * TIMES.step).sum()
    assert expected_tokens(a, k) == pytest.approx(tokens.mean(), rel=0.01)
    assert sd_rate(TIMES, a, k) == pytest.approx(tokens.sum() / serial, rel=0.01)
    assert ssd_rate(TIMES, a, k, hits) == pytest.approx(tokens.sum() / beside, rel=0.01)


def test_what_is_certain_is_the_limit() -> None:
    assert ar_rate(TIMES) == pytest.approx(40)
    assert expected_tokens(1.0, 7) == 8
    ceiling = 1 + 8 * TIMES.step / TIMES.verification(8)
    assert ssd_rate(TIMES, 0.9, 8, 1.0) / sd_rate(TIMES, 0.9, 8) == pytest.approx(ceiling)


def test_the_longest_tree_that_a_verification_hides() -> None:
    assert longest_hidden(TIMES, range(1, 17)) == 13  # 13 * 2.6 ms < 34 ms, 14 * 2.6 ms > 35 ms
    assert longest_hidden(Times({0: 0.001, 16: 0.001}, 0.01, 0.01), range(1, 17)) == 1


def test_more_branches_hit_more_often() -> None:
    rates = [hit_rate(6, budget, Outcomes()) for budget in (0, 4, 16, 64)]
    assert rates == sorted(rates)
    assert rates[0] == 0
    assert rates[-1] < 1
