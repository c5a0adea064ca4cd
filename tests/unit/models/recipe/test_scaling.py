"""What is said of data efficiency, and what is not."""

import numpy as np
import pytest

from worldpilot.errors import InvalidInput
from worldpilot.models.recipe.scaling import Law, efficiencies, efficiency, fit_law, mean_efficiency

AMOUNTS = [250.0, 500.0, 1000.0, 2000.0]


def test_a_method_better_than_all_that_was_fitted_gets_no_figure() -> None:
    law = Law(a=1.0, b=0.5, c=0.1, least=250, most=2000)
    assert law.data(0.05) == np.inf  # below what any amount of data gives
    assert efficiency(law, 1000, 0.05) is None
    assert efficiency(law, 1000, float(law.loss(2400))) is None
    assert efficiency(law, 1000, float(law.loss(1500))) == pytest.approx(1.5)
    assert efficiency(law, 250, float(law.loss(200))) is None  # worse than the least amount


def test_ends_of_an_interval_outside_the_range_are_left_open() -> None:
    rng = np.random.default_rng(0)
    standard = (np.asarray(AMOUNTS) ** -0.5)[:, None] * np.exp(rng.normal(0, 0.1, (4, 6)))
    method = (1.9 * np.asarray(AMOUNTS) ** 1.0)[:, None] ** -0.5 * np.exp(rng.normal(0, 0.1, (4, 6)))
    first, _, third, last = efficiencies(AMOUNTS, standard, method, resamples=200)
    assert first["value"] == pytest.approx(1.9, rel=0.3)
    assert first["inside"] == 1
    assert first["ci"][0] < first["value"] < first["ci"][1]
    assert third["inside"] < 1
    assert third["ci"][1] is None
    assert last["value"] is None
    assert last["ci"] == [None, None]


def test_the_mean_goes_over_what_has_a_figure() -> None:
    rng = np.random.default_rng(1)
    standard = (np.asarray(AMOUNTS) ** -0.5)[:, None] * np.exp(rng.normal(0, 0.03, (4, 6)))
    method = (1.5 * np.asarray(AMOUNTS))[:, None] ** -0.5 * np.exp(rng.normal(0, 0.03, (4, 6)))
    mean = mean_efficiency(AMOUNTS, standard, method, resamples=200)
    assert mean is not None
    assert mean["over"] == AMOUNTS[:3]
    assert mean["value"] == pytest.approx(1.5, rel=0.1)
    assert mean["ci"][0] < mean["value"] < mean["ci"][1]
    assert mean_efficiency(AMOUNTS, standard, np.full((4, 6), 1e-3), resamples=50) is None


@pytest.mark.parametrize(
    ("data", "loss"),
    [([1, 2, 4], [3, 2, 1]), ([1, 2, 4, 4], [4, 3, 2, 1]), ([1, 2, 4, 8], [1, 1, 1, 0]), ([1, 2, 4, 8], [1, 1, 1])],
)
def test_too_little_to_fit_is_refused(data: list[float], loss: list[float]) -> None:
    with pytest.raises(InvalidInput, match="scaling"):
        fit_law(data, loss)


def test_losses_must_be_of_the_same_seeds() -> None:
    with pytest.raises(InvalidInput, match="shape"):
        efficiencies(AMOUNTS, np.ones((4, 5)), np.ones((4, 4)))
