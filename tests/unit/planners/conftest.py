"""An analytic world: a point that moves at the velocity it is told to, so that optimal plans are known."""

import numpy as np
import numpy.typing as npt
import pytest

from worldpilot.types import ActionSpec, FloatArray, History, ModelSpec, Rollouts, SignalSpec

ACTION = ActionSpec(("vx", "vy"), ("m/s", "m/s"), (-0.25, -0.25), (0.25, 0.25), (2.0, 2.0), control_dt=0.1, block=5)
SIGNALS = (
    SignalSpec("block_x", "m", 1.0),
    SignalSpec("block_y", "m", 1.0),
    SignalSpec("block_yaw", "rad", 1.0),
)
SPEC = ModelSpec("point", "point-0", 2, 2, 4, 1, "state", (2,), ACTION, SIGNALS)


class PointModel:
    """The latent is the position [m]; a control is its velocity [m/s]. Implements `contracts.WorldModel` exactly."""

    spec = SPEC

    def encode(self, observations: npt.NDArray[np.float32]) -> FloatArray:
        return np.asarray(observations, np.float32)

    def predict(self, history: History, actions: FloatArray) -> FloatArray:
        velocity = ACTION.controls(actions).reshape(*actions.shape[:2], ACTION.block, 2)
        moved = velocity.sum(axis=2).cumsum(axis=1) * ACTION.control_dt
        return np.asarray(history.latents[-1] + moved, np.float32)[None]

    def signals(self, latents: FloatArray) -> dict[str, FloatArray]:
        x, y = latents[..., 0], latents[..., 1]
        return {"block_x": x, "block_y": y, "block_yaw": np.zeros_like(x)}

    def rollout(self, history: History, actions: FloatArray, previous_control: FloatArray) -> Rollouts:
        latents = self.predict(history, actions)[0]
        disagreement = np.zeros(latents.shape[:2], np.float32)
        return Rollouts(latents, actions, self.signals(latents), disagreement, ACTION, previous_control)


@pytest.fixture
def point() -> PointModel:
    return PointModel()


@pytest.fixture
def origin() -> History:
    """At rest in the origin."""
    return History(np.zeros((2, 2), np.float32), np.zeros((1, ACTION.dim), np.float32))


@pytest.fixture
def rollouts(point: PointModel, origin: History) -> Rollouts:
    """Sixteen random plans from the origin, previous control zero."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-0.25, 0.25, (16, 4, ACTION.dim)).astype(np.float32)
    return point.rollout(origin, actions, np.zeros(2, np.float32))
