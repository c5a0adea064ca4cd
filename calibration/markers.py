"""Markers and corners in images: found, checked against where a target has them, located to fractions of a pixel."""

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import erf

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
GreyImage = npt.NDArray[np.uint8]  # (H, W)

DICTIONARIES = tuple(sorted(name for name in vars(cv2.aruco) if name.startswith("DICT_") and name.upper() == name))
TAGS = "DICT_APRILTAG_36H11"
_AGREE = 0.4  # [pitches], how far a marker may lie from where its neighbour says
_SMALLEST_MARKER = 12.0  # [px], of a side
_LARGEST_WINDOW = 8  # [px] to each side of a corner: in larger ones the lens bends lines too much
_FARTHEST = 3.0  # [px], from where a marker's finder has a corner to where it is
_EDGE = 1.25  # [px], usual width of an edge (standard deviation) once it is smoothed
_CROSSING = 0.2  # sine of the angle between two lines, below which they say nothing
_MOST_BENT = 0.2  # [px], by which bent lines shift a corner


@dataclass(frozen=True)
class Detection:
    """Corners of a target in an image."""

    ids: Ints  # (n,), ascending: rows of `Target.points`
    corners: Floats  # (n, 2) [px], (0, 0) is the centre of the upper left pixel
    strays: int = 0  # markers seen that are not where this target has them


class Layout(Protocol):
    """What must be known of a target to find it."""

    @property
    def markers(self) -> tuple[Ints, Floats]:
        """Ids (M,), and corners (M, 4, 2) [m], clockwise from the marker's own upper left."""
        ...


def dictionary(name: str) -> cv2.aruco.Dictionary:
    """OpenCV's, by its name."""
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))


def refine(points: Floats, clear: float, image: GreyImage, ids: Ints, corners: Floats) -> Detection:
    """Locate corners that are known to a pixel or two; those at the image's border, or that run away, are left out.

    Args:
        clear: how far around a corner nothing else is drawn [m]: so large is the window that is looked at.
    """
    if len(ids) < 4:
        return Detection(np.empty(0, np.int64), np.empty((0, 2)))
    order = np.argsort(ids)
    ids, corners = ids[order], corners[order]
    windows = np.clip(np.floor(clear * _local_scale(points[ids, :2], corners)), 2, _LARGEST_WINDOW).astype(int)
    h, w = image.shape
    # sharp images make cornerSubPix wander by 0.05 px: its gradients are of pixel pairs
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0)
    refined, kept = corners.copy(), np.zeros(len(ids), bool)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 60, 1e-4)
    for window in np.unique(windows):
        low, high = window + 1, np.array([w, h]) - window - 2
        chosen = (windows == window) & ((corners >= low) & (corners <= high)).all(1)
        if not chosen.any():
            continue
        start = corners[chosen].astype(np.float32).reshape(-1, 1, 2)
        found = cv2.cornerSubPix(smooth, start, (int(window), int(window)), (-1, -1), criteria)
        refined[chosen] = found.reshape(-1, 2)
        kept |= chosen & (np.linalg.norm(refined - corners, axis=1) <= min(window, _FARTHEST))
    return Detection(ids[kept], unbend(points[ids[kept], :2], refined[kept], windows[kept]))


def unbend(board: Floats, corners: Floats, windows: Ints) -> Floats:
    """Where corners are (n, 2) [px] that were found in windows (n,) [px to each side] in which a lens bends the lines.

    Found is the point that all gradients look past. Of a line p + t s + k s²/2 it misses p by -k <s²>/2, the mean being
    over the window. The curvature k shows in a corner's neighbours on its line `board` (n, 2) [m]; where there is none
    to one side, it is that of the one to the other.
    """
    normals, misses = np.zeros((2, *corners.shape)), np.zeros((2, len(corners)))
    for axis in (0, 1):
        along = board[None, :, axis] - board[:, None, axis]
        far = np.where(np.abs(board[None, :, 1 - axis] - board[:, None, 1 - axis]) < 1e-9, np.abs(along), np.inf)
        ahead, behind = (np.where(side > 1e-9, far, np.inf) for side in (along, -along))
        after, before = ahead.argmin(1), behind.argmin(1)
        last, first = np.isinf(ahead.min(1)), np.isinf(behind.min(1))
        after[last & ~first], before[first & ~last] = before[last & ~first], after[first & ~last]
        steps = np.stack([corners[after] - corners, corners - corners[before]])  # along the line, but at its ends
        lengths = np.linalg.norm(steps, axis=2).clip(1e-9)
        units = steps / lengths[..., None]
        inside = ~(first | last)
        curvature = np.where(inside[:, None], 2 * (units[0] - units[1]) / lengths.sum(0)[:, None], 0.0)
        ends = first ^ last
        curvature[ends] = curvature[after[ends]]
        tangent = np.where(inside[:, None], units.sum(0), units[0])
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True).clip(1e-9)
        normals[axis] = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
        misses[axis] = (normals[axis] * curvature).sum(1) * _mean_square(tangent, windows) / 2
    crossing = np.abs(np.linalg.det(normals.swapaxes(0, 1))) > _CROSSING
    shift = np.linalg.solve(normals.swapaxes(0, 1)[crossing], misses.T[crossing, :, None])[..., 0]
    straight = corners.copy()
    straight[crossing] += np.where(np.linalg.norm(shift, axis=1, keepdims=True) < _MOST_BENT, shift, 0.0)
    return straight


def _mean_square(tangent: Floats, windows: Ints) -> Floats:
    """<s²> (n,) [px²] along a line through a window's centre, by `cornerSubPix`'s weights and the squared gradients."""
    reach = windows / np.abs(tangent).max(1).clip(0.5)
    s = reach[:, None] * np.linspace(0, 1, 33)[1:]
    weights = np.exp(-((s / windows[:, None]) ** 2)) * erf(s / (np.sqrt(2) * _EDGE)) ** 2  # at a corner they vanish
    return (weights * s**2).sum(1) / weights.sum(1)


def find_markers(image: GreyImage, family: str, border: int, constants: tuple[int, ...] = (7,)) -> tuple[Ints, Floats]:
    """Ids (M,) and corners (M, 4, 2) [px] of all markers that are large enough; of two with one id, neither.

    `constants`: how much darker than its surroundings black must be [grey levels of 255]; what the first overlooks, the
    next may find. A high one parts a tag from the square that touches its corner, a low one sees faint images.
    """
    found: dict[int, Floats] = {}
    for constant in constants:
        parameters = cv2.aruco.DetectorParameters()
        parameters.markerBorderBits = border
        parameters.minMarkerPerimeterRate = 4 * _SMALLEST_MARKER / max(image.shape)
        parameters.adaptiveThreshWinSizeMax = 53
        parameters.adaptiveThreshConstant = constant
        quads, ids, _ = cv2.aruco.ArucoDetector(dictionary(family), parameters).detectMarkers(image)
        if ids is None:
            continue
        values, counts = np.unique(np.asarray(ids), return_counts=True)
        once = {int(value) for value in values[counts == 1]}
        for i, quad in zip(np.asarray(ids, int).ravel(), quads, strict=True):
            if int(i) in once:
                found.setdefault(int(i), np.asarray(quad, np.float64).reshape(4, 2))
    return np.array(list(found), np.int64), np.array(list(found.values())).reshape(-1, 4, 2)


def reads(image: GreyImage, quad: Floats, tag: int, border: int) -> bool:
    """Whether the tag of that id is seen in `quad` (4, 2) [px], whichever way up: at most 3 of its 36 bits differ."""
    if (
        (quad < 0).any()
        or (quad > np.array(image.shape[::-1]) - 1).any()
        or not cv2.isContourConvex(quad.astype(np.float32))
    ):
        return False
    cells = 6 + 2 * border
    side = 8 * cells
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32) - 0.5
    flat = cv2.warpPerspective(image, cv2.getPerspectiveTransform(quad.astype(np.float32), corners), (side, side))
    shades = flat.reshape(cells, 8, cells, 8)[:, 2:6, :, 2:6].mean((1, 3))
    white = shades > (shades.min() + shades.max()) / 2
    code = cv2.aruco.generateImageMarker(dictionary(TAGS), tag, 8)[1:-1, 1:-1] > 0
    frame, inner = np.ones_like(white), white[border:-border, border:-border]
    frame[border:-border, border:-border] = False
    differ = min(int((np.rot90(code, turn) != inner).sum()) for turn in range(4))
    return differ <= 3 and float(white[frame].mean()) < 0.1


def agreeing(target: Layout, ids: Ints, quads: Floats) -> npt.NDArray[np.bool_]:
    """Which markers (M,) lie where most of their neighbours have them; a marker without neighbours does not.

    Each marker's own shape tells where its neighbours are: that holds under any perspective and distortion, and fails
    for another board and for a misread marker.
    """
    known_ids, known = target.markers
    row = {int(i): n for n, i in enumerate(known_ids)}
    rows = np.array([row.get(int(i), -1) for i in ids], int)
    centres, board = quads.mean(1), known.mean(1)[rows]
    distance = np.linalg.norm(known.mean(1)[:, None] - known.mean(1)[None], axis=2)
    pitch = distance[distance > 1e-9].min()
    agree, differ = np.zeros(len(ids), int), np.zeros(len(ids), int)
    for i in np.flatnonzero(rows >= 0):
        source = known[rows[i]] - board[i]
        affine = np.linalg.lstsq(source, quads[i] - centres[i], rcond=None)[0]  # (2, 2), board to image
        offsets = board - board[i]
        near = np.flatnonzero(
            (rows >= 0) & (np.linalg.norm(offsets, axis=1) < 1.5 * pitch) & (np.arange(len(ids)) != i)
        )
        error = np.linalg.norm(offsets[near] @ affine + centres[i] - centres[near], axis=1)
        fits = error < _AGREE * pitch * np.sqrt(abs(np.linalg.det(affine)))
        agree[i] += fits.sum()
        differ[i] += (~fits).sum()
        np.add.at(agree, near[fits], 1)
        np.add.at(differ, near[~fits], 1)
    return agree > differ


def _local_scale(board: Floats, corners: Floats) -> Floats:
    """Pixels a metre (n,) at each corner, in the direction where they are fewest, from its neighbours on the board."""
    between = np.linalg.norm(board[:, None] - board[None], axis=2)
    np.fill_diagonal(between, np.inf)
    nearest = np.argsort(between, 1)[:, :4]
    rows = np.arange(len(board))[:, None]
    seen = np.linalg.norm(corners[rows] - corners[nearest], axis=2)
    return (seen / between[rows, nearest]).min(1)
