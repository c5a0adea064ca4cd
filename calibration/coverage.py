"""What a set of views still lacks for a good calibration, and what to do next. Pure: views in, advice out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from worldpilot.calibration import bundle
from worldpilot.calibration.intrinsics import MODELS, Intrinsics
from worldpilot.calibration.markers import Floats
from worldpilot.calibration.targets import Target
from worldpilot.calibration.views import FEWEST_CORNERS, View, same, sight

GRID = (4, 3)  # cells of the image, across and down
TILTED, TOO_TILTED = 15.0, 65.0  # [degrees] between the target's normal and the view of it
_FRACTION = (
    0.08,
    0.25,
)  # of the image's area, for the hull of its corners: up to the first far, from the second on near
_QUARTER = 45.0  # [degrees], from which the target counts as turned in its plane
_CORNERS_A_CELL = 2
_BLURRED = 1.8  # [px]
_STILL = 1.5  # [px], between two frames
_NEW = 0.03  # of the image's width, by which a view must differ from all before

_ACROSS, _DOWN = ("left", "centre left", "centre right", "right"), ("top", "middle", "bottom")
_TILTS = {
    "left": "turn the target so that its left edge comes nearer to the camera, by 30 to 45 degrees",
    "right": "turn the target so that its right edge comes nearer to the camera, by 30 to 45 degrees",
    "top": "tip the target so that its upper edge comes nearer to the camera, by 30 to 45 degrees",
    "bottom": "tip the target so that its lower edge comes nearer to the camera, by 30 to 45 degrees",
}
_DISTANCES = {
    "near": "bring the target nearer, until it fills half of the image",
    "middle": "hold the target so that it fills a fifth of the image",
    "far": "move the target away, until it fills less than a tenth of the image",
}
NEEDED = {
    **{f"region {_DOWN[r]} {_ACROSS[c]}": 2 for r in range(GRID[1]) for c in range(GRID[0])},
    **{f"tilt {side}": 2 for side in _TILTS},
    "distance near": 2,
    "distance middle": 2,
    "distance far": 1,
    "quarter turn": 1,
    "views": 15,
}


@dataclass(frozen=True)
class Coverage:
    """How many views there are of each kind.

    Args:
        counts: by the names of `NEEDED`.
        corners: (rows, columns), corners in each cell of the image.
    """

    counts: Mapping[str, int]
    corners: Floats

    @property
    def missing(self) -> tuple[str, ...]:
        """The kinds of which there are too few, those with the greatest need first."""
        short = [name for name, needed in NEEDED.items() if self.counts[name] < needed]
        return tuple(sorted(short, key=lambda name: (name == "views", self.counts[name] / NEEDED[name])))

    @property
    def share(self) -> float:
        """Of what is needed, in [0, 1]."""
        return sum(min(self.counts[n], needed) for n, needed in NEEDED.items()) / sum(NEEDED.values())

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do next, the most useful first; nothing if all is there."""
        return tuple(dict.fromkeys(_advice(name) for name in self.missing))


def coverage(views: Sequence[View], target: Target, camera: Intrinsics | None = None) -> Coverage:
    """What is covered by views.

    Args:
        camera: its intrinsics if they are known already, else they are guessed from the views.
    """
    seen = [view for view in views if len(view.detection.ids) >= FEWEST_CORNERS]
    counts, cells = dict.fromkeys(NEEDED, 0), np.zeros(GRID[::-1])
    counts["views"] = len(seen)
    camera = camera or (_guess(seen, target) if seen else None)
    for view in seen:
        inside = _cells(view)
        cells += inside
        for row, column in np.argwhere(inside >= _CORNERS_A_CELL):
            counts[f"region {_DOWN[row]} {_ACROSS[column]}"] += 1
        counts[f"distance {_distance(view)}"] += 1
        assert camera is not None
        pose = bundle.pose_from_plane(camera, sight(view, target))
        if pose is not None:
            tilt, side, turned = attitude(pose, target)
            counts[f"tilt {side}"] += TILTED <= tilt <= TOO_TILTED
            counts["quarter turn"] += turned
    return Coverage(counts, cells)


def attitude(pose: Floats, target: Target) -> tuple[float, str, bool]:
    """Tilt [degrees] of a target at `pose` (6,), which of its edges is nearer, and if it is turned in its plane.

    Edges are those that the viewer sees: the left one is on the left of the image.
    """
    turn = np.asarray(cv2.Rodrigues(pose[:3])[0])
    centre = turn @ target.points.mean(0) + pose[3:]
    toward = -centre / np.linalg.norm(centre)
    normal = turn[:, 2] * np.sign(turn[:, 2] @ toward)
    tilt = float(np.degrees(np.arccos(np.clip(normal @ toward, -1, 1))))
    aside = normal - (normal @ toward) * toward
    if abs(aside[0]) >= abs(aside[1]):
        side = "left" if aside[0] > 0 else "right"
    else:
        side = "top" if aside[1] > 0 else "bottom"
    along = turn[:, 0]
    roll = np.degrees(np.arctan2(along[1], along[0]))
    return tilt, side, bool(_QUARTER <= abs(roll) <= 180 - _QUARTER)


@dataclass
class Guide:
    """Chooses views out of a stream of frames and says what to do next.

    Args:
        target: what is looked for.
    """

    target: Target

    def __post_init__(self) -> None:
        self.views: list[View] = []
        self.covered = coverage([], self.target)
        self._last: View | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.covered.missing

    def consider(self, view: View, *, moving: bool = True) -> tuple[bool, str]:
        """Whether a view is taken, and what to tell the person.

        Args:
            moving: frames come from a camera in motion: only one that differs little from the frame before is sharp.
        """
        last, self._last = self._last, view
        if len(view.detection.ids) < FEWEST_CORNERS:
            return False, "the target is not seen: " + (self.covered.advice[0] if self.views else "hold it in view")
        if not view.blur <= _BLURRED:
            return False, f"blurred ({view.blur:.1f} px): hold still, focus, more light"
        if moving and (last is None or _apart(view, last) > _STILL):
            return False, "hold still"
        if any(same(view, other) or _apart(view, other) < _NEW * view.size[0] for other in self.views):
            return False, self._next()
        more = coverage([*self.views, view], self.target)
        useful = any(more.counts[n] > self.covered.counts[n] for n in self.covered.missing if n != "views")
        if not useful and len(self.views) >= NEEDED["views"]:
            return False, self._next()
        self.views.append(view)
        self.covered = more
        return True, self._next()

    def _next(self) -> str:
        return self.covered.advice[0] if self.covered.missing else "all is covered"


def _advice(name: str) -> str:
    kind, _, rest = name.partition(" ")
    if kind == "region":
        return f"hold the target at the {rest} of the image"
    texts = {"tilt": _TILTS, "distance": _DISTANCES}
    if kind in texts:
        return texts[kind][rest]
    return "turn the target by a quarter in its own plane" if kind == "quarter" else "take more views, each different"


def _guess(views: Sequence[View], target: Target) -> Intrinsics:
    size = views[0].size
    rough = Intrinsics(size, "plumb_bob", (0.9 * size[0],) * 2 + ((size[0] - 1) / 2, (size[1] - 1) / 2) + (0.0,) * 5)
    if len(views) < 4:
        return rough
    try:
        camera, _ = bundle.start("plumb_bob", size, [sight(view, target) for view in views[:6]])
    except ArithmeticError:
        return rough
    return Intrinsics(size, camera.model, camera.parameters[:4] + (0.0,) * len(MODELS[camera.model]))


def _cells(view: View) -> Floats:
    """Corners in each cell of the image (rows, columns)."""
    across, down = (np.linspace(-0.5, side - 0.5, n + 1) for side, n in zip(view.size, GRID, strict=True))
    corners = view.detection.corners
    return np.histogram2d(corners[:, 1], corners[:, 0], bins=(down, across))[0]


def _distance(view: View) -> str:
    hull = cv2.convexHull(view.detection.corners.astype(np.float32))
    fraction = cv2.contourArea(hull) / (view.size[0] * view.size[1])
    return "far" if fraction < _FRACTION[0] else "middle" if fraction < _FRACTION[1] else "near"


def _apart(one: View, other: View) -> float:
    """Distance [px] that nine in ten of the shared corners keep within between two views; infinite if they are few."""
    shared, mine, theirs = np.intersect1d(one.detection.ids, other.detection.ids, return_indices=True)
    if len(shared) < FEWEST_CORNERS:
        return float("inf")
    moved = np.linalg.norm(one.detection.corners[mine] - other.detection.corners[theirs], axis=1)
    return float(np.quantile(moved, 0.9))
