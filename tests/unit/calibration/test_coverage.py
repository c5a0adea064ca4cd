"""Guidance: what views have, what they lack, and what is said to whoever holds the target."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from worldpilot.calibration.coverage import NEEDED, Guide, attitude, coverage
from worldpilot.calibration.intrinsics import Intrinsics
from worldpilot.calibration.markers import Detection
from worldpilot.calibration.targets import AprilGrid, Charuco, Target
from worldpilot.calibration.views import View
from worldpilot.sim.lens import Lens

CAMERA = Intrinsics((960, 600), "plumb_bob", (700.0, 700, 480, 300, 0, 0, 0, 0, 0))


def held(target: Target, turn: tuple[float, float, float], place: tuple[float, float, float], name: str = "v") -> View:
    """A view of a target, its centre at `place` [m], upright for the viewer and then turned [rad]."""
    vector = pose_of(target, turn, place)
    pixels = CAMERA.project(target.points, vector)
    inside = ((pixels > 0) & (pixels < [959, 599])).all(1)
    return View(name, CAMERA.size, Detection(np.flatnonzero(inside), pixels[inside]), 0.8)


def pose_of(target: Target, turn: tuple[float, float, float], place: tuple[float, float, float]) -> np.ndarray:
    upright = np.eye(3) if isinstance(target, Charuco) else np.diag([1.0, -1, -1])
    matrix = np.asarray(cv2.Rodrigues(np.array(turn, np.float64))[0]) @ upright
    return np.r_[np.asarray(cv2.Rodrigues(matrix)[0]).ravel(), np.array(place) - matrix @ target.points.mean(0)]


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize(
    ("turn", "side"),
    [((0, 0.6, 0), "right"), ((0, -0.6, 0), "left"), ((0.6, 0, 0), "top"), ((-0.6, 0, 0), "bottom")],
)
def test_the_nearer_edge_is_named(grid: bool, turn: tuple[float, float, float], side: str) -> None:
    target: Target = AprilGrid(5, 4, 0.03) if grid else Charuco()
    pose = pose_of(target, turn, (0, 0, 0.5))
    tilt, named, turned = attitude(pose, target)
    assert (named, turned) == (side, False)
    assert tilt == pytest.approx(np.degrees(0.6), abs=0.1)
    matrix = np.asarray(cv2.Rodrigues(pose[:3])[0])
    seen = target.points @ matrix.T + pose[3:]  # z is the distance, x to the right, y down
    pick = {
        "left": seen[:, 0].argmin(),
        "right": seen[:, 0].argmax(),
        "top": seen[:, 1].argmin(),
        "bottom": seen[:, 1].argmax(),
    }
    assert seen[pick[side], 2] < seen[:, 2].mean()


def test_a_quarter_turn_is_seen() -> None:
    assert attitude(pose_of(Charuco(), (0, 0, 1.5), (0, 0, 0.5)), Charuco())[2]


def test_nothing_at_all_asks_for_everything() -> None:
    empty = coverage([], Charuco())
    assert empty.share == 0
    assert set(empty.missing) == set(NEEDED)


def test_frontal_views_in_the_middle_lack_the_rest() -> None:
    views = [held(Charuco(), (0, 0, 0.01 * i), (0.002 * i, 0, 0.6), f"{i}") for i in range(16)]
    covered = coverage(views, Charuco(), CAMERA)
    assert covered.counts["views"] == 16
    assert {f"tilt {side}" for side in ("left", "right", "top", "bottom")} <= set(covered.missing)
    assert "region top left" in covered.missing
    assert "region middle centre left" not in covered.missing
    assert any("left edge comes nearer" in text for text in covered.advice)
    assert "hold the target at the top left of the image" in covered.advice


def test_distances_are_told_apart() -> None:
    for z, kind in ((0.25, "near"), (0.4, "middle"), (1.0, "far")):
        counts = coverage([held(Charuco(), (0, 0, 0), (0, 0, z))], Charuco(), CAMERA).counts
        assert {name for name in counts if name.startswith("distance") and counts[name]} == {f"distance {kind}"}


def test_many_random_views_cover_all_without_knowing_the_camera(
    make_views: Callable[..., list[View]], lens: Lens
) -> None:
    covered = coverage(make_views(Charuco(), lens, 60), Charuco())
    assert covered.share > 0.95


def test_the_guide_takes_what_is_new_still_and_sharp() -> None:
    target = Charuco()
    guide, view = Guide(target), held(target, (0, 0.5, 0), (0, 0, 0.5))
    assert guide.consider(view) == (False, "hold still")  # nothing is known of the frame before
    taken, words = guide.consider(view)
    assert taken
    assert words == guide.covered.advice[0]
    assert not guide.consider(view)[0]  # the same again
    other = held(target, (0, -0.5, 0), (0.02, 0, 0.45))
    assert guide.consider(other) == (False, "hold still")
    blurred = replace(other, blur=3.0)
    assert guide.consider(blurred)[1].startswith("blurred (3.0 px)")
    nothing = replace(other, detection=Detection(np.empty(0, np.int64), np.empty((0, 2))))
    assert guide.consider(nothing)[1].startswith("the target is not seen")
    assert guide.consider(other, moving=False)[0]
    assert len(guide.views) == 2


def test_who_follows_the_advice_gets_done() -> None:
    """A person who does what the guide says, in three distances, is done after a few dozen views."""
    target, guide, rng = Charuco(), Guide(Charuco()), np.random.default_rng(0)
    places = {"left": -0.75, "centre left": -0.25, "centre right": 0.25, "right": 0.75}
    turns = {"left": (0, -0.6, 0), "right": (0, 0.6, 0), "upper": (0.6, 0, 0), "lower": (-0.6, 0, 0)}
    for number in range(80):
        words = guide.covered.advice[0]
        turn, place = rng.normal(0, 0.1, 3), np.array([*rng.normal(0, 0.02, 2), rng.uniform(0.42, 0.5)])
        if words.startswith("hold the target at the"):
            down, across = words.removeprefix("hold the target at the ").removesuffix(" of the image").split(" ", 1)
            place = np.array([0.45 * places[across], 0.25 * {"top": -1, "middle": 0, "bottom": 1}[down], 0.7])
            place += rng.normal(0, 0.01, 3)
        elif "edge comes nearer" in words:
            side = next(side for side in turns if f"its {side} edge" in words)
            turn = turn + turns[side]
        elif "quarter" in words:
            turn = turn + [0, 0, 1.5]
        elif "fills half" in words:
            place[2] = 0.24
        elif "away" in words:
            place[2] = 1.0
        guide.consider(held(target, tuple(turn), tuple(place), str(number)), moving=False)
        if guide.complete:
            break
    assert guide.complete
    assert len(guide.views) < 40
