"""How controls travel: by which topic, as which standard message. It follows from the action specification."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import TwistStamped
from rclpy.duration import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.types import ActionSpec, FloatArray
from worldpilot_nodes.convert import header, seconds

TWIST_FIELDS = tuple(f"{part}.{axis}" for part in ("linear", "angular") for axis in "xyz")


@dataclass(frozen=True)
class Command:
    """Controls to take one after another; the first is taken before its time, the last is kept."""

    controls: FloatArray  # (K, U), finite, K at least 1
    begins: npt.NDArray[np.float64]  # (K,), when each takes over [s], rising

    def at(self, moment: float) -> FloatArray:
        """The control of a moment [s], of shape (U,)."""
        return self.controls[max(int(np.searchsorted(self.begins, moment, side="right")) - 1, 0)]


class Commands(Protocol):
    """Between controls and the messages of one topic of the graph."""

    topic: str

    def message(self, controls: FloatArray, begins: float, sent: float, frame: str) -> Any:
        """Controls of shape (K, U), one a control period from `begins` [s] on, as a message that is sent at `sent`."""
        ...

    def command(self, message: Any) -> Command:
        """What a message tells the driver; InvalidInput if it is nothing for this robot."""
        ...


def carried(spec: ActionSpec, fields: Sequence[str]) -> Commands:
    """The commands of a task: joint positions if all its controls are angles, else a twist.

    Args:
        spec: of the controls.
        fields: of the TwistStamped that carry the controls, in their order; joints go by their names.
    """
    return JointCommands(spec) if set(spec.units) == {"rad"} else TwistCommands(spec, fields)


class TwistCommands:
    """Velocities, as a TwistStamped on `command`: one control, whatever may follow it."""

    topic = "command"

    def __init__(self, spec: ActionSpec, fields: Sequence[str]) -> None:
        for field in fields:
            if field not in TWIST_FIELDS:
                raise UnknownName("command field", field, TWIST_FIELDS)
        if len(set(fields)) != spec.control_dim:
            raise InvalidInput(f"command_fields: {spec.control_dim} different fields are needed, got {list(fields)}")
        self._fields = [field.split(".") for field in fields]

    def message(self, controls: FloatArray, begins: float, sent: float, frame: str) -> TwistStamped:
        message = TwistStamped(header=header(sent, frame))
        for (part, axis), value in zip(self._fields, controls[0], strict=True):
            setattr(getattr(message.twist, part), axis, float(value))
        return message

    def command(self, message: TwistStamped) -> Command:
        control = _finite([getattr(getattr(message.twist, part), axis) for part, axis in self._fields])
        return Command(control[None], np.array([seconds(message.header.stamp)]))


class JointCommands:
    """Joint positions as the action specification names and counts them, as a JointTrajectory on `joint_command`.

    Where the specification counts from the stance (0 stands), so do the positions; the driver adds the stance. A point
    is in force from its time on until the next one's: where a command is late, the robot goes on with the plan before
    it, instead of staying at a control whose time is over.
    """

    topic = "joint_command"

    def __init__(self, spec: ActionSpec) -> None:
        self._names, self._period = list(spec.names), round(1e9 * spec.control_dt)  # [ns]

    def message(self, controls: FloatArray, begins: float, sent: float, frame: str) -> JointTrajectory:
        points = [
            JointTrajectoryPoint(positions=positions, time_from_start=Duration(nanoseconds=i * self._period).to_msg())
            for i, positions in enumerate(controls.astype(float).tolist())
        ]
        return JointTrajectory(header=header(begins, frame), joint_names=self._names, points=points)

    def command(self, message: JointTrajectory) -> Command:
        names, told = list(message.joint_names), [point.positions for point in message.points]
        if sorted(names) != sorted(self._names) or not told or any(len(each) != len(names) for each in told):
            raise InvalidInput(
                f"command: points with one position for each of {self._names} are needed, "
                f"got points of {[len(each) for each in told]} for {names}"
            )
        since = np.array([seconds(point.time_from_start) for point in message.points])
        if (np.diff(since, prepend=-1e-9) <= 0).any():
            raise InvalidInput(f"command: the points' time_from_start must rise from 0 on, got {since.tolist()} s")
        controls = _finite(told)[:, [names.index(name) for name in self._names]]
        return Command(controls, seconds(message.header.stamp) + since)


def _finite(values: Sequence[float] | Sequence[Sequence[float]]) -> FloatArray:
    controls = np.asarray(values, np.float32)
    if not np.isfinite(controls).all():
        raise InvalidInput(f"command: not finite: {controls.tolist()}")
    return controls
