"""What delays cost, what it helps to reckon with them, and how well they are found from recordings.

    python benchmarks/latency.py [--episodes 60] [--recordings 20] [--record runs/latency.json]

Push-T towards goal images, planned with the shipped model while half of a delay lies before the robot and half before
the camera; every condition on the same starts and goals. The delays of other robots are drawn, recordings of them are
made with noise, and what `calibrate latency` finds is compared with the truth. What is done is kept in --record and not
done again. Writes latency.json and latency.md into --results.
"""

import argparse
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.calibration import latency
from worldpilot.calibration.intervals import bootstrap_mean, wilson
from worldpilot.calibration.latency import LatencyConfig, Series, Track
from worldpilot.cli.collect import EXCITE, behave, record, source
from worldpilot.evaluation import policies
from worldpilot.evaluation.cases import Case, made, make_cases
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.sim.push_t import PHYSICS_DT, PushT
from worldpilot.sim.tasks import task
from worldpilot.system import System

TASK = "push_t"
SEED = 3_000_000
DELAYS = (0.0, 0.05, 0.1)  # [s], of control and camera together
CONDITIONS = tuple((delay, told) for delay in DELAYS for told in sorted({0.0, delay}))
ENCODER_NOISE = 1e-4  # [m], standard deviation
LONGEST = 0.12  # [s], of either delay of a recording
EPISODES = 2  # of 30 s, a recording
CHUNK = 10  # cases made at a time

Kept = dict[str, Any]


def condition_name(delay: float, told: float) -> str:
    """As the tables have it."""
    return f"{1e3 * delay:.0f} ms" + ("" if not delay else ", reckoned with" if told else ", not reckoned with")


def run_case(artifact: Artifact, world: PushT, case: Case, index: int, delay: float, told: float) -> Kept:
    """One episode towards a goal image, as `worldpilot evaluate` has it."""
    case.reset(world)
    world.inject("delay", seconds=delay / 2)
    world.inject("delay_observation", seconds=delay / 2)
    rng = np.random.default_rng([SEED, index, 1])
    block = artifact.spec.action.block
    policy = policies.make("mpc", policies.Setting(artifact, world, case, rng, block, True, {}, told))
    assert isinstance(policy, policies.Planner)
    best, steps, success = case.progress(world), 0, False
    path, expected, dt = [world.pusher()], list[tuple[float, float, float]](), world.action.control_dt
    while steps < case.budget and not success:
        solved = len(policy.solves)
        control = policy.act(world.observe().data)
        if len(policy.solves) > solved and policy.plan is not None:
            when = steps * dt - delay / 2 + block * dt  # a model step after the moment that the image shows
            x, y = (float(policy.plan.imagined.signals[name][0, 0]) for name in task(TASK).position)
            expected.append((when, x, y))
        world.drive(np.clip(control, world.action.low, world.action.high))
        steps += 1
        path.append(world.pusher())
        best, success = max(best, case.progress(world)), case.reached(world)
    times, (xs, ys) = dt * np.arange(len(path)), np.array(path).T
    errors = [
        float(np.hypot(x - np.interp(when, times, xs), y - np.interp(when, times, ys)))
        for when, x, y in expected
        if when <= times[-1]
    ]
    imagined = float(np.mean(errors)) if errors else None
    return {
        "success": success,
        "moves": case.object_moves,
        "distance": -best,
        "steps": steps,
        "imagined": imagined,
    }


def run_recording(artifact: Artifact, seed: int) -> Kept:
    """Delays of a robot that is drawn, and what is found of them from a recording of it."""
    rng = np.random.default_rng([SEED, seed, 2])
    control = float(rng.uniform(0, LONGEST))
    camera = float(rng.integers(0, round(LONGEST / PHYSICS_DT) + 1) * PHYSICS_DT)  # pictures are taken at its steps
    position, excitation, tracks = task(TASK).position, source(TASK, EXCITE), []
    with closing(PushT(system=System(TASK, control, camera))) as world:
        for i in range(EPISODES):
            drive = behave(TASK, EXCITE, excitation.make(), world, EPISODES * seed + i)
            episode = record(world, drive, excitation.steps, {"seed": i, "behaviour": EXCITE})
            model = artifact.world_model
            signals = model.signals(
                np.concatenate([model.encode(part) for part in np.array_split(episode.observations, 6)])
            )
            encoder, seen = (np.stack([s[n] for n in position], -1).astype(float) for s in (episode.signals, signals))
            stamps = world.action.control_dt * np.arange(len(episode) + 1)
            encoder += rng.normal(0, ENCODER_NOISE, encoder.shape)
            measured = {"encoder": Series(stamps, encoder), "camera": Series(stamps, seen)}
            tracks.append(Track(Series(stamps[:-1], episode.controls.astype(float)), measured))
    found = latency.fit(tracks, LatencyConfig(servo_dt=task(TASK).servo_dt or latency.CONTINUOUS))
    times = {name: time.to_dict() for name, time in found.times.items()}
    return {"control": control, "camera": camera, "found": times, "remarks": list(found.remarks)}


def summarise_success(runs: dict[str, list[Kept]]) -> dict[str, Any]:
    """Each condition's figures, and those of reckoning with a delay against not doing so, in pairs."""
    conditions = {}
    for name, kept in runs.items():
        wins = sum(k["success"] for k in kept)
        moved = [k["success"] for k in kept if k["moves"]]
        conditions[name] = {
            "n": len(kept),
            "success": wins / len(kept),
            "ci": list(wilson(wins, len(kept))),
            "object_moves": {
                "n": len(moved),
                "success": float(np.mean(moved)),
                "ci": list(wilson(sum(moved), len(moved))),
            },
            "distance_mm": _mean([1e3 * k["distance"] for k in kept]),
            "steps": _mean([k["steps"] for k in kept]),
            "imagined_mm": _mean([1e3 * k["imagined"] for k in kept if k["imagined"] is not None]),
        }
    gains = {}
    for delay in DELAYS[1:]:
        with_, without = (runs[condition_name(delay, told)] for told in (delay, 0.0))
        gains[f"{1e3 * delay:.0f} ms"] = {
            name: _mean([factor * (a[key] - b[key]) for a, b in zip(with_, without, strict=True) if _both(a, b, key)])
            for name, key, factor in (
                ("success", "success", 1.0),
                ("distance_mm", "distance", 1e3),
                ("steps", "steps", 1.0),
                ("imagined_mm", "imagined", 1e3),
            )
        }
    return {"conditions": conditions, "gains": gains}


def summarise_recordings(kept: list[Kept]) -> dict[str, Any]:
    """Errors of the two delays over all recordings [ms]."""
    result: dict[str, Any] = {"n": len(kept), "recordings": kept}
    for name in ("control", "camera"):
        there = [k for k in kept if name in k["found"]]
        errors = np.array([1e3 * (k["found"][name]["value"] - k[name]) for k in there])
        inside = sum(k["found"][name]["low"] <= k[name] <= k["found"][name]["high"] for k in there)
        result[name] = {
            "known": len(there),
            "rms_ms": float(np.sqrt(np.mean(errors**2))),
            "bias_ms": float(errors.mean()),
            "largest_ms": float(np.abs(errors).max()),
            "within_2_ms": int((np.abs(errors) <= 2).sum()),
            "covered": inside,
            "covered_ci": list(wilson(inside, len(there))),
        }
    return result


def page(result: dict[str, Any]) -> str:
    """The figures as a page."""
    success, found = result["success"], result["recordings"]

    def interval(part: dict[str, Any], digits: int = 1) -> str:
        return f"{part['mean']:.{digits}f} [{part['ci'][0]:.{digits}f}, {part['ci'][1]:.{digits}f}]"

    def share(part: dict[str, Any]) -> str:
        return f"{part['success']:.1%} [{part['ci'][0]:.1%}, {part['ci'][1]:.1%}]"

    lines = [
        "# Delays",
        "",
        "Written by `python benchmarks/latency.py`; the figures are in `latency.json`. Intervals are of 95 %.",
        "",
        "## What they cost, and what it helps to reckon with them",
        "",
        "Push-T towards goal images 25 control steps ahead, the shipped model, a plan every 5 control steps; half of",
        "the delay lies before the robot, half before the camera. The same starts and goals in every row. The last",
        "column: how far the pusher was from where a plan had it half a second (a model step) later.",
        "",
        "| delay | n | success | where the block must move | nearest to the goal [mm] | steps | off the plan [mm] |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figures in success["conditions"].items():
        moves = figures["object_moves"]
        lines.append(
            f"| {name} | {figures['n']} | {share(figures)} | {share(moves)} (n = {moves['n']}) "
            f"| {interval(figures['distance_mm'])} | {interval(figures['steps'])} "
            f"| {interval(figures['imagined_mm'])} |"
        )
    lines += [
        "",
        "Reckoning with the delay, less not doing so, in pairs. Plans then come true as they do without a delay; where",
        "an interval of success holds 0, replanning twice a second makes up for most of what such delays spoil.",
        "",
        "| delay | success | nearest to the goal [mm] | steps | off the plan [mm] |",
        "|---|---|---|---|---|",
    ]
    for name, gain in success["gains"].items():
        lines.append(
            f"| {name} | {interval(gain['success'], 3)} | {interval(gain['distance_mm'])} | {interval(gain['steps'])} "
            f"| {interval(gain['imagined_mm'])} |"
        )
    lines += [
        "",
        "## How well they are found",
        "",
        f"{found['n']} robots whose delays are drawn (either up to {1e3 * LONGEST:.0f} ms), a recording of each of",
        f"{EPISODES} × 30 s (`collect --excite`), {1e3 * ENCODER_NOISE:.1f} mm of noise on the encoder, the camera's",
        "position as the shipped model reads it from images.",
        "",
        "| delay | found | error, rms [ms] | bias [ms] | largest [ms] | within 2 ms | truth within the 95 % interval |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("control", "camera"):
        part = found[name]
        lines.append(
            f"| {name} | {part['known']} of {found['n']} | {part['rms_ms']:.2f} | {part['bias_ms']:+.2f} "
            f"| {part['largest_ms']:.2f} | {part['within_2_ms']} of {part['known']} "
            f"| {part['covered']} of {part['known']} |"
        )
    return "\n".join(lines) + "\n"


def _both(a: Kept, b: Kept, key: str) -> bool:
    return a[key] is not None and b[key] is not None


def _mean(values: list[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "ci": list(bootstrap_mean(values))}


def main() -> None:
    """Run what is not done yet, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--recordings", type=int, default=20)
    parser.add_argument("--record", type=Path, default=Path("runs/latency.json"), help="what is done is kept here")
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    artifact = Artifact.load(zoo_path(TASK))
    kept: dict[str, list[Kept]] = json.loads(args.record.read_text()) if args.record.is_file() else {}

    def keep(name: str, value: Kept) -> None:
        kept.setdefault(name, []).append(value)
        args.record.parent.mkdir(parents=True, exist_ok=True)
        args.record.write_text(json.dumps(kept))
        print(f"{name} {len(kept[name])}: {value}", flush=True)

    for seed in range(len(kept.get("recordings", [])), args.recordings):
        keep("recordings", run_recording(artifact, seed))
    names = [condition_name(*condition) for condition in CONDITIONS]
    for first in range(0, args.episodes, CHUNK):
        if all(len(kept.get(name, [])) >= min(first + CHUNK, args.episodes) for name in names):
            continue
        cases = make_cases(TASK, "goal-image", "novel", CHUNK, SEED + first)
        with closing(PushT(**made(None))) as world:
            for index, case in enumerate(cases[: args.episodes - first], start=first):
                for name, condition in zip(names, CONDITIONS, strict=True):
                    if len(kept.get(name, [])) <= index:
                        keep(name, run_case(artifact, world, case, index, *condition))
    result = {
        "task": TASK,
        "model_id": artifact.spec.model_id,
        "seed": SEED,
        "success": summarise_success({name: kept[name][: args.episodes] for name in names}),
        "recordings": summarise_recordings(kept["recordings"][: args.recordings]),
    }
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "latency.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.results / "latency.md").write_text(page(result))


if __name__ == "__main__":
    main()
