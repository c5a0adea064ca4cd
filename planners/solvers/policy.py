"""No search: a reactive policy says what to do. For computers that are too small to plan."""

from dataclasses import replace
from typing import Protocol

import numpy as np

from worldpilot.errors import RewardError
from worldpilot.planners.rewards import registry
from worldpilot.planners.solvers.base import Population, Problem, SamplingSolver
from worldpilot.types import FloatArray, RewardSpec


class Reactive(Protocol):
    """A policy that was distilled from a planner."""

    @property
    def reward_id(self) -> str:
        """`policy_reward_id` of the reward that it serves."""
        ...

    def act(self, latents: FloatArray) -> FloatArray:
        """The history's latents, of shape (h, D), to a model-step action of shape (A,)."""
        ...


class PolicySolver(SamplingSolver):
    """The policy's action is the plan, one model step long; proposals and the warm start are ignored.

    It is imagined and scored as a planner's would be, so that status, markers and the reward's terms say what the
    robot is doing. It serves one reward: another one is refused when it is swapped in.
    """

    def __init__(self, policy: Reactive) -> None:
        super().__init__()
        self._policy = policy

    def accept(self, reward: RewardSpec) -> None:
        if policy_reward_id(reward) != self._policy.reward_id:
            raise RewardError(
                f"reward: the policy in force was distilled for another reward (id {self._policy.reward_id or 'none'}, "
                f"this is {policy_reward_id(reward)}); plan instead (solver ssr), or distil a policy for this one"
            )

    def search(
        self, problem: Problem, start: FloatArray, proposals: FloatArray, rng: np.random.Generator
    ) -> tuple[Population, Population]:
        action = self._policy.act(problem.history.latents)
        only = problem.imagine(problem.model.spec.action.controls(action[None, None]))
        return only, only


def policy_reward_id(reward: RewardSpec) -> str:
    """Short hash of a reward's terms, whatever it is called."""
    return registry.reward_id(replace(reward, name=""))
