"""How often do alarms come for nothing, and which faults do they find? The monitor beside what else there is.

    python benchmarks/monitor_runs.py push_t …  (see there), and for other tasks
    python benchmarks/monitor.py push_t quadruped --json docs/results/monitor.json --markdown docs/results/monitor.md

Reads what `monitor_runs.py` recorded. The part `shape` fits what a score needs (quantiles of good errors, a whitening,
a random-network distillation), `calibration` the thresholds, and everything is counted on `test`. Every score has one
threshold, on its episode maxima, so that 5 % of good episodes exceed it; `monitor` is what runs on the robot, surprise
and drift together at 5 %, on whitened errors (`monitor_whitened`) and on plain ones. Pointwise thresholding takes the
quantile of single steps instead.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monitor_page import MONITORS, NOMINAL, SCORES, markdown, plot
from monitor_runs import COURSES, PARTS, load
from tqdm import tqdm

from worldpilot.calibration.detection import auroc, auroc_interval, share, threshold
from worldpilot.calibration.monitor import Monitor, PredictionTracker, proposal_spread
from worldpilot.calibration.thresholds import Drift, Thresholds, fit, normalise, whiten
from worldpilot.models import runtime
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.data.episodes import Episode
from worldpilot.types import AlertLevel, FloatArray, History, PredictionError

ALPHA = 0.05
SUBSET = 200  # calibration episodes for the scores that cost more: proposals' spread
PROPOSALS, EVERY = 16, {"push_t": 5, "quadruped": 10, "walker": 10}  # drawn for the spread, each so many control steps
Array = npt.NDArray[np.float64]

EXAMPLE = {"push_t": "delay", "quadruped": "locked_joint", "walker": "locked_joint"}  # the fault of the plot


class Scored:
    """An episode's scores, step by step, NaN where there is none: name -> (T+1,)."""

    def __init__(self, model: "Model", episode: Episode) -> None:
        self.episode, self.meta = episode, episode.meta
        self._model, self._latents = model, episode.observations
        one_step = model.predict(episode, 1)  # (E, T+1, D)
        self.residuals = self._latents - one_step.mean(axis=0)
        self.steps = {
            "surprise": np.square(self.residuals).mean(axis=1),
            "disagreement": np.sqrt(np.square(one_step - one_step.mean(axis=0)).mean(axis=(0, 2))),
        }

    def add_far(self) -> None:
        """The H-step error."""
        far = self._model.predict(self.episode, self._model.artifact.spec.horizon).mean(axis=0)
        self.steps["h_step"] = np.square(self._latents - far).mean(axis=1)

    def add_spread(self, rng: np.random.Generator) -> None:
        """The proposals' spread, now and then."""
        spec, prior = self._model.artifact.spec, self._model.artifact.prior
        self.steps["spread"] = np.full(len(self._latents), np.nan)
        block, h = spec.action.block, spec.history
        for i in range((h - 1) * block, len(self._latents), EVERY[spec.task]):
            past = slice(i - (h - 1) * block, i)
            actions = self.episode.controls[past].reshape(h - 1, spec.action.dim)
            history = History(self._latents[i - (h - 1) * block : i + 1 : block], actions)
            proposals = prior.propose(history, PROPOSALS, rng, self.meta["target"])
            self.steps["spread"][i] = proposal_spread(proposals, spec.action)

    def add_shaped(self, shape: "Shape") -> None:
        """What the part `shape` was needed for."""
        white = np.square(self.residuals @ shape.whitening.T).mean(axis=1)
        self.steps |= {
            "whitened": white,
            "drift": drift_scores(self.steps["surprise"], shape.quantiles["surprise"]),
            "drift_whitened": drift_scores(white, shape.quantiles["whitened"]),
            "cusum": cusum((np.log(self.steps["surprise"]) - shape.log_mean) / shape.log_std),
            "rnd": shape.novelty(self._latents),
        }

    def first_above(self, name: str, limit: float, first: int = 0, count: int | None = None) -> int | None:
        """Steps from `first` to the first score above the limit, within `count`; None if there is none."""
        above = np.flatnonzero(self.steps[name][first : None if count is None else first + count] > limit)
        return int(above[0]) if len(above) else None

    def first_alarm(self, thresholds: Thresholds, score: str, first: int = 0, count: int | None = None) -> int | None:
        """The same of the monitor as it runs on the robot, from the episode's beginning: the first step not nominal."""
        monitor, dt = Monitor(thresholds), self._model.artifact.spec.action.control_dt
        for error in self.errors(score):
            monitor.update(normalise(error, thresholds.scales))
            step = round(error.stamp / dt) - first
            if count is not None and step >= count:
                return None
            if step >= 0 and monitor.level > AlertLevel.NOMINAL:
                return step
        return None

    def largest(self, name: str, first: int = 0, count: int | None = None) -> float:
        """The largest score of the episode, or of `count` steps from `first` on; -inf if there is none."""
        part = self.steps[name][first : None if count is None else first + count]
        return float(part[~np.isnan(part)].max(initial=-np.inf))

    def errors(self, score: str) -> list[PredictionError]:
        """As the tracker gives them, raw, with `score` as the one-step error."""
        dt = self._model.artifact.spec.action.control_dt
        values = zip(self.steps[score], self.steps["disagreement"], strict=True)
        return [PredictionError(i * dt, float(e), np.nan, float(d)) for i, (e, d) in enumerate(values) if e == e]


def drift_scores(errors: Array, quantiles: Array) -> Array:
    drift = Drift(quantiles.tolist())
    return np.array([drift.update(float(e)) if e == e else np.nan for e in errors])


def cusum(z: Array, slack: float = 0.5) -> Array:
    """Page's CUSUM of standardised scores, which sees a shift by one standard deviation soonest."""
    total, out = 0.0, np.full(len(z), np.nan)
    for i in np.flatnonzero(~np.isnan(z)):
        total = max(0.0, total + float(z[i]) - slack)
        out[i] = total
    return out


@dataclass(frozen=True)
class Model:
    """An artifact, and its predictor on many moments at once."""

    artifact: Artifact

    @cached_property
    def _predictor(self) -> Any:
        return runtime.session(self.artifact.path / "predictor.onnx")

    def predict(self, episode: Episode, steps: int) -> FloatArray:
        """What was predicted `steps` model steps before, of shape (E, T+1, D); NaN before a whole history."""
        spec, latents, controls = self.artifact.spec, episode.observations, episode.controls
        h, k = spec.history, spec.action.block
        span = (h - 1 + steps) * k
        at = np.arange(span, len(latents))
        out = np.full((spec.members, len(latents), spec.latent_dim), np.nan, np.float32)
        if len(at) == 0:
            return out
        past = latents[at[:, None] - span + k * np.arange(h)]  # (B, h, D)
        actions = controls[at[:, None] - span + np.arange(span)].reshape(len(at), h - 1 + steps, spec.action.dim)
        out[:, at] = self._predictor.run(None, {"latents": past, "actions": actions})[0][:, :, -1]
        return out

    def check(self, episode: Episode) -> None:
        """That this is what the tracker, which runs on the robot, says."""
        spec, tracker = (
            self.artifact.spec,
            PredictionTracker(self.artifact.world_model, horizon=self.artifact.spec.horizon),
        )
        scored = Scored(self, episode)
        scored.add_far()
        previous = [episode.controls[0], *episode.controls]
        for i, latent in enumerate(episode.observations):
            error = tracker.update(i * spec.action.control_dt, latent, previous[i])
            if error is not None:
                ours = [float(scored.steps[name][i]) for name in ("surprise", "h_step", "disagreement")]
                np.testing.assert_allclose(
                    ours, [error.one_step, error.h_step, error.disagreement], rtol=1e-3, atol=1e-6
                )


class Shape:
    """What scores need to know of good episodes; from the part `shape`."""

    def __init__(self, episodes: Sequence[Scored], seed: int) -> None:
        residuals = np.concatenate([e.residuals for e in episodes])
        self.whitening = whiten(residuals[~np.isnan(residuals).any(axis=1)])
        plain = np.concatenate([e.steps["surprise"] for e in episodes])
        white = np.concatenate([np.square(e.residuals @ self.whitening.T).mean(axis=1) for e in episodes])
        self.quantiles = {
            name: np.quantile(values[~np.isnan(values)], np.linspace(0, 1, 255))
            for name, values in (("surprise", plain), ("whitened", white))
        }
        logs = np.log(plain[~np.isnan(plain)])
        self.log_mean, self.log_std = float(logs.mean()), float(logs.std())
        self.novelty = distil(np.concatenate([e.episode.observations for e in episodes]), seed)


def distil(latents: FloatArray, seed: int, *, steps: int = 2000, width: int = 128, out: int = 32) -> Any:
    """Novelty of latents: how badly a network that saw these repeats a random one (RND, arXiv 1810.12894)."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    mean, std = latents.mean(axis=0), latents.std(axis=0) + 1e-6

    def net() -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(latents.shape[1], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out)
        )

    target, learner = net().requires_grad_(False), net()
    data = torch.as_tensor((latents - mean) / std)
    optimiser = torch.optim.Adam(learner.parameters(), 1e-3)
    for _ in range(steps):
        batch = data[torch.randint(len(data), (256,))]
        loss = (learner(batch) - target(batch)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def novelty(some: FloatArray) -> Array:
        with torch.no_grad():
            seen = torch.as_tensor((some - mean) / std)
            return (learner(seen) - target(seen)).square().mean(dim=1).numpy().astype(np.float64)

    return novelty


def measure(artifact: Artifact, recorded: Path, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """All figures of one task; and one episode with a fault, for the plot."""
    model, rng, course = Model(artifact), np.random.default_rng(seed), COURSES[artifact.spec.task]
    dt = artifact.spec.action.control_dt
    episodes = load(recorded, artifact)
    model.check(episodes[0])
    parts: dict[str, list[Scored]] = {}
    for episode in tqdm(episodes, desc=f"{artifact.spec.task}: scores", unit="episode"):
        parts.setdefault(episode.meta["fault"] or episode.meta["part"], []).append(Scored(model, episode))
    fallen = {name: sum(e.meta["fallen"] for e in parts[name]) for name in PARTS}
    good = {name: [e for e in parts.pop(name) if not e.meta["fallen"]] for name in PARTS}
    twins = {e.meta["seed"]: e for e in good["test"]}
    faulty = {fault: [e for e in found if e.meta["seed"] in twins] for fault, found in sorted(parts.items())}
    again = {e.meta["seed"] for found in faulty.values() for e in found}

    shape = Shape(good["shape"], seed)
    every = [*good["calibration"], *good["test"], *(e for found in faulty.values() for e in found)]
    costly = [e for e in every if e.meta["fault"] or e.meta["seed"] in again] + good["calibration"][:SUBSET]
    for e in tqdm(every, desc="scores of a shape", unit="episode"):
        e.add_shaped(shape)
    for e in tqdm(costly, desc="H-step errors, proposals", unit="episode"):
        e.add_far()
        e.add_spread(rng)

    limits = {
        name: threshold(np.array([e.largest(name) for e in good["calibration"] if name in e.steps]), ALPHA)
        for name in SCORES
    }
    single = np.concatenate([e.steps["surprise"] for e in good["calibration"]])
    limits["pointwise"] = float(np.nanquantile(single, 1 - ALPHA))
    monitors = {name: fitted(good["calibration"], score, artifact) for name, score in MONITORS.items()}

    def alarms(name: str, e: Scored, first: int = 0, count: int | None = None) -> int | None:
        """Steps from `first` to the first alarm within `count` of them."""
        if name in monitors:
            return e.first_alarm(monitors[name], MONITORS[name], first, count)
        return e.first_above("surprise" if name == "pointwise" else name, limits[name], first, count)

    result: dict[str, Any] = {
        "task": artifact.spec.task,
        "model_id": artifact.spec.model_id,
        "seed": seed,
        "alpha": ALPHA,
        "policies": course.policies,
        "control_dt_s": dt,
        "episode_s": course.steps * dt,
        "window_s": course.window * dt,
        "episodes": {name: len(found) for name, found in good.items()},
        "left_out_fallen": fallen,
        "lag_1_autocorrelation": autocorrelation(good["test"]),
        "false_alarms": {
            name: share(
                [
                    alarms(name, e) is not None
                    for e in good["test"]
                    if name in (*monitors, "pointwise") or name in e.steps
                ]
            )
            for name in (*monitors, *limits)
        },
        "false_alarms_by_policy": {
            policy: share([alarms("monitor", e) is not None for e in good["test"] if e.meta["behaviour"] == policy])
            for policy in course.policies
        },
        "faults": {},
    }
    for fault, found in faulty.items():
        entry: dict[str, Any] = {"n": len(found), "fallen": sum(e.meta["fallen"] for e in found)}
        for name in (*monitors, *limits):
            after = [alarms(name, e, e.meta["at"] + 1, course.window) for e in found]
            delays = [dt * (steps + 1) for steps in after if steps is not None]
            entry[name] = {
                "recall": share([steps is not None for steps in after]),
                "median_delay_s": float(np.median(delays)) if delays else None,
            }
            if name in SCORES:
                without, with_it = (
                    np.array([e.largest(name, e.meta["at"] + 1, course.window) for e in runs])
                    for runs in ([twins[e.meta["seed"]] for e in found], found)
                )
                ci = list(auroc_interval(without, with_it, rng))
                entry[name]["auroc"] = {"value": auroc(without, with_it), "n": len(found), "ci": ci}
        result["faults"][fault] = entry
    result["update_us"] = cost(monitors["monitor"], good["test"][0])
    result["oracles"] = oracles(np.array([e.largest("surprise") for e in good["calibration"]]))
    example = next(e for e in faulty[EXAMPLE[artifact.spec.task]] if e.first_above("surprise", limits["surprise"]))
    kept = {"example": example, "limits": limits, "curves": curves(good["calibration"], good["test"])}
    return result, kept


def fitted(calibration: Sequence[Scored], score: str, artifact: Artifact) -> Thresholds:
    """The monitor's thresholds, by the code that `calibrate monitor` runs."""
    errors = [e.errors(score) for e in calibration]
    return fit(errors, model_id=artifact.spec.model_id, behaviours=COURSES[artifact.spec.task].policies, alpha=ALPHA)


def autocorrelation(episodes: Sequence[Scored]) -> float:
    """Of the logarithm of surprise, from one control step to the next; mean over episodes."""
    found = []
    for e in episodes:
        z = np.log(e.steps["surprise"][~np.isnan(e.steps["surprise"])])
        found.append(np.corrcoef(z[:-1], z[1:])[0, 1])
    return float(np.mean(found))


def cost(thresholds: Thresholds, scored: Scored) -> float:
    """Microseconds of `Monitor.update`, the median of many episodes."""
    errors, spent = [normalise(e, thresholds.scales) for e in scored.errors("surprise")], []
    for _ in range(200):
        monitor, begin = Monitor(thresholds), time.perf_counter()
        for error in errors:
            monitor.update(error)
        spent.append((time.perf_counter() - begin) / len(errors))
    return float(1e6 * np.median(spent))


def oracles(maxima: Array) -> dict[str, float]:
    """The threshold on these episode maxima, by us and by others."""
    from crepes import ConformalRegressor
    from mapie.regression import SplitConformalRegressor
    from sklearn.dummy import DummyRegressor

    # Both give intervals around a prediction, here 0, as wide as the quantile of the absolute residuals.
    first = ConformalRegressor().fit(maxima).predict_int(np.zeros(1), confidence=1 - ALPHA)
    zero = DummyRegressor(strategy="constant", constant=0.0).fit(np.zeros((1, 1)), [0.0])
    second = SplitConformalRegressor(zero, confidence_level=1 - ALPHA).conformalize(np.zeros((len(maxima), 1)), maxima)
    interval: Any = second.predict_interval(np.zeros((1, 1)))[1]
    return {"ours": threshold(maxima, ALPHA), "crepes": float(first[0, 1]), "mapie": float(np.ravel(interval)[1])}


def curves(calibration: Sequence[Scored], test: Sequence[Scored]) -> dict[str, list[float]]:
    """False alarms of surprise at several nominal shares, thresholded on episode maxima and on single steps."""
    good, fresh = (np.array([e.largest("surprise") for e in found]) for found in (calibration, test))
    single = np.concatenate([e.steps["surprise"] for e in calibration])
    return {
        "episode": [float(np.mean(fresh > threshold(good, alpha))) for alpha in NOMINAL],
        "pointwise": [float(np.mean(fresh > np.nanquantile(single, 1 - alpha))) for alpha in NOMINAL],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help=f"of {', '.join(COURSES)}; none: only the page, of what --json holds")
    parser.add_argument("--recorded", type=Path, default=Path("build/monitor"), help="a folder for each task in it")
    parser.add_argument("--artifact", type=Path, action="append", help="of each task; default: the shipped ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="figures of other tasks that it holds already stay there")
    parser.add_argument("--markdown", type=Path, help="a page of all figures in that file")
    parser.add_argument("--plots", type=Path, help="folder for a plot of each task, monitor_TASK.png")
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(args.json.read_text()) if args.json and args.json.is_file() else {}
    for name, folder in zip(args.tasks, args.artifact or [zoo_path(name) for name in args.tasks], strict=True):
        results[name], kept = measure(Artifact.load(folder), args.recorded / name, args.seed)
        if args.plots:
            plot(args.plots / f"monitor_{name}.png", results[name], kept)
    page = markdown(list(results.values()), (__doc__ or "").split("\n\n")[2].replace("\n", " "))
    print(page)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    if args.markdown:
        args.markdown.write_text(page)
