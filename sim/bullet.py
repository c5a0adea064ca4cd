"""What the PyBullet worlds share: a physics server of their own, its camera, faults, colours near a colour."""

import functools
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import gymnasium
import numpy as np
import numpy.typing as npt
import pybullet

from worldpilot.errors import InvalidInput
from worldpilot.sim.faults import PushFaults
from worldpilot.system import System
from worldpilot.types import ActionSpec, Observation

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


class BulletWorld(gymnasium.Env[npt.NDArray[np.uint8], npt.NDArray[np.float32]]):
    """Base of the worlds: what is seen, and what can go wrong with it. Controls are velocities [m/s].

    Subclasses set `_light` (the direction towards the light) and `_friction` when they build a scene, and call
    `_expose` after each step of physics.

    Args:
        task: its name, for messages.
        camera: what observations are taken with.
        randomise: draw colours, light and friction at each reset (the training randomisation).
        image_size: side of the observed image [px].
        render_images: False skips the camera (observations are then zeros): for experts and physics-only use.
        substeps: of physics in a control period.
        own: the physical parameters that a system may set, with the world's own values.
        system: what was measured of the robot that is simulated; what it says of friction is not drawn.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    ended = False  # pushing goes on whatever happens

    _light: tuple[float, float, float]
    _friction: float

    def __init__(
        self,
        task: str,
        action: ActionSpec,
        budget: int,
        camera: Camera,
        *,
        randomise: bool,
        image_size: int,
        render_images: bool,
        substeps: int,
        own: Mapping[str, float],
        system: System | None,
    ) -> None:
        system = system or System()
        self._parameters, self._measured = system.checked(own), system.parameters
        self.action, self.budget = action, budget
        self.render_mode = "rgb_array"
        self.observation_space = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(*np.asarray((action.low, action.high), np.float32), dtype=np.float32)
        self.faults = PushFaults(self, action, substeps, system)
        self._task, self._camera = task, camera
        self._randomise, self._size, self._render = randomise, image_size, render_images
        self._client = Client()
        self._steps = 0

    def observe(self) -> Observation:
        """The camera's newest image, of shape (size, size, 3) uint8 RGB, stamped in simulated seconds."""
        stamp = self._steps * self.action.control_dt
        if not self._render:
            return Observation(stamp, np.zeros((self._size, self._size, 3), np.uint8))
        return Observation(stamp, self.faults.seen(self.faults.observations.deliver(self._see)))

    def assume(self, parameters: Mapping[str, float]) -> None:
        """From the next reset on, have these physical parameters; what is not named stays.

        Raises:
            UnknownName, InvalidInput: it has no such parameter, or not such a value.
        """
        self._parameters = System(self._task, parameters=parameters).checked(self._parameters)
        self._measured = {**self._measured, **parameters}

    def inject(self, fault: str, **params: float) -> None:
        """Switch a fault on (see `worldpilot.sim.faults`)."""
        self.faults.inject(fault, params)

    def clear_faults(self) -> None:
        """Switch the lasting faults off; a teleport or a new colour stays as it is."""
        self.faults.clear()
        self.set_friction(self._friction)

    def close(self) -> None:
        """Disconnect from the physics server."""
        self._client.disconnect()

    @abstractmethod
    def block(self) -> npt.NDArray[np.float64]:
        """Pose of the object that is pushed, of shape (3,) [m, m, rad]."""

    @abstractmethod
    def place_block(self, pose: npt.NDArray[np.float64]) -> None:
        """Put the object at rest at `pose` (3,) [m, m, rad]."""

    @abstractmethod
    def set_friction(self, friction: float) -> None:
        """Coulomb friction between object and table."""

    @abstractmethod
    def recolour(self, colour: Colour) -> None:
        """Paint the object, RGB in [0, 1]."""

    def _arriving(
        self, control: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
        """The velocities that arrive in the period that begins when `control` of shape (U,) [m/s] is sent: the second
        takes over after a share of it. Without a delay that share is 0, and the second is `control`, clipped.

        Raises:
            InvalidInput: another shape, or not finite.
        """
        velocity, dim = np.asarray(control, np.float64), self.action.control_dim
        if velocity.shape != (dim,) or not np.isfinite(velocity).all():
            raise InvalidInput(f"{self._task}: control must be {dim} finite velocities [m/s], got {control!r}")
        return self.faults.controls.arriving(np.clip(velocity, self.action.low, self.action.high))

    def _expose(self, substep: int) -> None:
        """Take the picture that is delivered late, if step `substep` of physics in a control period is its moment."""
        if self._render:
            self.faults.observations.expose(substep, self._see)

    def _drawn_friction(self, drawn: float) -> float:
        """Of an episode: measured, or else `drawn` for it."""
        return self._measured.get("friction", drawn)

    def _see(self) -> npt.NDArray[np.uint8]:
        image = cv2.resize(self._photograph(2 * self._size), (self._size, self._size), interpolation=cv2.INTER_AREA)
        return np.asarray(image, np.uint8)

    def _photograph(self, size: int) -> npt.NDArray[np.uint8]:
        return self._camera.photograph(self._client, size, self._light)


def around(colour: Colour, spread: float, rng: np.random.Generator) -> Colour:
    """A colour drawn from the cube of half-width `spread` around `colour`."""
    r, g, b = np.clip(np.asarray(colour) + rng.uniform(-spread, spread, 3), 0, 1)
    return float(r), float(g), float(b)
