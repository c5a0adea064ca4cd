"""Confidence intervals."""

import numpy as np
import pytest

from worldpilot.calibration.intervals import bootstrap_mean, wilson
from worldpilot.errors import InvalidInput


def test_wilson_against_published_values() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_a_bootstrap_interval_covers_the_mean_nearly_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0.3, 1.0, (400, 30))
    intervals = [bootstrap_mean(sample, resamples=500, seed=i) for i, sample in enumerate(samples)]
    covered = np.mean([low <= 0.3 <= high for low, high in intervals])
    assert 0.90 <= covered <= 0.97  # the percentile interval of 30 is a little narrow


def test_a_bootstrap_interval_is_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(1).normal(2.0, 0.5, 4000)
    low, high = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=2e-3)
    assert bootstrap_mean(values) == (low, high)
    narrow = bootstrap_mean(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], [[1.0, 2.0]], []])
def test_a_bootstrap_needs_finite_values(values) -> None:
    with pytest.raises(InvalidInput, match="bootstrap"):
        bootstrap_mean(values)
