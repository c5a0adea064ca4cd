"""What was measured of a robot and its surroundings: delays and physical parameters, in a file of YAML.

`worldpilot calibrate latency` and `calibrate system` write it; the simulator is made like the robot by it, and the
planner told of the delays. Needs nothing but PyYAML.

    task: push_t
    delays:                       # [s]
      control: 0.052              # from a command until the robot moves
      camera: 0.025               # age of what an observation shows when it is stamped
    parameters: {friction: 0.47}  # of the simulated world, by its names
    measured: {...}               # how, from what, with which covariance; for people
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from worldpilot.errors import InvalidInput, UnknownName

_KEYS = ("task", "delays", "parameters", "measured")
_DELAYS = ("control", "camera")


@dataclass(frozen=True)
class System:
    """Delays [s] and physical parameters of one robot. The default is what the task itself has.

    Raises:
        InvalidInput: a delay that is negative or not finite, or a parameter that is not finite.
    """

    task: str = ""
    control_delay: float = 0.0  # from a command until the robot moves [s]
    camera_delay: float = 0.0  # age of what an observation shows when it is stamped [s]
    parameters: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)  # JSON values

    def __post_init__(self) -> None:
        for name, seconds in {"control": self.control_delay, "camera": self.camera_delay}.items():
            if not _is_number(seconds) or seconds < 0:
                raise InvalidInput(f"system: the {name} delay must be a number of seconds from 0, got {seconds!r}")
        for name, value in self.parameters.items():
            if not _is_number(value):
                raise InvalidInput(f"system: {name} must be a finite number, got {value!r}")

    @property
    def delay(self) -> float:
        """From the moment that an observation shows until the command that answers it takes effect [s]."""
        return self.control_delay + self.camera_delay

    @property
    def immediate(self) -> "System":
        """The same without delays."""
        return replace(self, control_delay=0.0, camera_delay=0.0)

    @property
    def described(self) -> dict[str, Any]:
        """Delays and parameters, as a file says them."""
        delays = {"control": self.control_delay, "camera": self.camera_delay}
        return {"delays": delays, "parameters": dict(self.parameters)}

    @staticmethod
    def load(path: Path, task: str | None = None) -> "System":
        """Read a file.

        Args:
            task: that it must be for.

        Raises:
            InvalidInput, UnknownName: it is no such file, or for another task.
        """
        try:
            data = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InvalidInput(f"{path} is no readable system file (YAML): {error}") from error
        if not isinstance(data, dict):
            raise InvalidInput(f"{path} must be a mapping of {', '.join(_KEYS)}, got {type(data).__name__}")
        parts = {}
        for name, known in {"": _KEYS, "delays": _DELAYS, "parameters": None, "measured": None}.items():
            part = parts[name] = data.get(name) or {} if name else data
            if not isinstance(part, dict):
                raise InvalidInput(f"{path}: {name} must be a mapping, got {part!r}")
            for key in part:
                if known is not None and key not in known:
                    raise UnknownName(f"entry of {path}{name and ': ' + name}", str(key), known)
        system = System(
            str(data.get("task", "")),
            parts["delays"].get("control", 0.0),
            parts["delays"].get("camera", 0.0),
            parts["parameters"],
            parts["measured"],
        )
        if task is not None and system.task != task:
            raise InvalidInput(f"{path} is the system of task {system.task!r}, not {task!r}; measure that one")
        return system

    def save(self, path: Path) -> None:
        """Write it to a file, whose folder is made if missing."""
        data = {"task": self.task, **self.described, "measured": dict(self.measured)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(_shortened(data), sort_keys=False, default_flow_style=None, width=110))

    def checked(self, known: Mapping[str, float]) -> dict[str, float]:
        """The world's own values of its parameters, `known`, with those of this system in their place.

        Raises:
            UnknownName: the world has no such parameter.
            InvalidInput: one is negative.
        """
        for name, value in self.parameters.items():
            if name not in known:
                raise UnknownName(f"parameter of {self.task or 'the system'}", name, known)
            if value < 0:
                raise InvalidInput(f"system: {name} must be at least 0, got {value}")
        return {**known, **self.parameters}


def _shortened(value: Any) -> Any:
    """Numbers to six digits."""
    if isinstance(value, Mapping):
        return {name: _shortened(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
