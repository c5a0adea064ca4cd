"""The weighted sum of rewards, and what each contributes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from worldpilot.contracts import Reward
from worldpilot.errors import RewardError
from worldpilot.planners.rewards.base import RewardPlugin
from worldpilot.types import FloatArray, RewardSpec, Rollouts


@dataclass(frozen=True)
class CompositeReward:
    """Σ weight · reward, over the terms of a specification.

    Args:
        spec: what it was built from.
        rewards: the bound plugins, one a term, in the order of the specification.
    """

    spec: RewardSpec
    rewards: tuple[Reward, ...]

    @cached_property
    def term_names(self) -> tuple[str, ...]:
        """The plugin of each term, numbered from the second of its kind on: goal_pose, goal_pose_2."""
        plugins = [term.plugin for term in self.spec.terms]
        seen = [plugins[: i + 1].count(name) for i, name in enumerate(plugins)]
        return tuple(name if n == 1 else f"{name}_{n}" for name, n in zip(plugins, seen, strict=True))

    @property
    def uses_goal_image(self) -> bool:
        """Whether a term takes its goal from the goal image."""
        return any(isinstance(reward, RewardPlugin) and reward.uses_goal_image for reward in self.rewards)

    @property
    def target(self) -> Mapping[str, float]:
        """Signals that the terms want to be at a value; of two that disagree the first counts, and none whose weight
        is not positive."""
        merged: dict[str, float] = {}
        for term, reward in zip(self.spec.terms, self.rewards, strict=True):
            target = reward.target() if isinstance(reward, RewardPlugin) and term.weight > 0 else {}
            merged = {**target, **merged}
        return merged

    def terms(self, rollouts: Rollouts) -> Mapping[str, FloatArray]:
        """The weighted contribution of each term, name -> (N,). Per-step scores are averaged over the horizon.

        Raises:
            RewardError: a plugin failed, or returned another shape than (N,) or (N, H).
        """
        contributions: dict[str, FloatArray] = {}
        n, horizon = len(rollouts), rollouts.horizon
        for name, term, reward in zip(self.term_names, self.spec.terms, self.rewards, strict=True):
            try:
                scores = np.asarray(reward.score(rollouts))
            except Exception as error:  # a plugin may be a stranger's code
                raise RewardError(f"reward: {name} failed: {type(error).__name__}: {error}") from error
            if scores.shape not in ((n,), (n, horizon)):
                raise RewardError(
                    f"reward: {name} must return scores of shape ({n},) or ({n}, {horizon}), got {scores.shape}"
                )
            per_plan = scores if scores.ndim == 1 else scores.mean(axis=1)
            contributions[name] = np.asarray(term.weight * per_plan, np.float32)
        return contributions

    def score(self, rollouts: Rollouts) -> FloatArray:
        """Scores of shape (N,); higher is better."""
        with np.errstate(all="ignore"):  # what is not finite is found by whoever ranks the scores
            return np.sum(list(self.terms(rollouts).values()), axis=0)
