"""What a late planner, or one that misses ticks, costs a robot on legs, and what going on with the plan helps.

    python benchmarks/late_commands.py walker --episodes 40 --seed 6000 --json docs/results/late_walker.json

In simulation without a graph, so that nothing depends on the machine: plans are made as the task's graph makes them,
and each command reaches the driver as many control periods late as is drawn for it. Until a newer one comes, the driver
either stays at the control that it heard last, or goes on with the plan that came with it, as the graph's does. Of some
observations the planner makes no command, as it is busy: it either counts them at the next one, as the graph's does, or
takes that for the one after the last that it saw.
"""

import argparse
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot import graph
from worldpilot.calibration.detection import share
from worldpilot.calibration.intervals import bootstrap_mean
from worldpilot.evaluation.controllers import Driven, Planning
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.planners import solvers
from worldpilot.planners.gate import Gate
from worldpilot.planners.mpc import Mpc
from worldpilot.planners.rewards.registry import parse_spec
from worldpilot.sim.legged import LeggedWorld
from worldpilot.sim.tasks import task
from worldpilot.types import FloatArray

FOLLOW = 9  # controls that come with a command, beside its own: as in the graph, whose commands live for 0.2 s


@dataclass(frozen=True)
class Condition:
    """How late commands are, and what is made of it."""

    name: str
    late: Callable[[np.random.Generator], int] = lambda rng: 0  # control periods
    missed: float = 0.0  # share of the ticks for which there is no time
    goes_on: bool = True  # the driver: with the plan, or it stays at the last control
    counts: bool = True  # the planner: the ticks that it missed

    def describe(self) -> dict[str, Any]:
        """As the results name it."""
        driver = "goes on with the plan" if self.goes_on else "stays at the last control"
        return {"late": self.name, "missed": self.missed, "driver": driver, "counts_missed": self.counts}


_LATE: dict[str, Callable[[np.random.Generator], int]] = {
    "half of them one period late": lambda rng: int(rng.integers(2)),
    "all one period late": lambda rng: 1,
    "none to two periods late": lambda rng: int(rng.integers(3)),
    "all two periods late": lambda rng: 2,
}
CONDITIONS = (
    Condition("in time"),
    *(Condition(name, late, goes_on=goes_on) for name, late in _LATE.items() for goes_on in (False, True)),
    *(Condition("in time", missed=missed, counts=counts) for missed in (0.15, 0.4) for counts in (False, True)),
)


class Planner:
    """The planner of the task's graph, at the shipped artifact."""

    def __init__(self, artifact: Artifact, seed: int) -> None:
        planning, mpc = Planning.of(artifact.spec.task), graph.load().settings(artifact.spec.task, "mpc")
        self._encode, self._ahead = artifact.world_model.encode, bool(mpc.get("plan_ahead"))
        self._mpc = Mpc(
            artifact.world_model,
            solvers.make("ssr", **planning.solver),
            parse_spec(mpc["reward"]),
            Gate(artifact.spec.action),
            seed=seed,
            standing=planning.standing,
            replan_every=planning.replan,
            prior=artifact.prior,
            proposals=planning.proposals or 0,
            follow=FOLLOW,
        )

    def command(self, state: FloatArray, previous: FloatArray, skipped: int) -> FloatArray:
        """This control period's control and those that may follow it, of shape (1 + K, U)."""
        tick = self._mpc.tick(self._encode(state[None])[0], previous, None, skipped=skipped)
        if self._ahead:
            self._mpc.plan_ahead(tick.control, None)
        return tick.decision.controls


def run(artifact: Artifact, world: LeggedWorld, seed: int, steps: int, condition: Condition) -> dict[str, Any]:
    """One episode from standing, until time is up or the robot has fallen."""
    world.reset(seed=seed)
    driven, planner, rng = Driven(world), Planner(artifact, seed), np.random.default_rng([seed, 1])
    busy = np.random.default_rng([seed, 2])
    commands, speeds, skipped = list[tuple[int, int, FloatArray]](), list[float](), 0
    for step in range(steps):
        if busy.random() < condition.missed:
            skipped += 1
        else:
            made = planner.command(driven.state, driven.previous, skipped if condition.counts else 0)
            commands.append((step, step + condition.late(rng), made))
            skipped = 0
        heard = [(begins, command) for begins, arrives, command in commands if arrives <= step]
        control = np.zeros_like(driven.previous)
        if heard:
            begins, command = heard[-1]
            control = command[min(step - begins, len(command) - 1) if condition.goes_on else 0]
        driven.drive(control)
        speeds.append(world.signals()["forward_velocity"])
        if world.ended:
            break
    return {"fell": world.ended, "speed": float(np.mean(speeds)), "steps": len(speeds)}


def main() -> None:
    """Run all conditions on the same starts, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["walker", "hopper", "quadruped"])
    parser.add_argument("--episodes", type=int, default=40, help="of each condition")
    parser.add_argument("--steps", type=int, default=250, help="control periods of an episode")
    parser.add_argument("--seed", type=int, default=6000, help="of the first episode; the next ones count on")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    artifact, conditions = Artifact.load(zoo_path(args.task)), list[dict[str, Any]]()
    with closing(task(args.task).world()) as world:
        assert isinstance(world, LeggedWorld)
        for condition in CONDITIONS:
            seeds = range(args.seed, args.seed + args.episodes)
            episodes = [run(artifact, world, seed, args.steps, condition) for seed in seeds]
            speeds = [episode["speed"] for episode in episodes]
            figures = {
                "falls": share([episode["fell"] for episode in episodes]),
                "speed": float(np.mean(speeds)),
                "speed_ci": bootstrap_mean(speeds),
            }
            conditions.append(condition.describe() | figures | {"episodes": episodes})
            print(condition.describe() | figures, flush=True)
    result = {"task": args.task, "model_id": artifact.spec.model_id, "steps": args.steps, "seed": args.seed}
    if args.json:
        args.json.write_text(json.dumps(result | {"conditions": conditions}, indent=2) + "\n")


if __name__ == "__main__":
    main()
