"""Controls and observations on their way: what a world does between a command and its effect, and before it is seen."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput

Array = npt.NDArray[np.float64]

_LONGEST = 10.0  # [s]


class ControlLine:
    """Controls that arrive late, by any share of a control period.

    Args:
        period: of the controls [s].
        idle: control in force before the first one arrives, of shape (U,).
    """

    def __init__(self, period: float, idle: Array) -> None:
        self._period, self._idle = period, idle
        self.delay(0.0)

    def delay(self, seconds: float) -> None:
        """From now on controls arrive `seconds` late; what was on its way is lost."""
        self._whole, self._share = _split(seconds, self._period)
        self.queued: tuple[Array, ...] = (self._idle,) * (self._whole + 1)  # the oldest first

    def arriving(self, control: Array) -> tuple[Array, Array, float]:
        """What arrives in the control period that begins as `control` is sent: two controls, and the share of the
        period after which the second takes over from the first."""
        self.queued = (*self.queued, control)[-self._whole - 2 :]
        return self.queued[0], self.queued[1], self._share


class ObservationLine:
    """Observations that show the past: what is taken during a control period is delivered after a later one.

    Args:
        period: of the controls [s].
        substeps: of physics in a period; delays are rounded to them.
    """

    def __init__(self, period: float, substeps: int) -> None:
        self._period, self._substeps = period, substeps
        self.delay(0.0)

    def delay(self, seconds: float) -> None:
        """From now on observations are `seconds` old."""
        whole, share = _split(seconds, self._period)
        self._whole, substeps = divmod(whole * self._substeps + round(share * self._substeps), self._substeps)
        self._moment = self._substeps - substeps  # of a period, after which substep
        self._late = self._whole + substeps > 0
        self.taken: tuple[Any, ...] = ()

    def expose(self, substep: int, take: Callable[[], Any]) -> None:
        """Called after each substep, from 1: takes what will be delivered, if this is its moment."""
        if self._late and substep == self._moment:
            self.taken = (*self.taken, take())[-self._whole - 1 :]

    def deliver(self, take: Callable[[], Any]) -> Any:
        """What is seen now. Before there is something old enough, the oldest there is."""
        if not self._late:
            return take()
        if not self.taken:
            self.taken = (take(),) * (self._whole + 1)
        return self.taken[0]


def _split(seconds: float, period: float) -> tuple[int, float]:
    """Whole periods, and the share of one that is left.

    Raises:
        InvalidInput: not a delay.
    """
    if not 0 <= seconds <= _LONGEST:
        raise InvalidInput(f"delay: seconds must be between 0 and {_LONGEST:g}, got {seconds}")
    whole, share = divmod(seconds / period, 1.0)
    if share > 1 - 1e-9:
        whole, share = whole + 1, 0.0
    return int(whole), 0.0 if share < 1e-9 else share
