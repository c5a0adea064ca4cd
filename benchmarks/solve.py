"""Where does a control period go? Each step of the tick on one core, on states of a driven episode.

`taskset -c 0 .venv/bin/python benchmarks/solve.py --json docs/results/solve.json`
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.history import HistoryBuffer
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.planners.gate import Gate
from worldpilot.planners.mpc import Mpc
from worldpilot.planners.solvers import make
from worldpilot.sim.push_t import PushT
from worldpilot.types import RewardSpec, RewardTerm

SOLVERS = ("ssr", "cem", "icem", "mppi")


def measure(ticks: int, seed: int) -> dict[str, Any]:
    """Milliseconds of each step: median and 99th percentile over `ticks` ticks, solvers interleaved."""
    artifact, world, rng = Artifact.load(zoo_path("push_t")), PushT(), np.random.default_rng(seed)
    spec, proposals = artifact.spec, int(artifact.manifest["proposals"])
    reward = RewardSpec((RewardTerm("goal_pose", params={"x": 0.0, "y": 0.0, "yaw": -0.785}),))
    planners = {name: Mpc(artifact.world_model, make(name), reward, Gate(spec.action), seed=seed) for name in SOLVERS}
    buffer, control = HistoryBuffer(spec.action, spec.history), np.zeros(spec.action.control_dim, np.float32)
    spent: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = call()
        spent.setdefault(name, []).append(1e3 * (time.perf_counter() - begin))
        return result

    world.reset(seed=seed)
    for _ in range(ticks):
        image = world.observe().data
        latent = timed("encode", lambda image=image: artifact.world_model.encode(image[None]))[0]
        buffer.push(latent, control)
        history = buffer.history(spec.history)
        drawn = timed("propose", lambda history=history: artifact.prior.propose(history, proposals, rng))
        results = {
            name: timed(
                f"solve_{name}",
                lambda planner=planner, latent=latent, control=control, drawn=drawn: planner.tick(
                    latent, control, drawn
                ),
            )
            for name, planner in planners.items()
        }
        control = results["ssr"].control
        world.drive(control)
    return {
        "ticks": ticks,
        "seed": seed,
        "proposals": proposals,
        "model_id": spec.model_id,
        "ms": {
            name: dict(zip(("p50", "p99"), np.percentile(values[5:], [50, 99]).tolist(), strict=True))
            for name, values in spent.items()
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = measure(args.ticks, args.seed)
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
