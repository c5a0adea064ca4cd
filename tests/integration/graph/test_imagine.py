"""The world model's `imagine` service with the shipped model: within a plan's horizon, at it and beyond it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from worldpilot_msgs.srv import Imagine
from worldpilot_nodes import convert

from worldpilot.models.artifact import Artifact, zoo_path

STEP = 0.5  # [s], a model step


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return Artifact.load(zoo_path("push_t"))


@pytest.fixture(scope="module")
def running(start: Callable[..., Any], artifact: Artifact) -> Any:
    """Camera and world model alone: nothing moves, so that one answer can be compared with another."""
    run = start(artifact=artifact.path, without=["recorder", "mpc", "action_prior", "uncertainty_monitor"])
    run.probe.listen("latent", "image", "ground_truth")
    run.supervisor.wait_for("active", timeout=60)
    seen = run.probe.wait_for("latent", lambda _: True, timeout=10)
    run.probe.wait_for("latent", lambda _: True, timeout=10, begin=seen.at + STEP)  # a history that stands still
    return run


def imagine(running: Any, horizon: int, actions: Any = ()) -> Any:
    flat = np.asarray(actions, np.float32).ravel().tolist()
    response = running.probe.call(Imagine, "world_model/imagine", horizon=horizon, actions=flat)
    assert response.success, response.message
    return response


def signals(message: Any) -> dict[str, float]:
    return {signal.name: signal.value for signal in message.signals}


def latents(response: Any) -> np.ndarray:
    return np.array([latent.z for latent in response.latents])


@pytest.mark.parametrize("horizon", [1, 5, 13])
def test_frames_and_latents_come_at_every_horizon(running: Any, artifact: Artifact, horizon: int) -> None:
    response = imagine(running, horizon)
    assert latents(response).shape == (horizon, artifact.spec.latent_dim)
    frames = np.stack([convert.image(frame) for frame in response.frames])
    assert frames.shape == (horizon, *artifact.spec.observation_shape)
    np.testing.assert_array_equal(frames, artifact.decode(latents(response).astype(np.float32)))
    stamps = [convert.seconds(frame.header.stamp) for frame in response.frames]
    np.testing.assert_allclose(np.diff(stamps), STEP, atol=1e-6)
    assert stamps == [convert.seconds(latent.header.stamp) for latent in response.latents]


def test_the_near_future_is_the_same_however_far_one_asks(running: Any, artifact: Artifact) -> None:
    actions = np.random.default_rng(0).uniform(-0.2, 0.2, (12, artifact.spec.action.dim))
    far, near = imagine(running, 12, actions), imagine(running, 3, actions[:3])
    np.testing.assert_allclose(latents(far)[:3], latents(near), atol=1e-4)


def test_at_rest_it_imagines_what_is(running: Any) -> None:
    response = imagine(running, 1)
    read, true = signals(response.latents[0]), signals(running.probe.newest("ground_truth"))
    for name in ("block_x", "block_y", "pusher_x", "pusher_y"):
        assert read[name] == pytest.approx(true[name], abs=0.04)


def test_what_is_imagined_follows_the_actions(running: Any) -> None:
    """Towards the middle of the table, so that its edge is not in the way."""
    speed = -0.15 * np.sign(signals(running.probe.newest("ground_truth"))["pusher_x"])
    moved, still = imagine(running, 2, np.tile([speed, 0.0], (2, 5))), imagine(running, 2)
    way = signals(moved.latents[-1])["pusher_x"] - signals(still.latents[-1])["pusher_x"]
    assert way / speed > 0.5  # [s]: at least half of the way in 1 s
    assert np.abs(convert.image(moved.frames[-1]).astype(int) - convert.image(still.frames[-1])).max() > 10


def test_what_cannot_be_imagined_is_refused(running: Any) -> None:
    for fields, says in (({"horizon": 0}, "between 1 and"), ({"horizon": 2, "actions": [0.0] * 7}, "2 x 10")):
        response = running.probe.call(Imagine, "world_model/imagine", **fields)
        assert not response.success
        assert says in response.message
