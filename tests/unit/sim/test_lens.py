"""The renderer's lenses: OpenCV's projection, and exact inverses."""

import cv2
import numpy as np
import pytest

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.sim.arm_view import scene
from worldpilot.sim.board_view import Pattern, poses
from worldpilot.sim.lens import Lens

LENSES = {
    "barrel": Lens((640, 480), 400.0, 402.0, 330.0, 235.0, "plumb_bob", (-0.35, 0.15, -0.001, 0.002, -0.03)),
    "pincushion": Lens((640, 480), 700.0, 690.0, 310.0, 245.0, "plumb_bob", (0.2, -0.1, 0.001, 0.001)),
    "rational": Lens(
        (640, 480), 300.0, 300.0, 320.0, 240.0, "rational_polynomial", (1.2, 0.3, 0.0003, -0.0002, 0.01, 1.6, 0.6, 0.04)
    ),
    "fisheye": Lens((640, 480), 240.0, 241.0, 322.0, 236.0, "equidistant", (0.03, -0.01, 0.004, -0.001)),
}


@pytest.mark.parametrize("name", list(LENSES))
def test_rays_are_the_inverse_of_projection(name: str) -> None:
    lens = LENSES[name]
    pixels = np.stack(np.meshgrid(np.linspace(0, 639, 21), np.linspace(0, 479, 17)), -1)
    rays = lens.rays(pixels)
    seen = np.isfinite(rays).all(-1)
    assert seen.mean() > 0.95
    np.testing.assert_allclose(lens.project(3.0 * rays[seen]), pixels[seen], atol=1e-6)


@pytest.mark.parametrize("name", list(LENSES))
def test_projection_is_opencvs(name: str) -> None:
    lens, rng = LENSES[name], np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-0.5, 0.5, (50, 2)), np.ones(50)])
    project = cv2.fisheye.projectPoints if lens.model == "equidistant" else cv2.projectPoints
    there = project(points.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), lens.matrix, np.array(lens.distortion))[0]
    np.testing.assert_allclose(lens.project(points), there.reshape(-1, 2), atol=1e-9)


def test_a_fisheye_sees_what_lies_beside_it() -> None:
    lens = LENSES["fisheye"]
    assert lens.widest > np.pi / 2
    pixel = lens.project(np.array([1.0, 0.0, -0.05]))
    np.testing.assert_allclose(lens.rays(pixel), np.array([1, 0, -0.05]) / np.hypot(1, 0.05), atol=1e-9)


def test_where_the_image_would_fold_over_nothing_is_seen() -> None:
    lens = Lens((640, 480), 300.0, 300.0, 320.0, 240.0, "plumb_bob", (-0.4, 0.0, 0.0, 0.0, 0.0))
    beyond = np.array([np.tan(lens.widest + 0.05), 0.0, 1.0])
    assert np.isnan(lens.project(beyond)).all()


def test_what_is_no_lens_is_refused() -> None:
    with pytest.raises(UnknownName, match="equidistant"):
        Lens((640, 480), 300.0, 300.0, 320.0, 240.0, "thin")
    with pytest.raises(InvalidInput, match="coefficients"):
        Lens((640, 480), 300.0, 300.0, 320.0, 240.0, "equidistant", (0.1,))


@pytest.mark.parametrize("setup", ["eye-in-hand", "eye-to-hand"])
def test_poses_show_the_pattern_and_the_arm_agrees(setup: str) -> None:
    lens, rng = LENSES["barrel"], np.random.default_rng(0)
    points = np.column_stack(
        [np.stack(np.meshgrid(np.linspace(0, 0.2, 5), np.linspace(0, 0.15, 5)), -1).reshape(-1, 2), np.zeros(25)]
    )
    sheet = Pattern(np.zeros((10, 10), np.uint8), np.eye(3), points)
    for pose, _ in zip(poses(lens, sheet, rng, inside=1.0), range(10), strict=False):
        pixels = lens.project(points @ pose[:3, :3].T + pose[:3, 3])
        assert ((pixels > 0) & (pixels < [639, 479])).all()
    held = scene(setup, lens, sheet, 6, rng, noise=(0.0, 0.0))  # type: ignore[arg-type]
    forward = held.gripper if setup == "eye-in-hand" else np.linalg.inv(held.gripper)
    np.testing.assert_allclose(forward @ held.camera @ held.seen, np.repeat(held.target[None], 6, 0), atol=1e-9)
    np.testing.assert_allclose(held.reported, held.gripper, atol=1e-12)
