"""The monitor online: when it speaks, what it says, when it withdraws; and the errors it is fed with."""

import math
import time
from pathlib import Path

import numpy as np
import pytest

from worldpilot.calibration.monitor import Monitor, PredictionTracker, proposal_spread
from worldpilot.calibration.thresholds import Thresholds
from worldpilot.errors import InvalidInput
from worldpilot.models.artifact import Artifact
from worldpilot.types import Alert, AlertLevel, History, PredictionError

DT = 0.1
THRESHOLDS = Thresholds(
    model_id="0123456789ab",
    behaviours=("expert",),
    alpha=0.05,
    episodes=100,
    scales={"one_step": 1.0, "h_step": 1.0, "disagreement": 1.0},
    limits={"surprise": 10.0, "drift": 6.0},
    quantiles=tuple(np.geomspace(0.2, 5.0, 255).tolist()),
)


def feed(monitor: Monitor, errors: list[float], start: float = 0.0) -> list[Alert]:
    stream = [PredictionError(start + i * DT, error, math.nan, 0.0) for i, error in enumerate(errors)]
    return [alert for error in stream if (alert := monitor.update(error)) is not None]


def test_a_spike_holds_at_once_and_is_withdrawn_after_it_has_ended() -> None:
    monitor = Monitor(THRESHOLDS, clear_s=0.5)
    raised, withdrawn = feed(monitor, [1.0] * 5 + [50.0] * 2 + [0.5] * 20)
    assert (raised.level, raised.channel, raised.score, raised.threshold) == (AlertLevel.HOLD, "surprise", 50.0, 10.0)
    assert raised.stamp == raised.since == pytest.approx(0.5)
    assert "surprise 50, threshold 10" in raised.message
    assert withdrawn.level is AlertLevel.NOMINAL
    assert withdrawn.stamp == pytest.approx(0.6 + 0.5)
    assert monitor.level is AlertLevel.NOMINAL


def test_a_lasting_small_change_asks_for_caution() -> None:
    monitor = Monitor(THRESHOLDS, clear_s=0.5)
    raised, withdrawn = feed(monitor, [1.0] * 20 + [4.5] * 20 + [0.5] * 40)
    assert (raised.level, raised.channel) == (AlertLevel.CAUTION, "drift")
    assert 2.0 < raised.stamp < 4.0
    assert withdrawn.level is AlertLevel.NOMINAL


def test_hold_outranks_caution_and_falls_back_to_it() -> None:
    monitor = Monitor(THRESHOLDS, clear_s=0.2)
    alerts = feed(monitor, [4.5] * 20 + [50.0] + [4.5] * 20)
    assert [alert.level.name for alert in alerts] == ["CAUTION", "HOLD", "CAUTION"]
    assert alerts[2].since == alerts[0].since  # one stretch of drift
    assert alerts[1].message.endswith("threshold 10; drift too")
    lasted = alerts[2].stamp - alerts[2].since
    assert f", for {lasted:.2f} s" in alerts[2].message


def test_a_flicker_at_the_threshold_is_one_alert() -> None:
    assert len(feed(Monitor(THRESHOLDS, clear_s=1.0), [11.0, 0.1, 0.1] * 20)) == 1


def test_an_error_that_is_not_a_number_holds() -> None:
    (alert,) = feed(Monitor(THRESHOLDS), [1.0, math.nan])
    assert (alert.level, alert.score) == (AlertLevel.HOLD, math.inf)


def test_a_stamp_that_goes_back_starts_over() -> None:
    monitor = Monitor(THRESHOLDS, clear_s=60.0)
    feed(monitor, [50.0], start=100.0)
    (alert,) = feed(monitor, [1.0], start=0.0)
    assert alert.level is AlertLevel.NOMINAL


def test_an_update_takes_microseconds() -> None:
    monitor = Monitor(THRESHOLDS)
    stream = [PredictionError(i * DT, 1.0, 1.0, 0.1) for i in range(2000)]
    best = math.inf
    for _ in range(3):
        started = time.perf_counter()
        for error in stream:
            monitor.update(error)
        best = min(best, (time.perf_counter() - started) / len(stream))
    assert best < 20e-6


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path) -> Artifact:
    return Artifact.load(tiny_artifact)


def world_of(artifact: Artifact, steps: int, jump_at: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Latents (steps+1, D) and controls (steps, U) of a world that is exactly what the tiny model's mean predicts."""
    # The tiny model adds a linear effect of each block; with a constant control that is a constant velocity.
    controls = np.tile(np.array([0.1, -0.2], np.float32), (steps, 1))
    model, spec = artifact.world_model, artifact.spec
    block = np.tile(controls[0], spec.action.block)[None, None]
    zero = np.zeros((spec.history, spec.latent_dim), np.float32)
    past = np.zeros((spec.history - 1, spec.action.dim), np.float32)
    effect = model.predict(History(zero, past), block).mean(axis=0)[0, 0]
    latents = np.arange(steps + 1, dtype=np.float32)[:, None] / spec.action.block * effect
    if jump_at is not None:
        latents[jump_at:] += 1.0
    return latents.astype(np.float32), controls


def track(tracker: PredictionTracker, latents: np.ndarray, controls: np.ndarray) -> list[PredictionError | None]:
    previous = [controls[0], *controls]
    return [tracker.update(i * DT, latents[i], previous[i]) for i in range(len(latents))]


def test_no_error_before_a_whole_history_and_none_where_the_model_is_right(artifact: Artifact) -> None:
    errors = track(PredictionTracker(artifact.world_model, horizon=3), *world_of(artifact, 40))
    # (h - 1 + 1) model steps of 5 controls lie before the first error; (h - 1 + 3) before the first H-step error.
    assert [error is None for error in errors] == [True] * 10 + [False] * 31
    whole = [error for error in errors if error is not None]
    assert max(error.one_step for error in whole) < 1e-9
    assert [math.isnan(error.h_step) for error in whole] == [True] * 10 + [False] * 21
    assert max(error.h_step for error in whole[10:]) < 1e-9
    assert min(error.disagreement for error in whole) > 0
    assert whole[0].stamp == pytest.approx(1.0)


def test_a_jump_shows_for_one_model_step_and_its_size_is_the_error(artifact: Artifact) -> None:
    errors = track(PredictionTracker(artifact.world_model), *world_of(artifact, 40, jump_at=20))
    seen = {i: error.one_step for i, error in enumerate(errors) if error is not None and error.one_step > 0.5}
    assert list(seen) == [20, 21, 22, 23, 24]  # the predictions made before it
    assert all(value == pytest.approx(1.0, rel=1e-4) for value in seen.values())


def test_errors_are_in_the_units_of_the_thresholds(artifact: Artifact) -> None:
    assert artifact.thresholds is not None
    content = {**artifact.thresholds, "scales": {"one_step": 4.0, "h_step": 1.0, "disagreement": 2.0}}
    latents, controls = world_of(artifact, 25, jump_at=20)
    raw = track(PredictionTracker(artifact.world_model), latents, controls)[-1]
    scaled = track(PredictionTracker(artifact.world_model, Thresholds.from_dict(content)), latents, controls)[-1]
    assert raw is not None
    assert scaled is not None
    assert scaled.one_step == pytest.approx(raw.one_step / 4)
    assert scaled.disagreement == pytest.approx(raw.disagreement / 2)


def test_a_whitened_error_counts_by_what_is_usual_in_its_direction(artifact: Artifact) -> None:
    latents, controls = world_of(artifact, 24, jump_at=20)  # all dimensions jump by 1
    d = latents.shape[1]
    whitening = np.diag(np.where(np.arange(d) == 0, 8.0, 0.0)).astype(np.float32)
    plain, white = (
        track(PredictionTracker(artifact.world_model, whitening=w), latents, controls)[-1] for w in (None, whitening)
    )
    assert plain is not None
    assert white is not None
    assert plain.one_step == pytest.approx(1.0, rel=1e-4)
    assert white.one_step == pytest.approx(64 / d, rel=1e-4)
    assert artifact.thresholds is not None
    rows = [list(row[: i + 1]) for i, row in enumerate(whitening.tolist())]
    stored = Thresholds.from_dict({**artifact.thresholds, "whitening": rows})
    again = track(PredictionTracker(artifact.world_model, stored), latents, controls)[-1]
    assert again is not None
    assert again.one_step == pytest.approx(white.one_step)


def test_the_spread_of_proposals_is_a_share_of_the_controls_range(artifact: Artifact) -> None:
    spec = artifact.spec.action
    proposals = np.zeros((2, 3, spec.dim), np.float32)
    assert proposal_spread(proposals, spec) == 0.0
    proposals[0], proposals[1] = spec.action_low, spec.action_high
    assert proposal_spread(proposals, spec) == pytest.approx(0.5)


def test_an_interrupted_stream_starts_over(artifact: Artifact) -> None:
    latents, controls = world_of(artifact, 40)
    tracker = PredictionTracker(artifact.world_model)
    track(tracker, latents, controls)
    after_gap = [tracker.update(9.0 + i * DT, latents[i], controls[0]) for i in range(12)]
    assert [error is None for error in after_gap] == [True] * 10 + [False] * 2
    tracker.reset()
    assert tracker.update(10.2, latents[12], controls[0]) is None


def test_thresholds_of_another_model_are_refused(artifact: Artifact) -> None:
    with pytest.raises(InvalidInput, match="valid for model 0123456789ab"):
        PredictionTracker(artifact.world_model, THRESHOLDS)
