"""What the legged worlds share: joints under PD control, a proprioceptive state by name, faults, falling, a picture.

Physics at 500 Hz, controls at 50 Hz. A control is the joints' target angles as offsets from the stance [rad]; 0 stands.
Nothing of the state tells where on the plane the robot is or which way it faces. Frames by REP-103: x forward, y left,
z up; velocities and rates in the heading frame (the body's, without its roll and pitch); pitch is positive nose down,
roll positive right side down. Seeded, and deterministic across processes: physics is built anew at every reset.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import gymnasium
import numpy as np
import numpy.typing as npt
import pybullet
import pybullet_data

from worldpilot.errors import InvalidInput
from worldpilot.sim.bullet import Camera, Client
from worldpilot.sim.faults import LeggedFaults
from worldpilot.system import System
from worldpilot.types import ActionSpec, FloatArray, Observation

Array = npt.NDArray[np.float64]

CONTROL_DT = 0.02  # [s]
BUDGET = 500  # control steps of an episode: 10 s
AFTER_FALL = 5  # control steps that an episode of data goes on once the robot has fallen

_SUBSTEPS = 10
_BODY = {  # what is measured of the trunk, with its unit
    "height": "m",
    "forward_velocity": "m/s",
    "lateral_velocity": "m/s",
    "vertical_velocity": "m/s",
    "roll": "rad",
    "pitch": "rad",
    "roll_rate": "rad/s",
    "pitch_rate": "rad/s",
    "yaw_rate": "rad/s",
}
OUT_OF_PLANE = ("lateral_velocity", "roll", "roll_rate", "yaw_rate")
PARAMETERS = {"payload": 0.0, "friction": 0.9}  # in the trunk's centre of mass [kg]; between feet and ground

_FRICTION_RANGE = (0.7, 1.1)
_OFFSET_SPREAD = 0.05  # [rad], of the joints at the start
_LOCK_TORQUE = 1e3  # [N m]
_MOMENT = (  # what driving changes in the world object, beside physics
    *("_control", "_q", "_dq", "_position", "_quaternion", "_velocity", "_rates", "_contacts", "_trunk_touches"),
    *("_force", "_steps", "_apex", "ended"),
)


@dataclass(frozen=True)
class Robot:
    """A legged robot; U joints in the order of its controls, whose names are the joints' in the state.

    Args:
        load: puts the body into the world, the trunk at stance height, and returns its id.
        joints: their names in the model file.
        feet: name after `contact_` -> link of the model file that touches the ground.
        trunk: link that is the trunk; None: the body's base.
        planar: it moves in the xz plane only, by joints of the model file; then there is no roll, yaw or sideways.
        stance: joint angles at control 0 [rad], of shape (U,), as are `kp` [N m/rad], `kd` [N m s/rad], `torque` [N m].
        fallen_height: the trunk's centre of mass is below [m]: fallen.
        fallen_tilt: its roll or pitch is beyond [rad]: fallen, as when the trunk touches the ground.
        settle: how long it stands before an episode begins [s].
    """

    name: str
    action: ActionSpec
    load: Callable[[Client], int]
    joints: tuple[str, ...]
    feet: Mapping[str, str]
    stance: tuple[float, ...]
    kp: tuple[float, ...]
    kd: tuple[float, ...]
    torque: tuple[float, ...]
    fallen_height: float
    fallen_tilt: float
    trunk: str | None = None
    planar: bool = False
    settle: float = 0.5

    @cached_property
    def state(self) -> Mapping[str, str]:
        """The state's components with their units, in order."""
        body = {name: unit for name, unit in _BODY.items() if not (self.planar and name in OUT_OF_PLANE)}
        contacts = {f"contact_{foot}": "1" for foot in self.feet}
        joints = self.action.names
        return {
            **body,
            **contacts,
            **{f"q_{joint}": "rad" for joint in joints},
            **{f"dq_{joint}": "rad/s" for joint in joints},
            **{f"control_{joint}": "rad" for joint in joints},
        }

    @cached_property
    def signals(self) -> Mapping[str, str]:
        """The signals with their units: of the state, what is measured of trunk and feet; and `fallen`."""
        shown = {name for name in _BODY if name != "roll_rate"} | {f"contact_{foot}" for foot in self.feet}
        return {name: unit for name, unit in self.state.items() if name in shown} | {"fallen": "1"}


@dataclass(frozen=True)
class Snapshot:
    """A moment of a world that it can be brought back to."""

    physics: int  # PyBullet's id of it
    values: Mapping[str, Any]
    queue: tuple[Array, ...]  # controls that a delay has yet to deliver
    taken: tuple[FloatArray, ...]  # states that have yet to be seen


class LeggedWorld(gymnasium.Env[FloatArray, FloatArray]):
    """A legged robot on a plane.

    Args:
        robot: which one.
        randomise: draw friction and the joints' angles at each reset.
        system: what was measured of the robot that is simulated; what it says of friction is not drawn.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, robot: Robot, *, randomise: bool = True, system: System | None = None) -> None:
        system = system or System()
        self._parameters, self._measured = system.checked(PARAMETERS), system.parameters
        self.robot, self.action, self.budget = robot, robot.action, BUDGET
        self.render_mode = "rgb_array"
        self.state_names, self.state_units = tuple(robot.state), tuple(robot.state.values())
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (len(robot.state),), np.float32)
        self.action_space = gymnasium.spaces.Box(
            *np.asarray((self.action.low, self.action.high), np.float32), dtype=np.float32
        )
        self.faults = LeggedFaults(self, self.action, _SUBSTEPS, system)
        self._randomise, self._client = randomise, Client()
        self._stance, self._kp, self._kd, self._torque = (
            np.asarray(values) for values in (robot.stance, robot.kp, robot.kd, robot.torque)
        )
        self.reset(seed=0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start an episode, standing. Options: "offsets" of the joints from the stance (U,) [rad], "friction"."""
        super().reset(seed=seed)
        rng, given = self.np_random, options or {}
        offsets = rng.uniform(-_OFFSET_SPREAD, _OFFSET_SPREAD, self.action.control_dim) * self._randomise
        drawn = float(rng.uniform(*_FRICTION_RANGE)) if self._randomise else PARAMETERS["friction"]
        friction = self._measured.get("friction", drawn)
        self._control = np.asarray(given.get("offsets", offsets), float)
        self._friction = float(given.get("friction", friction))
        self.faults.clear()
        self._build()
        for _ in range(round(self.robot.settle / CONTROL_DT)):
            self._advance(self._control, self._control, 0.0)
        self._steps, self.ended = 0, False
        self.faults.observations.taken = ()
        self._start, self._apex = self._position[:2], self._position[2]
        self._judge()
        return self.observe().data, self._info()

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Apply a control of shape (U,) [rad] for 0.02 s. The reward is the forward velocity; a fall ends the episode.

        Raises:
            InvalidInput: another shape, or not finite.
        """
        self.drive(action)
        info = self._info()
        reward = info["signals"]["forward_velocity"]
        return self.observe().data, reward, self.ended, self._steps >= self.budget, info

    def drive(self, control: npt.NDArray[np.floating[Any]]) -> None:
        """Advance physics by one control step under `control` of shape (U,) [rad], without looking."""
        offsets, dim = np.asarray(control, np.float64), self.action.control_dim
        if offsets.shape != (dim,) or not np.isfinite(offsets).all():
            raise InvalidInput(f"{self.robot.name}: control must be {dim} finite joint offsets [rad], got {control!r}")
        before, self._control, share = self.faults.controls.arriving(
            np.clip(offsets, self.action.low, self.action.high)
        )
        self._advance(before, self._control, share)
        self._steps += 1
        self._apex = max(self._apex, self._position[2])
        self._judge()

    def observe(self) -> Observation:
        """The state, of shape (S,) float32, its components named by `state_names`; stamped in simulated seconds."""
        return Observation(self._steps * CONTROL_DT, self.faults.observations.deliver(self._state))

    def signals(self) -> dict[str, float]:
        """Ground truth by the names of the artifact's readouts."""
        values = self._body() | {
            f"contact_{foot}": touches for foot, touches in zip(self.robot.feet, self._contacts, strict=True)
        }
        return {name: float(values.get(name, self.ended)) for name in self.robot.signals}

    def outcome(self) -> dict[str, Any]:
        """Whether it fell, how far it came [m], how high its trunk was at most [m], and the control steps."""
        distance = float(np.linalg.norm(self._position[:2] - self._start))
        return {"fallen": self.ended, "distance": distance, "apex": float(self._apex), "steps": self._steps}

    def assume(self, parameters: Mapping[str, float]) -> None:
        """From the next reset on, have these physical parameters; what is not named stays.

        Raises:
            UnknownName, InvalidInput: it has no such parameter, or not such a value.
        """
        self._parameters = System(self.robot.name, parameters=parameters).checked(self._parameters)
        self._measured = {**self._measured, **parameters}

    def place(self, state: npt.NDArray[np.floating[Any]]) -> None:
        """Be in a state that was observed, of shape (S,); where on the plane, and facing where, is not part of it.

        Raises:
            InvalidInput: another shape, not finite, or a robot that moves in a plane only.
        """
        if self.robot.planar or np.shape(state) != (len(self.robot.state),) or not np.isfinite(state).all():
            raise InvalidInput(
                f"{self.robot.name}: place needs {len(self.robot.state)} finite numbers, robots with yaw"
            )
        now = dict(zip(self.robot.state, map(float, state), strict=True))
        p, body = self._client, self._body_id
        turn = pybullet.getQuaternionFromEuler([now["roll"], now["pitch"], 0.0])
        p.resetBasePositionAndOrientation(body, [0, 0, now["height"]], turn)
        velocity = [now[f"{axis}_velocity"] for axis in ("forward", "lateral", "vertical")]
        p.resetBaseVelocity(body, velocity, [now[f"{axis}_rate"] for axis in ("roll", "pitch", "yaw")])
        self._q, self._dq, self._control = (
            np.array([now[f"{what}_{joint}"] for joint in self.action.names]) for what in ("q", "dq", "control")
        )
        for joint, angle, rate in zip(self._joints, self._q, self._dq, strict=True):
            p.resetJointState(body, joint, angle, rate)
        self._force, self.ended = None, False
        self.faults.observations.taken = ()
        self._look()

    def feet(self) -> Array:
        """Where the feet are, of shape (F, 3) [m]."""
        links = self._client.getLinkStates(self._body_id, self._feet, computeForwardKinematics=1)
        return np.array([link[0] for link in links])

    def inject(self, fault: str, **params: float) -> None:
        """Switch a fault on (see `worldpilot.sim.faults`); a reset clears it."""
        self.faults.inject(fault, params)

    def clear_faults(self) -> None:
        """Switch the lasting faults off."""
        self.faults.clear()
        self._unlock()
        self.set_payload(self._parameters["payload"])
        self.set_friction(self._friction)

    def snapshot(self) -> Snapshot:
        """This moment, to come back to by `restore` any number of times; `forget` it in the end."""
        values = {name: getattr(self, name) for name in _MOMENT}  # driving replaces these, it does not write into them
        return Snapshot(self._client.saveState(), values, self.faults.controls.queued, self.faults.observations.taken)

    def restore(self, moment: Snapshot) -> None:
        """Be as at that moment. Faults that were switched on or off since stay as they are."""
        self._client.restoreState(moment.physics)
        for name, value in moment.values.items():
            setattr(self, name, value)
        self.faults.controls.queued, self.faults.observations.taken = moment.queue, moment.taken

    def forget(self, moment: Snapshot) -> None:
        """Free what a snapshot holds."""
        self._client.removeState(moment.physics)

    def lock_joint(self, joint: int) -> None:
        """Hold the joint of control `joint` at the angle it has."""
        self._client.setJointMotorControl2(
            self._body_id, self._joints[joint], pybullet.VELOCITY_CONTROL, targetVelocity=0, force=_LOCK_TORQUE
        )

    def set_payload(self, mass: float) -> None:
        """Load the trunk's centre of mass with `mass` [kg]."""
        bare, inertia = self._bare
        self._client.changeDynamics(self._body_id, self._trunk, mass=bare + mass, localInertiaDiagonal=inertia)

    def set_friction(self, friction: float) -> None:
        """Coulomb friction between the robot and the ground."""
        self._client.changeDynamics(self._ground, -1, lateralFriction=friction)  # times the robot's, which is 1

    def push(self, vx: float, vy: float) -> None:
        """Hit the trunk in the next control step: the robot's velocity changes by (vx, vy) [m/s], heading frame."""
        self._force = self._mass / CONTROL_DT * (self._heading() @ (vx, vy, 0.0))

    def render(self, size: int = 256) -> npt.NDArray[np.uint8]:  # type: ignore[override]
        """A picture for people, of shape (size, size, 3), from beside the robot; feet on the ground are marked."""
        x, y = self._position[:2]
        camera = Camera.looking([x - 0.25, y - 1.1, 0.45], [x, y, 0.2], [0, 0, 1], 50, 0.05, 30)
        image = np.ascontiguousarray(camera.photograph(self._client, size, (0.4, -0.8, 1.0)))
        for pixel, touches in zip(camera.pixels(self.feet(), size), self._contacts, strict=True):
            if touches:
                centre = (round(float(pixel[0])), round(float(pixel[1])))
                cv2.circle(image, centre, max(2, size // 80), (220, 60, 40), -1, cv2.LINE_AA)
        return image

    def close(self) -> None:
        """Disconnect from the physics server."""
        self._client.disconnect()

    def _info(self) -> dict[str, Any]:
        return {"signals": self.signals(), "steps": self._steps}

    def _state(self) -> FloatArray:
        """What is measured, of shape (S,)."""
        body = [value for name, value in self._body().items() if name in self.robot.state]
        return np.concatenate([body, self._contacts, self._q, self._dq, self._control]).astype(np.float32)

    def _judge(self) -> None:
        """Notice a fall; it stays one."""
        body = self._body()
        tilt = max(abs(body["roll"]), abs(body["pitch"]))
        low = body["height"] < self.robot.fallen_height
        self.ended = self.ended or self._trunk_touches or low or tilt > self.robot.fallen_tilt

    def _body(self) -> dict[str, float]:
        """What is measured of the trunk, by the names of `_BODY`."""
        roll, pitch, _ = pybullet.getEulerFromQuaternion(self._quaternion)
        heading = self._heading()
        velocity, rates = self._velocity @ heading, self._rates @ heading
        return dict(zip(_BODY, (self._position[2], *velocity, roll, pitch, *rates), strict=True))

    def _heading(self) -> Array:
        """Rotation (3, 3) from the heading frame to the world."""
        yaw = pybullet.getEulerFromQuaternion(self._quaternion)[2]
        return np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])

    def _advance(self, before: Array, after: Array, share: float) -> None:
        """One control step of PD control to offsets (U,) from the stance, within the joints' torque limits: to `before`
        for a share of the step, then to `after`."""
        p, body, joints = self._client, self._body_id, self._joints
        limit = self._torque * self.faults.strength
        apply, states, advance = p.setJointMotorControlArray, p.getJointStates, p.stepSimulation
        for i in range(1, _SUBSTEPS + 1):
            old = min(max(share * _SUBSTEPS - i + 1, 0.0), 1.0)  # share of this step of physics before the change
            target = self._stance + after + old * (before - after)
            torque = np.clip(self._kp * (target - self._q) - self._kd * self._dq, -limit, limit)
            apply(body, joints, pybullet.TORQUE_CONTROL, forces=torque)
            if self._force is not None:
                p.applyExternalForce(body, self._trunk, self._force, self._position, pybullet.WORLD_FRAME)
            advance()
            self._q, self._dq = np.array([state[:2] for state in states(body, joints)]).T
            self.faults.observations.expose(i, self._look_again)
        self._force = None
        self._look()

    def _look_again(self) -> FloatArray:
        """The state within a control step."""
        self._look()
        return self._state()

    def _look(self) -> None:
        """Read from physics what is measured, but for the joints."""
        p, body = self._client, self._body_id
        if self._trunk == -1:
            position, self._quaternion = p.getBasePositionAndOrientation(body)
            velocity, rates = p.getBaseVelocity(body)
        else:
            link = p.getLinkState(body, self._trunk, computeLinkVelocity=1, computeForwardKinematics=1)
            position, self._quaternion, velocity, rates = link[0], link[1], link[6], link[7]
        self._position, self._velocity, self._rates = (np.array(v) for v in (position, velocity, rates))
        touching = {contact[3] for contact in p.getContactPoints(body, self._ground) if contact[9] > 0}
        self._contacts = np.array([float(link in touching) for link in self._feet])
        self._trunk_touches = self._trunk in touching

    def _build(self) -> None:
        """Physics anew: the robot at its stance, `_control` from it."""
        p = self._client
        p.resetSimulation()
        p.setPhysicsEngineParameter(deterministicOverlappingPairs=1)
        p.setTimeStep(CONTROL_DT / _SUBSTEPS)
        p.setGravity(0, 0, -9.81)
        self._ground = p.loadURDF(f"{pybullet_data.getDataPath()}/plane.urdf")
        self._body_id = self.robot.load(p)
        links = range(p.getNumJoints(self._body_id))
        infos = [p.getJointInfo(self._body_id, link) for link in links]
        joint_ids = {info[1].decode(): info[0] for info in infos}
        link_ids = {info[12].decode(): info[0] for info in infos}
        self._joints = [joint_ids[name] for name in self.robot.joints]
        self._feet = [link_ids[name] for name in self.robot.feet.values()]
        self._trunk = -1 if self.robot.trunk is None else link_ids[self.robot.trunk]
        for link in (-1, *links):
            p.changeDynamics(self._body_id, link, lateralFriction=1.0)
        self.set_friction(self._friction)
        self._mass = sum(p.getDynamicsInfo(self._body_id, link)[0] for link in (-1, *links))
        self._bare = p.getDynamicsInfo(self._body_id, self._trunk)[0:3:2]
        if self._parameters["payload"]:
            self.set_payload(self._parameters["payload"])
        self._q, self._dq = self._stance + self._control, np.zeros_like(self._stance)
        for joint, angle in zip(self._joints, self._q, strict=True):
            p.resetJointState(self._body_id, joint, angle)
        self._force: Array | None = None
        self._unlock()
        self._look()

    def _unlock(self) -> None:
        """Free every joint from PyBullet's own motor, which is on by default."""
        for joint in range(self._client.getNumJoints(self._body_id)):
            self._client.setJointMotorControl2(self._body_id, joint, pybullet.VELOCITY_CONTROL, force=0)
