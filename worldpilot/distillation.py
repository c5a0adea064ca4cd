"""A planner's decisions as examples for a reactive policy: DAgger (Ross et al. 2011) in simulation.

First the planner drives. In each round after that the policy of the round before drives, and the planner says at every
model step what it would do instead: the policy learns what to do where it comes to itself. Every episode begins with
the prior's warm-up, as those do in which policies are compared. The policy that drove best is taken, not the last: the
mean of what a planner might do is no plan of its own, and more of its decisions may make it worse.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from worldpilot.errors import InvalidInput
from worldpilot.evaluation.controllers import Driven, Planner, Planning, PriorAlone, Setting
from worldpilot.evaluation.locomotion import score
from worldpilot.history import HistoryBuffer
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode
from worldpilot.models.policy.train import Examples
from worldpilot.sim.legged import LeggedWorld
from worldpilot.sim.tasks import task
from worldpilot.types import FloatArray, RewardSpec

log = logging.getLogger(__name__)

FIRST_SEED = 4_000_000  # of the episodes; evaluations count from 0

Act = Callable[[FloatArray], FloatArray]  # the history's latents (h, D) to a model-step action (A,)
Policy = TypeVar("Policy")


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


@dataclass(frozen=True)
class Candidate(Generic[Policy]):
    """A policy, and how it drove in the episodes after it was trained."""

    policy: Policy
    examples: int  # that it learned from
    score: float  # the reward's own, of what was done; mean over the episodes
    falls: int
    episodes: int


def best(candidates: Sequence[Candidate[Policy]]) -> Candidate[Policy]:
    """The highest score among those that fell least, give or take one episode; of equals the later one."""
    fewest = min(candidate.falls for candidate in candidates)
    steady = [candidate for candidate in candidates if candidate.falls <= fewest + 1]
    return max(reversed(steady), key=lambda candidate: candidate.score)


def dagger(
    artifact: Artifact,
    reward: RewardSpec,
    planning: Planning,
    config: DaggerConfig,
    fit: Callable[[Examples], tuple[Policy, Act]],
) -> list[Candidate[Policy]]:
    """The policies that `fit` makes of what the planner does under a reward, where it and they come to: one for each
    round, and one of all examples."""
    parts, made = list[Examples](), list[Candidate[Policy]]()
    first = FIRST_SEED + 10_000 * config.seed
    with closing(task(artifact.spec.task).world()) as world:
        if not isinstance(world, LeggedWorld):
            raise InvalidInput(f"distil: {artifact.spec.task} has no legged robot to drive")

        def drive(act: Act | None) -> Episode:
            setting = Setting(artifact, world, reward, planning, first + len(parts))
            examples, episode = label(setting, config, act)
            parts.append(examples)
            return episode

        for _ in range(config.planned):
            drive(None)
        for _ in range(config.rounds + 1):
            known = Examples.join(parts)
            policy, act = fit(known)
            episodes = [drive(act) for _ in range(config.driven)]
            scores = [score(reward, episode, artifact, config.warm_up) for episode in episodes]
            falls = sum(bool(episode.meta["fallen"]) for episode in episodes)
            new = Candidate(policy, len(known), float(np.mean(scores)), falls, len(episodes))
            log.info(
                "distil: of %d examples: score %.3f, fell in %d of %d", new.examples, new.score, falls, new.episodes
            )
            made.append(new)
    return made


def label(setting: Setting, config: DaggerConfig, act: Act | None) -> tuple[Examples, Episode]:
    """One episode and its examples: at every model step the history and what the planner does.

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
    seen, wanted, left = list[FloatArray](), list[FloatArray](), list[FloatArray]()
    world.reset(seed=setting.seed)
    driven = Driven(world)
    followed, since = driven.previous, 0  # the plan's actions, and the step in which it was made
    for step in range(config.warm_up + config.steps):
        state, previous = driven.state, driven.previous
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
        driven.drive(control)
        if world.ended:
            break
    count = len(seen)
    examples = Examples(
        np.reshape(seen, (count, spec.history, spec.latent_dim)).astype(np.float32),
        np.reshape(wanted, (count, action.dim)).astype(np.float32),
        np.zeros(count, np.int64),
    )
    who = "planner" if act is None else "policy"
    return examples, driven.episode({"seed": setting.seed, "behaviour": who})
