"""Proposals without a multi-step prior: a policy that knows one step, rolled out in the dynamics, as in MBOP.

Beside the planner with its own prior it shows what whole sequences of actions, proposed at once, are worth.
"""

from collections.abc import Callable, Mapping

import numpy as np

from worldpilot.contracts import WorldModel
from worldpilot.planners.solvers.base import half_range
from worldpilot.types import FloatArray, History


class RolledPolicy:
    """Model-based offline planning's proposals (MBOP, Argenson and Dulac-Arnold 2021). Implements
    `contracts.ActionPrior`.

    Args:
        model: imagines what each step leads to; the mean of its members counts.
        act: what the data's controllers would do: the latents of N histories, (N, h, D), to actions (N, A).
        noise: standard deviation that is added to each control, in halves of its range.
    """

    def __init__(self, model: WorldModel, act: Callable[[FloatArray], FloatArray], noise: float) -> None:
        self._model, self._act = model, act
        action = model.spec.action
        self._noise = np.tile(noise * half_range(action), action.block)
        self.horizon = model.spec.horizon

    def propose(
        self, history: History, n: int, rng: np.random.Generator, goal: Mapping[str, float] | None = None
    ) -> FloatArray:
        """n action sequences of shape (n, H, A), within the action bounds; goals are not heard of."""
        action = self._model.spec.action
        seen = np.repeat(history.latents[None], n, axis=0)  # (n, h, D)
        actions = np.empty((n, 0, action.dim), np.float32)
        for _ in range(self.horizon):
            chosen = self._act(seen) + self._noise * rng.standard_normal((n, action.dim), np.float32)
            chosen = np.clip(chosen, action.action_low, action.action_high).astype(np.float32)
            actions = np.concatenate([actions, chosen[:, None]], axis=1)
            latents = self._model.predict(history, actions).mean(axis=0)
            seen = np.concatenate([seen[:, 1:], latents[:, -1:]], axis=1)
        return actions
