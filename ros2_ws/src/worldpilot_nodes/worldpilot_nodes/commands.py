"""How a control travels: by which topic, as which standard message. It follows from the action specification."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import JointState

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.types import ActionSpec, FloatArray
from worldpilot_nodes.convert import header

TWIST_FIELDS = tuple(f"{part}.{axis}" for part in ("linear", "angular") for axis in "xyz")


class Commands(Protocol):
    """Between controls of shape (U,) and the messages of one topic of the graph."""

    topic: str

    def message(self, control: FloatArray, stamp: float, frame: str) -> Any:
        """A control as a message, sent at `stamp` [s]."""
        ...

    def control(self, message: Any) -> FloatArray:
        """A message as a control, finite; InvalidInput if it is none."""
        ...


def carried(spec: ActionSpec, fields: Sequence[str]) -> Commands:
    """The commands of a task: joint positions if all its controls are angles, else a twist.

    Args:
        spec: of the controls.
        fields: of the TwistStamped that carry the controls, in their order; joints go by their names.
    """
    return JointCommands(spec) if set(spec.units) == {"rad"} else TwistCommands(spec, fields)


class TwistCommands:
    """Velocities, as a TwistStamped on `command`."""

    topic = "command"

    def __init__(self, spec: ActionSpec, fields: Sequence[str]) -> None:
        for field in fields:
            if field not in TWIST_FIELDS:
                raise UnknownName("command field", field, TWIST_FIELDS)
        if len(set(fields)) != spec.control_dim:
            raise InvalidInput(f"command_fields: {spec.control_dim} different fields are needed, got {list(fields)}")
        self._fields = [field.split(".") for field in fields]

    def message(self, control: FloatArray, stamp: float, frame: str) -> TwistStamped:
        message = TwistStamped(header=header(stamp, frame))
        for (part, axis), value in zip(self._fields, control, strict=True):
            setattr(getattr(message.twist, part), axis, float(value))
        return message

    def control(self, message: TwistStamped) -> FloatArray:
        return _finite([getattr(getattr(message.twist, part), axis) for part, axis in self._fields])


class JointCommands:
    """Joint positions as the action specification names and counts them, as a JointState on `joint_command`.

    Where the specification counts from the stance (0 stands), so do the positions; the driver adds the stance.
    """

    topic = "joint_command"

    def __init__(self, spec: ActionSpec) -> None:
        self._names = list(spec.names)

    def message(self, control: FloatArray, stamp: float, frame: str) -> JointState:
        return JointState(header=header(stamp, frame), name=self._names, position=control.astype(float).tolist())

    def control(self, message: JointState) -> FloatArray:
        positions = dict(zip(message.name, message.position, strict=False))
        if len(message.position) != len(message.name) or positions.keys() != set(self._names):
            raise InvalidInput(
                f"command: one position for each of {self._names} is needed, "
                f"got {len(message.position)} for {list(message.name)}"
            )
        return _finite([positions[name] for name in self._names])


def _finite(values: Sequence[float]) -> FloatArray:
    control = np.asarray(values, np.float32)
    if not np.isfinite(control).all():
        raise InvalidInput(f"command: not finite: {control.tolist()}")
    return control
