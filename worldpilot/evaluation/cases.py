"""Where an episode starts, what it shall reach, and when it counts: one generator a protocol.

- task: a random start, and a goal pose to be covered by more than 90 %.
- goal-image: the goal is the camera's image 25 control steps ahead in an episode of behaviour data that no model has
  seen; the budget is 50 steps; starts that already count as the goal are left out (the protocol of LeWorldModel,
  arXiv 2603.19312).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.sim.push_t import BLOCK_RANGE, GOAL, PushT
from worldpilot.sim.tasks import GoalTest, World, task
from worldpilot.system import System
from worldpilot.types import FloatArray, ImageArray, RewardSpec, RewardTerm

PROTOCOLS = ("task", "goal-image")
GOALS = ("novel", "trained")
GOAL_AHEAD, GOAL_BUDGET = 25, 50  # control steps
_OVERLAP = 0.9  # of the task protocol
_HELD_OUT = 1_000_000  # part of every draw's seed: no episode that is collected draws from it


@dataclass(frozen=True)
class Case:
    """One start and one goal. `reset` brings a world to the start; `reached` judges by its ground truth."""

    seed: int  # of the world's reset
    budget: int  # control steps
    reward: RewardSpec  # what a planner is asked for
    options: Mapping[str, Any] = field(default_factory=dict)  # of the world's reset
    prefix: FloatArray | None = None  # (t, U), controls from the reset to the start
    goal_image: ImageArray | None = None
    goal_signals: Mapping[str, float] | None = None
    test: GoalTest | None = None
    object_moves: bool = True  # the object must be moved to get there

    def reset(self, world: World) -> None:
        """Bring a world to the start."""
        _replay(world, self.seed, self.options, () if self.prefix is None else self.prefix)

    def reached(self, world: World) -> bool:
        """Whether the world is where the goal is."""
        if self.test is not None and self.goal_signals is not None:
            return self.test.reached(world.signals(), self.goal_signals)
        return self.progress(world) > _OVERLAP

    def progress(self, world: World) -> float:
        """How near the world is to the goal: overlap in [0, 1], or minus the distance of the counted positions [m]."""
        if self.test is not None and self.goal_signals is not None:
            return -self.test.distance(world.signals(), self.goal_signals)
        return world.outcome()["overlap"]


def make_cases(
    name: str, protocol: str, goals: str, episodes: int, seed: int, system: System | None = None
) -> list[Case]:
    """The first `episodes` cases of a protocol, from a seed.

    Args:
        goals: of the task protocol: "novel" draws a goal pose for each episode; "trained" is the behaviour data's.
        system: of the worlds that starts and goals are taken from; nothing is late there.
    """
    if protocol not in PROTOCOLS:
        raise UnknownName("protocol", protocol, PROTOCOLS)
    if goals not in GOALS:
        raise UnknownName("goals", goals, GOALS)
    if episodes < 1:
        raise InvalidInput(f"evaluate: episodes must be at least 1, got {episodes}")
    if protocol == "task":
        if name != "push_t":
            raise InvalidInput(f"evaluate: {name} has no task protocol; use --protocol goal-image")
        with closing(PushT(render_images=False, **made(system))) as world:
            return [_task_case(world, goals, seed, episode) for episode in range(episodes)]
    with closing(task(name).world(**made(system))) as world:
        return list(islice(_goal_images(name, world, seed), episodes))


def made(system: System | None) -> dict[str, Any]:
    """How a world is made like a system, but for its delays; a world that knows of no systems is made without one."""
    return {} if system is None else {"system": system.immediate}


def _replay(world: World, seed: int, options: Mapping[str, Any], controls: Iterable[FloatArray]) -> None:
    world.reset(seed=seed, options=dict(options))
    for control in controls:
        world.drive(control)


def _task_case(world: PushT, goals: str, seed: int, episode: int) -> Case:
    draw = np.random.default_rng([seed, episode])
    start, goal = int(draw.integers(2**31)), GOAL
    if goals == "novel":
        goal = draw.uniform([-BLOCK_RANGE, -BLOCK_RANGE, -np.pi], [BLOCK_RANGE, BLOCK_RANGE, np.pi]) * [0.8, 0.8, 1]
    x, y, yaw = (float(value) for value in goal)
    world.reset(seed=start, options={"goal": goal})
    start += world.overlap() > _OVERLAP  # solved before it began: no policy should be credited with it
    reward = RewardSpec((RewardTerm("goal_pose", params={"x": x, "y": y, "yaw": yaw, "approach": 0.05}),))
    return Case(start, world.budget, reward, options={"goal": goal})


def _goal_image_reward(test: GoalTest) -> RewardSpec:
    """The goal's latent; where the robot's place does not count, the object's signals beside it."""
    counts = {"signals": ",".join(test.object)} if test.position == test.object else {}
    return RewardSpec((RewardTerm("goal_latent", params={"discount": 1.0, **counts}),))


def _goal_images(name: str, world: World, seed: int) -> Iterator[Case]:
    """Cases from fresh episodes of the task's behaviours, which take turns."""
    entry = task(name)
    test = entry.goal
    if test is None:
        raise InvalidInput(f"evaluate: {name} has no goals; use --protocol rewards")
    makers = {behaviour: source.make() for behaviour, source in entry.behaviours.items() if source.goals}
    reward = _goal_image_reward(test)
    episode = 0
    while True:
        for behaviour, controls in makers.items():
            rng = np.random.default_rng([seed, episode, _HELD_OUT])
            episode += 1
            reset = int(rng.integers(2**31))
            world.reset(seed=reset)
            applied: list[FloatArray] = []
            signals = [world.signals()]
            source = controls(world, rng)
            for _, control in zip(range(entry.behaviours[behaviour].steps), source, strict=False):
                applied.append(np.clip(control, entry.action.low, entry.action.high).astype(np.float32))
                world.drive(applied[-1])
                signals.append(world.signals())
            if len(applied) <= GOAL_AHEAD:
                continue
            start = int(rng.integers(len(applied) - GOAL_AHEAD))
            goal = signals[start + GOAL_AHEAD]
            if test.reached(signals[start], goal):
                continue
            _replay(world, reset, {}, applied[: start + GOAL_AHEAD])
            yield Case(
                seed=reset,
                budget=GOAL_BUDGET,
                reward=reward,
                prefix=np.reshape(applied[:start], (start, entry.action.control_dim)).astype(np.float32),
                goal_image=world.observe().data,
                goal_signals=goal,
                test=test,
                object_moves=test.moved(signals[start], goal),
            )
