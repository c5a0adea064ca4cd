"""Targets are drawn as OpenCV and Kalibr draw them, and found where they are."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from worldpilot.calibration import markers
from worldpilot.calibration.targets import AprilGrid, Charuco, Target, from_dict, load
from worldpilot.calibration.views import edge_blur
from worldpilot.cli.calibrate_practice import pattern
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.sim.board_view import Light, Studio, poses, rotation
from worldpilot.sim.lens import Lens

# The first code words of tag36h11, most significant bit in the upper left, as Kalibr prints them.
CODES = (0xD5D628584, 0xD97F18B49, 0xDD280910E, 0xE479E9C98, 0xEBCBCA822, 0xF31DAB3AC, 0x056A5D085, 0x10652E1D4)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_charuco_is_drawn_as_opencv_draws_it(legacy: bool) -> None:
    target = Charuco(7, 4, 0.04, 0.03, "DICT_4X4_50", legacy)
    ours, to_pixels = target.draw(0.0005, 0.0)
    theirs = target.board.generateImage((560, 320), marginSize=0)
    assert ours.shape == theirs.shape
    assert (ours == theirs).all()
    corner = to_pixels @ [0.04, 0.04, 1]
    np.testing.assert_allclose(corner[:2], [79.5, 79.5])


def kalibr(columns: int, rows: int, pixels: int, border: int = 2, turns: int = 0) -> Any:
    """An AprilGrid drawn from Kalibr's rules: tags of 10 cells, gaps of 3, ids from the lower left, squares between."""
    cells = 6 + 2 * border
    gap, tag = 3 * pixels, cells * pixels
    height, width = rows * (tag + gap) + gap, columns * (tag + gap) + gap
    image = np.full((height, width), 255, np.uint8)
    for row in range(rows + 1):
        for column in range(columns + 1):
            y, x = row * (tag + gap), column * (tag + gap)
            image[y : y + gap, x : x + gap] = 0
    for i in range(columns * rows):
        bits = np.array([(CODES[i] >> (35 - k)) & 1 for k in range(36)], np.uint8).reshape(6, 6)
        cell = np.rot90(np.pad(255 * bits, border), turns)
        y = height - gap - (i // columns) * (tag + gap) - tag
        x = gap + (i % columns) * (tag + gap)
        image[y : y + tag, x : x + tag] = np.kron(cell, np.ones((pixels, pixels), np.uint8))
    return cv2.copyMakeBorder(image, 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=255)


def test_an_aprilgrid_is_drawn_as_kalibr_draws_it() -> None:
    drawn, _ = AprilGrid(3, 2, 0.1, 0.3).draw(0.001, 0.06)
    assert (drawn == kalibr(3, 2, 10)).all()


@pytest.mark.parametrize(("border", "turns"), [(2, 0), (2, 1), (1, 2)])
def test_an_aprilgrid_is_found_however_its_maker_turned_the_tags(border: int, turns: int) -> None:
    image = kalibr(3, 2, 12, border, turns)
    tag = 12 * (6 + 2 * border)
    target = AprilGrid(3, 2, tag * 1e-3, 36 / tag)
    found = target.detect(image)
    assert len(found.ids) == 24
    x, y = 1e3 * target.points[found.ids, 0], 1e3 * target.points[found.ids, 1]
    true = np.stack([60 + 36 + x, image.shape[0] - 60 - 36 - y], 1) - 0.5
    assert np.abs(found.corners - true).max() < 0.2


def test_corners_are_found_to_fractions_of_a_pixel(target: Target, studio: Studio, lens: Lens) -> None:
    rng, sheet = np.random.default_rng(1), pattern(target)
    missed, expected = [], 0
    for pose, _ in zip(poses(lens, sheet, rng), range(8), strict=False):
        image = studio.picture(sheet, pose, rng)
        found = target.detect(image)
        true = lens.project(target.points @ pose[:3, :3].T + pose[:3, 3])
        expected += int(((true > 12) & (true < np.array(lens.size) - 13)).all(1).sum())
        missed.append(found.corners - true[found.ids])
        assert found.strays == 0
    lengths = np.linalg.norm(np.concatenate(missed), axis=1)
    assert len(lengths) > 0.85 * expected
    assert np.sqrt(np.median(lengths**2)) < 0.04
    assert np.quantile(lengths, 0.98) < 0.15
    assert np.linalg.norm(np.concatenate(missed).mean(0)) < 0.01  # no bias


def test_lines_that_a_lens_bends_do_not_draw_corners_outward(monkeypatch: pytest.MonkeyPatch) -> None:
    fisheye = Lens((960, 600), 380.0, 381.0, 485.0, 296.0, "equidistant", (0.03, -0.01, 0.004, -0.001))
    grid = AprilGrid()
    studio, rng = Studio(fisheye, Light(noise=0.0)), np.random.default_rng(3)
    waved, outward = poses(fisheye, pattern(grid), rng, tilt=30), {"as found": [], "unbent": []}
    for pose in (next(waved) for _ in range(5)):
        image = studio.picture(pattern(grid), pose, rng)
        for how, off in outward.items():
            with monkeypatch.context() as patch:
                if how == "as found":
                    patch.setattr(markers, "unbend", lambda board, corners, windows: corners)
                found = grid.detect(image)
            true = fisheye.project(grid.points[found.ids] @ pose[:3, :3].T + pose[:3, 3])
            away = true - [fisheye.cx, fisheye.cy]
            off += (((found.corners - true) * away).sum(1) / np.linalg.norm(away, axis=1)).tolist()
    assert np.mean(outward["as found"]) > 0.003
    assert abs(np.mean(outward["unbent"])) < 0.4 * np.mean(outward["as found"])


def test_another_board_is_not_taken_for_it(target: Target, studio: Studio, lens: Lens) -> None:
    other: Target = Charuco(columns=8) if isinstance(target, Charuco) else AprilGrid(columns=4, rows=5, tag=0.03)
    rng, sheet = np.random.default_rng(2), pattern(target)
    found = other.detect(studio.picture(sheet, next(poses(lens, sheet, rng, tilt=20)), rng))
    assert found.strays > len(found.ids) / 4
    assert len(found.ids) < 0.25 * len(other.points)


@pytest.mark.parametrize(("blur", "motion"), [(0.5, 0.0), (1.5, 0.0), (3.0, 0.0), (0.5, 8.0)])
def test_blur_is_measured(target: Target, lens: Lens, blur: float, motion: float) -> None:
    rng, sheet = np.random.default_rng(3), pattern(target)
    studio = Studio(lens, Light(blur=blur, motion=(motion, 0.3)))
    upright = np.diag([1.0, 1, 1] if isinstance(target, Charuco) else [1.0, -1, -1])
    pose = np.eye(4)
    pose[:3, :3] = rotation(np.array([0.1, 0.2, 0.1])) @ upright
    pose[:3, 3] = [0, 0, 0.26] - pose[:3, :3] @ target.points.mean(0)
    image = studio.picture(sheet, pose, rng)
    measured = edge_blur(image, target.detect(image), target)
    expected = np.hypot(blur, motion / np.sqrt(2 * np.pi))  # the Gaussian as steep as a ramp of that length
    assert 0.8 * expected < measured < 1.2 * expected + 0.4  # a pixel and the sampling widen a sharp edge


def test_descriptions_are_read_back(tmp_path: Path, target: Target) -> None:
    assert from_dict(target.to_dict()) == target
    kalibr_file = tmp_path / "grid.yaml"
    kalibr_file.write_text("target_type: 'aprilgrid'\ntagCols: 6\ntagRows: 5\ntagSize: 0.088\ntagSpacing: 0.3\n")
    assert load(kalibr_file) == AprilGrid(6, 5, 0.088, 0.3)
    text = "{target_type: charuco, columns: 5, rows: 4, square: 0.03, marker: 0.02, dictionary: 4x4_50}"
    assert load(text) == Charuco(5, 4, 0.03, 0.02, "DICT_4X4_50")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{target_type: chessboard}", "charuco or aprilgrid"),
        ("{target_type: charuco, columns: 5}", "lacks rows, square, marker"),
        ("{target_type: charuco, columns: 5, rows: 4, square: 0.03, marker: 0.04}", "below 95 %"),
        ("{target_type: charuco, columns: 5, rows: 4, square: 30mm, marker: 0.02}", "square is '30mm'"),
        ("{target_type: charuco, columns: 2, rows: 4, square: 0.03, marker: 0.02}", "at least 3 x 3"),
        ("{target_type: charuco, columns: 20, rows: 20, square: 0.03, marker: 0.02, dictionary: 4x4_50}", "has 50"),
        ("{target_type: aprilgrid, tagCols: 6, tagRows: 6, tagSize: 0.03, tagSpacing: 3}", "0.1 to 1"),
        ("{target_type: aprilgrid, tagCols: 6, tagRows: 6, tagSize: 0.03, tagSpacing: .3, size: 1}", "has no size"),
        ("no_such_file.yaml", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        load(text)


def test_an_unknown_dictionary_lists_the_known() -> None:
    with pytest.raises(UnknownName, match="DICT_5X5_100"):
        load("{target_type: charuco, columns: 5, rows: 4, square: 0.03, marker: 0.02, dictionary: 9x9_1}")
