"""The last thing before a motor: whatever was planned, only what is safe to send passes."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from worldpilot.errors import InvalidInput
from worldpilot.planners.solvers.base import limit_rates
from worldpilot.types import ActionSpec, AlertLevel, FloatArray


class GateState(StrEnum):
    """What the gate lets through."""

    RUN = "run"
    SLOW = "slow"  # the monitor is cautious: controls are scaled down
    HOLD = "hold"  # zero velocity


@dataclass(frozen=True)
class GateDecision:
    """What to send, and why it differs from what was planned."""

    controls: FloatArray  # (1 + K, U), one after another; always finite, in bounds and within the rate limits, or zero
    state: GateState
    reason: str = ""  # empty when the planned control passed unchanged

    @property
    def control(self) -> FloatArray:
        """The one for now, of shape (U,)."""
        return self.controls[0]


@dataclass(frozen=True)
class GateConfig:
    """Settings of `Gate`."""

    max_age: float = 0.3  # [s], of the observation behind a control
    slow_factor: float = 0.5  # of the planned velocity, while the alert level is CAUTION
    recovery: int = 3  # checks in a row that must pass after a hold before the robot moves again

    def __post_init__(self) -> None:
        if not (self.max_age > 0 and 0 < self.slow_factor <= 1 and self.recovery >= 1):
            raise InvalidInput("gate: max_age must be positive, slow_factor in (0, 1], recovery at least 1")


class Gate:
    """Holds on anything that makes a control untrustworthy; clips the rest to bounds and rates.

    Holding is sending zero velocity, at once: a stop is not rate-limited. After a hold, `recovery` checks in a row
    must pass before the robot moves again.
    """

    def __init__(self, spec: ActionSpec, config: GateConfig | None = None) -> None:
        self.config = config or GateConfig()
        self._spec = spec
        self._low, self._high = np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32)
        self._largest_change = np.asarray(spec.max_rate, np.float32) * np.float32(spec.control_dt)
        self._passed = self.config.recovery  # checks passed since the last hold

    def check(
        self,
        planned: FloatArray | None,
        *,
        stamp_age: float,
        alert_level: AlertLevel | None,
        previous: FloatArray,
        reason: str = "",
    ) -> GateDecision:
        """What to send instead of what is planned.

        Args:
            planned: the planned control and those that may follow it, of shape (1 + K, U); None if there is no plan.
            stamp_age: age of the observation behind it [s].
            alert_level: the monitor's newest level; None if the monitor has not been heard.
            previous: the control in force now, of shape (U,).
            reason: why there is no plan.
        """
        if why := self._why_hold(planned, stamp_age, alert_level, previous, reason):
            self._passed = 0
            return self._hold(why)
        assert planned is not None  # _why_hold
        self._passed += 1
        if self._passed < self.config.recovery:
            return self._hold(f"recovering from a hold: check {self._passed} of {self.config.recovery} passed")

        slow = alert_level == AlertLevel.CAUTION
        wanted = np.asarray(planned, np.float32) * np.float32(self.config.slow_factor if slow else 1)
        in_bounds = np.clip(wanted, self._low, self._high)
        in_rate = limit_rates(in_bounds.copy(), self._largest_change, previous)
        allowed = np.clip(in_rate, self._low, self._high)  # what was in force may have been out of bounds
        reasons = ["the monitor is cautious: slower"] if slow else []
        reasons += [f"{name} clipped to its bounds" for name in self._names(in_bounds[0] != wanted[0])]
        reasons += [f"{name} limited in its rate" for name in self._names(allowed[0] != in_bounds[0])]
        return GateDecision(allowed, GateState.SLOW if slow else GateState.RUN, "; ".join(reasons))

    def _why_hold(
        self,
        planned: FloatArray | None,
        stamp_age: float,
        alert_level: AlertLevel | None,
        previous: FloatArray,
        reason: str,
    ) -> str:
        """The first reason to hold; empty if there is none."""
        if alert_level is None:
            return "the monitor has not been heard"
        if alert_level >= AlertLevel.HOLD:
            return "the monitor does not trust the model's predictions"
        if not abs(stamp_age) <= self.config.max_age:  # NaN too
            return f"the observation is {stamp_age:.3f} s old; at most {self.config.max_age:g} s is allowed"
        if planned is None:
            return reason or "there is no plan"
        if np.ndim(planned) != 2 or np.shape(planned)[1:] != self._low.shape:
            return f"the planned controls have shape {np.shape(planned)}, expected (1 or more, {len(self._low)})"
        if not np.isfinite(planned).all():
            return "the planned control is not finite"
        if np.shape(previous) != self._low.shape or not np.isfinite(previous).all():
            return "the control in force is unknown"
        return ""

    def _hold(self, reason: str) -> GateDecision:
        return GateDecision(np.zeros_like(self._low)[None], GateState.HOLD, reason)

    def _names(self, mask: np.ndarray) -> list[str]:
        return [self._spec.names[i] for i in np.flatnonzero(mask)]
