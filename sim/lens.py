"""Lenses for rendering: how they bend rays, in both directions. Apart from calibration/, which is tested on them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput, UnknownName

Floats = npt.NDArray[np.float64]

MODELS = {"plumb_bob": (4, 5), "rational_polynomial": (8,), "equidistant": (4,)}  # name -> how many coefficients
_STEEPEST = np.deg2rad(100)  # no lens here looks further from its axis


@dataclass(frozen=True)
class Lens:
    """A camera as ROS describes it.

    Args:
        size: width and height [px].
        fx, fy, cx, cy: focal lengths and principal point [px]; (0, 0) is the centre of the upper left pixel.
        model: one of `MODELS`.
        distortion: k1, k2, p1, p2[, k3[, k4, k5, k6]]; of an equidistant one k1 to k4.
    """

    size: tuple[int, int]
    fx: float
    fy: float
    cx: float
    cy: float
    model: str = "plumb_bob"
    distortion: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise UnknownName("model of a lens", self.model, MODELS)
        if len(self.distortion) not in MODELS[self.model]:
            raise InvalidInput(f"{self.model} has {MODELS[self.model]} coefficients, got {len(self.distortion)}")

    @property
    def matrix(self) -> Floats:
        """(3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])

    def project(self, points: Floats) -> Floats:
        """Points (..., 3) [m] in the camera's frame (z ahead, y down) to pixels (..., 2); NaN outside what it sees."""
        across = np.hypot(points[..., 0], points[..., 1])
        angle = np.arctan2(across, points[..., 2])
        if self.model == "equidistant":
            outward = _equidistant(angle, self.distortion) / np.maximum(across, 1e-300)
            bent = (
                points[..., :2] * np.where(across > 1e-12, outward, 1.0 / np.maximum(points[..., 2], 1e-12))[..., None]
            )
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                bent = self._bend(points[..., :2] / points[..., 2:])
        seen = angle < self.widest
        return np.where(seen[..., None], bent * [self.fx, self.fy] + [self.cx, self.cy], np.nan)

    def rays(self, pixels: Floats) -> Floats:
        """Directions (..., 3) that pixels (..., 2) look in, of length 1; NaN where no ray comes from."""
        bent = (pixels - [self.cx, self.cy]) / [self.fx, self.fy]
        return self._equidistant_rays(bent) if self.model == "equidistant" else self._unbend(bent)

    @cached_property
    def widest(self) -> float:
        """Angle from the axis up to which the image moves outward with the ray [rad]; beyond, it would fold over."""
        angles = np.linspace(0, _STEEPEST if self.model == "equidistant" else np.deg2rad(80), 4001)[1:]
        radii = _equidistant(angles, self.distortion) if self.model == "equidistant" else self._radii(np.tan(angles))
        falling = np.flatnonzero(np.diff(radii) <= 0)
        return float(angles[falling[0]] if len(falling) else angles[-1])

    def _radii(self, r: Floats) -> Floats:
        k1, k2, _, _, k3, k4, k5, k6 = np.pad(self.distortion, (0, 8 - len(self.distortion)))
        s = r * r
        return r * (1 + s * (k1 + s * (k2 + s * k3))) / (1 + s * (k4 + s * (k5 + s * k6)))

    def _bend(self, xy: Floats) -> Floats:
        k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(self.distortion, (0, 8 - len(self.distortion)))
        x, y = xy[..., 0], xy[..., 1]
        s = x * x + y * y
        radial = (1 + s * (k1 + s * (k2 + s * k3))) / (1 + s * (k4 + s * (k5 + s * k6)))
        dx, dy = 2 * p1 * x * y + p2 * (s + 2 * x * x), p1 * (s + 2 * y * y) + 2 * p2 * x * y
        return np.stack([x * radial + dx, y * radial + dy], -1)

    def _unbend(self, bent: Floats) -> Floats:
        """Newton's method from the inverse of the radial part; pixels that no ray reaches become NaN."""
        limit = np.tan(self.widest)
        table = np.linspace(0, limit, 4001)
        radius = np.linalg.norm(bent, axis=-1)
        start = np.interp(radius, self._radii(table), table) / np.maximum(radius, 1e-300)
        xy = bent * np.where(radius > 1e-12, start, 1.0)[..., None]
        for _ in range(8):
            step, value = 1e-6, self._bend(xy)
            along_x = (self._bend(xy + [step, 0]) - value) / step
            along_y = (self._bend(xy + [0, step]) - value) / step
            miss = value - bent
            det = along_x[..., 0] * along_y[..., 1] - along_y[..., 0] * along_x[..., 1]
            dx = (miss[..., 0] * along_y[..., 1] - along_y[..., 0] * miss[..., 1]) / det
            dy = (along_x[..., 0] * miss[..., 1] - miss[..., 0] * along_x[..., 1]) / det
            xy = xy - np.stack([dx, dy], -1).clip(-0.3, 0.3)
            if np.abs(dx).max(initial=0) < 1e-10 and np.abs(dy).max(initial=0) < 1e-10:
                break
        rays = np.concatenate([xy, np.ones_like(xy[..., :1])], -1)
        wrong = ~(np.abs(self._bend(xy) - bent).max(-1) < 1e-7) | (np.linalg.norm(xy, axis=-1) > limit)
        return np.where(wrong[..., None], np.nan, rays / np.linalg.norm(rays, axis=-1, keepdims=True))

    def _equidistant_rays(self, bent: Floats) -> Floats:
        radius = np.linalg.norm(bent, axis=-1)
        table = np.linspace(0, self.widest, 4001)
        angle = np.interp(radius, _equidistant(table, self.distortion), table, right=np.nan)
        for _ in range(4):
            slope = (_equidistant(angle + 1e-6, self.distortion) - _equidistant(angle, self.distortion)) / 1e-6
            angle = angle - (_equidistant(angle, self.distortion) - radius) / slope
        sideways = bent * (np.sin(angle) / np.maximum(radius, 1e-300))[..., None]
        return np.concatenate([sideways, np.cos(angle)[..., None]], -1)


def _equidistant(angle: Floats, distortion: tuple[float, ...]) -> Floats:
    k1, k2, k3, k4 = distortion
    s = angle * angle
    return angle * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4))))
