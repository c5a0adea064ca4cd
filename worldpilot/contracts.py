"""The protocols at which models, planners, sim and nodes meet. None of them imports another."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from worldpilot.types import FloatArray, History, ModelSpec, Observation, Plan, RewardSpec, Rollouts


@runtime_checkable
class WorldModel(Protocol):
    """Encode what is seen, imagine where actions lead, read physical signals from latents."""

    @property
    def spec(self) -> ModelSpec: ...

    def encode(self, observations: npt.NDArray[Any]) -> FloatArray:
        """Images of shape (B, H, W, 3) uint8, or states of shape (B, S), to latents of shape (B, D)."""
        ...

    def predict(self, history: History, actions: FloatArray) -> FloatArray:
        """Actions of shape (N, H, A) to latents of shape (E, N, H, D), one per ensemble member."""
        ...

    def signals(self, latents: FloatArray) -> dict[str, FloatArray]:
        """Latents of shape (..., D) to signals, name -> (...), in physical units."""
        ...

    def rollout(self, history: History, actions: FloatArray, previous_control: FloatArray) -> Rollouts:
        """`predict` and `signals` for actions of shape (N, H, A), as a planner scores them."""
        ...


@runtime_checkable
class ActionPrior(Protocol):
    """What a competent operator might do next, whatever the goal."""

    def propose(
        self, history: History, n: int, rng: np.random.Generator, goal: Mapping[str, float] | None = None
    ) -> FloatArray:
        """n action sequences of shape (n, H, A). Same history, generator state and goal: same sequences.

        Args:
            goal: signals to be reached, if there are any, name -> value; a prior may ignore it.
        """
        ...


@runtime_checkable
class Reward(Protocol):
    """Score imagined futures; higher is better."""

    def score(self, rollouts: Rollouts) -> FloatArray:
        """Scores of shape (N,), or per step (N, H)."""
        ...


@runtime_checkable
class Solver(Protocol):
    """Choose actions by imagining: sample, score, rank."""

    def solve(
        self,
        model: WorldModel,
        history: History,
        proposals: FloatArray,
        reward: Reward,
        previous_control: FloatArray,
        rng: np.random.Generator,
        steps: int | None = None,
    ) -> Plan:
        """The best plan found from `proposals` of shape (N, H, A), the warm start and samples of the solver's own.

        Args:
            steps: model steps of the plan, at most H; None: H.
        """
        ...

    def accept(self, reward: RewardSpec) -> None:
        """Asked before a reward is put in force.

        Raises:
            RewardError: the solver can't serve it.
        """
        ...

    def advance(self, steps: int = 1) -> None:
        """`steps` control steps have passed: shift the warm start."""
        ...

    def reset(self) -> None:
        """Forget the warm start."""
        ...


@runtime_checkable
class Environment(Protocol):
    """A world on a clock of its own: gymnasium's API, with named ground truth beside the observation."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]: ...

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]: ...

    def observe(self) -> Observation: ...

    def signals(self) -> Mapping[str, float]:
        """Ground truth, by the names an artifact's readouts use."""
        ...

    def close(self) -> None: ...
