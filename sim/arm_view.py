"""A robot arm with a camera on its gripper, or beside it, and a target: what a hand-eye calibration is made from."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from worldpilot.sim.board_view import Floats, Pattern, poses, reads_upright, rotation
from worldpilot.sim.lens import Lens

Setup = Literal["eye-in-hand", "eye-to-hand"]


@dataclass(frozen=True)
class ArmScene:
    """Where everything is.

    Args:
        setup: "eye-in-hand" or "eye-to-hand".
        camera: (4, 4), its pose on the gripper, or in the base's frame.
        target: (4, 4), its pose in the base's frame, or on the gripper.
        seen: (n, 4, 4), the target in the camera's frame.
        gripper: (n, 4, 4), in the base's frame, as it is.
        reported: (n, 4, 4), as the robot says.
    """

    setup: Setup
    camera: Floats
    target: Floats
    seen: Floats
    gripper: Floats
    reported: Floats


def scene(
    setup: Setup,
    lens: Lens,
    pattern: Pattern,
    n: int,
    rng: np.random.Generator,
    *,
    noise: tuple[float, float] = (1e-4, float(np.deg2rad(0.02))),
) -> ArmScene:
    """An arm that shows the target to the camera n times, from all around.

    Args:
        noise: standard deviation of a reported place's coordinate [m] and of a rotation vector's [rad].
    """
    ahead = _pose(rng.normal(0, 0.2, 3), rng.uniform([0.03, -0.03, 0.02], [0.08, 0.03, 0.08]))  # seen from the flange
    up = [np.pi if reads_upright(pattern) else 0.0, 0.0, 0.0]  # a pattern's z may point into the sheet
    table = _pose(up, rng.uniform([0.4, -0.2, 0.0], [0.6, 0.2, 0.2])) @ _pose(rng.normal(0, 0.1, 3), np.zeros(3))
    beside = rng.uniform([0.4, -1.2, 0.3], [0.8, -0.8, 0.6])
    tripod = _pose([-np.pi / 2, 0, 0], beside) @ _pose(rng.normal(0, 0.2, 3), np.zeros(3))  # looks along the base's y
    held = _pose(rng.normal(0, 0.2, 3), rng.uniform([-0.15, -0.15, 0.02], [0.0, 0.0, 0.06]))
    camera, target = (ahead, table) if setup == "eye-in-hand" else (tripod, held)
    waved = poses(lens, pattern, rng, tilt=45, turns=(0, 40, -40, 80, -80))
    seen = np.array([next(waved) for _ in range(n)])
    if setup == "eye-in-hand":
        gripper = target @ np.linalg.inv(seen) @ np.linalg.inv(camera)
    else:
        gripper = camera @ seen @ np.linalg.inv(target)
    reported = gripper.copy()
    for pose in reported:
        pose[:3, 3] += rng.normal(0, noise[0], 3)
        pose[:3, :3] = rotation(rng.normal(0, noise[1], 3)) @ pose[:3, :3]
    return ArmScene(setup, camera, target, seen, gripper, reported)


def _pose(turn: object, place: Floats) -> Floats:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation(np.asarray(turn, np.float64)), place
    return pose
