"""The bounds' arithmetic against other people's: scipy's root finder, the exact binomial, Kraft's inequality."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import beta

from worldpilot.calibration.bounds import (
    complexity,
    compression_bound,
    compression_bound_sqrt,
    held_out_bound,
    kl,
    kl_inverse,
)
from worldpilot.errors import InvalidInput


@pytest.mark.parametrize("mean", [1e-6, 0.01, 0.2, 0.5, 0.9, 1 - 1e-9])
@pytest.mark.parametrize("budget", [1e-6, 0.003, 0.1, 1.0, 5.0])
def test_the_inverse_is_the_root_and_is_not_below_it(mean: float, budget: float) -> None:
    found = kl_inverse(mean, budget)
    top = math.nextafter(1.0, 0.0)
    if kl(mean, top) <= budget:
        assert found == 1.0
    else:
        assert found == pytest.approx(brentq(lambda q: kl(mean, q) - budget, mean, top, xtol=1e-15), abs=1e-12)
        assert kl(mean, found) >= budget


def test_the_ends_of_the_interval() -> None:
    assert kl_inverse(0.0, 0.5) == pytest.approx(1 - math.exp(-0.5))
    assert kl_inverse(1.0, 0.5) == 1.0
    assert kl_inverse(0.3, 0.0) == pytest.approx(0.3, abs=1e-7)
    assert kl(0.5, 0.0) == math.inf
    assert kl(0.0, 0.0) == 0.0


@pytest.mark.parametrize("n", [20, 200, 2000])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.4])
def test_of_binary_losses_it_is_little_looser_than_the_exact_binomial(n: int, share: float) -> None:
    failures = round(share * n)
    exact = float(beta.ppf(0.95, failures + 1, n - failures))
    bound = held_out_bound(failures / n, n, 0.05)
    assert exact - 1e-12 <= bound <= exact + 0.6 / math.sqrt(n)


def test_a_message_costs_what_it_says() -> None:
    bits = complexity(104, 6)
    assert bits == pytest.approx(104 + 2 * math.log2(104) + math.log2(6))
    assert sum(2.0 ** (c - complexity(c)) for c in range(8, 80_000, 8)) <= 1.0  # Kraft: 2^c messages of c bits each
    bound, root = (f(0.1, 1000, bits, 0.05) for f in (compression_bound, compression_bound_sqrt))
    budget = (bits * math.log(2) + math.log(20)) / 1000
    assert kl(0.1, bound) == pytest.approx(budget)
    assert root == pytest.approx(0.1 + math.sqrt(budget / 2))
    assert held_out_bound(0.1, 1000, 0.05) < bound < root


def test_more_certainty_fewer_losses_and_more_bits_all_cost() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        mean, n, bits = rng.uniform(0, 0.9), int(rng.integers(10, 5000)), float(rng.uniform(8, 2000))
        bound = compression_bound(mean, n, bits, 0.05)
        assert mean <= held_out_bound(mean, n, 0.05) <= bound
        assert bound <= compression_bound(mean, n, bits + 50, 0.05)
        assert bound <= compression_bound(mean, n, bits, 0.01)
        assert bound >= compression_bound(mean, 2 * n, bits, 0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: kl_inverse(1.2, 0.1),
        lambda: kl_inverse(0.2, math.nan),
        lambda: held_out_bound(0.1, 0, 0.05),
        lambda: held_out_bound(0.1, 10, 1.0),
        lambda: held_out_bound(math.nan, 10, 0.05),
        lambda: complexity(13),
        lambda: complexity(8, 0),
        lambda: compression_bound(0.1, 10, -1.0, 0.05),
    ],
)
def test_what_is_no_bound_is_refused(wrong) -> None:
    with pytest.raises(InvalidInput, match="bound"):
        wrong()
