"""Laws of the monitor, whatever errors it is fed with."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldpilot.calibration.detection import share, threshold
from worldpilot.calibration.monitor import Monitor
from worldpilot.calibration.thresholds import CHANNELS, Thresholds, common_rank, episodes_needed, fit
from worldpilot.types import AlertLevel, PredictionError

DT, CLEAR_S = 0.1, 0.5
LIMITS = {"surprise": 10.0, "drift": 6.0, "h_step": 8.0, "disagreement": 5.0}
THRESHOLDS = Thresholds(
    model_id="0123456789ab",
    behaviours=("expert",),
    alpha=0.05,
    episodes=100,
    scales={"one_step": 1.0, "h_step": 1.0, "disagreement": 1.0},
    limits=LIMITS,
    quantiles=tuple(np.geomspace(0.2, 5.0, 63).tolist()),
)
positive = st.floats(0.0, 1e6)
anything = st.floats(0.0, math.inf) | st.just(math.nan)
streams = st.lists(st.tuples(anything, anything, positive), min_size=1, max_size=60)


def as_errors(values: list[tuple[float, float, float]]) -> list[PredictionError]:
    return [PredictionError(i * DT, *row) for i, row in enumerate(values)]


@given(streams)
def test_an_alert_is_a_change_of_level_and_nothing_else(values: list[tuple[float, float, float]]) -> None:
    monitor, level = Monitor(THRESHOLDS, clear_s=CLEAR_S), AlertLevel.NOMINAL
    for error in as_errors(values):
        alert = monitor.update(error)
        assert (alert is not None) == (monitor.level != level)
        if alert is not None:
            assert alert.level == monitor.level
            assert alert.since <= alert.stamp == error.stamp
            assert alert.threshold == LIMITS[alert.channel]
            assert alert.level is AlertLevel.NOMINAL or CHANNELS[alert.channel] == alert.level
        level = monitor.level


@given(streams)
def test_the_level_is_never_below_what_the_scores_ask_for(values: list[tuple[float, float, float]]) -> None:
    monitor = Monitor(THRESHOLDS, clear_s=CLEAR_S)
    for error in as_errors(values):
        monitor.update(error)
        asked = [CHANNELS[channel] for channel, limit in LIMITS.items() if monitor.scores[channel] > limit]
        assert monitor.level >= max(asked, default=AlertLevel.NOMINAL)


@given(streams)
def test_it_is_nominal_again_soon_after_all_is_well(values: list[tuple[float, float, float]]) -> None:
    monitor = Monitor(THRESHOLDS, clear_s=CLEAR_S)
    quiet = [(0.5, 0.5, 0.5)] * 30
    for error in as_errors(values + quiet):
        monitor.update(error)
    assert monitor.level is AlertLevel.NOMINAL


@given(streams)
def test_after_a_reset_the_past_has_no_influence(values: list[tuple[float, float, float]]) -> None:
    used, fresh = Monitor(THRESHOLDS, clear_s=CLEAR_S), Monitor(THRESHOLDS, clear_s=CLEAR_S)
    for error in as_errors(values):
        used.update(error)
    used.reset()
    for error in as_errors(values):
        assert used.update(error) == fresh.update(error)


@given(st.integers(0, 2**31), st.integers(39, 60))
def test_thresholds_do_not_depend_on_the_order_of_episodes(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    episodes = [as_errors([(float(e), math.nan, 0.1) for e in row]) for row in rng.lognormal(size=(n, 12))]
    shuffled = [episodes[i] for i in rng.permutation(n)]
    first, second = (fit(part, model_id="m", behaviours=["expert"]) for part in (episodes, shuffled))
    assert first == second
    above = [max(e.one_step for e in ep) / first.scales["one_step"] > first.limits["surprise"] for ep in episodes]
    assert sum(above) <= 0.05 * n


@given(st.integers(0, 2**31), st.sampled_from([0.05, 0.1, 0.25]), st.integers(1, 4), st.floats(0.0, 1.0), st.booleans())
def test_of_any_set_of_episodes_at_most_alpha_alarm_under_thresholds_from_the_others(
    seed: int, alpha: float, channels: int, alike: float, ties: bool
) -> None:
    """The exchangeability argument, counted out: each of n + 1 episodes in turn is the new one."""
    rng = np.random.default_rng(seed)
    n = episodes_needed(alpha, channels) + int(rng.integers(30))
    maxima = alike * rng.normal(size=(n + 1, 1)) + (1 - alike) * rng.normal(size=(n + 1, channels))
    maxima = np.round(maxima, 1) if ties else maxima
    alarms = 0
    for i in range(n + 1):
        rest = np.delete(maxima, i, axis=0)
        limits = np.sort(rest, axis=0)[common_rank(rest, alpha) - 1]
        alarms += bool((maxima[i] > limits).any())
    assert alarms <= alpha * (n + 1) + 1e-9


def ar1(rng: np.random.Generator, episodes: int, steps: int, phi: float) -> npt.NDArray[np.float64]:
    """Squared errors (episodes, steps) of a stationary AR(1) process of variance 1."""
    noise = rng.normal(size=(episodes, steps))
    for t in range(1, steps):
        noise[:, t] = phi * noise[:, t - 1] + math.sqrt(1 - phi**2) * noise[:, t]
    return np.square(noise)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8, 0.95])
def test_whole_episodes_alarm_as_rarely_as_promised_although_their_steps_are_not_independent(phi: float) -> None:
    """At alpha = .05 over several calibrations of 200 episodes; a threshold on single steps is the negative control."""
    alpha, alarms, pointwise = 0.05, list[bool](), list[bool]()
    for seed in range(5):
        rng = np.random.default_rng([seed, round(100 * phi)])
        good, fresh = ar1(rng, 200, 40, phi), ar1(rng, 200, 40, phi)
        episodes = [as_errors([(float(e), math.nan, 0.1) for e in row]) for row in good]
        thresholds = fit(episodes, model_id="m", behaviours=["expert"], alpha=alpha)
        limit = threshold(good.ravel(), alpha)
        for row in fresh:
            monitor, scale = Monitor(thresholds), thresholds.scales["one_step"]
            alarms.append(any(monitor.update(e) for e in as_errors([(float(e / scale), math.nan, 0.1) for e in row])))
            pointwise.append(bool((row > limit).any()))
    assert share(alarms)["ci"][0] <= alpha  # of 1000 episodes
    assert share(alarms)["value"] >= alpha / 3  # nor is the promise kept by never alarming
    assert share(pointwise)["ci"][0] > 5 * alpha
