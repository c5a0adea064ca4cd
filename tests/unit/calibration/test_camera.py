"""Intrinsics: the truth within its standard deviations, OpenCV's optimum, and what is dropped or refused."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from worldpilot.calibration import bundle
from worldpilot.calibration.camera import calibrate, locate, projection_std
from worldpilot.calibration.intrinsics import MODELS, Intrinsics
from worldpilot.calibration.targets import AprilGrid, Charuco, Target
from worldpilot.calibration.views import View, sight
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.sim.lens import Lens

BOARD = Charuco()
RATIONAL = Lens(
    (960, 600), 450.0, 450.0, 480.0, 300.0, "rational_polynomial", (1.2, 0.3, 0.0003, -0.0002, 0.01, 1.6, 0.6, 0.04)
)
FISHEYE = Lens((960, 600), 380.0, 381.0, 485.0, 296.0, "equidistant", (0.03, -0.01, 0.004, -0.001))

MakeViews = Callable[..., list[View]]


def truth(lens: Lens) -> np.ndarray:
    return np.array([lens.fx, lens.fy, lens.cx, lens.cy, *lens.distortion])


def changed(view: View, corners: np.ndarray) -> View:
    return replace(view, detection=replace(view.detection, corners=corners))


@pytest.mark.parametrize("grid", [False, True])
def test_the_truth_lies_within_its_standard_deviations(make_views: MakeViews, lens: Lens, grid: bool) -> None:
    target: Target = AprilGrid(5, 4, 0.03) if grid else BOARD
    in_std = []
    for seed in range(4):
        result = calibrate(make_views(target, lens, 16, seed=seed), target, "plumb_bob")
        in_std.append((np.array(result.intrinsics.parameters) - truth(lens)) / result.std)
        assert result.rms == pytest.approx(0.03 * np.sqrt(2), rel=0.1)
        assert result.rms < result.held_out_rms < 1.15 * result.rms
        assert not result.dropped
    spread = np.sqrt(np.mean(np.square(in_std)))
    assert 0.6 < spread < 1.5  # 1 if the covariance is right


def test_the_solution_is_opencvs(make_views: MakeViews, lens: Lens) -> None:
    views = make_views(BOARD, lens, 12)
    sights = [sight(view, BOARD) for view in views]
    solved = bundle.solve(*bundle.start("plumb_bob", lens.size, sights), sights, robust=False)
    points, corners = ([np.float32(part[i]) for part in sights] for i in (0, 1))
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 200, 1e-14)
    found = cv2.calibrateCameraExtended(points, corners, lens.size, None, None, criteria=criteria)  # type: ignore[call-overload]
    matrix, distortion, std = found[1], found[2].ravel(), found[5].ravel()
    theirs = np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], *distortion])
    assert np.abs((np.array(solved.intrinsics.parameters) - theirs) / std[:9]).max() < 0.05
    ratios = np.sqrt(np.diag(solved.covariance)) / std[:9]  # theirs take all errors for equal and independent, as here
    assert 0.5 < ratios.min() <= ratios.max() < 1.8
    assert np.exp(np.log(ratios).mean()) == pytest.approx(1, abs=0.3)


def test_standard_deviations_hold_where_the_corners_of_a_view_err_alike(make_views: MakeViews) -> None:
    in_std = []
    for seed in range(4):
        rng, bent = np.random.default_rng(seed), []
        for view in make_views(BOARD, FISHEYE, 16, seed=seed):
            x, y = ((view.detection.corners - [480, 300]) / 300).T
            common = np.stack([x * x, x * y, y * y, x**3, y**3], 1) @ rng.normal(0, 0.04, (5, 2))
            bent.append(changed(view, view.detection.corners + common))
        result = calibrate(bent, BOARD, "equidistant")
        in_std.append((np.array(result.intrinsics.parameters) - truth(FISHEYE)) / result.std)
    assert 0.6 < np.sqrt(np.mean(np.square(in_std))) < 1.5  # above 2 if corners are taken as independent


@pytest.mark.parametrize("lens", [RATIONAL, FISHEYE], ids=["rational", "fisheye"])
def test_the_model_that_tells_best_is_taken(make_views: MakeViews, lens: Lens) -> None:
    result = calibrate(make_views(BOARD, lens, 16), BOARD)
    assert result.intrinsics.model == lens.model
    assert result.held_out_rms < 0.06
    pixels = np.stack(np.meshgrid(np.linspace(150, 800, 9), np.linspace(100, 500, 7)), -1).reshape(-1, 2)
    rays = lens.rays(pixels)
    np.testing.assert_allclose(result.intrinsics.normalise(pixels), rays[:, :2] / rays[:, 2:], rtol=1e-3, atol=3e-4)


def test_a_simple_lens_gets_the_simple_model(make_views: MakeViews, lens: Lens) -> None:
    result = calibrate(make_views(BOARD, lens, 16), BOARD)
    assert result.intrinsics.model == "plumb_bob"
    assert set(result.held_out_by_model) <= set(MODELS)


def test_bad_views_are_named_and_dropped(make_views: MakeViews, lens: Lens) -> None:
    views, rng = make_views(BOARD, lens, 20), np.random.default_rng(0)
    good = calibrate(views, BOARD, "plumb_bob")
    bent = views[3].detection.corners + 1.5 * np.sin(views[3].detection.corners / 90)
    wild = views[7].detection.corners.copy()
    wild[::3] += rng.uniform(5, 20, wild[::3].shape)
    stray = views[11].detection.corners.copy()
    stray[4] += [6, -3]
    views[3], views[7], views[11] = changed(views[3], bent), changed(views[7], wild), changed(views[11], stray)
    views[12] = replace(views[12], blur=4.0)
    views[13] = replace(views[14], name=views[13].name)
    result = calibrate(views, BOARD, "plumb_bob")
    assert set(result.dropped) == {f"view_{i:02d}.png" for i in (3, 7, 12, 14)}
    assert "reprojection error" in result.dropped["view_03.png"]
    assert "blurred: edges are 4.0 px" in result.dropped["view_12.png"]
    assert result.dropped["view_14.png"] == "shows the same as view_13.png"
    assert result.removed == {"view_11.png": 1}
    assert (
        np.abs(np.array(result.intrinsics.parameters) - good.intrinsics.parameters)[:4].max() < 4 * good.std[:4].max()
    )


def test_too_few_views_are_refused_with_the_reasons(make_views: MakeViews, lens: Lens) -> None:
    views = make_views(BOARD, lens, 4)
    with pytest.raises(InvalidInput, match=r"4 of 4 images are of use.*6 are needed"):
        calibrate(views, BOARD)
    copies = [replace(views[0], name=f"{i}.png") for i in range(10)]
    with pytest.raises(InvalidInput, match=r"1 of 10 images are of use \(1.png: shows the same as 0.png"):
        calibrate(copies, BOARD)


def test_views_without_tilt_leave_the_focal_length_open(make_views: MakeViews, lens: Lens) -> None:
    long = replace(lens, fx=4000.0, fy=4000.0, distortion=(0.0,) * 5)
    with pytest.raises(InvalidInput, match=r"focal length open.*tilted"):
        calibrate(make_views(BOARD, long, 8, tilt=1.0, noise=0.3), BOARD, "plumb_bob")


def test_a_wrong_size_of_the_board_changes_distances_not_intrinsics(make_views: MakeViews, lens: Lens) -> None:
    views = make_views(BOARD, lens, 10)
    double = Charuco(square=0.056, marker=0.042)
    ours, theirs = calibrate(views, BOARD, "plumb_bob"), calibrate(views, double, "plumb_bob")
    np.testing.assert_allclose(ours.intrinsics.parameters, theirs.intrinsics.parameters, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(2 * ours.poses[:, 3:], theirs.poses[:, 3:], rtol=1e-3, atol=1e-4)


def test_an_unknown_model_lists_the_known() -> None:
    with pytest.raises(UnknownName, match="auto, equidistant, plumb_bob"):
        calibrate([], BOARD, "pinhole")


def test_poses_are_located_with_honest_covariances(make_views: MakeViews, lens: Lens) -> None:
    camera = Intrinsics(lens.size, lens.model, tuple(truth(lens)))
    in_std, rng = [], np.random.default_rng(0)
    for clean in make_views(BOARD, lens, 20, noise=0.0):
        drawn = clean.detection.corners + rng.normal(0, 0.05, clean.detection.corners.shape)
        true, found = locate(clean, BOARD, camera), locate(changed(clean, drawn), BOARD, camera)
        assert true
        assert found
        in_std.append((found[0] - true[0]) / np.sqrt(np.diag(found[2])))
    assert 0.7 < np.sqrt(np.mean(np.square(in_std))) < 1.4


def test_uncertainty_grows_towards_the_corners(make_views: MakeViews, lens: Lens) -> None:
    result = calibrate(make_views(BOARD, lens, 12), BOARD, "plumb_bob")
    pixels = np.stack(np.meshgrid(np.linspace(0, 959, 21), np.linspace(0, 599, 21)), -1)
    spread = projection_std(result.intrinsics, result.covariance, pixels.reshape(-1, 2)).reshape(21, 21)
    corners = spread[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert 0 < spread[10, 10] < 0.1
    assert corners.min() > 2 * spread[10, 10]
