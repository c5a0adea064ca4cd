"""Rendered images of a target with a known truth: for people without a camera at hand, and for tests."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from worldpilot.calibration.hand_eye import quaternion
from worldpilot.calibration.robot_poses import COLUMNS
from worldpilot.calibration.targets import Target
from worldpilot.sim.arm_view import Setup, scene
from worldpilot.sim.board_view import Light, Pattern, Studio, poses
from worldpilot.sim.lens import Lens

_PIXELS = 2000  # of a pattern's longer side


def pattern(target: Target, margin: float = 0.01) -> Pattern:
    """The target as the renderer takes it, with white around it [m]."""
    image, to_pixels = target.draw((max(target.size) + 2 * margin) / _PIXELS, margin)
    return Pattern(image, to_pixels, target.points)


def write(
    folder: Path, target: Target, lens: Lens, views: int, arm: int, setup: Setup, seed: int, light: Light | None = None
) -> None:
    """Write images/ for the intrinsics, arm/ and poses.csv for the hand-eye calibration, and truth.json."""
    rng, sheet, studio = np.random.default_rng(seed), pattern(target), Studio(lens, light)
    waved = poses(lens, sheet, rng)
    for number in range(views):
        _save(folder / "images" / f"view_{number:03d}.png", studio.picture(sheet, next(waved), rng))
    truth: dict[str, Any] = {
        "model": lens.model,
        "camera": [lens.fx, lens.fy, lens.cx, lens.cy, *lens.distortion],
        "setup": setup,
    }
    if arm:
        held = scene(setup, lens, sheet, arm, rng)
        rows = []
        for number, (seen, reported) in enumerate(zip(held.seen, held.reported, strict=True)):
            _save(folder / "arm" / f"pose_{number:03d}.png", studio.picture(sheet, seen, rng))
            values = [*reported[:3, 3], *quaternion(reported)]
            rows.append([f"pose_{number:03d}.png", *(f"{value:.9f}" for value in values)])
        with (folder / "poses.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        truth |= {"camera_pose": held.camera.tolist(), "target_pose": held.target.tolist()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n")


def _save(path: Path, image: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
