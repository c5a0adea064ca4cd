"""A broken joint: how much of the lost return comes back by learning what anew, from how many episodes?

    python benchmarks/adaptation.py walker hopper --work build/adaptation --json docs/results/adaptation.json

The planner is the same throughout, and so are its reward and the seeds of the world. The data's gait drives the first
second, so that what is measured is how it goes on. `healthy` and `before` are the shipped artifact without and with the
fault, which is there from the first step. Then, from 5 to 100 episodes of the
broken robot, half of them driven by the data's gait, half by the planner as it was before:

- `dynamics`: the predictor fine-tuned (`worldpilot adapt`), encoder, readout and prior kept;
- `prior`: the action prior fine-tuned, all else kept;
- `both`: both of these;
- `all`: every part trained anew from these episodes alone.

What is asked for is `forward.json`. An episode's return is the mean of that over its control steps, from the world's
signals; nothing is earned after a fall. `recovered` is the share of the lost return that came back. The monitor is
fitted on healthy episodes of the same planner, and judged on others, in which the joint breaks on the way if the robot
is up by then. Healthy episodes in which it falls all the same are left out. Stopped and called again, it goes on with
what is missing.
"""

import argparse
import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldpilot.calibration.detection import share
from worldpilot.calibration.intervals import bootstrap_mean
from worldpilot.calibration.monitor import Monitor, PredictionTracker
from worldpilot.calibration.thresholds import fit, normalise
from worldpilot.cli.calibrate import prediction_errors, raises_alarm
from worldpilot.evaluation.asked import load, mean
from worldpilot.evaluation.controllers import Behaviour, Controller, Driven, Planner, Planning, Setting
from worldpilot.evaluation.locomotion import settings
from worldpilot.models.action_prior.train import for_latents, train_prior
from worldpilot.models.artifact import Artifact, write_manifest, zoo_path
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter
from worldpilot.models.dynamics.adapt import AdaptConfig, adapt
from worldpilot.models.dynamics.export import export
from worldpilot.models.dynamics.train import DynamicsTrainConfig, train_dynamics
from worldpilot.sim.legged import LeggedWorld
from worldpilot.sim.tasks import task
from worldpilot.types import AlertLevel

COUNTS = (5, 10, 25, 50, 100)
FURTHER, TRAINED = 1000, 2000  # optimiser steps of a prior that is fine-tuned; of what is trained anew
SIZES = {"hidden": 384, "horizon": 8, "sampler_steps": 8}  # of a prior: the walker's in scripts/train_walker.sh
STEPS, BEGINS = 250, 50  # control steps of an episode; of those the data's gait drives the first
BREAKS_AT = 100  # control step at which the joint breaks in the monitor's episodes
DATA_SEED, MONITOR_SEED, FIRST_SEED = 5_000_000, 6_000_000, 7_000_000  # of worlds; the last of evaluations
GOOD, ALPHA = 40, 0.05  # episodes the monitor is fitted on, and the share of false alarms it may raise
(FORWARD,) = load(Path(__file__).with_name("forward.json")).rewards


@dataclass(frozen=True)
class Robot:
    """What breaks, and what is asked for."""

    behaviour: str  # of the data
    fault: str
    params: Mapping[str, float]


# The walker's fault was chosen before anything was adapted, on other seeds than those measured: with 0.3 or 0.15 of its
# ankle's torque left the planner's return fell from 0.87 to 0.75 or 0.72 (5 or 6 episodes each), with none to 0.24. The
# data's gait, without noise, keeps 0.79 of 0.87 (8 episodes). The hopper's, too: with 0.4 of its ankle's torque the
# planner fell in 6 of 6 episodes, the data's gait in 3 of 6, which earned 0.61 (0.38: the healthy planner).
# With less of its knee's torque the gait fails as the planner does: at 0.5 it fell in 5 of 5, and of 20 measured seeds
# no arm of 10, 25 or 50 episodes brought more than 0.11 [-0.02, 0.27] of the lost return back.
ROBOTS = {
    "walker": Robot("walk", "weak_joint", {"joint": 2, "fraction": 0.0}),
    "hopper": Robot("hop", "weak_joint", {"joint": 2, "fraction": 0.4}),
}


class Lab:
    """One robot, its world and its shipped artifact; everything that is made lies below `work`.

    Args:
        checkpoints: folders that hold the shipped artifact's training: `nets` and `prior`.
        adapting: how the dynamics are fine-tuned.
    """

    def __init__(
        self, name: str, world: LeggedWorld, work: Path, checkpoints: Path, adapting: AdaptConfig | None = None
    ) -> None:
        self.adapting = adapting or AdaptConfig()
        self.name, self.robot, self.world, self.work, self.checkpoints = name, ROBOTS[name], world, work, checkpoints
        self.shipped, self.planning = Artifact.load(zoo_path(name)), Planning.of(name)

    def drive(
        self, artifact: Artifact, make: Callable[[Setting], Controller], seed: int, breaks_at: int | None
    ) -> Episode:
        """One episode; `breaks_at`: control step at which the joint breaks, None: it does not."""
        world = self.world
        world.reset(seed=seed)
        setting = Setting(artifact, world, FORWARD.reward, self.planning, seed)
        controller, gait = make(setting), Behaviour(setting, self.robot.behaviour)
        driven = Driven(world)
        for step in range(STEPS):
            if step == breaks_at:
                world.inject(self.robot.fault, **self.robot.params)
            if step < BEGINS and not isinstance(controller, Behaviour):
                controller.watch(driven.state, driven.previous)
                control = gait.act(driven.state, driven.previous)
            else:
                control = controller.act(driven.state, driven.previous)
            driven.drive(control)
            if world.ended:
                break
        behaviour = type(controller).__name__.lower()
        return driven.episode({"seed": seed, "behaviour": behaviour})

    def plan(self, artifact: Artifact, seed: int, breaks_at: int | None) -> Episode:
        """One episode of the planner."""
        return self.drive(artifact, lambda setting: Planner(setting, "ssr"), seed, breaks_at)

    def earn(self, episode: Episode) -> float:
        """The episode's return."""
        done = {name: values[1:] for name, values in episode.signals.items()}
        return mean(FORWARD.quantity, done, self.world.robot.signals) * len(episode) / STEPS

    def broken(self, count: int) -> EpisodeStore:
        """The first `count` episodes of the broken robot, recorded if they are not there yet."""
        folder = self.work / "broken"
        meta = {
            "task": self.name,
            "action": self.world.action.to_dict(),
            "state": {"names": list(self.world.state_names), "units": list(self.world.state_units)},
            "units": dict(self.world.robot.signals),
        }
        seeds = range(DATA_SEED, DATA_SEED + count)
        with EpisodeWriter(folder, meta, shard_episodes=5) as writer:
            there = {m["seed"] for m in EpisodeStore(folder).metas}
            for seed in sorted(set(seeds) - there):
                if seed % 2:
                    episode = self.plan(self.shipped, seed, 0)
                else:
                    episode = self.drive(self.shipped, lambda s: Behaviour(s, self.robot.behaviour), seed, 0)
                writer.append(episode)
        return EpisodeStore(folder).select(seed=tuple(seeds))

    def arm(self, name: str, count: int) -> Artifact:
        """The artifact of an arm, trained if it is not there yet."""
        out = self.work / f"{name}-{count}"
        if not (out / "manifest.json").is_file():
            MADE[name](self, self.broken(count), out)
        return Artifact.load(out)


def _dynamics(lab: Lab, store: EpisodeStore, out: Path) -> None:
    adapt(lab.shipped.path, store, out, lab.adapting)


def _prior(lab: Lab, store: EpisodeStore, out: Path) -> None:
    _with_prior(lab, store, out, lab.shipped.path)


def _both(lab: Lab, store: EpisodeStore, out: Path) -> None:
    _with_prior(lab, store, out, lab.arm("dynamics", len(store)).path)


def _all(lab: Lab, store: EpisodeStore, out: Path) -> None:
    spec, (nets, prior) = lab.world.action, _folders(out)
    train_dynamics(store, spec, nets, DynamicsTrainConfig(steps=TRAINED, evaluate_every=TRAINED))
    settings = replace(for_latents(nets), **SIZES, steps=TRAINED, evaluate_every=TRAINED)
    train_prior(store, spec, nets, prior, settings)
    export(lab.name, spec, nets, prior, out, ["benchmarks/adaptation.py"], f"{len(store)} episodes, one joint broken")


def _with_prior(lab: Lab, store: EpisodeStore, out: Path, base: Path) -> None:
    """The artifact in `base` with a prior that was fine-tuned on the store."""
    spec, nets = lab.world.action, lab.checkpoints / "nets"
    prior, whole = _folders(out)
    settings = replace(for_latents(nets), learning_rate=3e-4, steps=FURTHER, evaluate_every=FURTHER)
    train_prior(store, spec, nets, prior, settings, start=lab.checkpoints / "prior")
    export(lab.name, spec, nets, prior, whole, ["benchmarks/adaptation.py"], "")
    manifest = Artifact.load(base).manifest
    out.mkdir(parents=True, exist_ok=True)
    for name, graph in manifest["graphs"].items():
        shutil.copy((whole if name == "prior" else base) / graph["file"], out / graph["file"])
    write_manifest(out, {n: v for n, v in manifest.items() if n not in ("format", "model_id", "graphs", "thresholds")})


def _folders(out: Path) -> tuple[Path, Path]:
    """Where an arm keeps what it trains."""
    return out.with_name(f"{out.name}.first"), out.with_name(f"{out.name}.second")


MADE: Mapping[str, Callable[[Lab, EpisodeStore, Path], None]] = {
    "dynamics": _dynamics,
    "both": _both,
    "prior": _prior,
    "all": _all,
}


def evaluate(lab: Lab, artifact: Artifact, seeds: Sequence[int], breaks_at: int | None) -> dict[str, Any]:
    """Returns and falls of the planner, one a seed."""
    episodes = [lab.plan(artifact, seed, breaks_at) for seed in seeds]
    return {"returns": [lab.earn(e) for e in episodes], "fallen": [bool(e.meta["fallen"]) for e in episodes]}


def notice(lab: Lab, n: int) -> dict[str, Any]:
    """Whether the monitor notices the joint that breaks, how late, and how often it alarms without cause."""
    artifact, tracker = lab.shipped, PredictionTracker(lab.shipped.world_model, horizon=lab.shipped.spec.horizon)

    def drive(seed: int, breaks_at: int | None = None) -> tuple[list[Any], Episode]:
        episode = lab.plan(artifact, seed, breaks_at)
        return prediction_errors(artifact, tracker, episode), episode

    good, seeds = list[Any](), itertools.count(MONITOR_SEED)
    while len(good) < GOOD:
        errors, episode = drive(next(seeds))
        good += [] if episode.meta["fallen"] else [errors]
    thresholds = fit(good, model_id=artifact.spec.model_id, behaviours=("mpc",), alpha=ALPHA)
    false, delays, fell_first = list[bool](), list[float | None](), 0
    breaks = BREAKS_AT * artifact.spec.action.control_dt
    for seed in itertools.islice(seeds, n):
        errors, episode = drive(seed)
        if not episode.meta["fallen"]:
            false.append(raises_alarm(thresholds, errors))
        if len(episode) <= BREAKS_AT:
            continue
        errors, episode = drive(seed, BREAKS_AT)
        monitor = Monitor(thresholds)
        alerts = (monitor.update(normalise(error, thresholds.scales)) for error in errors)
        raised = [a.stamp for a in alerts if a is not None and a.level > AlertLevel.NOMINAL and a.stamp > breaks]
        delays.append(raised[0] - breaks if raised else None)
        fell_first += not raised and bool(episode.meta["fallen"])
    known = [delay for delay in delays if delay is not None]
    return {
        "fitted_on": GOOD,
        "alpha": ALPHA,
        "noticed": share([delay is not None for delay in delays]),
        "false_alarms": share(false),  # of healthy episodes in which it does not fall
        "fell_unnoticed": fell_first,
        "delay_s": {"median": float(np.median(known)), "p90": float(np.quantile(known, 0.9))} if known else None,
    }


def recovered(
    arm: Sequence[float], before: Sequence[float], healthy: Sequence[float], *, resamples: int = 10_000
) -> dict[str, Any]:
    """Share of the lost return that came back, (arm - before) / (healthy - before), over paired seeds."""
    a, b, h = (np.asarray(values) for values in (arm, before, healthy))
    draws = np.random.default_rng(0).integers(len(a), size=(resamples, len(a)))
    ratios = (a - b)[draws].mean(1) / (h - b)[draws].mean(1)
    value = float((a - b).mean() / (h - b).mean())
    return {"value": value, "n": len(a), "ci": np.quantile(ratios, [0.025, 0.975]).tolist()}


def summarise(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one robot, from what was kept of its episodes."""
    runs = kept["runs"]

    def figures(run: Mapping[str, Any]) -> dict[str, Any]:
        values = run["returns"]
        return {
            "return": {"mean": float(np.mean(values)), "ci": list(bootstrap_mean(values))},
            "falls": share(run["fallen"]),
        }

    result = {name: figures(run) for name, run in runs.items()}
    if {"healthy", "before"} <= runs.keys():
        for name in runs.keys() - {"healthy", "before"}:
            given = (runs[part]["returns"] for part in (name, "before", "healthy"))
            result[name]["recovered"] = recovered(*given)
    return result


def report(whole: Mapping[str, Any]) -> str:
    """The figures as Markdown."""

    def interval(figure: Mapping[str, Any], of: str = "value") -> str:
        low, high = figure["ci"]
        return f"{figure[of]:.2f} [{low:.2f}, {high:.2f}]"

    def place(run: str) -> tuple[int, int]:
        arm, _, count = run.partition(" ")
        return ["healthy", "before", *MADE].index(arm), int(count or 0)

    lines = ["# A broken joint", "", "Made by `benchmarks/adaptation.py`, which says how."]
    for name, kept in whole.items():
        setting, figures = kept["setting"], kept["figures"]
        fault, params = next(iter(setting["fault"].items()))
        broken = ", ".join(f"{key} {value:g}" for key, value in params.items())
        lines += [
            "",
            f"## {name}",
            "",
            f"Fault: {fault} ({broken}), from the first step. {setting['seeds']} paired seeds, {setting['steps']} "
            f"control steps, model {setting['model_id']}; dynamics fine-tuned for {setting['adapt']['steps']} "
            f"optimiser steps. Return: mean of `{setting['reward']}` [m/s] over the steps, 95 % bootstrap intervals.",
            "",
            "| what was learnt anew | episodes | return | lost return that came back | falls |",
            "|---|---|---|---|---|",
        ]
        for run in sorted(figures, key=place):
            figure, (arm, _, count) = figures[run], run.partition(" ")
            arm = {"healthy": "nothing, healthy robot", "before": "nothing, broken joint"}.get(arm, arm)
            back = interval(figure["recovered"]) if "recovered" in figure else "–"
            falls = f"{figure['falls']['value']:.0%}"
            lines.append(f"| {arm} | {count or '–'} | {interval(figure['return'], 'mean')} | {back} | {falls} |")
        counts = {arm: [str(count) for count in COUNTS if f"{arm} {count}" not in figures] for arm in MADE}
        missing = [f"{arm} from {', '.join(of)} episodes" for arm, of in counts.items() if of]
        missing += [] if "monitor" in kept else ["the monitor"]
        if missing:
            lines += ["", f"Not measured: {'; '.join(missing)}."]
        if "monitor" in kept:
            monitor = kept["monitor"]
            noticed, false, delay = (monitor[part] for part in ("noticed", "false_alarms", "delay_s"))
            late = f", {delay['median']:.2f} s later (median; 9 of 10: {delay['p90']:.2f} s)" if delay else ""
            lines += [
                "",
                f"Monitor, fitted on {monitor['fitted_on']} healthy episodes of the planner (false alarms at most "
                f"{monitor['alpha']:.0%} of the episodes): it notices a joint that breaks on the way in "
                f"{interval(noticed)} of {noticed['n']} episodes{late}; false alarms in {interval(false)} of "
                f"{false['n']} healthy ones; {monitor['fell_unnoticed']} fell unnoticed.",
            ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, most telling first, and write the figures after each arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("robots", nargs="+", choices=list(ROBOTS))
    parser.add_argument("--work", type=Path, default=Path("build/adaptation"))
    parser.add_argument("--checkpoints", type=Path, default=Path("build"), help="<robot>/nets and <robot>/prior")
    parser.add_argument("--arms", nargs="+", choices=list(MADE), default=list(MADE))
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--seeds", type=int, default=20, help="paired seeds of the world")
    parser.add_argument("--steps", type=int, default=AdaptConfig.steps, help="optimiser steps of the dynamics")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.robots:
        with closing(task(name).world()) as world:
            assert isinstance(world, LeggedWorld)
            lab = Lab(name, world, args.work / name, args.checkpoints / name, AdaptConfig(steps=args.steps))
            study(lab, args.arms, args.counts, args.seeds, args.json)


def study(lab: Lab, arms: Sequence[str], counts: Sequence[int], n: int, file: Path) -> None:
    """Fill in what `file` does not hold of one robot."""
    whole: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    setting = {
        "fault": {lab.robot.fault: dict(lab.robot.params)},
        "reward": FORWARD.quantity,
        "model_id": lab.shipped.spec.model_id,
        "planning": settings(lab.planning),
        "steps": STEPS,
        "gait_begins": BEGINS,
        "seeds": n,
        "adapt": asdict(lab.adapting),
    }
    kept = whole.get(lab.name, {"setting": setting, "runs": {}})
    if kept["setting"] != setting:
        raise SystemExit(f"{file} holds {lab.name} with another setting; choose another file, or remove it there")
    whole[lab.name] = kept

    def save() -> None:
        kept["figures"] = summarise(kept)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(whole, indent=1) + "\n")
        file.with_suffix(".md").write_text(report(whole))

    jobs: list[tuple[str, Callable[[], Artifact], int | None]] = [
        ("healthy", lambda: lab.shipped, None),
        ("before", lambda: lab.shipped, 0),
    ]
    jobs += [
        (f"{arm} {count}", lambda arm=arm, count=count: lab.arm(arm, count), 0) for arm in arms for count in counts
    ]
    for name, artifact, breaks_at in jobs:
        if name not in kept["runs"]:
            kept["runs"][name] = evaluate(lab, artifact(), range(FIRST_SEED, FIRST_SEED + n), breaks_at)
            save()
            print(lab.name, name, json.dumps(kept["figures"][name]), flush=True)
    if "monitor" not in kept:
        kept["monitor"] = notice(lab, n)
        save()
        print(lab.name, "monitor", json.dumps(kept["monitor"]), flush=True)


if __name__ == "__main__":
    main()
