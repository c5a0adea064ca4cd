"""Images of a calibration target, and which of them are of use."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from worldpilot.calibration.markers import Detection, Floats, GreyImage
from worldpilot.calibration.targets import Target
from worldpilot.errors import InvalidInput

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".webp")
FEWEST_CORNERS = 8
_BLURRED = 1.8  # [px], and so many times the median of all views
_BLURRED_FACTOR = 2.0
_SAME = 0.5  # [px], by which corners of two views must differ
_PROFILE = np.linspace(-1, 1, 33)  # across an edge, in half lengths


@dataclass(frozen=True)
class View:
    """What an image shows of a target.

    Args:
        name: of the image.
        size: its width and height [px].
        detection: the target's corners.
        blur: standard deviation of the worse of the two directions' edges [px]; NaN without enough corners.
    """

    name: str
    size: tuple[int, int]
    detection: Detection
    blur: float

    @property
    def strays(self) -> int:
        """Markers that are not where the target has them."""
        return self.detection.strays


def look(name: str, image: GreyImage, target: Target) -> View:
    """Find the target in an image."""
    detection = target.detect(image)
    return View(name, (image.shape[1], image.shape[0]), detection, edge_blur(image, detection, target))


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, by name.

    Raises:
        InvalidInput: there is no such folder, or there are no images in it.
    """
    if not folder.is_dir():
        raise InvalidInput(f"images: {folder} is not a folder")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not found:
        raise InvalidInput(f"images: there are none in {folder}; known endings: {', '.join(ENDINGS)}")
    return found


def read_image(path: Path) -> GreyImage:
    """An image as grey levels.

    Raises:
        InvalidInput: it can't be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise InvalidInput(f"images: {path} is missing, or not an image that OpenCV can read; remove or replace it")
    return np.asarray(image, np.uint8)


def look_at(files: Sequence[Path], target: Target) -> list[View]:
    """Find the target in images of one size.

    Raises:
        InvalidInput: an image can't be read, or they differ in size.
    """
    views = [look(path.name, read_image(path), target) for path in files]
    sizes = Counter(view.size for view in views)
    if len(sizes) > 1:
        (usual, _), *others = sizes.most_common()
        odd = [view.name for view in views if view.size != usual]
        raise InvalidInput(
            f"images: sizes differ, {usual[0]} x {usual[1]} mostly, but {len(odd)} of {len(views)} are not "
            f"({', '.join(f'{w} x {h}' for (w, h), _ in others)}): {_some(odd)}; a calibration is of one camera mode"
        )
    return views


def sort_out(views: Sequence[View], target: Target) -> tuple[list[View], dict[str, str]]:
    """The views that are of use, and why the others are not, by name: nothing seen, blurred, seen before."""
    useful, dropped = [], {}
    for view in views:
        if reason := _too_little(view, target):
            dropped[view.name] = reason
        else:
            useful.append(view)
    limit = max(_BLURRED, _BLURRED_FACTOR * float(np.median([view.blur for view in useful]))) if useful else np.inf
    sharp: list[View] = []
    for view in useful:
        if view.blur > limit:
            dropped[view.name] = f"blurred: edges are {view.blur:.1f} px wide (standard deviation), at most {limit:.1f}"
        elif twin := next((other for other in sharp if same(view, other)), None):
            dropped[view.name] = f"shows the same as {twin.name}"
        else:
            sharp.append(view)
    return sharp, dropped


def nothing_seen(views: Sequence[View], target: Target, dropped: dict[str, str]) -> str:
    """Why there is nothing to calibrate on."""
    seen = sum(len(view.detection.ids) > 0 for view in views)
    strays = sum(view.strays > 0 for view in views)
    if strays > len(views) / 2:
        return (
            f"markers were seen in {strays} of {len(views)} images, but not where {target} has them: "
            "are columns, rows, dictionary and (old boards) `legacy` right, and is it not mirrored?"
        )
    if seen == 0:
        return f"the target was seen in none of {len(views)} images: is it {target}, sharp, lit, whole markers in view?"
    reasons = "; ".join(f"{name}: {reason}" for name, reason in list(dropped.items())[:4])
    return (
        f"{len(views) - len(dropped)} of {len(views)} images are of use ({reasons}{'; …' if len(dropped) > 4 else ''})"
    )


def same(one: View, other: View) -> bool:
    """Whether two views show the target in the same place."""
    shared, mine, theirs = np.intersect1d(one.detection.ids, other.detection.ids, return_indices=True)
    if len(shared) < 0.5 * max(len(one.detection.ids), len(other.detection.ids)) or not len(shared):
        return False
    moved = np.linalg.norm(one.detection.corners[mine] - other.detection.corners[theirs], axis=1)
    return bool(np.median(moved) < _SAME)


def edge_blur(image: GreyImage, detection: Detection, target: Target) -> float:
    """Width of the target's edges (standard deviation) in the worse of its two directions [px].

    An edge that a Gaussian of that width has blurred rises by contrast / (sigma sqrt(2 pi)) per pixel at its steepest.
    """
    at = np.full(len(target.points), -1)
    at[detection.ids] = np.arange(len(detection.ids))
    edges = target.edges[(at[target.edges[:, :2]] >= 0).all(1)]
    if len(edges) < 4:
        return float("nan")
    first, second = (detection.corners[at[edges[:, i]]] for i in (0, 1))
    along = second - first
    length = np.linalg.norm(along, axis=1, keepdims=True)
    board = np.linalg.norm(np.diff(target.points[edges[:, :2]], axis=1)[:, 0], axis=1, keepdims=True)
    across = np.column_stack([-along[:, 1], along[:, 0]]) / length
    half = (target.clear * length / board).clip(2.0, 12.0)  # [px]
    centre = (first + second) / 2
    places = centre[:, None] + across[:, None] * (half[:, None] * _PROFILE[:, None])
    grey = cv2.remap(image.astype(np.float32), places[..., 0].astype(np.float32), places[..., 1].astype(np.float32), 1)
    around = np.ones((2 * int(np.median(length) / 2) + 1,) * 2, np.uint8)  # as large as a square, so that it holds both
    rows, columns = np.round(centre[:, 1]).astype(int), np.round(centre[:, 0]).astype(int)
    contrast = cv2.dilate(image, around)[rows, columns].astype(float) - cv2.erode(image, around)[rows, columns]
    steps = np.abs(grey[:, 2:] - grey[:, :-2]) / (2 * half * (_PROFILE[1] - _PROFILE[0]))
    widths = np.where(contrast > 16, contrast / (steps.max(1).clip(1e-6) * np.sqrt(2 * np.pi)), np.nan)
    by_direction = [widths[(edges[:, 2] == k) & np.isfinite(widths)] for k in (0, 1)]
    return max((float(np.median(values)) for values in by_direction if len(values)), default=float("nan"))


def _too_little(view: View, target: Target) -> str | None:
    count = len(view.detection.ids)
    if count == 0:
        return "markers are not where the target has them" if view.strays else "the target is not seen"
    if count < FEWEST_CORNERS:
        return f"{count} corners are seen, {FEWEST_CORNERS} are needed"
    points = target.points[view.detection.ids, :2]
    spread = np.linalg.svd(points - points.mean(0), compute_uv=False)
    return "the corners that are seen lie in one line" if spread[1] < 0.05 * spread[0] else None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def grey(image: npt.NDArray[np.uint8]) -> GreyImage:
    """An image (H, W) or (H, W, 3), RGB, as grey levels."""
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def sight(view: View, target: Target) -> tuple[Floats, Floats]:
    """Points (n, 3) [m] and where they are seen (n, 2) [px]."""
    return target.points[view.detection.ids], view.detection.corners
