"""What each part of the world model's training is worth: Push-T trained without it, briefly, on part of the data.

`.venv/bin/python benchmarks/ablations.py --data build/push_t/data --work build/ablations --seeds 0 1 \\
    --json docs/results/ablations.json`

Every arm has the same episodes, steps and seeds, so that arms can be compared with each other; none is as good as the
shipped model, which was trained longer on more. Planning is the goal-image protocol of `worldpilot evaluate`. Each
arm's result is kept in the work folder: run again to go on.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldpilot.evaluation.run import evaluate
from worldpilot.models.action_prior.train import PriorTrainConfig, train_prior
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import DATASET_FILE, Episode, EpisodeStore, EpisodeWriter
from worldpilot.models.export import export
from worldpilot.models.world_model.networks import preset
from worldpilot.models.world_model.train import TrainConfig, train
from worldpilot.sim.push_t import WORKSPACE
from worldpilot.types import ActionSpec

BASE = TrainConfig(steps=1500, readout_steps=2000, dynamics_steps=2000, dynamics_batch=256, evaluate_every=500)
PRIOR = PriorTrainConfig(steps=1000)
ARMS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "without inverse dynamics": {"inverse_weight": 0.0},
    "without grounding": {"grounding_weight": 0.0},
    "the paper's two terms": {"inverse_weight": 0.0, "grounding_weight": 0.0},
    "lambda / 10": {"sigreg_weight": BASE.sigreg_weight / 10},
    "lambda x 10": {"sigreg_weight": BASE.sigreg_weight * 10},
    "without SIGReg": {"sigreg_weight": 0.0},
    "one step ahead in stage 1": {"rollout": 1},
    "three views": {"views": 3},
    "absolute targets": {},
}


def subset(data: Path, out: Path, shards: int) -> Path:
    """A store of the first `shards` shards of another, as links."""
    out.mkdir(parents=True, exist_ok=True)
    (out / DATASET_FILE).write_text((data / DATASET_FILE).read_text())
    for shard in sorted(data.glob("shard-*.npz"))[:shards]:
        if not (out / shard.name).exists():
            (out / shard.name).symlink_to(shard.resolve())
    return out


def absolute(store: EpisodeStore, out: Path) -> Path:
    """The same episodes with the pusher's target position [m] as control instead of its velocity.

    The symmetries' matrices hold for both, as the table's middle is the origin.
    """
    if (out / DATASET_FILE).exists():
        return out
    spec = ActionSpec.from_dict(store.meta["action"])
    targets = replace(
        spec, names=("x", "y"), units=("m", "m"), low=(-WORKSPACE,) * 2, high=(WORKSPACE,) * 2, max_rate=(0.25, 0.25)
    )
    with EpisodeWriter(out, {**store.meta, "action": targets.to_dict()}) as writer:
        for episode in store:
            position = np.stack([episode.signals["pusher_x"], episode.signals["pusher_y"]], -1)
            target = np.clip(position[:-1] + episode.controls * spec.control_dt, -WORKSPACE, WORKSPACE)
            writer.append(
                Episode(episode.observations, target.astype(np.float32), episode.signals, meta=dict(episode.meta))
            )
    return out


def run_arm(name: str, seed: int, data: Path, work: Path, shards: int, episodes: int) -> dict[str, Any]:
    """Train, export, evaluate one arm with one seed; the figures, which are also kept in its folder."""
    folder = work / f"{name.replace(' ', '_').replace('/', 'by')}-{seed}"
    kept = folder / "result.json"
    if kept.exists():
        return json.loads(kept.read_text())
    part = subset(data, work / "data", shards)
    if name == "absolute targets":
        part = absolute(EpisodeStore(part), work / "absolute")
    store = EpisodeStore(part)
    spec = ActionSpec.from_dict(store.meta["action"])
    config = replace(BASE, seed=seed, **ARMS[name])
    if not (folder / "nets" / "metrics.json").exists():
        train(store, spec, folder / "nets", preset("small", spec.dim), config)
    metrics = json.loads((folder / "nets" / "metrics.json").read_text())
    result = {key: metrics[key] for key in ("r2", "r2_linear", "open_loop_nmse", "open_loop_rmse", "effective_rank")}
    if name != "absolute targets":  # the world takes velocities
        if not (folder / "prior" / "metrics.json").exists():
            train_prior(store, spec, folder / "nets", folder / "prior", replace(PRIOR, seed=seed))
        if episodes == 0:
            return result
        export("push_t", spec, folder / "nets", folder / "prior", folder / "artifact", ["benchmarks/ablations.py"], "")
        artifact = Artifact.load(folder / "artifact")
        figures = evaluate(
            artifact, ["mpc"], episodes, seed=0, protocol="goal-image", goals="novel", replan=5, shrink=True
        )["policies"]["mpc"]
        result["planning"] = {key: figures[key] for key in ("success", "n", "ci", "object_moves")}
    kept.write_text(json.dumps(result, indent=2))
    return result


def main() -> None:
    """Run the arms, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/ablations"))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=100, help="0: train only, for a machine without the simulator")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    arms: dict[str, Any] = {}
    for seed in args.seeds:
        for name in args.arms:
            arms.setdefault(name, {})[str(seed)] = run_arm(name, seed, args.data, args.work, args.shards, args.episodes)
            found = arms[name][str(seed)]
            print(name, seed, found.get("planning"), found["open_loop_nmse"], found["r2"], flush=True)
            if args.json:
                args.json.parent.mkdir(parents=True, exist_ok=True)
                setting = {"train": vars(BASE), "prior": vars(PRIOR), "shards": args.shards, "episodes": args.episodes}
                args.json.write_text(json.dumps({"setting": setting, "arms": arms}, indent=2) + "\n")


if __name__ == "__main__":
    main()
