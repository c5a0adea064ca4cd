"""Imagining further than the model was made for, on dynamics where the truth is known."""

import numpy as np
import pytest

from worldpilot.errors import InvalidInput
from worldpilot.imagination import compare, imagine
from worldpilot.types import ActionSpec, FloatArray, History, ModelSpec, Rollouts, SignalSpec

K, H, h = 2, 3, 2
ACTION = ActionSpec(("v",), ("m/s",), (-1.0,), (1.0,), (9.0,), control_dt=0.1, block=K)
SIGNALS = tuple(SignalSpec(name, unit, 1.0) for name, unit in (("tip_x", "m"), ("tip_y", "m"), ("arm_yaw", "rad")))


class Momentum:
    """Each latent goes on as it went, plus the sum of the action; refuses more than H steps. Two members differ."""

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec("toy", "toy", 3, h, H, 2, "state", (3,), ACTION, SIGNALS)

    def encode(self, observations: FloatArray) -> FloatArray:
        return observations

    def predict(self, history: History, actions: FloatArray) -> FloatArray:
        assert history.latents.shape == (h, 3)
        assert history.actions.shape == (h - 1, K)
        assert actions.shape[1] <= H
        before, now = history.latents
        steps = []
        for action in actions[0]:
            before, now = now, 2 * now - before + action.sum()
            steps.append(now)
        one = np.stack(steps)[None].astype(np.float32)
        return np.stack([one + 0.5, one - 0.5])

    def signals(self, latents: FloatArray) -> dict[str, FloatArray]:
        return {signal.name: latents[..., i] for i, signal in enumerate(SIGNALS)}

    def rollout(self, history: History, actions: FloatArray, previous_control: FloatArray) -> Rollouts:
        raise NotImplementedError  # imagination asks for latents alone


def truth(controls: FloatArray) -> FloatArray:
    """Latents of shape (n+1, 3) at the control rate that `Momentum` predicts without error, one model step apart."""
    latents = [
        np.array([0.0, 1.0, 3.0]),
        np.array([0.05, 1.1, 3.0]),
        np.array([0.1, 1.2, 3.0]),
        np.array([0.1, 1.2, 3.0]),
    ]
    for t in range(K, len(controls) - K + 1):
        latents.append(2 * latents[t] - latents[t - K] + controls[t : t + K].sum())
    return np.asarray(latents[: len(controls) + 1], np.float32)


@pytest.fixture
def controls() -> FloatArray:
    return np.random.default_rng(0).uniform(-0.1, 0.1, (30, 1)).astype(np.float32)


@pytest.mark.parametrize("steps", [1, H, H + 1, 3 * H + 2])
def test_a_perfect_model_is_right_at_every_horizon(controls: FloatArray, steps: int) -> None:
    latents = truth(controls)
    history = History(latents[[0, K]], ACTION.actions(controls[:K]))
    imagined = imagine(Momentum(), history, ACTION.actions(controls[K : K + steps * K]))
    np.testing.assert_allclose(imagined, latents[2 * K : (steps + 2) * K : K], atol=1e-4)


def test_errors_are_those_of_what_was_read(controls: FloatArray) -> None:
    latents = truth(controls)
    measured = {"tip_x": latents[:, 0] + 3, "tip_y": latents[:, 1] - 4, "arm_yaw": latents[:, 2] + 2 * np.pi + 0.1}
    compared = compare(Momentum(), latents, controls, {**measured, "hidden": latents[:, 0]}, 4, 7, variance=2.0)
    assert compared.frames == tuple(range(4, 19, K))
    assert compared.units == {"tip": "m", "arm_yaw": "rad"}
    np.testing.assert_allclose(compared.errors["tip"], np.full(8, 5.0), atol=1e-3)
    np.testing.assert_allclose(compared.errors["arm_yaw"], np.full(8, 0.1), atol=1e-3)
    np.testing.assert_allclose(compared.nmse, 0, atol=1e-6)
    np.testing.assert_allclose(compared.nmse_copy, ((latents[4] - latents[6:19:K]) ** 2).mean(axis=1) / 2.0, rtol=1e-5)
    np.testing.assert_array_equal(compared.latents[0], latents[4])


@pytest.mark.parametrize(("start", "steps"), [(1, 1), (-1, 1), (K, 15), (29, 1), (K, 0)])
def test_what_an_episode_does_not_hold_is_refused(controls: FloatArray, start: int, steps: int) -> None:
    with pytest.raises(InvalidInput, match="30 controls"):
        compare(Momentum(), truth(controls), controls, {}, start, steps, variance=1.0)
