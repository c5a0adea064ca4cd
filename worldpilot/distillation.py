"""A planner's decisions as examples for a reactive policy: DAgger (Ross et al. 2011) in simulation.

First the planner drives. In each round after that the policy of the round before drives, and the planner says at every
model step what it would do instead: the policy learns what to do where it comes to itself. Every episode begins with
the prior's warm-up, as those do in which policies are compared.
"""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from worldpilot.errors import InvalidInput
from worldpilot.evaluation.controllers import Planner, Planning, PriorAlone, Setting
from worldpilot.history import HistoryBuffer
from worldpilot.models.artifact import Artifact
from worldpilot.models.policy.train import Examples
from worldpilot.sim.legged import LeggedWorld
from worldpilot.sim.tasks import task
from worldpilot.types import FloatArray, RewardSpec

log = logging.getLogger(__name__)

FIRST_SEED = 4_000_000  # of the episodes; evaluations count from 0

Act = Callable[[FloatArray], FloatArray]  # the history's latents (h, D) to a model-step action (A,)


@dataclass(frozen=True)
class DaggerConfig:
    """How examples are collected."""

    planned: int = 16  # episodes in which the planner drives
    rounds: int = 4
    driven: int = 12  # episodes a round in which the policy drives
    warm_up: int = 25  # control steps of the prior, before
    steps: int = 250  # control steps of an episode, after
    seed: int = 0

    def __post_init__(self) -> None:
        if self.planned < 2 or min(self.rounds, self.warm_up) < 0 or min(self.driven, self.steps) < 1:
            raise InvalidInput("distil: planned >= 2, driven and steps >= 1, rounds and warm_up >= 0 are needed")


def dagger(
    artifact: Artifact,
    reward: RewardSpec,
    planning: Planning,
    config: DaggerConfig,
    fit: Callable[[Examples], Act],
) -> Examples:
    """Examples of what the planner does under a reward, where it and the policies that `fit` makes of them come to."""
    parts: list[Examples] = []
    first = FIRST_SEED + 10_000 * config.seed
    with closing(task(artifact.spec.task).world()) as world:
        if not isinstance(world, LeggedWorld):
            raise InvalidInput(f"distil: {artifact.spec.task} has no legged robot to drive")
        for part in range(config.rounds + 1):
            act = fit(Examples.join(parts)) if part else None
            for _ in range(config.driven if part else config.planned):
                setting = Setting(artifact, world, reward, planning, first + len(parts))
                parts.append(label(setting, config, act))
            log.info("distil: round %d, %d examples", part, sum(map(len, parts)))
    return Examples.join(parts)


def label(setting: Setting, config: DaggerConfig, act: Act | None) -> Examples:
    """One episode's examples: at every model step the history and what the planner does.

    Args:
        setting: of the episode; a planner that drives follows its plans as long as it says.
        config: how long the episode is.
        act: drives, and the planner plans anew at every model step to say what it would do; None: the planner drives.
    """
    artifact, world = setting.artifact, setting.world
    spec, action = artifact.spec, artifact.spec.action
    if act is not None:
        setting = replace(setting, planning=replace(setting.planning, replan=action.block))
    planner, prior = Planner(setting, "ssr"), PriorAlone(setting)
    buffer = HistoryBuffer(action, max(spec.history - 1, 1))
    previous = np.zeros(action.control_dim, np.float32)
    seen, wanted, left = list[FloatArray](), list[FloatArray](), list[FloatArray]()
    followed, since = previous, 0  # the plan's actions, and the step in which it was made
    world.reset(seed=setting.seed)
    for step in range(config.warm_up + config.steps):
        state = world.observe().data
        buffer.push(artifact.world_model.encode(state[None])[0], previous)
        if step < config.warm_up:
            planner.watch(state, previous)
            control = prior.act(state, previous)
        else:
            control = planner.act(state, previous)
            if planner.plan is not None and planner.plan.actions is not followed:
                followed, since = planner.plan.actions, step
            if (step - config.warm_up) % action.block == 0 and planner.plan is not None:
                seen.append(buffer.history(spec.history).latents)
                wanted.append(followed[(step - since) // action.block])
                left = [] if act is None else list(action.controls(act(seen[-1])[None]))
            control = left.pop(0) if left else control
        previous = np.clip(control, action.low, action.high).astype(np.float32)
        world.drive(previous)
        if world.ended:
            break
    count = len(seen)
    return Examples(
        np.reshape(seen, (count, spec.history, spec.latent_dim)).astype(np.float32),
        np.reshape(wanted, (count, action.dim)).astype(np.float32),
        np.zeros(count, np.int64),
    )
