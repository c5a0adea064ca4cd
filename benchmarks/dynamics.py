"""Which kind of dynamics predicts best? Open-loop errors on held-out episodes, and milliseconds of a call on one core.

`.venv/bin/python benchmarks/dynamics.py --data D --models O1 O2 … --prior P --json docs/results/dynamics_TASK.json`

The models are folders of `worldpilot train dynamics`, trained on D. Intervals are 95 % bootstrap intervals over
episodes; times are of the exported artifact at N = 64 plans of H steps.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.models.data.windows import Frames
from worldpilot.models.dynamics import train as dynamics
from worldpilot.models.dynamics.export import export
from worldpilot.types import ActionSpec, History

PLANS = 64
CALLS = 60
RESAMPLED = 1000


def compare(store: EpisodeStore, models: list[Path], prior: Path, seed: int = 0) -> dict[str, Any]:
    """Figures of each model, by its kind, on the store's held-out episodes."""
    spec = ActionSpec.from_dict(store.meta["action"])
    held = Frames.load(store, store.split()[1])
    kinds = {}
    for folder in models:
        nets = dynamics.load(folder)
        made = json.loads((folder / "metrics.json").read_text())
        if made["data_sha256"] != store.sha256():
            raise SystemExit(f"{folder} was trained on other data than {store.path}: its held-out episodes are others")
        figures = dynamics.evaluate(nets, held, spec, made["train"]["fall_within"])
        seen = dynamics.imagine_held(nets, held, spec)
        error = (seen.predicted - seen.truth).square().mean(2).numpy()
        episode = np.searchsorted(held.starts, seen.windows, side="right") - 1
        scale = float(nets.encode(held.observations).var(0).mean())
        figures["nmse_ci"] = [interval(error[:, h - 1] / scale, episode, seed) for h in figures["horizons"]]
        ranks = rankdata(seen.spread.numpy().mean(1)), rankdata(error.mean(1))
        figures["spread_error_rank_correlation"] = round(float(np.corrcoef(*ranks)[0, 1]), 3)
        kinds[nets.config.kind] = {
            **figures,
            "ms": milliseconds(store.meta.get("task", "task"), spec, folder, prior),
            "parameters": sum(p.numel() for p in nets.predictor.parameters()),
            "model": nets.config.to_dict(),
            "train": made["train"],
        }
    return {"data_sha256": store.sha256(), "episodes": len(held.starts) - 1, "seed": seed, "kinds": kinds}


def interval(values: npt.NDArray[np.floating], episode: npt.NDArray[np.int64], seed: int) -> list[float]:
    """95 % bootstrap interval of the mean of `values` (W,), resampling whole episodes (W,)."""
    names, inverse = np.unique(episode, return_inverse=True)
    sums, counts = np.bincount(inverse, values), np.bincount(inverse)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLED, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return [round(float(x), 4) for x in np.percentile(means, [2.5, 97.5])]


def milliseconds(task: str, spec: ActionSpec, folder: Path, prior: Path) -> dict[str, float]:
    """Median and 99th percentile of a rollout of `PLANS` plans, and the median of as many proposals."""
    with tempfile.TemporaryDirectory() as out:
        export(task, spec, folder, prior, Path(out), ["benchmarks/dynamics.py"], "")
        artifact, rng = Artifact.load(out), np.random.default_rng(0)
        sizes = artifact.spec
        history = History(
            rng.normal(size=(sizes.history, sizes.latent_dim)).astype(np.float32),
            np.zeros((sizes.history - 1, spec.dim), np.float32),
        )
        control, proposing, rolling = np.zeros(spec.control_dim, np.float32), [], []
        for _ in range(CALLS):
            begin = time.perf_counter()
            plans = artifact.prior.propose(history, PLANS, rng)
            middle = time.perf_counter()
            artifact.world_model.rollout(history, plans, control)
            proposing.append(middle - begin)
            rolling.append(time.perf_counter() - middle)
    p50, p99 = 1e3 * np.percentile(rolling[5:], [50, 99])
    return {
        "rollout_p50": round(p50, 2),
        "rollout_p99": round(p99, 2),
        "propose_p50": round(1e3 * float(np.median(proposing[5:])), 2),
    }


def table(result: dict[str, Any]) -> str:
    """The figures as a table in Markdown."""
    first = next(iter(result["kinds"].values()))
    horizons, rows = first["horizons"], []
    for kind, figures in result["kinds"].items():
        cells = [f"{v:.3f} [{a:.3f}, {b:.3f}]" for v, (a, b) in zip(figures["nmse"], figures["nmse_ci"], strict=True)]
        auroc = [f"{h}: {v:.3f}" for h, v in figures["fall_auroc"].items() if v is not None]
        rows.append([kind, *cells, ", ".join(auroc) or "–", str(figures["ms"]["rollout_p50"])])
    rows.append(["copy", *(f"{v:.3f}" for v in first["nmse_copy"]), "", ""])
    head = ["nMSE at h =", *map(str, horizons), "fall AUROC", "ms, N = 64"]
    lines = [head, ["---"] * len(head), *rows, [""] * len(head)]
    at_last = [f"RMSE at h = {horizons[-1]}", *result["kinds"]]
    rmse = [[n, *(f"{f['rmse'][n][-1]:.4f}" for f in result["kinds"].values())] for n in first["rmse"]]
    parts = [lines[:-1], [at_last, ["---"] * len(at_last), *rmse]]
    return "\n\n".join("\n".join("| " + " | ".join(row) + " |" for row in part) for part in parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--prior", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = compare(EpisodeStore(args.data), args.models, args.prior, args.seed)
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
