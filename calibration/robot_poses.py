"""Poses that a robot reported for images: read from CSV or YAML, joined with what the images show."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from worldpilot.calibration.camera import locate
from worldpilot.calibration.intrinsics import Floats, Intrinsics
from worldpilot.calibration.targets import Target
from worldpilot.calibration.views import View
from worldpilot.errors import InvalidInput

COLUMNS = ("name", "x", "y", "z", "qx", "qy", "qz", "qw")
_UNIT = 0.01  # by which a quaternion's length may miss 1
_FARTHEST = 20.0  # [m], of a gripper from its base
_MISFIT = 2.0  # [px], root mean square residual of a view under given intrinsics


@dataclass(frozen=True)
class Pairs:
    """Images of which the robot's pose is known and the target's was found.

    Args:
        names: of the images.
        gripper: (n, 4, 4), in the base's frame.
        seen: (n, 4, 4), the target in the camera's frame.
        covariance: (n, 6, 6), of `seen` as rotation vector [rad] and place [m].
        residuals: an image each, (n, 2) [px].
        dropped: images that were left out, and why.
    """

    names: tuple[str, ...]
    gripper: Floats
    seen: Floats
    covariance: Floats
    residuals: tuple[Floats, ...]
    dropped: dict[str, str]


def read_poses(path: Path) -> dict[str, Floats]:
    """Poses (4, 4) of the gripper in the base's frame, by the name of the image.

    A CSV file has the columns name, x, y, z [m], qx, qy, qz, qw; a YAML file is a list of mappings with these keys.

    Raises:
        InvalidInput: it can't be read, lacks a column, or has a value that is no pose.
    """
    try:
        text = path.read_text()
        rows: Any = (
            yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else list(csv.DictReader(io.StringIO(text)))
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError, csv.Error) as error:
        raise InvalidInput(f"poses: {path} cannot be read: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise InvalidInput(f"poses: {path} holds none; a row or a mapping each, with {', '.join(COLUMNS)}")
    poses: dict[str, Floats] = {}
    for number, row in enumerate(rows, 1):
        name, pose = _row(row, f"{path}, pose {number}")
        if name in poses:
            raise InvalidInput(f"poses: {path} names {name!r} twice")
        poses[name] = pose
    return poses


def pair(poses: Mapping[str, Floats], views: Sequence[View], target: Target, camera: Intrinsics) -> Pairs:
    """Join poses and views by name; a pose may name an image without its ending.

    Raises:
        InvalidInput: the images are of another size than the intrinsics, or no name is in both.
    """
    if views and views[0].size != camera.size:
        (w, h), (cw, ch) = views[0].size, camera.size
        raise InvalidInput(f"hand-eye: images are {w} x {h}, the intrinsics are for {cw} x {ch}; calibrate this mode")
    by_name = {view.name: view for view in views}
    short = {Path(view.name).stem: view for view in views}
    names, gripper, seen, covariances, residuals, dropped = [], [], [], [], [], dict[str, str]()
    for name, pose in poses.items():
        view = by_name.get(name) or short.get(name)
        if view is None:
            dropped[name] = "there is no such image"
            continue
        found = locate(view, target, camera)
        if found is None:
            dropped[name] = "the target is not seen"
            continue
        rms = float(np.sqrt((found[1] ** 2).sum(1).mean()))
        if rms > _MISFIT:
            dropped[name] = f"reprojection error {rms:.1f} px: moved or misdetected, or these are not the intrinsics"
            continue
        there = np.eye(4)
        there[:3, :3], there[:3, 3] = cv2.Rodrigues(found[0][:3])[0], found[0][3:]
        names.append(name)
        gripper.append(pose)
        seen.append(there)
        covariances.append(found[2])
        residuals.append(found[1])
    if not names:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(dropped.items())[:3])
        raise InvalidInput(f"hand-eye: no pose has an image that is of use ({reasons})")
    unnamed = {view.name: "it has no pose" for view in views if not {view.name, Path(view.name).stem} & set(poses)}
    return Pairs(
        tuple(names),
        np.array(gripper),
        np.array(seen),
        np.array(covariances),
        tuple(residuals),
        dropped | unnamed,
    )


def _row(row: Any, where: str) -> tuple[str, Floats]:
    given = row if isinstance(row, Mapping) else {}
    if missing := [key for key in COLUMNS if given.get(key) is None]:
        raise InvalidInput(f"poses: {where} lacks {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    try:
        values = np.array([float(given[key]) for key in COLUMNS[1:]])
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"poses: {where}: {error}; metres, and a quaternion x, y, z, w") from error
    if not np.isfinite(values).all():
        raise InvalidInput(f"poses: {where} is not finite")
    if abs(np.linalg.norm(values[3:]) - 1) > _UNIT:
        raise InvalidInput(f"poses: {where}: a quaternion has length 1, this one {np.linalg.norm(values[3:]):.3f}")
    if np.linalg.norm(values[:3]) > _FARTHEST:
        raise InvalidInput(f"poses: {where} is {np.linalg.norm(values[:3]):.0f} m from the base; lengths are metres")
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_quat(values[3:]).as_matrix(), values[:3]
    return str(given["name"]).strip(), pose
