"""The figures of a detector, against brute force and against what they promise."""

import itertools

import numpy as np
import pytest

from worldpilot.calibration.detection import auroc, auroc_interval, share, threshold
from worldpilot.calibration.thresholds import Drift
from worldpilot.errors import InvalidInput


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    good, faulty = rng.integers(0, 9, 40).astype(float), rng.integers(3, 12, 25).astype(float)
    pairs = [(g < f) + 0.5 * (g == f) for g, f in itertools.product(good, faulty)]
    assert auroc(good, faulty) == pytest.approx(np.mean(pairs))
    assert auroc(faulty, good) == pytest.approx(1 - np.mean(pairs))
    assert auroc(good, good + 100) == 1.0
    assert auroc(good, good) == pytest.approx(0.5)


@pytest.mark.parametrize(("good", "faulty"), [([], [1.0]), ([1.0], []), ([np.nan, 1.0], [1.0]), ([1.0], [np.nan])])
def test_auroc_refuses_what_has_no_order(good: list[float], faulty: list[float]) -> None:
    with pytest.raises(InvalidInput, match="auroc"):
        auroc(np.array(good), np.array(faulty))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Shifted normals that share half of their variance within a pair; AUROC = Phi(d / sqrt 2)."""
    rng, truth, covered = np.random.default_rng(1), 0.7602, []
    for _ in range(200):
        shared = rng.normal(size=60) * np.sqrt(0.5)
        good, faulty = (shared + rng.normal(size=60) * np.sqrt(0.5) + shift for shift in (0.0, 1.0))
        low, high = auroc_interval(good, faulty, rng, resamples=200)
        covered.append(low <= truth <= high)
    assert 0.87 < np.mean(covered) <= 1.0


def test_the_interval_of_pairs_is_that_of_pairs() -> None:
    """Where a fault adds a little to each episode, resampled pairs agree more than resampled halves would."""
    good = np.random.default_rng(2).normal(size=50)
    low, high = auroc_interval(good, good + 0.1, np.random.default_rng(3))
    assert low > 0.5
    assert high - low < 0.05
    assert auroc_interval(good, good + 0.1, np.random.default_rng(3)) == (low, high)
    with pytest.raises(InvalidInput, match="pairs"):
        auroc_interval(good, good[:-1], np.random.default_rng(3))


def test_the_threshold_keeps_its_promise() -> None:
    rng, exceeded = np.random.default_rng(4), []
    for _ in range(2000):
        scores = rng.exponential(size=40)
        exceeded.append(scores[-1] > threshold(scores[:-1], 0.1))
    assert 0.08 < np.mean(exceeded) <= 0.12


def test_the_threshold_is_an_order_statistic() -> None:
    scores = np.random.default_rng(5).permutation(19).astype(float)
    assert threshold(scores, 0.05) == 18.0
    assert threshold(scores, 0.1) == 17.0
    with pytest.raises(InvalidInput, match="18 good episodes are too few"):
        threshold(scores[:18], 0.05)
    with pytest.raises(InvalidInput, match="alpha"):
        threshold(scores, 1.0)


@pytest.mark.parametrize(("n", "alpha"), [(20, 0.05), (100, 0.1), (333, 0.05), (500, 0.01)])
def test_the_threshold_is_the_quantile_of_crepes_and_of_mapie(n: int, alpha: float) -> None:
    crepes, mapie = pytest.importorskip("crepes"), pytest.importorskip("mapie.regression")
    from sklearn.dummy import DummyRegressor

    scores, at = np.random.default_rng(n).exponential(size=n), np.zeros((1, 1))
    # Both give intervals around a prediction, here 0, so wide as the quantile of the absolute residuals is.
    first = crepes.ConformalRegressor().fit(scores).predict_int(np.zeros(1), confidence=1 - alpha)
    model = DummyRegressor(strategy="constant", constant=0.0).fit(at, [0.0])
    second = mapie.SplitConformalRegressor(model, confidence_level=1 - alpha).conformalize(np.zeros((n, 1)), scores)
    assert first[0, 1] == pytest.approx(threshold(scores, alpha))
    assert np.ravel(second.predict_interval(at)[1])[1] == pytest.approx(threshold(scores, alpha))


def test_the_e_process_bets_on_the_p_values_of_crepes() -> None:
    base, rng = pytest.importorskip("crepes.base"), np.random.default_rng(6)
    good = np.sort(rng.exponential(size=255))
    new = rng.exponential(size=50)
    p = base.p_values_batch(good, new, smoothing=False)
    bets = np.mean([kappa * p ** (kappa - 1) for kappa in (0.3, 0.5, 0.7)], axis=0)
    assert [np.expm1(Drift(good.tolist()).update(float(error))) for error in new] == pytest.approx(bets)


def test_a_share_comes_with_its_interval() -> None:
    assert share([True, False, True, True]) == {"value": 0.75, "n": 4, "ci": pytest.approx([0.3006, 0.9544], abs=1e-4)}
