"""Push-T in PyBullet: a T-shaped block on a table, a position-controlled pusher, a camera above.

Control is the planar velocity of the pusher [m/s] at 10 Hz. Observations are RGB images from the overhead camera,
image up = +y. Seeded, and deterministic across processes: the whole physics state is built anew at every reset.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pybullet

from worldpilot.sim import geometry
from worldpilot.sim.bullet import BulletWorld, Camera, Colour, around
from worldpilot.system import System
from worldpilot.types import ActionSpec

ACTION = ActionSpec(
    names=("vx", "vy"),
    units=("m/s", "m/s"),
    low=(-0.25, -0.25),
    high=(0.25, 0.25),
    max_rate=(5.0, 5.0),
    control_dt=0.1,
    block=5,
)
GOAL = np.array([0.0, 0.0, -np.pi / 4])  # the canonical goal: x [m], y [m], yaw [rad]
WORKSPACE = 0.24  # [m], half the side of the square the pusher stays in
BLOCK_RANGE = 0.13  # [m], half the side of the square in which the block starts and goals lie
PUSHER_RADIUS = 0.014  # [m]
BUDGET = 300  # control steps of an episode
PHYSICS_DT = ACTION.control_dt / 12  # [s]
PARAMETERS = {"mass": 0.2, "friction": 0.5}  # of the block [kg], and between block and table

_SUBSTEPS = round(ACTION.control_dt / PHYSICS_DT)
_CAMERA_HEIGHT, _FIELD = 1.0, 0.52  # [m]: the image covers a square of 0.52 m on the table
_HALF_HEIGHT = 0.02  # [m]
_PUSHER_HEIGHT = _HALF_HEIGHT + 0.004  # [m], of its centre: it hangs just above the table


@dataclass(frozen=True)
class Appearance:
    """What the camera sees beside the geometry; colours are RGB in [0, 1]."""

    block: Colour = (0.35, 0.45, 0.65)
    pusher: Colour = (0.85, 0.25, 0.2)
    table: Colour = (0.88, 0.88, 0.86)
    light: tuple[float, float, float] = (0.3, 0.4, 1.0)  # direction towards the light

    @staticmethod
    def sample(rng: np.random.Generator) -> "Appearance":
        """Colours and light from the training randomisation."""
        base = Appearance()
        lx, ly = rng.uniform(-0.6, 0.6, 2)
        return Appearance(
            around(base.block, 0.15, rng),
            around(base.pusher, 0.1, rng),
            around(base.table, 0.06, rng),
            (float(lx), float(ly), 1.0),
        )


class PushT(BulletWorld):
    """The Push-T task: cover the goal T with the block.

    Args:
        randomise: draw colours, light and friction at each reset (the training randomisation).
        image_size: side of the observed image [px].
        render_images: False skips the camera (observations are then zeros): for experts and physics-only use.
        system: what was measured of the robot that is simulated.
    """

    def __init__(
        self,
        *,
        randomise: bool = True,
        image_size: int = 64,
        render_images: bool = True,
        system: System | None = None,
    ) -> None:
        fov = float(np.degrees(2 * np.arctan(_FIELD / 2 / _CAMERA_HEIGHT)))
        super().__init__(
            "push_t",
            ACTION,
            BUDGET,
            Camera.looking([0, 0, _CAMERA_HEIGHT], [0, 0, 0], [0, 1, 0], fov, 0.3, 2.0),
            randomise=randomise,
            image_size=image_size,
            render_images=render_images,
            substeps=_SUBSTEPS,
            own=PARAMETERS,
            system=system,
        )
        self.goal = GOAL.copy()
        self.senses = False  # the pusher's force is measured, which takes time
        self.reset(seed=0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Start an episode. Options: "block" and "goal" poses (3,), "pusher" (2,), "friction", "appearance"."""
        super().reset(seed=seed)
        rng, given = self.np_random, options or {}
        block = rng.uniform([-BLOCK_RANGE, -BLOCK_RANGE, -np.pi], [BLOCK_RANGE, BLOCK_RANGE, np.pi])
        block = np.asarray(given.get("block", block), float)
        while True:
            pusher = rng.uniform(-0.9 * WORKSPACE, 0.9 * WORKSPACE, 2)
            if clearance(pusher, block) > 0.01:
                break
        pusher = np.asarray(given.get("pusher", pusher), float)
        friction = self._drawn_friction(float(rng.uniform(0.35, 0.65)) if self._randomise else PARAMETERS["friction"])
        appearance = Appearance.sample(rng) if self._randomise else Appearance()
        self.goal = np.asarray(given.get("goal", GOAL), float)
        self._steps, self._force = 0, np.zeros(2)
        self.faults.clear()
        self._build(block, pusher, given.get("friction", friction), given.get("appearance", appearance))
        return self.observe().data, self._info()

    def step(self, action: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Apply a control of shape (2,) [m/s] for 0.1 s. The reward is the overlap; success ends the episode."""
        self.drive(action)
        info = self._info()
        return (
            self.observe().data,
            info["overlap"],
            info["overlap"] > 0.9,
            self._steps >= self.budget,
            info,
        )

    def drive(self, control: npt.NDArray[np.floating]) -> None:
        """Advance physics by one control step under `control` [m/s], without looking."""
        before, after, share = self._arriving(control)  # the velocity changes within the period where controls are late
        start = self._target.copy()
        turn = np.clip(start + before * ACTION.control_dt * share, -WORKSPACE, WORKSPACE)
        impulse = np.zeros(2)
        self._target = np.clip(turn + after * ACTION.control_dt * (1 - share), -WORKSPACE, WORKSPACE)
        for i in range(1, _SUBSTEPS + 1):
            done = i / _SUBSTEPS
            if done < share:
                x, y = start + (turn - start) * (done / share)
            else:
                x, y = turn + (self._target - turn) * ((done - share) / (1 - share))
            self._client.changeConstraint(self._constraint, [x, y, _PUSHER_HEIGHT], maxForce=20)
            self._client.stepSimulation()
            self._expose(i)
            if self.senses:
                impulse += self._push() * PHYSICS_DT
        self._force = impulse / ACTION.control_dt
        self._steps += 1

    def render(self, size: int = 256) -> npt.NDArray[np.uint8]:  # type: ignore[override]
        """A picture for people, of shape (size, size, 3): the scene with the goal's outline."""
        image = np.ascontiguousarray(self._photograph(size))
        scale = size / _FIELD
        for cx, cy, hx, hy in geometry.BOXES:
            corners = np.array([[cx - hx, cy - hy], [cx + hx, cy - hy], [cx + hx, cy + hy], [cx - hx, cy + hy]])
            world = geometry.to_world(corners, self.goal)
            pixels = np.round(np.stack([size / 2 + world[:, 0] * scale, size / 2 - world[:, 1] * scale], -1))
            cv2.polylines(image, [pixels.astype(np.int32)], True, (40, 160, 70), 1, cv2.LINE_AA)
        return image

    def signals(self) -> dict[str, float]:
        """Ground truth by the names of the artifact's readouts."""
        pusher, block = self.pusher(), self.block()
        return {
            "pusher_x": float(pusher[0]),
            "pusher_y": float(pusher[1]),
            "block_x": float(block[0]),
            "block_y": float(block[1]),
            "block_yaw": float(block[2]),
        }

    def sensors(self) -> dict[str, float]:
        """What the robot itself can measure, if `senses` is set: the mean force of the pusher on the block in the last
        control step [N], by axis."""
        return {"force_x": float(self._force[0]), "force_y": float(self._force[1])}

    def pusher(self) -> npt.NDArray[np.float64]:
        """Position of the pusher, of shape (2,) [m]."""
        return np.asarray(self._client.getBasePositionAndOrientation(self._pusher)[0][:2])

    def block(self) -> geometry.Pose:
        """Pose of the block, of shape (3,) [m, m, rad]."""
        position, quaternion = self._client.getBasePositionAndOrientation(self._block)
        return np.array([position[0], position[1], pybullet.getEulerFromQuaternion(quaternion)[2]])

    def overlap(self) -> float:
        """Share of the goal T covered by the block, in [0, 1]."""
        return geometry.overlap(self.block(), self.goal)

    def outcome(self) -> dict[str, Any]:
        """The goal's pose [m, m, rad] and the overlap reached."""
        return {"goal": [float(x) for x in self.goal], "overlap": self.overlap()}

    def place_block(self, pose: npt.NDArray[np.float64]) -> None:
        """Put the block at rest at `pose` (3,) [m, m, rad]."""
        quaternion = pybullet.getQuaternionFromEuler([0, 0, float(pose[2])])
        self._client.resetBasePositionAndOrientation(self._block, [pose[0], pose[1], _HALF_HEIGHT], quaternion)
        self._client.resetBaseVelocity(self._block, [0, 0, 0], [0, 0, 0])

    def place_pusher(self, position: npt.NDArray[np.float64]) -> None:
        """Put the pusher at rest at `position` (2,) [m]."""
        self._client.resetBasePositionAndOrientation(
            self._pusher, [position[0], position[1], _PUSHER_HEIGHT], [0, 0, 0, 1]
        )
        self._client.resetBaseVelocity(self._pusher, [0, 0, 0], [0, 0, 0])
        self._target = np.asarray(position, float).copy()
        self._client.changeConstraint(self._constraint, [*self._target, _PUSHER_HEIGHT], maxForce=20)

    def set_friction(self, friction: float) -> None:
        """Coulomb friction between block and table."""
        self._client.changeDynamics(self._block, -1, lateralFriction=friction)

    def recolour(self, colour: Colour) -> None:
        """Paint the block, RGB in [0, 1]."""
        for shape in range(len(geometry.BOXES)):
            self._client.changeVisualShape(self._block, -1, shape, rgbaColor=[*colour, 1])

    def _push(self) -> npt.NDArray[np.float64]:
        """Force of the pusher on the block, of shape (2,) [N]."""
        contacts = self._client.getContactPoints(self._block, self._pusher)  # normals point at the block
        forces = [np.array(c[7]) * c[9] + np.array(c[11]) * c[10] + np.array(c[13]) * c[12] for c in contacts]
        return sum(forces, np.zeros(3))[:2]

    def _info(self) -> dict[str, Any]:
        return {"overlap": self.overlap(), "signals": self.signals(), "steps": self._steps}

    def _build(
        self, block: geometry.Pose, pusher: npt.NDArray[np.float64], friction: float, appearance: Appearance
    ) -> None:
        p, self._light, self._friction = self._client, appearance.light, friction
        p.resetSimulation()
        p.setPhysicsEngineParameter(deterministicOverlappingPairs=1)
        p.setTimeStep(PHYSICS_DT)
        p.setGravity(0, 0, -9.81)
        half = [_FIELD, _FIELD, 0.01]
        table = p.createMultiBody(
            0,
            p.createCollisionShape(p.GEOM_BOX, halfExtents=half),
            p.createVisualShape(p.GEOM_BOX, halfExtents=half, rgbaColor=[*appearance.table, 1]),
            [0, 0, -0.01],
        )
        p.changeDynamics(table, -1, lateralFriction=1.0)
        halves = [[hx, hy, _HALF_HEIGHT] for _, _, hx, hy in geometry.BOXES]
        centres = [[cx, cy, 0] for cx, cy, _, _ in geometry.BOXES]
        boxes = [p.GEOM_BOX] * len(halves)
        self._block = p.createMultiBody(
            self._parameters["mass"],
            p.createCollisionShapeArray(boxes, halfExtents=halves, collisionFramePositions=centres),
            p.createVisualShapeArray(
                boxes,
                halfExtents=halves,
                visualFramePositions=centres,
                rgbaColors=[[*appearance.block, 1]] * len(halves),
            ),
            [block[0], block[1], _HALF_HEIGHT],
            pybullet.getQuaternionFromEuler([0, 0, float(block[2])]),
        )
        self.set_friction(friction)
        self._pusher = p.createMultiBody(
            1.0,
            p.createCollisionShape(p.GEOM_CYLINDER, radius=PUSHER_RADIUS, height=2 * _HALF_HEIGHT),
            p.createVisualShape(
                p.GEOM_CYLINDER, radius=PUSHER_RADIUS, length=2 * _HALF_HEIGHT, rgbaColor=[*appearance.pusher, 1]
            ),
            [pusher[0], pusher[1], _PUSHER_HEIGHT],
        )
        p.changeDynamics(self._pusher, -1, lateralFriction=0.3)
        self._constraint = p.createConstraint(
            self._pusher, -1, -1, -1, p.JOINT_FIXED, [0, 0, 0], [0, 0, 0], [pusher[0], pusher[1], _PUSHER_HEIGHT]
        )
        self._target = pusher.copy()


def clearance(point: npt.NDArray[np.float64], block: geometry.Pose) -> float:
    """Distance between the pusher's rim at `point` and the block [m]; negative inside."""
    local = geometry.to_block(point, block)
    gaps = [
        np.hypot(max(abs(local[0] - cx) - hx, 0), max(abs(local[1] - cy) - hy, 0)) for cx, cy, hx, hy in geometry.BOXES
    ]
    return float(min(gaps)) - PUSHER_RADIUS
