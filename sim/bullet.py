"""What the PyBullet worlds share: a physics server of their own, its camera, colours near a colour."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pybullet

Colour = tuple[float, float, float]  # RGB in [0, 1]


class Client:
    """PyBullet's functions and constants, bound to a physics server of its own."""

    def __init__(self) -> None:
        self._id = pybullet.connect(pybullet.DIRECT)

    def __getattr__(self, name: str) -> Any:
        value = getattr(pybullet, name)
        return functools.partial(value, physicsClientId=self._id) if callable(value) else value


@dataclass(frozen=True)
class Camera:
    """A square pinhole camera, OpenGL's matrices of 16 numbers, column by column."""

    view: tuple[float, ...]
    projection: tuple[float, ...]

    @staticmethod
    def looking(
        eye: npt.ArrayLike, at: npt.ArrayLike, up: npt.ArrayLike, fov: float, near: float, far: float
    ) -> "Camera":
        """At `eye` [m], turned to `at` [m], with an opening angle of `fov` [deg]; sees from `near` to `far` [m]."""
        return Camera(pybullet.computeViewMatrix(eye, at, up), pybullet.computeProjectionMatrixFOV(fov, 1, near, far))

    def photograph(self, client: Client, size: int, light: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
        """An image of shape (size, size, 3) RGB, without shadows, lit from the direction `light`."""
        frame = client.getCameraImage(
            size,
            size,
            self.view,
            self.projection,
            shadow=0,
            lightDirection=light,
            renderer=pybullet.ER_TINY_RENDERER,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
        )[2]
        return np.reshape(np.asarray(frame, np.uint8), (size, size, 4))[:, :, :3]

    def pixels(self, points: npt.NDArray[np.floating], size: int) -> npt.NDArray[np.float64]:
        """Points of shape (n, 3) [m] as pixels (column, row) of shape (n, 2) of a `size` px wide image."""
        view, projection = (np.reshape(m, (4, 4), order="F") for m in (self.view, self.projection))
        clip = np.c_[points, np.ones(len(points))] @ (projection @ view).T
        x, y = (clip[:, :2] / clip[:, 3:]).T
        return np.stack([(1 + x) * size / 2, (1 - y) * size / 2], -1)


def around(colour: Colour, spread: float, rng: np.random.Generator) -> Colour:
    """A colour drawn from the cube of half-width `spread` around `colour`."""
    r, g, b = np.clip(np.asarray(colour) + rng.uniform(-spread, spread, 3), 0, 1)
    return float(r), float(g), float(b)
