"""How often does the arm's reflex stop it, in the behaviour data and in what the planner does? Push-cube, goal images.

    python benchmarks/reflex.py --episodes 60 --seed 77 --json docs/results/reflex.json

Pressed on the cube the arm stays where it is (`worldpilot.sim.push_cube`). Where the data hold little of it, the model
takes the cube's top for a way down, and the planner stands on it until time is up.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from worldpilot.cli.collect import behave
from worldpilot.evaluation import policies
from worldpilot.evaluation.cases import make_cases
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.sim.push_cube import PushCube
from worldpilot.sim.tasks import TASKS

TASK = "push_cube"
EVERY = 5  # control steps that a plan is followed
SEARCH = {"samples": 128, "refinements": 8, "elites": 16}


def of_behaviour(name: str, episodes: int, seed: int) -> dict[str, Any]:
    """The share of control steps that the reflex ends, in episodes as they are collected."""
    behaviour = TASKS[TASK].behaviours[name]
    world, stopped = PushCube(render_images=False), list[bool]()
    for episode in range(episodes):
        drive = behave(TASK, name, behaviour.make(), world, seed + episode)
        for _, control in zip(range(behaviour.steps), drive, strict=False):
            world.drive(np.clip(control, world.action.low, world.action.high))
            stopped.append(world.stopped)
    world.close()
    return {"episodes": episodes, "steps": len(stopped), "stopped": round(float(np.mean(stopped)), 5)}


def of_planner(artifact: Artifact, episodes: int, seed: int) -> dict[str, Any]:
    """Episodes by whether the goal is reached; of each kind the plans, those that met the reflex, and in how many
    episodes one did."""
    world, found = PushCube(), {"reached": list[list[bool]](), "missed": list[list[bool]]()}
    for index, case in enumerate(tqdm(make_cases(TASK, "goal-image", "novel", episodes, seed))):
        case.reset(world)
        rng = np.random.default_rng([seed, index, 1])
        policy = policies.make("mpc", policies.Setting(artifact, world, case, rng, EVERY, True, SEARCH))
        plans = list[bool]()
        for step in range(case.budget):
            world.drive(policy.act(world.observe().data))
            if step % EVERY == 0:
                plans.append(False)
            plans[-1] |= world.stopped
            if case.reached(world):
                break
        found["reached" if case.reached(world) else "missed"].append(plans)
    world.close()
    return {
        kind: {
            "episodes": len(those),
            "plans": sum(map(len, those)),
            "plans_stopped": sum(map(sum, those)),
            "episodes_stopped": sum(map(any, those)),
        }
        for kind, those in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, action="append", help="repeatable; default: the shipped one")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    figures: dict[str, Any] = {"seed": args.seed, "behaviours": {}, "planner": {}}
    for name in TASKS[TASK].behaviours:
        figures["behaviours"][name] = of_behaviour(name, args.episodes, args.seed)
    for folder in args.artifact or [zoo_path(TASK)]:
        artifact = Artifact.load(folder)
        figures["planner"][artifact.spec.model_id] = of_planner(artifact, args.episodes, args.seed)
    print(json.dumps(figures, indent=2))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
