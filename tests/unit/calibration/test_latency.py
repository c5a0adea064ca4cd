"""Delays found again: of a servo that follows commands late, seen by an encoder and by a camera that is late too."""

import numpy as np
import pytest
from scipy.signal import lfilter

from worldpilot.calibration.latency import Latency, LatencyConfig, Series, Track, fit
from worldpilot.errors import InvalidInput, UnknownName

LAG = 0.03  # [s]


def track(
    control: float,
    camera: float,
    rng: np.random.Generator,
    *,
    seconds: float = 20.0,
    kind: str = "velocity",
    encoder_noise: float = 1e-4,
    camera_noise: float = 2e-3,
) -> Track:
    """Commands at 10 Hz with jitter to a first-order servo, computed in steps of 0.2 ms."""
    dt = 2e-4
    sent_at = np.cumsum(rng.uniform(0.08, 0.12, int(seconds / 0.1)))
    size = 0.2 if kind == "velocity" else 0.05
    sent = np.repeat(rng.uniform(-size, size, (len(sent_at) // 3 + 1, 2)), 3, axis=0)[: len(sent_at)]
    time = np.arange(0, sent_at[-1] + 0.5, dt)
    arrived = np.searchsorted(sent_at, time - control, side="right") - 1
    command = np.where(arrived[:, None] >= 0, sent[np.maximum(arrived, 0)], 0.0)
    target = np.cumsum(command, axis=0) * dt if kind == "velocity" else command
    share = 1 - np.exp(-dt / LAG)
    position = np.asarray(lfilter([share], [1, share - 1], target, axis=0))

    def seen(period: float, late: float, noise: float, gain: float) -> Series:
        stamps = np.arange(0.2, sent_at[-1], period)
        values = np.stack([np.interp(stamps - late, time, column) for column in position.T], -1)
        return Series(stamps, gain * values + rng.normal(0, noise, values.shape))

    measured = {"encoder": seen(0.02, 0.0, encoder_noise, 1.0), "camera": seen(0.033, camera, camera_noise, 0.97)}
    return Track(Series(sent_at, sent), measured)


def only(tracks: list[Track], source: str) -> list[Track]:
    return [Track(t.command, {source: t.measured[source]}) for t in tracks]


@pytest.fixture(scope="module")
def recording() -> list[Track]:
    return [track(0.052, 0.041, np.random.default_rng(seed)) for seed in range(2)]


@pytest.fixture(scope="module")
def found(recording: list[Track]) -> Latency:
    return fit(recording)


def test_both_delays_and_the_lag_are_found(found: Latency) -> None:
    for name, true in (("control", 0.052), ("camera", 0.041), ("total", 0.093), ("lag", LAG)):
        time = found.times[name]
        assert time.value == pytest.approx(true, abs=2e-3)
        assert time.low - 5e-4 <= true <= time.high + 5e-4
        assert time.std < 1e-3
    assert found.names == ("control", "total", "lag")
    assert found.covariance.shape == (3, 3)
    assert found.gains["camera"] == pytest.approx((0.97, 0.97), abs=0.02)
    assert found.residuals["encoder"] == pytest.approx(1e-4, rel=0.5)
    assert found.residuals["camera"] == pytest.approx(2e-3, rel=0.2)
    assert not found.remarks


@pytest.mark.parametrize("control", [0.0, 0.007, 0.13])
def test_delays_of_all_sizes(control: float) -> None:
    rng = np.random.default_rng(7)
    times = fit(only([track(control, 0.0, rng)], "encoder")).times
    assert times["control"].value == pytest.approx(control, abs=2e-3)


def test_commands_may_be_positions() -> None:
    tracks = [track(0.064, 0.02, np.random.default_rng(5), kind="position")]
    times = fit(tracks, LatencyConfig(commands="position")).times
    assert times["control"].value == pytest.approx(0.064, abs=2e-3)
    assert times["camera"].value == pytest.approx(0.02, abs=2e-3)


def test_intervals_hold_the_truth() -> None:
    inside, errors = 0, []
    for seed in range(10):
        one = track(0.05, 0.0, np.random.default_rng(100 + seed), encoder_noise=2e-3)
        time = fit(only([one], "encoder")).times["control"]
        inside += time.low <= 0.05 <= time.high
        errors.append((time.value - 0.05) / time.std)
    assert inside >= 8
    assert 0.4 < np.std(errors) < 2.0  # and they are not far too wide


def test_images_alone_give_the_sum_and_say_so(recording: list[Track]) -> None:
    found = fit(only(recording, "camera"), LatencyConfig(lag=LAG))
    assert found.times["total"].value == pytest.approx(0.093, abs=2e-3)
    assert not {"control", "camera"} & found.times.keys()
    assert any("their sum" in remark for remark in found.remarks)


def test_an_encoder_alone_gives_the_control_delay_and_says_so(recording: list[Track]) -> None:
    found = fit(only(recording, "encoder"))
    assert found.times["control"].value == pytest.approx(0.052, abs=2e-3)
    assert any("no position was measured from images" in remark for remark in found.remarks)


def test_stamps_from_the_future_are_noticed(recording: list[Track]) -> None:
    early = [
        Track(Series(t.command.stamps + 0.08, t.command.values), {"encoder": t.measured["encoder"]}) for t in recording
    ]
    found = fit(early)
    assert found.times["control"].value == pytest.approx(-0.028, abs=2e-3)
    assert any("is negative" in remark for remark in found.remarks)


def test_without_excitation_it_is_refused_with_what_to_do(recording: list[Track]) -> None:
    steady = [Track(Series(t.command.stamps, np.full_like(t.command.values, 0.1)), t.measured) for t in recording]
    with pytest.raises(InvalidInput, match=r"hardly change.*--excite"):
        fit(steady)


def test_noise_that_hides_the_motion_is_refused(recording: list[Track]) -> None:
    rng = np.random.default_rng(0)
    hidden = [
        Track(t.command, {"camera": Series(s.stamps, s.values + rng.normal(0, 0.3, s.values.shape))})
        for t in recording
        for s in [t.measured["camera"]]
    ]
    with pytest.raises(InvalidInput, match=r"total delay is not known.*record for longer"):
        fit(hidden)


def test_too_short_and_malformed_recordings_are_refused(recording: list[Track]) -> None:
    with pytest.raises(InvalidInput, match="at least 8"):
        fit(recording, LatencyConfig(segment=20.0))
    with pytest.raises(InvalidInput, match="at least 8"):
        fit([])
    with pytest.raises(UnknownName, match="camera, encoder"):
        Track(recording[0].command, {"radar": recording[0].command})
    with pytest.raises(InvalidInput, match="ascending"):
        Series(np.array([1.0, 0.0]), np.zeros((2, 1)))
    with pytest.raises(UnknownName, match="position, velocity"):
        LatencyConfig(commands="force")
