"""How good are an action prior's proposals, by sampler and number of steps, and what does a call cost?

`.venv/bin/python benchmarks/samplers.py --data D --dynamics O --priors P1 P2 … --json docs/results/samplers_TASK.json`

The priors are folders of `worldpilot train action-prior` in the latents of O; each is tried under all samplers that it
was trained for. Quality is the energy distance between (latent, what was done next) and (latent, what is proposed) over
held-out windows, one proposal each: 0 for a perfect prior. What finite samples of the data leave of it is in `floor`.
Times are of one call for 64 proposals, on one thread of onnxruntime.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from worldpilot.models import runtime, samplers
from worldpilot.models.action_prior import train as action_prior
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.models.data.windows import Frames
from worldpilot.models.dynamics import train as dynamics
from worldpilot.models.export import Propose, trace
from worldpilot.types import ActionSpec, FloatArray

STEPS = (1, 2, 3, 4, 6, 10)
WINDOWS = 4000
CALLS = 60


def compare(store: EpisodeStore, encoder: Path, priors: list[Path], seed: int = 0) -> dict[str, Any]:
    """Rows of sampler, steps, energy distance and milliseconds."""
    spec, nets, rng = ActionSpec.from_dict(store.meta["action"]), dynamics.load(encoder), np.random.default_rng(seed)
    held = Frames.load(store, store.split()[1])
    trained = {folder: action_prior.load(folder).config for folder in priors}
    h, horizon = nets.config.history, next(iter(trained.values())).horizon
    windows = rng.permutation(held.windows(h - 1 + horizon, spec.block))[: 2 * WINDOWS]
    if len(windows) < 4:
        raise SystemExit(f"{store.path}: too few held-out windows to compare")
    past = nets.encode(held.observations)[windows[:, None] + np.arange(h) * spec.block]
    done = torch.from_numpy(
        held.actions(windows + (h - 1) * spec.block, horizon, spec, np.zeros(len(windows), np.int64))
    )
    half = len(windows) // 2
    others = joint(past[half:], done[half:])
    rows = []
    for folder, config in trained.items():
        for name in filter(lambda name: samplers.exchangeable(config.sampler, name), samplers.SAMPLERS):
            for steps in STEPS:
                denoiser = action_prior.load(folder, name, steps)
                noise = torch.from_numpy(rng.standard_normal((half, horizon, spec.dim), np.float32))
                with torch.no_grad():
                    proposed = action_prior.Sampler(denoiser)(past[:half], noise)
                ms = milliseconds(Propose(denoiser, spec, torch.zeros(0), torch.zeros(0)), past[:half], noise)
                distance = energy_distance(joint(past[:half], proposed), others)
                rows.append({"sampler": name, "steps": steps, "energy_distance": round(distance, 4), "ms": ms})
    floor = energy_distance(joint(past[:half], done[:half]), others)
    return {
        "data_sha256": store.sha256(),
        "windows": half,
        "episodes": len(held.starts) - 1,
        "seed": seed,
        "floor": round(floor, 4),
        "rows": rows,
    }


def joint(past: Tensor, actions: Tensor) -> FloatArray:
    """The present latent and an action sequence side by side, both weighing the same: (B, D + H*A)."""
    latent, plan = past[:, -1].numpy(), actions.flatten(1).numpy()
    return np.concatenate([latent / np.sqrt(latent.shape[1]), plan / (np.sqrt(plan.shape[1]) * SPREAD)], 1)


SPREAD = 0.3  # of normalised actions in the data, about


def energy_distance(a: FloatArray, b: FloatArray) -> float:
    """2 E|X-Y| - E|X-X'| - E|Y-Y'| (Szekely and Rizzo 2013), unbiased: for one distribution near 0, as often below."""
    within = [cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(2 * cdist(a, b).mean() - sum(within))


def milliseconds(propose: Propose, past: Tensor, noise: Tensor) -> float:
    """The median of a call for 64 proposals."""
    batch = torch.export.Dim("batch", min=1, max=65536)
    inputs = {"latents": past[:64], "noise": noise[:64]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prior.onnx"
        onnx.save(trace(propose.eval(), inputs, ["actions"], ({0: batch}, {0: batch})), file)
        session, feed, spent = runtime.session(file), {name: value.numpy() for name, value in inputs.items()}, []
        for _ in range(CALLS):
            begin = time.perf_counter()
            session.run(None, feed)
            spent.append(time.perf_counter() - begin)
    return round(1e3 * float(np.median(spent)), 2)


def table(result: dict[str, Any]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| sampler | steps | energy distance | ms, 64 proposals |", "| --- | --- | --- | --- |"]
    lines += [f"| {r['sampler']} | {r['steps']} | {r['energy_distance']:.4f} | {r['ms']} |" for r in result["rows"]]
    return "\n".join([*lines, f"| data | | {result['floor']:.4f} | |"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dynamics", type=Path, required=True)
    parser.add_argument("--priors", type=Path, nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = compare(EpisodeStore(args.data), args.dynamics, args.priors, args.seed)
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
