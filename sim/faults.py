"""What can go wrong on purpose: one table of faults, each with the parameters it takes and their defaults."""

from collections import deque
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.types import ActionSpec

FAULTS: dict[str, dict[str, float]] = {
    "teleport": {"dx": 0.12, "dy": 0.0, "dyaw": 1.0},  # the block jumps [m, m, rad]
    "recolour": {"r": 0.9, "g": 0.75, "b": 0.1},  # the block is painted, RGB in [0, 1]
    "friction": {"value": 1.2},  # between block and table, from now on
    "freeze_camera": {"seconds": 2.0},  # the image stands still
    "delay": {"seconds": 0.3},  # controls arrive late
}


class Faulty(Protocol):
    """What a world must let faults do to it."""

    def block(self) -> npt.NDArray[np.float64]: ...

    def place_block(self, pose: npt.NDArray[np.float64]) -> None: ...

    def set_friction(self, friction: float) -> None: ...

    def recolour(self, colour: tuple[float, float, float]) -> None: ...


class Faults:
    """The faults in force in one world."""

    def __init__(self, action: ActionSpec) -> None:
        self._dt, self._idle = action.control_dt, np.zeros(action.control_dim)
        self.clear()

    def clear(self) -> None:
        """No fault in force."""
        self._frozen_steps = 0
        self._frozen: npt.NDArray[np.uint8] | None = None
        self._queue: deque[npt.NDArray[np.float64]] = deque()

    def inject(self, world: Faulty, fault: str, params: Mapping[str, float]) -> None:
        """Switch `fault` on; unknown names and parameters and non-finite values are refused."""
        if fault not in FAULTS:
            raise UnknownName("fault", fault, FAULTS)
        for name, number in params.items():
            if name not in FAULTS[fault]:
                raise UnknownName(f"parameter of {fault}", name, FAULTS[fault])
            if not isinstance(number, int | float) or not np.isfinite(number):
                raise InvalidInput(f"fault {fault}: {name} must be a finite number, got {number!r}")
        values = {**FAULTS[fault], **params}
        if fault == "teleport":
            limit = 0.16
            pose = world.block() + np.array([values["dx"], values["dy"], values["dyaw"]])
            for i in (0, 1):  # reflect at the edge, so that the jump keeps its length
                if abs(pose[i]) > limit:
                    pose[i] -= 2 * (values["dx"], values["dy"])[i]
            world.place_block(pose)
        elif fault == "recolour":
            world.recolour((values["r"], values["g"], values["b"]))
        elif fault == "friction":
            world.set_friction(values["value"])
        elif fault == "freeze_camera":
            self._frozen_steps, self._frozen = round(values["seconds"] / self._dt), None
        elif fault == "delay":
            self._queue = deque([self._idle] * round(values["seconds"] / self._dt))

    def delayed(self, control: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The control that arrives now, when `control` is sent."""
        self._queue.append(control)
        return self._queue.popleft()

    def seen(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The image the camera delivers when it should deliver `image`."""
        if self._frozen_steps <= 0:
            return image
        self._frozen_steps -= 1
        self._frozen = image if self._frozen is None else self._frozen
        return self._frozen
