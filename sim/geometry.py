"""The T and its poses: outline, keypoints, overlap. Frames: x right, y up, yaw counter-clockwise [rad], lengths [m]."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from worldpilot.types import Symmetry

Pose = npt.NDArray[np.float64]  # (3,): x [m], y [m], yaw [rad]

UNIT = 0.04  # [m], the T is 4 units wide and 4 tall
# Two boxes in the block's frame, whose origin is the T's centre of area: centre x, centre y, half width, half height.
_CENTROID_Y = (4 * 3.5 + 3 * 1.5) / 7 * UNIT  # areas 4 and 3 units, centres 3.5 and 1.5 units above the stem's foot
BOXES = ((0.0, 3.5 * UNIT - _CENTROID_Y, 2 * UNIT, 0.5 * UNIT), (0.0, 1.5 * UNIT - _CENTROID_Y, 0.5 * UNIT, 1.5 * UNIT))
KEYPOINTS = np.array(
    [
        [-2 * UNIT, 4 * UNIT - _CENTROID_Y],
        [2 * UNIT, 4 * UNIT - _CENTROID_Y],
        [-2 * UNIT, 3 * UNIT - _CENTROID_Y],
        [2 * UNIT, 3 * UNIT - _CENTROID_Y],
        [-0.5 * UNIT, -_CENTROID_Y],
        [0.5 * UNIT, -_CENTROID_Y],
    ]
)
_STEP = UNIT / 16
_GRID = np.concatenate(
    [
        np.stack(
            np.meshgrid(np.arange(cx - hx + _STEP / 2, cx + hx, _STEP), np.arange(cy - hy + _STEP / 2, cy + hy, _STEP)),
            -1,
        ).reshape(-1, 2)
        for cx, cy, hx, hy in BOXES
    ]
)


def wrap(angle: float | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Angle(s) to (-pi, pi]."""
    return np.pi - (np.pi - np.asarray(angle)) % (2 * np.pi)


def to_world(points: npt.NDArray[np.float64], pose: Pose) -> npt.NDArray[np.float64]:
    """Points of shape (..., 2) from the block's frame into the world's."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    return points @ np.array([[c, s], [-s, c]]) + pose[:2]


def to_block(points: npt.NDArray[np.float64], pose: Pose) -> npt.NDArray[np.float64]:
    """Points of shape (..., 2) from the world's frame into the block's."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    return (points - pose[:2]) @ np.array([[c, -s], [s, c]])


def overlap(pose: Pose, goal: Pose) -> float:
    """Share of the goal's T that the block covers, in [0, 1]: the coverage of the Push-T benchmark."""
    local = to_block(to_world(_GRID, goal), pose)
    inside = np.zeros(len(local), bool)
    for cx, cy, hx, hy in BOXES:
        inside |= (np.abs(local[:, 0] - cx) <= hx) & (np.abs(local[:, 1] - cy) <= hy)
    return float(inside.mean())


def keypoint_distance(pose: Pose, goal: Pose) -> float:
    """Root mean square distance between the corresponding corners of two T's [m]."""
    return float(np.sqrt(np.mean(np.sum((to_world(KEYPOINTS, pose) - to_world(KEYPOINTS, goal)) ** 2, -1))))


def square_symmetries(points: Sequence[tuple[str, str]], yaws: Sequence[str]) -> tuple[Symmetry, ...]:
    """The turns and mirrorings of a square table, seen from above, with planar controls; the first changes nothing.

    Args:
        points: signals of positions, (x, y).
        yaws: signals of the angles of objects that are their own mirror images in their y axes.
    """
    found = []
    for mirrored in (False, True):
        for turns in range(4):
            c, s = round(np.cos(turns * np.pi / 2)), round(np.sin(turns * np.pi / 2))
            flip = -1 if mirrored else 1
            signals: dict[str, dict[str, float]] = {}
            for x, y in points:
                signals |= {x: {x: flip * c, y: -flip * s}, y: {x: s, y: c}}
            for yaw in yaws:
                sin, cos = f"{yaw}_sin", f"{yaw}_cos"
                signals |= {sin: {sin: flip * c, cos: flip * s}, cos: {sin: -s, cos: c}}
            found.append(Symmetry(turns, mirrored, ((flip * c, -flip * s), (s, c)), signals))
    return tuple(found)
