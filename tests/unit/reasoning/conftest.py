"""A scene that is written down, with a body that turns and a robot that lifts."""

import pytest

from worldpilot.reasoning.scene import PICTURE_VIEW, Scene, Signal
from worldpilot.types import RewardSpec, RewardTerm

PLUGINS = frozenset({"goal_latent", "goal_pose", "tolerance", "smoothness", "expression"})


@pytest.fixture
def scene() -> Scene:
    return Scene(
        task="push",
        signals=(
            Signal("block_x", "m", 0.02, -0.2, 0.2),
            Signal("block_y", "m", -0.04, -0.1, 0.1),
            Signal("block_yaw", "rad", 0.5),
            Signal("gripper_x", "m", 0.1, -0.2, 0.2),
            Signal("gripper_y", "m", 0.1, -0.2, 0.2),
            Signal("gripper_z", "m", 0.05, 0.0, 0.15),
            Signal("pitch", "rad", 0.1),
            Signal("flow", "1"),
        ),
        plugins=PLUGINS,
        view=PICTURE_VIEW,
        max_speed=0.4,
        reward=RewardSpec((RewardTerm("goal_pose", params={"x": 0, "y": 0}), RewardTerm("smoothness")), "Centre it"),
    )
