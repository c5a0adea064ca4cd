"""The world as a model: it predicts exactly what then happens, and leaves no trace."""

import numpy as np
import pytest

from worldpilot.contracts import WorldModel
from worldpilot.evaluation.simulated import SimulatedModel
from worldpilot.models.artifact import Artifact
from worldpilot.sim.quadruped import Quadruped
from worldpilot.types import History


@pytest.mark.parametrize("fault", ["", "delay", "weak_joint"])
def test_it_predicts_what_then_happens(quadruped: Quadruped, legged: Artifact, fault: str) -> None:
    quadruped.reset(seed=5)
    if fault:
        quadruped.inject(fault)
    rng, spec = np.random.default_rng(0), legged.spec
    for control in rng.uniform(-0.2, 0.2, (5, 12)):
        quadruped.drive(control)
    model = SimulatedModel(quadruped, legged.world_model)
    assert isinstance(model, WorldModel)
    before = quadruped.observe()
    history = History(np.zeros((4, spec.latent_dim), np.float32), np.zeros((3, spec.action.dim), np.float32))
    actions = rng.uniform(-0.3, 0.3, (3, 4, spec.action.dim)).astype(np.float32)
    rollouts = model.rollout(history, actions, np.zeros(12, np.float32))
    np.testing.assert_array_equal(quadruped.observe().data, before.data)
    assert quadruped.observe().stamp == before.stamp
    assert rollouts.latents.shape == (3, 4, spec.latent_dim)
    np.testing.assert_array_equal(model.predict(history, actions)[0], rollouts.latents)
    for step, action in enumerate(actions[1]):
        for control in action.reshape(spec.action.block, 12):
            quadruped.drive(control)
        np.testing.assert_array_equal(rollouts.latents[1, step], quadruped.observe().data)
        assert rollouts.signals["height"][1, step] == np.float32(quadruped.signals()["height"])


def test_a_fall_lasts(quadruped: Quadruped, legged: Artifact) -> None:
    model, spec = SimulatedModel(quadruped, legged.world_model), legged.spec
    history = History(np.zeros((4, spec.latent_dim), np.float32), np.zeros((3, spec.action.dim), np.float32))
    folded = np.tile(np.array([0.0, 0.9, -0.8], np.float32), 4 * spec.action.block)  # thighs back, knees bent
    actions = np.stack([np.zeros((16, spec.action.dim), np.float32), np.tile(folded, (16, 1))])
    falls = model.rollout(history, actions, np.zeros(12, np.float32)).signals["fall_probability"]
    assert (falls[0] == 0).all()
    assert (np.diff(falls[1]) >= 0).all()
    assert falls[1, -1] == 1
    assert not quadruped.ended
