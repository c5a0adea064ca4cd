"""The world itself as a model: what a planner could do if its model made no error.

With the true dynamics, what a planner still fails to do is the fault of its proposals, its horizon or its reward.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.contracts import WorldModel
from worldpilot.sim.legged import LeggedWorld
from worldpilot.types import FloatArray, History, ModelSpec, Rollouts


class SimulatedModel:
    """Tries every plan in the world and takes it back. Implements `contracts.WorldModel`.

    It imagines from where the world is, whatever the history says. Signals are the world's; the learned probability of
    a fall becomes the fall itself. After a fall the last state is repeated.

    Args:
        world: tried in; afterwards it is as it was.
        model: a learned model of the same task: latents are its own, so that what scores them need not know.
    """

    def __init__(self, world: LeggedWorld, model: WorldModel) -> None:
        self._world, self._model = world, model
        self._spec = replace(model.spec, model_id="simulator", members=1)

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def encode(self, observations: npt.NDArray[Any]) -> FloatArray:
        return self._model.encode(observations)

    def signals(self, latents: FloatArray) -> dict[str, FloatArray]:
        return self._model.signals(latents)

    def predict(self, history: History, actions: FloatArray) -> FloatArray:
        return self._try(actions)[0][None]

    def rollout(self, history: History, actions: FloatArray, previous_control: FloatArray) -> Rollouts:
        latents, signals = self._try(actions)
        return Rollouts(
            latents=latents,
            actions=actions,
            signals=signals,
            disagreement=np.zeros(latents.shape[:2], np.float32),
            action_spec=self._spec.action,
            previous_control=previous_control,
            current_signals=self._measure(),
        )

    def _try(self, actions: FloatArray) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Latents of shape (N, H, D) and signals, name -> (N, H), of actions of shape (N, H, A)."""
        world, (n, horizon, _) = self._world, actions.shape
        states = np.empty((n, horizon, *self._spec.observation_shape), np.float32)
        measured: list[list[Mapping[str, float]]] = []
        before = world.snapshot()
        for plan, row in zip(actions, states, strict=True):
            measured.append([])
            for step, action in enumerate(plan):
                for control in action.reshape(self._spec.action.block, -1):
                    if not world.ended:
                        world.drive(control)
                row[step] = world.observe().data
                measured[-1].append(self._measure())
            world.restore(before)
        world.forget(before)
        signals = {
            name: np.array([[step[name] for step in plan] for plan in measured], np.float32) for name in measured[0][0]
        }
        latents = self.encode(states.reshape(n * horizon, -1))
        return latents.reshape(n, horizon, -1), signals

    def _measure(self) -> dict[str, float]:
        signals = self._world.signals()
        return {**signals, "fall_probability": signals["fallen"]}
