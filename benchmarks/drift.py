"""Does a model imagine that what nobody touches moves? Push-T at rest, the pusher close to the block, no control.

A planner that searches finds what a model imagines wrongly: where an untouched block drifts, it waits for the drift
instead of pushing. `python benchmarks/drift.py --json docs/results/drift.json`
"""

import argparse
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.calibration.intervals import bootstrap_mean
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.sim.push_t import BLOCK_RANGE, WORKSPACE, PushT, clearance
from worldpilot.types import History

NEAR = (0.003, 0.03)  # [m], from the pusher's rim to the block


def measure(artifact: Artifact, scenes: int, seed: int) -> dict[str, Any]:
    """The imagined way of the block [mm] after each model step, the median over scenes."""
    model, spec, rng = artifact.world_model, artifact.spec, np.random.default_rng(seed)
    rest = np.zeros((spec.history - 1, spec.action.dim), np.float32)
    none = np.zeros((1, spec.horizon, spec.action.dim), np.float32)
    moved, misread = [], []
    with closing(PushT()) as world:
        for _ in range(scenes):
            _place(world, rng)
            latent = model.encode(world.observe().data[None])
            history = History(np.repeat(latent, spec.history, 0), rest)
            imagined = model.rollout(history, none, np.zeros(spec.action.control_dim, np.float32))
            moved.append(_distance(imagined.signals, imagined.current_signals)[0])
            misread.append(_distance(imagined.current_signals, world.signals()))
    ways = np.array(moved) * 1e3
    last = ways[:, -1]
    return {
        "model_id": spec.model_id,
        "scenes": scenes,
        "seed": seed,
        "control_steps": [spec.action.block * (i + 1) for i in range(spec.horizon)],
        "imagined_way_mm": [round(float(x), 2) for x in np.median(ways, 0)],
        "mean_at_the_end_mm": {"value": float(last.mean()), "ci": bootstrap_mean(last, seed=seed)},
        "misread_now_mm": float(np.median(misread)) * 1e3,
    }


def _place(world: PushT, rng: np.random.Generator) -> None:
    """A block anywhere, the pusher near it, both at rest."""
    block = rng.uniform([-BLOCK_RANGE, -BLOCK_RANGE, -np.pi], [BLOCK_RANGE, BLOCK_RANGE, np.pi])
    while True:
        pusher = rng.uniform(-0.9 * WORKSPACE, 0.9 * WORKSPACE, 2)
        if NEAR[0] < clearance(pusher, block) < NEAR[1]:
            break
    world.reset(seed=int(rng.integers(2**31)), options={"block": block, "pusher": pusher})


def _distance(a: Any, b: Any) -> npt.NDArray[np.float64]:
    """Between the block's positions in two sets of signals [m]."""
    return np.hypot(a["block_x"] - b["block_x"], a["block_y"] - b["block_y"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifact", type=Path, nargs="+", default=[zoo_path("push_t")])
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = [measure(Artifact.load(path), args.scenes, args.seed) for path in args.artifact]
    print(json.dumps(found, indent=2))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
