"""Rewards that say where things shall be: as a latent (from a goal image) or as a pose (from signals)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from worldpilot.errors import RewardError
from worldpilot.planners.rewards.base import (
    RewardContext,
    RewardPlugin,
    When,
    angle_diff,
    bound,
    difference,
    param,
    reduce,
)
from worldpilot.types import FloatArray, Rollouts


@dataclass(frozen=True)
class GoalLatent(RewardPlugin):
    """Get to the latent of a goal image: minus the mean squared latent distance.

    With `doubt` 1 the ensemble's variance is added, which makes it the distance that the members expect on average.
    A latent holds all that is seen. Where less counts, say where an object lies but not where the robot is, `signals`
    names it: their squared differences to what the model reads from the goal image are added.
    """

    when: When = param("last", help="which step of the horizon counts")
    discount: float = param(0.9, low=0.0, high=1.0, help="worth of an improvement one model step later")
    doubt: float = param(1.0, low=0.0, high=1e3, help="weight of the ensemble's variance (disagreement squared)")
    signals: str | None = param(None, high=512, help="signals that count beside the latent, separated by commas")
    emphasis: float = param(100.0, low=0.0, high=1e6, help="weight of their squared differences [1/unit²]")
    goal: FloatArray | None = bound()
    shown: Mapping[str, float] | None = bound()
    uses_goal_image = True

    def needs(self) -> tuple[str, ...]:
        return () if self.signals is None else tuple(name.strip() for name in self.signals.split(","))

    def bind(self, context: RewardContext) -> Self:
        super().bind(context)
        if context.goal_latent is None:
            raise RewardError("reward: goal_latent has no goal yet; set a goal image first")
        dim = context.model_spec.latent_dim
        if context.goal_latent.shape != (dim,) or not np.isfinite(context.goal_latent).all():
            raise RewardError(f"reward: the goal latent must be finite, of shape ({dim},)")
        return replace(self, goal=np.asarray(context.goal_latent, np.float32), shown=context.goal_signals)

    def target(self) -> Mapping[str, float]:
        return self.shown or {}

    def score(self, rollouts: Rollouts) -> FloatArray:
        if self.goal is None:
            raise RewardError("reward: goal_latent is not bound to a goal; call bind first")
        cost = np.square(rollouts.latents - self.goal).mean(-1) + self.doubt * np.square(rollouts.disagreement)
        for name in self.needs():
            cost = cost + self.emphasis * np.square(difference(name, rollouts.signals[name], self.target()[name]))
        return reduce(-cost, self.when, self.discount)


@dataclass(frozen=True)
class GoalPose(RewardPlugin):
    """Bring an object to a planar pose: minus dx² + dy² + (length · dyaw)² [m²].

    `length` makes radians comparable to metres: turning about the centre by dyaw moves a point at that distance by
    length · dyaw, so with the root-mean-square radius of an object's keypoints the cost is, for small angles, their
    mean squared distance.
    """

    x: float = param(low=-100, high=100, help="goal position [m]")
    y: float = param(low=-100, high=100, help="goal position [m]")
    yaw: float | None = param(None, low=-100, high=100, help="goal angle [rad]; null: any angle will do")
    length: float = param(0.1, low=0.0, high=100, help="what a radian counts in metres [m]")
    object: str = param("block", high=64, help="reads the signals <object>_x, <object>_y, <object>_yaw")
    when: When = param("last", help="which step of the horizon counts")
    discount: float = param(0.9, low=0.0, high=1.0, help="worth of an improvement one model step later")
    approach: float = param(0.0, low=0.0, high=100, help="weight of the pusher's squared distance beyond `reach`")
    reach: float = param(0.06, low=0.0, high=100, help="distance from the object at which `approach` vanishes [m]")
    pusher: str = param("pusher", high=64, help="`approach` reads the signals <pusher>_x, <pusher>_y")

    def needs(self) -> tuple[str, ...]:
        pose = (f"{self.object}_x", f"{self.object}_y")
        yaw = () if self.yaw is None else (f"{self.object}_yaw",)
        pusher = (f"{self.pusher}_x", f"{self.pusher}_y") if self.approach else ()
        return pose + yaw + pusher

    def target(self) -> Mapping[str, float]:
        yaw = {} if self.yaw is None else {f"{self.object}_yaw": self.yaw}
        return {f"{self.object}_x": self.x, f"{self.object}_y": self.y, **yaw}

    def score(self, rollouts: Rollouts) -> FloatArray:
        x, y = rollouts.signals[f"{self.object}_x"], rollouts.signals[f"{self.object}_y"]
        cost = (x - self.x) ** 2 + (y - self.y) ** 2
        if self.yaw is not None:
            cost = cost + (self.length * angle_diff(rollouts.signals[f"{self.object}_yaw"], self.yaw)) ** 2
        if self.approach:
            dx, dy = rollouts.signals[f"{self.pusher}_x"] - x, rollouts.signals[f"{self.pusher}_y"] - y
            cost = cost + self.approach * np.maximum(np.hypot(dx, dy) - self.reach, 0) ** 2
        return reduce(-cost, self.when, self.discount)
