"""A stall: something is left to do, and for some time nothing has moved."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worldpilot.errors import InvalidInput
from worldpilot.planners.rewards.base import difference
from worldpilot.types import ModelSpec

_SMALLEST = {"m": 0.006, "rad": 0.06}  # motion that counts, by a signal's unit
_ARRIVED = 0.5  # of it, that every signal may be off its target


@dataclass(frozen=True)
class EscapeConfig:
    """When a planner stops searching for once and follows a proposal as it is, and for how long."""

    after: float = 2.5  # [s] without motion
    steps: int = 10  # control steps that the proposal is followed

    @classmethod
    def of(cls, after: float, steps: int) -> "EscapeConfig | None":
        """As parameters say it: after 0 seconds means never."""
        return cls(after, steps) if after else None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.after) and self.after > 0 and self.steps >= 1):
            raise InvalidInput(
                f"escape: after must be positive [s], steps at least 1, got {self.after} and {self.steps}"
            )


class StallDetector:
    """Watches the lengths and angles that a reward wants at a value, plan by plan.

    They have stalled where none has moved by more than 6 mm or 0.06 rad within the last seconds, and one at least is
    further than half of that from its target. Speeds and other signals say nothing of a stall.

    Args:
        spec: names the signals and their units.
        after: how long nothing may move [s].
    """

    def __init__(self, spec: ModelSpec, after: float) -> None:
        self._smallest = {s.name: _SMALLEST[s.unit] for s in spec.signals if s.unit in _SMALLEST}
        self._ticks = round(after / spec.action.control_dt)
        self._seen: deque[tuple[int, dict[str, float]]] = deque()  # tick, signal -> reading

    def clear(self) -> None:
        """Nothing has been seen yet."""
        self._seen.clear()

    def hear(self, tick: int, signals: Mapping[str, float], target: Mapping[str, float]) -> bool:
        """Whether it has stalled.

        Args:
            tick: when this was read, in control steps.
            signals: as they are read now.
            target: what the reward wants some of them at.
        """
        now = {name: float(signals[name]) for name in target if name in self._smallest and name in signals}
        if not now or (self._seen and self._seen[-1][1].keys() != now.keys()):
            self.clear()
        if not now:
            return False
        self._seen.append((tick, now))
        while len(self._seen) > 1 and self._seen[1][0] <= tick - self._ticks:
            self._seen.popleft()  # the next one is old enough already
        if tick - self._seen[0][0] < self._ticks:
            return False
        moved = max(self._off(name, then[name], now[name]) for _, then in self._seen for name in now)
        return moved < 1.0 and max(self._off(name, now[name], target[name]) for name in now) > _ARRIVED

    def _off(self, name: str, a: float, b: float) -> float:
        """Distance of two readings, in units of the smallest motion that counts."""
        return abs(float(difference(name, a, b))) / self._smallest[name]
