"""Prefer controls that change little."""

from dataclasses import dataclass

import numpy as np

from worldpilot.planners.rewards.base import RewardPlugin
from worldpilot.types import FloatArray, Rollouts


@dataclass(frozen=True)
class Smoothness(RewardPlugin):
    """Change controls gently: minus the mean squared change per control step.

    Changes are in units of the largest that the rate limits allow, taken at the control rate, and begin with the
    change from the control in force now.
    """

    def score(self, rollouts: Rollouts) -> FloatArray:
        spec = rollouts.action_spec
        controls = spec.controls(rollouts.actions)  # (N, H*k, U)
        before = np.broadcast_to(rollouts.previous_control, (len(rollouts), 1, spec.control_dim))
        largest = np.asarray(spec.max_rate, np.float32) * np.float32(spec.control_dt)
        change = np.diff(np.concatenate([before, controls], axis=1), axis=1) / largest
        return -np.square(change).mean(axis=(1, 2))
