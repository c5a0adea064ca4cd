from pathlib import Path

import numpy as np
import pytest

from worldpilot.demo.goals import BLOCK_COLOUR, GOAL, SWAP_EXPRESSION, SWAP_POSE, SWAP_REFUSED, TURNED
from worldpilot.errors import UnknownName
from worldpilot.models.artifact import Artifact
from worldpilot.planners.rewards import registry
from worldpilot.planners.rewards.base import RewardContext
from worldpilot.sim import push_t
from worldpilot.types import ModelSpec, Rollouts


@pytest.fixture(scope="module")
def spec(tiny_artifact: Path) -> ModelSpec:
    return Artifact.load(tiny_artifact).spec


def staying_at(poses: list[np.ndarray], spec: ModelSpec) -> Rollouts:
    """Rollouts of two steps in which the block stays at each of these poses and the pusher beside it."""
    x, y, yaw = np.repeat(np.array(poses, np.float32).T[..., None], 2, axis=-1)
    n = len(poses)
    signals = {"block_x": x, "block_y": y, "block_yaw": yaw, "pusher_x": x, "pusher_y": y}
    zeros = np.zeros((n, 2, spec.action.dim), np.float32)
    latents, spread = np.zeros((n, 2, spec.latent_dim), np.float32), np.zeros((n, 2), np.float32)
    return Rollouts(latents, zeros, signals, spread, spec.action, np.zeros(spec.action.control_dim, np.float32))


def test_goal_and_colour_are_the_tasks() -> None:
    np.testing.assert_allclose(GOAL, push_t.GOAL)
    assert push_t.Appearance().block == BLOCK_COLOUR


def test_the_expression_prefers_the_block_turned(spec: ModelSpec) -> None:
    reward = registry.build(registry.parse_spec(SWAP_EXPRESSION), RewardContext(spec, None))
    away = TURNED + [0.05, 0, 0]
    scores = reward.score(staying_at([TURNED, TURNED + [0, 0, 2 * np.pi], GOAL, away], spec))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)  # a whole turn is no turn
    assert scores[0] > max(scores[2:])


def test_the_swaps_are_valid_and_the_wrong_one_is_refused(spec: ModelSpec) -> None:
    context = RewardContext(spec, None)
    registry.build(registry.parse_spec(SWAP_POSE), context)
    with pytest.raises(UnknownName, match="block_z"):
        registry.build(registry.parse_spec(SWAP_REFUSED), context)
