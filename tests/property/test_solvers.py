"""Laws of what solvers share: feasible controls, time-correlated noise, the shift of a plan."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldpilot.planners.solvers.base import noise, project, shift
from worldpilot.types import ActionSpec

bounds = st.tuples(st.floats(-5, -0.1), st.floats(0.1, 5))
seeds = st.integers(0, 999)


def spec(low: float, high: float, rate: float) -> ActionSpec:
    return ActionSpec(("u",), ("m/s",), (low,), (high,), (rate,), control_dt=0.1, block=1)


@given(bounds, st.floats(0.1, 20), st.floats(-5, 5), seeds)
def test_projected_controls_are_feasible(limits: tuple[float, float], rate: float, previous: float, seed: int) -> None:
    low, high = limits
    wanted = np.random.default_rng(seed).normal(0, 5, (4, 9, 1))
    before = np.clip(np.asarray([previous], np.float32), low, high, dtype=np.float32)
    controls = project(wanted, spec(low, high, rate), before)
    assert controls.dtype == np.float32
    assert ((controls >= np.float32(low)) & (controls <= np.float32(high))).all()
    steps = np.diff(np.concatenate([np.broadcast_to(before, (4, 1, 1)), controls], axis=1), axis=1)
    assert (np.abs(steps) <= rate * 0.1 + 1e-5).all()


@given(bounds, st.floats(0.1, 20), seeds)
def test_feasible_controls_stay_as_they_are(limits: tuple[float, float], rate: float, seed: int) -> None:
    wanted = np.random.default_rng(seed).normal(0, 5, (4, 9, 1))
    once = project(wanted, spec(*limits, rate), np.zeros(1, np.float32))
    np.testing.assert_allclose(project(once, spec(*limits, rate), np.zeros(1, np.float32)), once, atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 30), st.floats(0, 3), seeds)
def test_noise_has_unit_variance_at_any_length_and_colour(steps: int, beta: float, seed: int) -> None:
    samples = noise(np.random.default_rng(seed), (1000, steps, 2), beta)
    assert samples.shape == (1000, steps, 2)
    assert samples.std() == pytest.approx(1, abs=0.1)
    assert samples.mean() == pytest.approx(0, abs=0.2)


@given(seeds)
def test_redder_noise_changes_less_from_step_to_step(seed: int) -> None:
    change = [np.diff(noise(np.random.default_rng(seed), (500, 25, 1), beta), axis=1).std() for beta in (0.0, 1.0, 2.0)]
    assert change[0] > change[1] > change[2]


@given(st.integers(1, 12), st.integers(0, 15), st.integers(0, 15))
def test_shifts_add_up(steps: int, a: int, b: int) -> None:
    controls = np.random.default_rng(0).normal(size=(2, steps, 3)).astype(np.float32)
    np.testing.assert_array_equal(shift(shift(controls, a), b), shift(controls, a + b))
    np.testing.assert_array_equal(shift(controls, steps + a), np.repeat(controls[:, -1:], steps, axis=1))
