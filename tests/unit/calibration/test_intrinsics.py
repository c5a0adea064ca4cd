"""Camera models: derivatives, inverses, and ROS's files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from worldpilot.calibration.intrinsics import MODELS, Intrinsics, read_camera_info
from worldpilot.errors import InvalidInput, UnknownName

CAMERAS = {
    "plumb_bob": Intrinsics((640, 480), "plumb_bob", (400.0, 402, 330, 235, -0.3, 0.12, -0.001, 0.002, -0.02)),
    "rational_polynomial": Intrinsics(
        (640, 480), "rational_polynomial", (300.0, 301, 320, 240, 1.2, 0.3, 0.0003, -0.0002, 0.01, 1.6, 0.6, 0.04)
    ),
    "equidistant": Intrinsics((640, 480), "equidistant", (240.0, 241, 322, 236, 0.03, -0.01, 0.004, -0.001)),
}
POINTS = np.random.default_rng(0).uniform(-0.2, 0.2, (30, 3)) * [1, 1, 0]
POSE = np.array([0.2, -0.3, 0.1, 0.05, -0.02, 0.4])


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_derivatives_are_the_numerical_ones(camera: Intrinsics) -> None:
    pixels, by_parameters, by_pose = camera.jacobian(POINTS, POSE)
    np.testing.assert_array_equal(pixels, camera.project(POINTS, POSE))
    for k in range(6):
        step = 1e-6 * np.eye(6)[k]
        slope = (camera.project(POINTS, POSE + step) - camera.project(POINTS, POSE - step)) / 2e-6
        np.testing.assert_allclose(by_pose[:, k], slope.ravel(), rtol=1e-4, atol=1e-3)
    for k, value in enumerate(camera.parameters):
        step = 1e-6 * max(abs(value), 0.1) * np.eye(len(camera.parameters))[k]
        more, less = (camera.replaced(np.array(camera.parameters) + s) for s in (step, -step))
        slope = (more.project(POINTS, POSE) - less.project(POINTS, POSE)) / (2 * step[k])
        np.testing.assert_allclose(by_parameters[:, k], slope.ravel(), rtol=1e-4, atol=1e-3)


def test_the_fisheye_is_opencvs_and_sees_beside_itself() -> None:
    camera = CAMERAS["equidistant"]
    there = cv2.fisheye.projectPoints(
        POINTS.reshape(-1, 1, 3), POSE[:3], POSE[3:], camera.matrix, np.array(camera.distortion)
    )[0]
    np.testing.assert_allclose(camera.project(POINTS, POSE), there.reshape(-1, 2), atol=1e-9)
    right, left = camera.project(np.array([[1.0, 0, -0.1], [-1.0, 0, -0.1]]), np.zeros(6))
    assert left[0] < 0 < 640 < right[0]  # OpenCV's own would swap them


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_normalise_is_the_inverse_of_projection(camera: Intrinsics) -> None:
    pixels = np.stack(np.meshgrid(np.linspace(20, 620, 13), np.linspace(20, 460, 9)), -1).reshape(-1, 2)
    straight = camera.normalise(pixels)
    assert np.isfinite(straight).all()
    again = camera.project(np.column_stack([straight, np.ones(len(straight))]), np.zeros(6))
    np.testing.assert_allclose(again, pixels, atol=1e-4)


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_a_camera_info_file_is_read_back(camera: Intrinsics, tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(camera.camera_info("front"))
    assert read_camera_info(path) == camera
    data = yaml.safe_load(path.read_text())
    assert data["camera_name"] == "front"
    assert data["projection_matrix"]["cols"] == 4
    assert data["distortion_coefficients"]["cols"] == len(MODELS[camera.model])


def test_a_file_of_roses_own_calibrator_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ost.yaml"
    path.write_text(
        """image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [438.78, 0., 305.59, 0., 437.05, 243.73, 0., 0., 1.]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.36, 0.111, 0.0012, -0.0005, 0.0]
rectification_matrix: {rows: 3, cols: 3, data: [1., 0., 0., 0., 1., 0., 0., 0., 1.]}
projection_matrix: {rows: 3, cols: 4, data: [1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 1., 0.]}
"""
    )
    camera = read_camera_info(path)
    assert camera.parameters == (438.78, 437.05, 305.59, 243.73, -0.36, 0.111, 0.0012, -0.0005, 0.0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("plumb_bob", "thin_prism", "known: plumb_bob"),
        ("image_width: 640\n", "", "no camera_info file"),
        ("[400.0, 0.0,", "[400.0, 0.5,", "skew"),
        ("[400.0, 0.0,", "[-400.0, 0.0,", "above 0"),
        ("[400.0, 0.0,", "[.nan, 0.0,", "finite"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, old: str, new: str, words: str) -> None:
    path, text = tmp_path / "camera.yaml", CAMERAS["plumb_bob"].camera_info()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InvalidInput, match=words):
        read_camera_info(path)


def test_a_model_that_is_none_is_refused() -> None:
    with pytest.raises(UnknownName, match="equidistant"):
        Intrinsics((640, 480), "pinhole", (400.0, 400, 320, 240))
    with pytest.raises(InvalidInput, match="9 finite parameters"):
        Intrinsics((640, 480), "plumb_bob", (400.0, 400, 320, 240))
