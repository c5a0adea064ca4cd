"""Where does a control period go? Each step of the tick on one core, on states of a driven episode.

`taskset -c 0 .venv/bin/python benchmarks/solve.py [--task quadruped --solvers ssr --proposals 46] --json FILE`

The sample-score-rank solver is set as the task's graph sets it, the others are as they come. `ms` is what the clock on
the wall says, `cpu_ms` what this process used of the core: the former is more where others want the core too.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.evaluation.controllers import Planning
from worldpilot.history import HistoryBuffer
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.planners.gate import Gate
from worldpilot.planners.mpc import Mpc
from worldpilot.planners.solvers import make
from worldpilot.sim.tasks import task as find_task
from worldpilot.types import RewardSpec, RewardTerm

SOLVERS = ("ssr", "cem", "icem", "mppi")
GOAL = RewardSpec((RewardTerm("goal_pose", params={"x": 0.0, "y": 0.0, "yaw": -0.785}),))
RUN = RewardSpec((RewardTerm("expression", params={"expression": "min(forward_velocity, 2)"}),))


def measure(
    task: str, ticks: int, seed: int, artifact: Artifact, proposals: int | None = None, names: Sequence[str] = SOLVERS
) -> dict[str, Any]:
    """Milliseconds of each step: median and 99th percentile over `ticks` ticks, solvers interleaved."""
    world, planning, rng = find_task(task).world(), Planning.of(task), np.random.default_rng(seed)
    spec, count = artifact.spec, proposals or int(artifact.manifest["proposals"])
    reward = RUN if spec.observation == "state" else GOAL
    standing = planning.standing if spec.observation == "state" else None
    planners = {
        name: Mpc(
            artifact.world_model,
            make(name, **(planning.solver if name == "ssr" else {})),
            reward,
            Gate(spec.action),
            seed=seed,
            standing=standing,
        )
        for name in names
    }
    buffer, control = HistoryBuffer(spec.action, spec.history), np.zeros(spec.action.control_dim, np.float32)
    spent: dict[str, list[tuple[float, float]]] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        spent.setdefault(name, []).append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)))
        return result

    world.reset(seed=seed)
    for _ in range(ticks):
        seen = world.observe().data
        latent = timed("encode", lambda seen=seen: artifact.world_model.encode(seen[None]))[0]
        buffer.push(latent, control)
        history = buffer.history(spec.history)
        drawn = timed("propose", lambda history=history: artifact.prior.propose(history, count, rng))
        results = {
            name: timed(
                f"solve_{name}",
                lambda planner=planner, latent=latent, control=control, drawn=drawn: planner.tick(
                    latent, control, drawn
                ),
            )
            for name, planner in planners.items()
        }
        control = results[names[0]].control
        world.drive(control)
    world.close()
    return {
        "task": task,
        "ticks": ticks,
        "seed": seed,
        "proposals": count,
        "horizon": spec.horizon,
        "ssr": dict(planning.solver),
        "model_id": spec.model_id,
        "load": os.getloadavg()[0],
        **{
            clock: {
                name: dict(
                    zip(("p50", "p99"), np.percentile([v[i] for v in values[5:]], [50, 99]).tolist(), strict=True)
                )
                for name, values in spent.items()
            }
            for i, clock in enumerate(("ms", "cpu_ms"))
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="push_t")
    parser.add_argument("--ticks", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--proposals", type=int, help="of the prior; default: the artifact's number")
    parser.add_argument("--solvers", default=",".join(SOLVERS), help="the first one drives")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    artifact = Artifact.load(zoo_path(args.task))
    result = measure(args.task, args.ticks, args.seed, artifact, args.proposals, args.solvers.split(","))
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
