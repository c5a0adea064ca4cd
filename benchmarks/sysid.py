"""How well mass and friction are found from recordings, and what recordings don't tell.

    python benchmarks/sysid.py [--seeds 20] [--record runs/sysid.json]

Robots are drawn: Push-T blocks of other mass and friction, quadrupeds with a load, on other ground, with late controls.
Each is recorded while it is excited (`collect --excite`), noise is added, and what `calibrate system` finds is compared
with the truth; Push-T's also from poses alone, without the pusher's force. What is done is kept in --record and not
done again. Writes sysid.json and sysid.md into --results.
"""

import argparse
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.calibration.intervals import wilson
from worldpilot.calibration.sysid import SysidConfig
from worldpilot.cli.calibrate_system import identify
from worldpilot.cli.collect import EXCITE, behave, record, source
from worldpilot.errors import InvalidInput
from worldpilot.models.data.episodes import Episode
from worldpilot.sim.identify import PushTReplay, QuadrupedReplay
from worldpilot.sim.tasks import task
from worldpilot.system import System

SEED = 6_000_000
DRAWN = {  # between which bounds
    "push_t": {"mass": (0.1, 0.4), "friction": (0.3, 0.7)},
    "quadruped": {"payload": (0.5, 4.0), "friction": (0.4, 1.0), "control_delay": (0.0, 0.03)},
}
RECORDINGS = {"push_t": 6, "quadruped": 3}  # of 30 s and of 4 s
NOISE = {  # standard deviation, by the beginning or the end of a name
    "push_t": {"pusher_": 1e-4, "block_yaw": 4e-3, "block_": 3e-4, "force_": 0.02},
    "quadruped": {
        "height": 2e-3, "roll_rate": 0.02, "pitch_rate": 0.02, "yaw_rate": 0.02, "roll": 2e-3, "pitch": 2e-3,
        "q_": 5e-4, "dq_": 0.03, "forward_": 0.02, "lateral_": 0.02, "vertical_": 0.02,
    },
}  # fmt: skip
TARGETS = {"mass": 0.02, "friction": 0.05, "payload": 0.02}  # of the truth; a payload's: of the trunk with it
TRUNK = 4.7  # [kg]
SOUGHT = {"push_t": PushTReplay.sought, "quadruped": QuadrupedReplay.sought}
POSES_ONLY = "push_t, poses only"
KINDS = ("push_t", POSES_ONLY, "quadruped")

Kept = dict[str, Any]


def noise(names: Mapping[str, float], name: str) -> float:
    """Of a channel; 0 for what is not measured."""
    return next((std for begin, std in names.items() if name.startswith(begin)), 0.0)


def noisy(episode: Episode, name: str, rng: np.random.Generator) -> Episode:
    """The episode as sensors would have it."""
    table = NOISE[name]
    signals = {
        signal: (values + rng.normal(0, noise(table, signal), values.shape)).astype(np.float32)
        for signal, values in episode.signals.items()
    }
    observations = episode.observations
    if task(name).state:
        std = np.array([noise(table, component) for component in task(name).state])
        observations = (observations + std * rng.normal(size=observations.shape)).astype(np.float32)
    return replace(episode, signals=signals, observations=observations)


def run(kind: str, seed: int) -> Kept:
    """What is found of a robot that is drawn."""
    name = kind.partition(",")[0]
    rng = np.random.default_rng([SEED, seed, KINDS.index(name)])
    true = {parameter: float(rng.uniform(*bounds)) for parameter, bounds in DRAWN[name].items()}
    physical = {parameter: value for parameter, value in true.items() if parameter != "control_delay"}
    system = System(name, true.get("control_delay", 0.0), parameters=physical)
    entry, excitation, episodes = task(name), source(name, EXCITE), []
    images = {} if entry.state else {"render_images": False}
    with closing(entry.world(system=system, **images)) as world:
        for i in range(RECORDINGS[name]):
            drive = behave(name, EXCITE, excitation.make(), world, 10 * seed + i)
            meta = {"seed": i, "behaviour": EXCITE}
            episodes.append(noisy(record(world, drive, excitation.steps, meta, sensors=kind != POSES_ONLY), name, rng))
    assert entry.replay is not None
    try:
        with closing(entry.replay(None)) as replay:
            found, _, _ = identify(replay, episodes)
    except InvalidInput as refusal:  # it fell before there was enough to see
        return {"true": true, "refused": str(refusal)}
    return {"true": true, "found": found.to_dict()}


def summarise(kind: str, kept: list[Kept]) -> dict[str, Any]:
    """Errors of each parameter over all robots, of those that were said to be known; and how many were not, or were
    refused."""
    parameters, sought = {}, SOUGHT[kind.partition(",")[0]]
    told = [k for k in kept if "found" in k]
    for name in kept[0]["true"]:
        largest = SysidConfig().tolerance * sought[name].scale
        known = [k for k in told if k["found"]["parameters"][name]["std"] <= largest]
        figures: dict[str, Any] = {"n": len(kept), "identified": len(known)}
        if known:
            true = np.array([k["true"][name] for k in known])
            value, std = (np.array([k["found"]["parameters"][name][part] for k in known]) for part in ("value", "std"))
            whole = true + TRUNK if name == "payload" else true
            errors = (value - true) / (1.0 if name == "control_delay" else whole)
            inside = int((np.abs(value - true) <= 1.96 * std).sum())
            figures |= {
                "rms": float(np.sqrt(np.mean(errors**2))),
                "bias": float(errors.mean()),
                "largest": float(np.abs(errors).max()),
                "covered": inside,
                "covered_ci": list(wilson(inside, len(known))),
            }
            if name in TARGETS:
                within = int((np.abs(errors) <= TARGETS[name]).sum())
                figures |= {"target": TARGETS[name], "within": within, "within_ci": list(wilson(within, len(known)))}
        parameters[name] = figures
    conditions = [k["found"]["condition"] for k in told]
    segments = [k["found"]["segments"] for k in told]
    return {
        "parameters": parameters,
        "condition_median": float(np.median(conditions)),
        "segments_median": float(np.median(segments)),
        "runs": kept,
    }


def page(result: dict[str, Any]) -> str:
    """The figures as a page."""
    lines = [
        "# System identification",
        "",
        "Written by `python benchmarks/sysid.py`; the figures are in `sysid.json`. Robots are drawn, recorded while",
        "they are excited, and identified from noisy recordings. Errors are of the truth; a payload's are of the",
        "trunk's mass with it; a delay's are in ms. They are of the runs in which the parameter was said to be known;",
        f"of a robot that fell too soon none was. A Push-T block is hit in {RECORDINGS['push_t']} recordings of 30 s,",
        f"a quadruped moves its feet in {RECORDINGS['quadruped']} of 4 s.",
        "",
        "| recording | parameter | known | error, rms | bias | largest | within the target | truth in the interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, figures in result["kinds"].items():
        for name, part in figures["parameters"].items():
            row = f"| {kind} | {name} | {part['identified']} of {part['n']} | "
            if not part["identified"]:
                lines.append(row + "– | – | – | – | – |")
                continue
            late = name == "control_delay"
            rms, bias, largest = (
                f"{1e3 * part[key]:.2f} ms" if late else f"{part[key]:.2%}" for key in ("rms", "bias", "largest")
            )
            within = f"± {part['target']:.0%}: {part['within']} of {part['identified']}" if "within" in part else "–"
            lines.append(row + f"{rms} | {bias} | {largest} | {within} | {part['covered']} of {part['identified']} |")
    lines += ["", "| recording | segments (median) | condition of the covariance (median) |", "|---|---|---|"]
    for kind, figures in result["kinds"].items():
        lines.append(f"| {kind} | {figures['segments_median']:.0f} | {figures['condition_median']:.3g} |")
    lines += [
        "",
        "Noise (standard deviations): Push-T's pusher 0.1 mm, block 0.3 mm and 4 mrad, force 0.02 N; the quadruped's",
        "height 2 mm, roll and pitch 2 mrad, joints 0.5 mrad, their rates 0.03 rad/s, velocities 0.02 m/s, the trunk's",
        "rates 0.02 rad/s.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is not done yet, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--kinds", default=";".join(KINDS), help="of what to run, separated by ;")
    parser.add_argument("--record", type=Path, default=Path("runs/sysid.json"), help="what is done is kept here")
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    kept: dict[str, list[Kept]] = json.loads(args.record.read_text()) if args.record.is_file() else {}
    for seed in range(args.seeds):
        for kind in args.kinds.split(";"):
            if len(kept.get(kind, [])) <= seed:
                kept.setdefault(kind, []).append(run(kind, seed))
                args.record.parent.mkdir(parents=True, exist_ok=True)
                args.record.write_text(json.dumps(kept))
                print(kind, seed, kept[kind][-1], flush=True)
    kinds = {kind: summarise(kind, kept[kind][: args.seeds]) for kind in KINDS if kept.get(kind)}
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "sysid.json").write_text(json.dumps({"seed": SEED, "kinds": kinds}, indent=1) + "\n")
    (args.results / "sysid.md").write_text(page({"kinds": kinds}))


if __name__ == "__main__":
    main()
