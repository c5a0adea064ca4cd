"""What can go wrong on purpose: a table of faults for each family of worlds, with their parameters and defaults."""

from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.sim.delays import ControlLine, ObservationLine
from worldpilot.system import System
from worldpilot.types import ActionSpec

Table = Mapping[str, Mapping[str, float]]

PUSH_FAULTS: Table = {
    "teleport": {"dx": 0.12, "dy": 0.0, "dyaw": 1.0},  # the block jumps [m, m, rad]
    "recolour": {"r": 0.9, "g": 0.75, "b": 0.1},  # the block is painted, RGB in [0, 1]
    "friction": {"value": 1.2},  # between block and table, from now on
    "freeze_camera": {"seconds": 2.0},  # the image stands still
    "delay": {"seconds": 0.3},  # controls arrive late
    "delay_observation": {"seconds": 0.1},  # images show the past
}
LEGGED_FAULTS: Table = {
    "weak_joint": {"joint": 0, "fraction": 0.3},  # the index of a control; its torque limit, times `fraction`
    "locked_joint": {"joint": 0},  # the joint stays at the angle it has
    "payload": {"mass": 2.0},  # [kg], in the trunk's centre of mass
    "friction": {"value": 0.3},  # between feet and ground, from now on
    "push": {"vx": 0.0, "vy": 0.5},  # an impulse on the trunk: by how much the robot's velocity changes [m/s]
    "delay": {"seconds": 0.04},  # controls arrive late
    "delay_observation": {"seconds": 0.02},  # states are of the past
}


class Faults:
    """The faults in force in one world. A subclass has a table, and a method for each fault in it.

    Args:
        substeps: of physics in a control period.
        system: whose delays are there without any fault.
    """

    table: ClassVar[Table]

    def __init__(self, action: ActionSpec, substeps: int, system: System) -> None:
        self._dt, self._system = action.control_dt, system
        self.controls = ControlLine(action.control_dt, np.zeros(action.control_dim))
        self.observations = ObservationLine(action.control_dt, substeps)
        self.clear()

    def clear(self) -> None:
        """No fault in force."""
        self.delay(self._system.control_delay)
        self.delay_observation(self._system.camera_delay)

    def inject(self, fault: str, params: Mapping[str, float]) -> None:
        """Switch `fault` on; unknown names and parameters and non-finite values are refused."""
        if fault not in self.table:
            raise UnknownName("fault", fault, self.table)
        for name, number in params.items():
            if name not in self.table[fault]:
                raise UnknownName(f"parameter of {fault}", name, self.table[fault])
            if not isinstance(number, int | float) or not np.isfinite(number):
                raise InvalidInput(f"fault {fault}: {name} must be a finite number, got {number!r}")
        getattr(self, fault)(**{**self.table[fault], **params})

    def delay(self, seconds: float) -> None:
        """Controls arrive `seconds` late."""
        self.controls.delay(seconds)

    def delay_observation(self, seconds: float) -> None:
        """Observations show what was `seconds` ago, rounded to steps of physics."""
        self.observations.delay(seconds)


class Pushed(Protocol):
    """What a world of an object and a camera must let faults do to it."""

    def block(self) -> npt.NDArray[np.float64]: ...

    def place_block(self, pose: npt.NDArray[np.float64]) -> None: ...

    def set_friction(self, friction: float) -> None: ...

    def recolour(self, colour: tuple[float, float, float]) -> None: ...


class PushFaults(Faults):
    """Faults of the object that is pushed, and of the camera."""

    table = PUSH_FAULTS

    def __init__(self, world: Pushed, action: ActionSpec, substeps: int, system: System) -> None:
        super().__init__(action, substeps, system)
        self._world = world

    def clear(self) -> None:
        """No fault in force."""
        super().clear()
        self._frozen_steps = 0
        self._frozen: npt.NDArray[np.uint8] | None = None

    def teleport(self, dx: float, dy: float, dyaw: float) -> None:
        """Move the object by (dx, dy) [m] and turn it by `dyaw` [rad]."""
        limit = 0.16
        pose = self._world.block() + np.array([dx, dy, dyaw])
        for i in (0, 1):  # reflect at the edge, so that the jump keeps its length
            if abs(pose[i]) > limit:
                pose[i] -= 2 * (dx, dy)[i]
        self._world.place_block(pose)

    def recolour(self, r: float, g: float, b: float) -> None:
        """Paint the object."""
        self._world.recolour((r, g, b))

    def friction(self, value: float) -> None:
        """Coulomb friction between object and table."""
        self._world.set_friction(value)

    def freeze_camera(self, seconds: float) -> None:
        """The image stands still for `seconds`."""
        self._frozen_steps, self._frozen = round(seconds / self._dt), None

    def seen(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The image the camera delivers when it should deliver `image`."""
        if self._frozen_steps <= 0:
            return image
        self._frozen_steps -= 1
        self._frozen = image if self._frozen is None else self._frozen
        return self._frozen


class Legged(Protocol):
    """What a legged world must let faults do to it."""

    def lock_joint(self, joint: int) -> None: ...

    def set_payload(self, mass: float) -> None: ...

    def set_friction(self, friction: float) -> None: ...

    def push(self, vx: float, vy: float) -> None: ...


class LeggedFaults(Faults):
    """Faults of the robot's joints and load, and of the ground."""

    table = LEGGED_FAULTS

    def __init__(self, world: Legged, action: ActionSpec, substeps: int, system: System) -> None:
        self._joints = action.control_dim
        super().__init__(action, substeps, system)
        self._world = world

    def clear(self) -> None:
        """No fault in force."""
        super().clear()
        self.strength = np.ones(self._joints)  # what is left of the joints' torque limits, of shape (U,)

    def weak_joint(self, joint: float, fraction: float) -> None:
        """Leave a joint `fraction` in [0, 1] of its torque limit."""
        if not 0 <= fraction <= 1:
            raise InvalidInput(f"fault weak_joint: fraction must be in [0, 1], got {fraction}")
        self.strength[self._index(joint)] = fraction

    def locked_joint(self, joint: float) -> None:
        """Hold a joint at the angle it has."""
        self._world.lock_joint(self._index(joint))

    def payload(self, mass: float) -> None:
        """Add `mass` [kg] to the trunk."""
        if mass < 0:
            raise InvalidInput(f"fault payload: mass must be at least 0 kg, got {mass}")
        self._world.set_payload(mass)

    def friction(self, value: float) -> None:
        """Coulomb friction between feet and ground."""
        if value < 0:
            raise InvalidInput(f"fault friction: value must be at least 0, got {value}")
        self._world.set_friction(value)

    def push(self, vx: float, vy: float) -> None:
        """Hit the trunk: the robot's velocity changes by (vx, vy) [m/s], forwards and to its left."""
        self._world.push(vx, vy)

    def _index(self, joint: float) -> int:
        if joint not in range(self._joints):
            raise InvalidInput(f"fault: joint must be the index of a control, 0 to {self._joints - 1}, got {joint}")
        return int(joint)
