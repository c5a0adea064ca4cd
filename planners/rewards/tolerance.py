"""How well a signal lies within bounds: 1 inside, falling smoothly to `AT_MARGIN` a margin away."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from worldpilot.errors import RewardError
from worldpilot.planners.rewards.base import RewardContext, RewardPlugin, angle_diff, bound, param
from worldpilot.types import FloatArray, Rollouts

AT_MARGIN = 0.1
Sigmoid = Literal["gaussian", "hyperbolic", "long_tail", "linear", "quadratic", "cosine"]

# Each falls from 1 at d = 0 to AT_MARGIN at d = 1; the last three are exactly 0 further out.
_SIGMOIDS: dict[str, Any] = {
    "gaussian": lambda d: np.exp(d**2 * np.log(AT_MARGIN)),
    "hyperbolic": lambda d: 1 / np.cosh(np.minimum(d, 20) * np.arccosh(1 / AT_MARGIN)),
    "long_tail": lambda d: 1 / (1 + d**2 * (1 / AT_MARGIN - 1)),
    "linear": lambda d: np.maximum(1 - d * (1 - AT_MARGIN), 0),
    "quadratic": lambda d: np.maximum(1 - d**2 * (1 - AT_MARGIN), 0),
    "cosine": lambda d: (1 + np.cos(np.minimum(d * np.arccos(2 * AT_MARGIN - 1), np.pi))) / 2,
}


def tolerance(
    x: FloatArray,
    lower: float = -np.inf,
    upper: float = np.inf,
    margin: float = 0.0,
    sigmoid: Sigmoid = "gaussian",
    *,
    angle: bool = False,
) -> FloatArray:
    """How well x, of any shape, lies within [lower, upper], in [0, 1].

    Args:
        x: values [unit of the bounds].
        lower: lower bound, may be -inf.
        upper: upper bound, may be inf.
        margin: distance from the bounds at which the result is `AT_MARGIN`; 0 makes it a step.
        sigmoid: how it falls.
        angle: measure distance on the circle, from the arc that begins at `lower` and ends at `upper` [rad].

    Raises:
        RewardError: bounds in the wrong order, a negative margin, an unknown sigmoid, an arc without two ends.
    """
    if not lower <= upper:
        raise RewardError(f"tolerance: lower must not exceed upper, got [{lower}, {upper}]")
    if not margin >= 0:
        raise RewardError(f"tolerance: margin must be >= 0, got {margin}")
    if sigmoid not in _SIGMOIDS:
        raise RewardError(f"tolerance: sigmoid must be one of {', '.join(_SIGMOIDS)}; got {sigmoid!r}")
    if angle:
        if not np.isfinite([lower, upper]).all():
            raise RewardError("tolerance: an angle needs both bounds: an arc has two ends")
        middle, half = (lower + upper) / 2, (upper - lower) / 2
        distance = np.maximum(np.abs(angle_diff(x, middle)) - half, 0)
    else:
        distance = np.maximum(np.maximum(lower - x, x - upper), 0)
    if margin == 0:
        return np.where(distance > 0, 0, 1).astype(np.float32)
    return np.asarray(_SIGMOIDS[sigmoid](distance / margin), np.float32)


@dataclass(frozen=True)
class Tolerance(RewardPlugin):
    """Keep a signal within bounds: 1 inside, falling smoothly outside; averaged over the horizon."""

    signal: str = param(high=64, help="name of the signal")
    lower: float | None = param(None, help="lower bound [unit of the signal]; null: none")
    upper: float | None = param(None, help="upper bound [unit of the signal]; null: none")
    margin: float = param(0.0, low=0.0, help="distance from the bounds at which 0.1 is left [unit of the signal]")
    sigmoid: Sigmoid = param("gaussian", help="how it falls outside the bounds")
    angle: bool | None = bound()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lower is None and self.upper is None:
            raise RewardError("reward: tolerance needs `lower`, `upper` or both")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise RewardError(f"reward: tolerance: lower must not exceed upper, got [{self.lower}, {self.upper}]")

    def needs(self) -> tuple[str, ...]:
        return (self.signal,)

    def bind(self, context: RewardContext) -> Self:
        super().bind(context)
        angle = next(s.unit for s in context.model_spec.signals if s.name == self.signal) == "rad"
        if angle and (self.lower is None or self.upper is None):
            raise RewardError(f"reward: tolerance: {self.signal} is an angle and needs both `lower` and `upper`")
        return replace(self, angle=angle)

    def score(self, rollouts: Rollouts) -> FloatArray:
        lower = -np.inf if self.lower is None else self.lower
        upper = np.inf if self.upper is None else self.upper
        x = rollouts.signals[self.signal]
        return tolerance(x, lower, upper, self.margin, self.sigmoid, angle=bool(self.angle))
