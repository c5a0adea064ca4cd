"""Push-cube in PyBullet: a Franka Panda pushes a cube on a table, seen by a camera at an angle.

Control is the velocity of the tip [m/s] at 10 Hz: the lower end of a peg in the closed gripper, which points down.
It moves a target through the workspace; inverse kinematics turns the target into joint positions, and the joints'
position controllers follow those. The frame lies on the table in the middle of the workspace: x away from the robot,
z up; the robot's base stands at x = -0.475 m.
As the Panda's own collision reflex does, the arm stops when it meets a force that no push needs: pressed down on the
cube it stays there, rather than shoot the cube away.
Seeded, and deterministic across processes: the whole physics state is built anew at every reset.

The robot is pybullet_data's URDF, drawn by its collision meshes: 3 700 triangles instead of 102 000, so that a picture
takes 1 ms instead of 18 and a reset 9 ms instead of 52.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pybullet
import pybullet_data

from worldpilot.sim.bullet import BulletWorld, Camera, Colour, around
from worldpilot.system import System
from worldpilot.types import ActionSpec

Array = npt.NDArray[np.float64]

ACTION = ActionSpec(
    names=("vx", "vy", "vz"),
    units=("m/s", "m/s", "m/s"),
    low=(-0.25, -0.25, -0.25),
    high=(0.25, 0.25, 0.25),
    max_rate=(5.0, 5.0, 5.0),
    control_dt=0.1,
    block=5,
)
LOW, HIGH = np.array([-0.16, -0.2, 0.012]), np.array([0.16, 0.2, 0.15])  # [m], the box the tip stays in
CUBE_RANGE = np.array([0.09, 0.13])  # [m], half the rectangle in which the cube starts and goals lie
CUBE = 0.05  # [m], edge of the cube
PEG_RADIUS = 0.01  # [m]
REACHED = 0.025  # [m], from the cube to the goal
BUDGET = 200  # control steps of an episode
PHYSICS_DT = ACTION.control_dt / 24  # [s]
PARAMETERS = {"mass": 0.1, "friction": 0.5}  # of the cube [kg], and between cube and table

_SUBSTEPS = round(ACTION.control_dt / PHYSICS_DT)
_BASE = (-0.475, 0.0, 0.0)  # [m]
_AZIMUTH, _ELEVATION, _DISTANCE, _FOV = np.radians(-25), np.radians(45), 1.1, 27.0  # camera; [rad, rad, m, deg]
_DOWN = pybullet.getQuaternionFromEuler([np.pi, 0, np.pi / 2 + _AZIMUTH])  # the camera sees the hand edge-on
_JOINTS = (0, 1, 2, 3, 4, 5, 6, 9, 10)  # seven of the arm, two of the gripper
_EFFORT = (87, 87, 87, 87, 12, 12, 12, 20, 20)  # [Nm], [N], the URDF's limits
_REST = (0.0, 0.06, 0.0, -2.48, 0.0, 2.54, float(-np.pi / 4 - _AZIMUTH), 0.0, 0.0)  # [rad]: above the middle
_TIP = 12  # link
_REFLEX = 15.0  # [N]: a push takes up to 6, pressing the cube on the table 300
_PEG = """
  <link name="peg">
    <inertial><mass value="0.05"/><inertia ixx="1e-4" ixy="0" ixz="0" iyy="1e-4" iyz="0" izz="1e-4"/></inertial>
    <collision><origin xyz="0 0 -0.09"/><geometry><cylinder radius="0.01" length="0.18"/></geometry></collision>
  </link>
  <joint name="peg_joint" type="fixed">
    <parent link="panda_hand"/><child link="peg"/><origin xyz="0 0 0.245"/>
  </joint>
</robot>"""


@dataclass(frozen=True)
class Appearance:
    """What the camera sees beside the geometry; colours are RGB in [0, 1]."""

    cube: Colour = (0.35, 0.45, 0.65)
    mark: Colour = (0.3, 0.7, 0.35)  # the quarter of the cube towards its +x: the yaw can be seen
    peg: Colour = (0.85, 0.25, 0.2)
    robot: Colour = (0.8, 0.8, 0.82)
    table: Colour = (0.88, 0.88, 0.86)
    light: tuple[float, float, float] = (0.3, 0.4, 1.0)  # direction towards the light

    @staticmethod
    def sample(rng: np.random.Generator) -> "Appearance":
        """Colours and light from the training randomisation."""
        base = Appearance()
        lx, ly = rng.uniform(-0.6, 0.6, 2)
        return Appearance(
            around(base.cube, 0.15, rng),
            around(base.mark, 0.1, rng),
            around(base.peg, 0.1, rng),
            around(base.robot, 0.06, rng),
            around(base.table, 0.06, rng),
            (float(lx), float(ly), 1.0),
        )


class PushCube(BulletWorld):
    """The push-cube task: bring the cube to the goal.

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
        direction = [np.cos(_AZIMUTH) * np.cos(_ELEVATION), np.sin(_AZIMUTH) * np.cos(_ELEVATION), np.sin(_ELEVATION)]
        middle = np.array([0, 0, 0.03])
        super().__init__(
            "push_cube",
            ACTION,
            BUDGET,
            Camera.looking(middle + _DISTANCE * np.array(direction), middle, [0, 0, 1], _FOV, 0.1, 2.5),
            randomise=randomise,
            image_size=image_size,
            render_images=render_images,
            substeps=_SUBSTEPS,
            own=PARAMETERS,
            system=system,
        )
        self.goal = np.zeros(2)
        self.stopped = False  # in the last control step the reflex stopped the arm
        self._model = _Model()
        self.reset(seed=0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Start an episode. Options: "cube" pose (3,), "tip" (3,), "goal" (2,), "friction", "appearance"."""
        super().reset(seed=seed)
        rng, given = self.np_random, options or {}
        cube = np.append(rng.uniform(-CUBE_RANGE, CUBE_RANGE), rng.uniform(-np.pi, np.pi))
        cube = np.asarray(given.get("cube", cube), float)
        while True:
            tip = rng.uniform(LOW, HIGH)
            if np.linalg.norm(tip[:2] - cube[:2]) > CUBE:
                break
        tip = np.asarray(given.get("tip", tip), float)
        goal = rng.uniform(-CUBE_RANGE, CUBE_RANGE)
        friction = self._drawn_friction(float(rng.uniform(0.35, 0.65)) if self._randomise else PARAMETERS["friction"])
        appearance = Appearance.sample(rng) if self._randomise else Appearance()
        self.goal = np.asarray(given.get("goal", goal), float)
        self._steps, self.stopped = 0, False
        self.faults.clear()
        self._build(cube, tip, given.get("friction", friction), given.get("appearance", appearance))
        return self.observe().data, self._info()

    def step(self, action: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Apply a control of shape (3,) [m/s] for 0.1 s. The reward is minus the distance; success ends the episode."""
        self.drive(action)
        info = self._info()
        return (
            self.observe().data,
            -info["distance"],
            info["distance"] < REACHED,
            self._steps >= self.budget,
            info,
        )

    def drive(self, control: npt.NDArray[np.floating]) -> None:
        """Advance physics by one control step under `control` [m/s], without looking."""
        before, after, share = self._arriving(control)
        velocity = share * before + (1 - share) * after  # where controls are late by a share of the period
        self._target = np.clip(self._target + velocity * ACTION.control_dt, LOW, HIGH)
        start, end = self._joints, self._inverse(self._target)
        speed = (end - start) / ACTION.control_dt
        self._joints, self.stopped = end, False
        for i in range(1, _SUBSTEPS + 1):
            self._track(start + (end - start) * (i / _SUBSTEPS), speed)
            self._client.stepSimulation()
            self._expose(i)
            if self._force() > _REFLEX:  # stay, from where the arm is, until the next control
                states = self._client.getJointStates(self._robot, _JOINTS)
                start = end = self._joints = np.array([state[0] for state in states])
                speed, self._target = np.zeros_like(end), np.clip(self.tip(), LOW, HIGH)
                self.stopped = True
        self._steps += 1

    def render(self, size: int = 256) -> npt.NDArray[np.uint8]:  # type: ignore[override]
        """A picture for people, of shape (size, size, 3): the scene with the circle of the goal on the table."""
        image = np.ascontiguousarray(self._photograph(size))
        turn = np.linspace(0, 2 * np.pi, 40)
        circle = np.stack(
            [self.goal[0] + REACHED * np.cos(turn), self.goal[1] + REACHED * np.sin(turn), 0 * turn], axis=-1
        )
        pixels = np.round(self._camera.pixels(circle, size)).astype(np.int32)
        cv2.polylines(image, [pixels], True, (40, 160, 70), 1, cv2.LINE_AA)
        return image

    def signals(self) -> dict[str, float]:
        """Ground truth by the names of the artifact's readouts."""
        tip, cube = self.tip(), self.block()
        return {
            "gripper_x": float(tip[0]),
            "gripper_y": float(tip[1]),
            "gripper_z": float(tip[2]),
            "cube_x": float(cube[0]),
            "cube_y": float(cube[1]),
            "cube_yaw": float(cube[2]),
        }

    def tip(self) -> Array:
        """Position of the peg's lower end, of shape (3,) [m]."""
        return np.asarray(self._client.getLinkState(self._robot, _TIP, computeForwardKinematics=1)[4])

    def block(self) -> Array:
        """Pose of the cube, of shape (3,) [m, m, rad]."""
        position, quaternion = self._client.getBasePositionAndOrientation(self._cube)
        return np.array([position[0], position[1], pybullet.getEulerFromQuaternion(quaternion)[2]])

    def distance(self) -> float:
        """From the cube to the goal, on the table [m]."""
        return float(np.linalg.norm(self.block()[:2] - self.goal))

    def outcome(self) -> dict[str, Any]:
        """The goal's position [m, m] and the distance left [m]."""
        return {"goal": [float(x) for x in self.goal], "distance": self.distance()}

    def place_block(self, pose: Array) -> None:
        """Put the cube at rest at `pose` (3,) [m, m, rad]."""
        quaternion = pybullet.getQuaternionFromEuler([0, 0, float(pose[2])])
        self._client.resetBasePositionAndOrientation(self._cube, [pose[0], pose[1], CUBE / 2], quaternion)
        self._client.resetBaseVelocity(self._cube, [0, 0, 0], [0, 0, 0])

    def set_friction(self, friction: float) -> None:
        """Coulomb friction between cube and table."""
        self._client.changeDynamics(self._cube, -1, lateralFriction=friction)

    def recolour(self, colour: Colour) -> None:
        """Paint the cube but for its mark, RGB in [0, 1]."""
        self._client.changeVisualShape(self._cube, -1, 0, rgbaColor=[*colour, 1])

    def close(self) -> None:
        """Disconnect from the physics server."""
        super().close()
        self._model.close()

    def _info(self) -> dict[str, Any]:
        return {"distance": self.distance(), "signals": self.signals(), "steps": self._steps}

    def _track(self, joints: Array, speed: Array) -> None:
        """Set the joints' position controllers, (9,) [rad] and [rad/s]."""
        self._client.setJointMotorControlArray(
            self._robot,
            _JOINTS,
            pybullet.POSITION_CONTROL,
            targetPositions=joints,
            targetVelocities=speed,
            forces=_EFFORT,
            positionGains=[0.3] * len(_JOINTS),
        )

    def _force(self) -> float:
        """Between robot and cube [N]."""
        return sum(contact[9] for contact in self._client.getContactPoints(self._robot, self._cube))

    def _inverse(self, tip: Array) -> Array:
        """Joint positions, of shape (9,) [rad], that hold the tip at `tip`: searched from rest, so a function of it."""
        # Given where to search from, PyBullet takes the target in the inertial frame of the base.
        base = self._client.getBasePositionAndOrientation(self._robot)[0]
        return np.asarray(
            self._client.calculateInverseKinematics(
                self._robot,
                _TIP,
                tip - np.asarray(base),
                _DOWN,
                currentPositions=_REST,
                maxNumIterations=200,
                residualThreshold=1e-5,
            )
        )

    def _build(self, cube: Array, tip: Array, friction: float, appearance: Appearance) -> None:
        p, self._light, self._friction = self._client, appearance.light, friction
        p.resetSimulation()
        p.setPhysicsEngineParameter(deterministicOverlappingPairs=1)
        p.setTimeStep(PHYSICS_DT)
        p.setGravity(0, 0, -9.81)
        half = [1.0, 1.0, 0.01]
        table = p.createMultiBody(
            0,
            p.createCollisionShape(p.GEOM_BOX, halfExtents=half),
            p.createVisualShape(p.GEOM_BOX, halfExtents=half, rgbaColor=[*appearance.table, 1]),
            [0, 0, -0.01],
        )
        p.changeDynamics(table, -1, lateralFriction=1.0)
        side = CUBE / 2
        self._cube = p.createMultiBody(
            self._parameters["mass"],
            p.createCollisionShape(p.GEOM_BOX, halfExtents=[side] * 3),
            p.createVisualShapeArray(
                [p.GEOM_BOX] * 2,
                halfExtents=[[0.75 * side, side, side], [0.25 * side, side, side]],
                visualFramePositions=[[-0.25 * side, 0, 0], [0.75 * side, 0, 0]],
                rgbaColors=[[*appearance.cube, 1], [*appearance.mark, 1]],
            ),
            [cube[0], cube[1], side],
            pybullet.getQuaternionFromEuler([0, 0, float(cube[2])]),
        )
        self.set_friction(friction)
        self._robot = p.loadURDF(self._model.urdf, _BASE, useFixedBase=True)
        for link in range(-1, _TIP):
            p.changeVisualShape(self._robot, link, rgbaColor=[*appearance.robot, 1])
        p.changeVisualShape(self._robot, _TIP, rgbaColor=[*appearance.peg, 1])
        p.changeDynamics(self._robot, _TIP, lateralFriction=0.3)
        self._target = np.clip(tip, LOW, HIGH)
        self._joints = self._inverse(self._target)
        for joint, position in zip(_JOINTS, self._joints, strict=True):
            p.resetJointState(self._robot, joint, position)


class _Model:
    """pybullet_data's Panda with a peg in its gripper, drawn by its collision meshes: a URDF in a folder of its own.

    Without a visual a link is drawn by its collision shape.
    """

    def __init__(self) -> None:
        panda = Path(pybullet_data.getDataPath()) / "franka_panda"
        urdf = re.sub(r"<visual>.*?</visual>", "", (panda / "panda.urdf").read_text(), flags=re.DOTALL)
        self._folder = TemporaryDirectory(prefix="worldpilot-panda-")
        folder = Path(self._folder.name)
        (folder / "meshes").symlink_to(panda / "meshes")
        (folder / "panda.urdf").write_text(urdf.replace("</robot>", _PEG))
        self.urdf = str(folder / "panda.urdf")

    def close(self) -> None:
        self._folder.cleanup()
