"""The PDF holds the target at true scale: drawn from the file itself, it is found again."""

import re

import cv2
import numpy as np
import pytest

from worldpilot.calibration.printing import PAPERS, pdf
from worldpilot.calibration.targets import AprilGrid, Charuco, Target
from worldpilot.errors import InvalidInput, UnknownName

MILLIMETRE = 72 / 25.4  # [points]


def drawn(sheet: bytes, pixels: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """The page as an image, so many pixels a millimetre, and its rectangles (n, 4) [mm]."""
    stream = re.search(rb"stream\n(.*)\nendstream", sheet, re.DOTALL)
    box = re.search(rb"MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", sheet)
    assert stream
    assert box
    text = stream[1].decode()
    scale = [float(value) for value in text.splitlines()[0].split()[:6]]
    assert scale == pytest.approx([1000 * MILLIMETRE, 0, 0, 1000 * MILLIMETRE, 0, 0])
    width, height = (float(side) / MILLIMETRE for side in box.groups())
    boxes = 1e3 * np.array([[float(v) for v in m] for m in re.findall(r"([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+) re", text)])
    image = np.full((round(height * pixels), round(width * pixels)), 255, np.uint8)
    for x, y, w, h in boxes * pixels:
        image[round(image.shape[0] - y - h) : round(image.shape[0] - y), round(x) : round(x + w)] = 0
    return image, boxes


def test_the_target_is_found_in_its_pdf_at_true_scale(target: Target) -> None:
    image, _ = drawn(pdf(target))
    found = target.detect(image)
    assert len(found.ids) == len(target.points)
    from_board = cv2.estimateAffinePartial2D(
        target.points[:, :2] @ np.diag([1, target.to_drawing[1, 1]]), found.corners
    )[0]
    assert np.hypot(*from_board[:, 0]) == pytest.approx(8000, rel=1e-4)


def test_the_bar_is_100_mm_long() -> None:
    _, boxes = drawn(pdf(Charuco(5, 4)))
    longest = boxes[np.argmax(boxes[:, 2])]
    ticks = boxes[(boxes[:, 2] < 0.3) & (boxes[:, 3] > 2)]
    assert longest[2] == pytest.approx(100, abs=0.3)
    assert len(ticks) == 11
    assert np.ptp(ticks[:, 0]) == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize("paper", list(PAPERS))
def test_everything_lies_on_the_paper(paper: str) -> None:
    image, boxes = drawn(pdf(AprilGrid(4, 4, 0.03), paper))
    assert boxes[:, :2].min() > 5
    assert (boxes[:, 0] + boxes[:, 2]).max() < image.shape[1] / 8 - 5
    assert (boxes[:, 1] + boxes[:, 3]).max() < image.shape[0] / 8 - 5


def test_references_of_the_file_are_right() -> None:
    sheet = pdf(Charuco())
    start = int(sheet.rsplit(b"startxref\n", 1)[1].split()[0])
    assert sheet[start : start + 4] == b"xref"
    for number, place in enumerate(re.findall(rb"(\d{10}) 00000 n", sheet), 1):
        assert sheet[int(place) :].startswith(b"%d 0 obj" % number)


def test_too_large_a_target_is_refused_with_what_fits() -> None:
    with pytest.raises(InvalidInput, match=r"multiply its sides by 0\.\d+, or take a3"):
        pdf(Charuco(9, 6, 0.04, 0.03), "a4")
    with pytest.raises(UnknownName, match="letter"):
        pdf(Charuco(), "a5")
