"""Pictures of a flat pattern through a lens: rays are traced exactly, and many of them make a pixel."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from worldpilot.sim.lens import Lens

Floats = npt.NDArray[np.float64]
GreyImage = npt.NDArray[np.uint8]

_RAYS = 3  # a pixel has the square of that
_STEP = 16  # [px], between the rays by which the sheet is looked for
_FAR = 3e4  # [px of a sheet]
_WALL = 90  # [grey level of 255]


@dataclass(frozen=True)
class Pattern:
    """What is printed.

    Args:
        image: (H, W) grey; the sheet ends where it ends.
        to_pixels: (3, 3), homogeneous x, y in the pattern's frame [m] to pixels of `image`.
        points: (P, 3) [m] that shall be seen, for choosing poses.
    """

    image: GreyImage
    to_pixels: Floats
    points: Floats


@dataclass(frozen=True)
class Light:
    """What a picture suffers from.

    Args:
        blur: standard deviation of the optics' Gaussian [px].
        noise: standard deviation of the sensor's [grey levels of 255].
        gradient: share by which the light falls from one side of the image to the other.
        motion: length [px] and direction [rad] of a movement during the exposure.
    """

    blur: float = 0.6
    noise: float = 2.0
    gradient: float = 0.3
    motion: tuple[float, float] = (0.0, 0.0)


class Studio:
    """Takes pictures with one lens; the rays of its pixels are traced once."""

    def __init__(self, lens: Lens, light: Light | None = None) -> None:
        self.lens, self.light = lens, light or Light()
        width, height = lens.size
        self._rays = lens.rays(np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float64))

    def picture(self, pattern: Pattern, pose: Floats, rng: np.random.Generator) -> GreyImage:
        """The pattern at a pose (4, 4) in the camera's frame (z ahead, y down), before a dim wall.

        A ray d meets the plane in H⁻¹ d with H = [r1 r2 t]: the inverse mapping, without approximation; between the
        centres of two pixels it is taken as linear.
        """
        to_sheet = pattern.to_pixels @ np.linalg.inv(pose[:3][:, [0, 1, 3]])  # its last row is that of the inverse
        shades = np.full(self._rays.shape[:2], _WALL, np.float32)
        part = self._around(to_sheet, pattern.image.shape)
        if part is not None:
            where = _met(self._rays[part], to_sheet)
            size = where.shape[1::-1]
            fine = cv2.resize(where, (size[0] * _RAYS, size[1] * _RAYS))
            seen = cv2.remap(
                pattern.image, fine[..., 0], fine[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT, (_WALL,)
            )
            shades[part] = cv2.resize(seen.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        return self._expose(shades, rng)

    def _around(self, to_sheet: Floats, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
        """The rows and columns in which the sheet, `shape` pixels large, may be seen; None: nowhere."""
        coarse = _met(self._rays[::_STEP, ::_STEP], to_sheet)
        reach = 0.5 * max(shape)  # far more than the sheet extends between two of these rays
        near = np.abs(coarse - 0.5 * np.array(shape[::-1])).max(-1) < 0.5 * max(shape) + reach
        if not near.any():
            return None
        top, bottom = _STEP * np.flatnonzero(near.any(1))[[0, -1]]
        left, right = _STEP * np.flatnonzero(near.any(0))[[0, -1]]
        rows = slice(max(top - _STEP, 0), bottom + 2 * _STEP)
        return rows, slice(max(left - _STEP, 0), right + 2 * _STEP)

    def _expose(self, shades: npt.NDArray[np.float32], rng: np.random.Generator) -> GreyImage:
        light, (height, width) = self.light, shades.shape
        angle = rng.uniform(-np.pi, np.pi)
        u, v = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height))
        lit = 25 + shades * (0.78 * (1 - light.gradient * (0.5 + np.cos(angle) * u + np.sin(angle) * v)))
        if light.blur > 0:
            lit = cv2.GaussianBlur(lit, (0, 0), light.blur)
        length, direction = light.motion
        if length > 0:
            lit = _smear(lit, length, direction)
        return np.round(lit + light.noise * rng.standard_normal(lit.shape, np.float32)).clip(0, 255).astype(np.uint8)


def _met(rays: Floats, to_sheet: Floats) -> npt.NDArray[np.float32]:
    """Where rays (..., 3) meet the sheet (..., 2) [its pixels]; far outside where they don't."""
    met = rays @ to_sheet.T
    with np.errstate(divide="ignore", invalid="ignore"):
        at = met[..., :2] / met[..., 2:]
    missed = ~((met[..., 2] > 0) & np.isfinite(at).all(-1))
    at[missed] = -_FAR
    return at.clip(-_FAR, _FAR).astype(np.float32)


def _smear(image: npt.NDArray[np.float64], length: float, direction: float) -> npt.NDArray[np.float64]:
    steps = np.linspace(-length / 2, length / 2, 2 * int(np.ceil(length)) + 1)
    total = np.zeros_like(image)
    for step in steps:
        shift = np.array([[1, 0, step * np.cos(direction)], [0, 1, step * np.sin(direction)]])
        total += cv2.warpAffine(image, shift, image.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    return total / len(steps)


def poses(
    lens: Lens,
    pattern: Pattern,
    rng: np.random.Generator,
    *,
    inside: float = 0.9,
    tilt: float = 50.0,
    turns: tuple[float, ...] = (0.0, 0.0, 0.0, 90.0, -90.0),
) -> Iterator[Floats]:
    """Poses (4, 4) of a pattern that somebody waves before the camera, without end.

    Args:
        inside: share of its points that must be in the image.
        tilt: largest angle between its normal and the view of its centre [degrees].
        turns: of the pattern in its plane, one is drawn, and 9 degrees around it [degrees].
    """
    width, height = lens.size
    low, high = pattern.points[:, :2].min(0), pattern.points[:, :2].max(0)
    centre, extent = np.append((low + high) / 2, 0.0), float(np.linalg.norm(high - low))
    upright = np.diag([1.0, 1, 1]) if reads_upright(pattern) else np.diag([1.0, -1, -1])
    while True:
        towards = lens.rays(rng.uniform([0.1 * width, 0.1 * height], [0.9 * width, 0.9 * height]))
        if np.isnan(towards).any():
            continue
        distance = extent * 0.5 * (lens.fx + lens.fy) / (width * rng.uniform(0.25, 0.95))
        axis, amount = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(0, tilt))
        turn = rotation(np.array([np.cos(axis), np.sin(axis), 0]) * amount)
        roll = rotation(np.array([0, 0, np.deg2rad(rng.choice(turns)) + rng.normal(0, 0.15)]))
        face = _facing(towards) @ turn @ roll @ upright
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = face, towards * distance - face @ centre
        pixels = lens.project(pattern.points @ face.T + pose[:3, 3])
        if np.mean(((pixels > 5) & (pixels < [width - 6, height - 6])).all(1)) >= inside:
            yield pose


def rotation(vector: Floats) -> Floats:
    """(3, 3) of a rotation vector [rad]."""
    return cv2.Rodrigues(np.asarray(vector, np.float64))[0].astype(np.float64)


def reads_upright(pattern: Pattern) -> bool:
    """Whether the pattern's frame has y down in its image, so that z points into the sheet."""
    return bool(np.linalg.det(pattern.to_pixels[:2, :2]) > 0)


def _facing(direction: Floats) -> Floats:
    """The smallest rotation that takes the camera's axis to a direction."""
    axis = np.cross([0, 0, 1.0], direction)
    sine = float(np.linalg.norm(axis))
    return np.eye(3) if sine < 1e-9 else rotation(axis / sine * np.arctan2(sine, direction[2]))
