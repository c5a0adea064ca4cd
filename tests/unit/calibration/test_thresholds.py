"""Thresholds: ranks, units, refusals, and the false alarms they really lead to."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from worldpilot.calibration.thresholds import (
    Drift,
    Thresholds,
    common_rank,
    episode_maxima,
    episodes_needed,
    fit,
    normalise,
    recalibrate,
    whiten,
)
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.types import PredictionError

FOR = {"model_id": "0123456789ab", "behaviours": ("expert",)}


def make_episodes(n: int, seed: int = 0, steps: int = 60, scale: float = 1.0) -> list[list[PredictionError]]:
    """Log-normal errors, strongly autocorrelated, each episode with a level of its own: as real ones are."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, steps))
    for t in range(1, steps):
        noise[:, t] = 0.9 * noise[:, t - 1] + math.sqrt(1 - 0.9**2) * noise[:, t]
    errors = scale * np.exp(0.7 * noise + 0.3 * rng.normal(size=(n, 1)))
    return [
        [
            PredictionError(0.1 * t, float(e), float(3 * e) if t > 20 else math.nan, float(0.1 * e))
            for t, e in enumerate(row)
        ]
        for row in errors
    ]


def test_the_limit_is_the_episode_maximum_of_the_conformal_rank() -> None:
    episodes = make_episodes(100)
    thresholds = fit(episodes, **FOR, alpha=0.1)
    scale = thresholds.scales["one_step"]
    assert scale == pytest.approx(np.median([error.one_step for episode in episodes for error in episode]))
    found = episode_maxima([[normalise(e, thresholds.scales) for e in ep] for ep in episodes], thresholds.quantiles)
    maxima = sorted(max(error.one_step for error in episode) / scale for episode in episodes)
    rank = common_rank(np.array([found["surprise"], found["drift"]]).T, 0.1)
    assert 91 <= rank <= 96  # between that of one channel and the union bound's, ceil(101 * 0.95)
    assert thresholds.limits["surprise"] == pytest.approx(maxima[rank - 1])
    assert thresholds.limits["drift"] == pytest.approx(sorted(found["drift"])[rank - 1])
    alone = fit(episodes, **FOR, alpha=0.1, channels=["surprise"])
    assert alone.limits == pytest.approx({"surprise": maxima[91 - 1]})  # ceil(101 * 0.9)


def test_channels_that_say_the_same_cost_nothing_and_independent_ones_the_union_bound() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(199, 1))
    assert common_rank(one, 0.05) == 190  # ceil(200 * 0.95)
    assert common_rank(np.hstack([one, np.exp(one)]), 0.05) <= 191
    assert common_rank(rng.normal(size=(199, 2)), 0.05) >= 194  # the union bound's is 195


def test_least_number_of_episodes() -> None:
    assert episodes_needed(0.05) == 39
    assert episodes_needed(0.05, 1) == 19
    fit(make_episodes(39), **FOR)
    with pytest.raises(InvalidInput, match=r"38 good episodes are too few .* 39 are needed"):
        fit(make_episodes(38), **FOR)


def test_units_do_not_matter() -> None:
    one, thousand = fit(make_episodes(50), **FOR), fit(make_episodes(50, scale=1000.0), **FOR)
    assert thousand.limits == pytest.approx(one.limits)
    assert thousand.scales["one_step"] == pytest.approx(1000 * one.scales["one_step"])
    assert one.quantiles[len(one.quantiles) // 2] == pytest.approx(1.0)


@pytest.mark.parametrize("channels", [("surprise", "drift"), ("surprise", "drift", "h_step", "disagreement")])
def test_false_alarms_stay_near_alpha_although_errors_are_autocorrelated(channels: tuple[str, ...]) -> None:
    alarms = total = 0
    for seed in range(8):
        thresholds = fit(make_episodes(150, seed=seed), **FOR, alpha=0.1, channels=channels)
        fresh = [
            [normalise(error, thresholds.scales) for error in episode]
            for episode in make_episodes(60, seed=1000 + seed)
        ]
        maxima = episode_maxima(fresh, thresholds.quantiles)
        over = [np.array(maxima[channel]) > limit for channel, limit in thresholds.limits.items()]
        alarms += int(np.any(over, axis=0).sum())
        total += len(fresh)
    assert 0.02 < alarms / total < 0.13  # at most alpha = .1, but for the noise of 480 episodes


def test_drift_sees_a_small_lasting_change_that_no_single_error_shows() -> None:
    episodes = make_episodes(150)
    thresholds = fit(episodes, **FOR)
    high = float(np.quantile(thresholds.quantiles, 0.99))
    assert high < thresholds.limits["surprise"]
    drift = Drift(thresholds.quantiles)
    steps = next(t for t in range(1, 200) if drift.update(high) > thresholds.limits["drift"])
    assert 3 <= steps <= 40
    calm = Drift(thresholds.quantiles)
    assert max(calm.update(1.0) for _ in range(500)) < thresholds.limits["drift"]


def test_each_bet_of_the_e_process_is_fair() -> None:
    quantiles = list(np.linspace(0.1, 5.0, 99))
    between = [0.0, *[(a + b) / 2 for a, b in pairwise(quantiles)], 9.0]  # every rank once
    firsts = []
    for error in between:
        drift = Drift(quantiles)
        firsts.append(math.expm1(drift.update(error)))  # M after one step from 0 is the mean bet
    assert 0.85 < float(np.mean(firsts)) <= 1.0


def test_drift_ends_soon_after_its_cause() -> None:
    quantiles = np.geomspace(0.2, 5.0, 255).tolist()
    drift = Drift(quantiles, ceiling=6.0)
    assert max(drift.update(100.0) for _ in range(1000)) == pytest.approx(6.0, abs=0.01)
    assert next(t for t in range(1, 100) if drift.update(0.5) < 5.0) <= 10


def test_thresholds_survive_json() -> None:
    whitening = whiten(np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32))
    for extra in ({}, {"rewards": {"goal_pose(block_x, block_y)": 60}, "whitening": whitening}):
        thresholds = fit(make_episodes(60), **FOR, **extra)
        assert Thresholds.from_dict(json.loads(json.dumps(thresholds.to_dict()))) == thresholds
    np.testing.assert_allclose(thresholds.whitening_matrix(), whitening, rtol=1e-5)


def test_thresholds_of_an_earlier_version_are_of_plain_errors_under_rewards_that_nobody_recorded() -> None:
    content = fit(make_episodes(60), **FOR).to_dict()
    for name in ("rewards", "whitening"):
        del content[name]
    del content["scales"]["spread"]
    thresholds = Thresholds.from_dict(content)
    assert not thresholds.rewards
    assert not thresholds.whitening


def test_whitened_errors_are_uncorrelated_of_variance_one() -> None:
    rng = np.random.default_rng(1)
    mixing = np.linalg.qr(rng.normal(size=(6, 6)))[0] * np.geomspace(0.2, 1, 6)
    errors = (rng.normal(size=(20_000, 6)) @ mixing.T).astype(np.float32)
    whitening = whiten(errors)
    np.testing.assert_array_equal(whitening, np.tril(whitening))
    white = errors @ whitening.T
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(6), atol=0.02)


@pytest.mark.parametrize("n", [12, 60, 600])
def test_shrinkage_is_that_of_ledoit_and_wolf(n: int) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    errors = np.random.default_rng(n).normal(size=(n, 8)) * np.geomspace(0.1, 1, 8)
    expected, _ = covariance.ledoit_wolf(errors, assume_centered=True)
    whitening = whiten(errors.astype(np.float32))
    np.testing.assert_allclose(np.linalg.inv(whitening.T @ whitening), expected, rtol=1e-4, atol=1e-9)


def test_a_whitening_needs_more_errors_than_dimensions() -> None:
    with pytest.raises(InvalidInput, match="at least 8 finite errors of 8 dimensions, got 5"):
        whiten(np.ones((5, 8), np.float32))
    with pytest.raises(InvalidInput, match="finite"):
        whiten(np.full((20, 8), np.nan, np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limits": {}}, "at least one limit"),
        ({"limits": {"surprise": math.inf}}, "must be finite"),
        ({"scales": {"one_step": 1.0}}, "one for each of"),
        ({"scales": {"one_step": 0.0, "h_step": 1.0, "disagreement": 1.0}}, "must be positive"),
        ({"quantiles": [2.0, 1.0]}, "ascending"),
        ({"alpha": 1.5}, "0 < alpha < 1"),
        ({"limits": {"fear": 1.0}}, "valid names: disagreement, drift, h_step, spread, surprise"),
        ({"whitening": [[1.0], [0.0]]}, "lower triangle"),
        ({"whitening": [[math.nan]]}, "must be finite"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_thresholds_are_refused(change: dict, message: str) -> None:
    content = fit(make_episodes(40), **FOR).to_dict()
    with pytest.raises((InvalidInput, UnknownName), match=message):
        Thresholds.from_dict({**content, **change})
    del content["alpha"]
    with pytest.raises(InvalidInput, match="alpha"):
        Thresholds.from_dict(content)


def test_unusable_episodes_are_refused() -> None:
    episodes = make_episodes(50)
    with pytest.raises(InvalidInput, match="needs prediction errors"):
        fit([*episodes, []], **FOR)
    broken = [replace(episodes[0][0], one_step=math.nan), *episodes[0][1:]]
    with pytest.raises(InvalidInput, match="all finite"):
        fit([broken, *episodes[1:]], **FOR)
    short = [episode[:10] for episode in episodes]  # too short for an H-step error
    with pytest.raises(InvalidInput, match="h_step"):
        fit(short, **FOR, alpha=0.2, channels=["h_step"])
    with pytest.raises(UnknownName, match="valid names"):
        fit(episodes, **FOR, channels=["fear"])


def test_recalibration_keeps_the_units_and_asks_for_enough() -> None:
    before = fit(make_episodes(100), **FOR)
    stream = [
        replace(normalise(error, before.scales), stamp=6.0 * i + error.stamp)
        for i, episode in enumerate(make_episodes(60, seed=7, scale=2.0))
        for error in episode
    ]
    after = recalibrate(stream, before, rewards=["goal_latent"])
    assert after.scales == before.scales
    assert list(after.rewards) == ["goal_latent"]
    assert after.limits["surprise"] > 1.3 * before.limits["surprise"]
    with pytest.raises(InvalidInput, match=r"too short, 195 s are needed"):
        recalibrate(stream[:500], before)
