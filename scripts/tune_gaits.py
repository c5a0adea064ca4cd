"""Tune the constants of a gait in sim/gaits.py by the cross-entropy method, under exploration noise; see there for use.

    python scripts/tune_gaits.py run --out runs/gaits/run.json --rounds 12

Every round draws candidates around the mean, tries each on the same fresh episodes, and moves mean and spread to the
best. The file keeps the distribution: run again, it goes on. It ends by trying the mean on episodes of its own.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.sim import gaits
from worldpilot.sim.quadruped import Quadruped

Array = npt.NDArray[np.float64]
Gait = gaits.Run | gaits.Jump

STEPS = 200  # control steps of an episode
SPREAD = 0.3  # of a constant relative to its scale, at the start


@dataclass(frozen=True)
class Trial:
    """What one episode gave."""

    fallen: bool
    speeds: Array  # forwards, step by step [m/s]
    sideways: Array  # [m/s]
    heights: Array  # of the trunk [m]
    tilts: Array  # roll and pitch together [rad]
    turns: Array  # yaw rate [rad/s]


def attempt(world: Quadruped, gait: Gait, seed: tuple[int, ...], exploration: gaits.Exploration | None = None) -> Trial:
    """One episode of a gait."""
    rng = np.random.default_rng(seed)
    world.reset(seed=int(rng.integers(2**31)))
    seen = []
    for _, control in zip(range(STEPS), gaits.behave(gait, exploration)(world, rng), strict=False):
        world.drive(control)
        seen.append(world.signals())
    speeds, sideways, heights, roll, pitch, turns = (
        np.array([s[name] for s in seen])
        for name in ("forward_velocity", "lateral_velocity", "height", "roll", "pitch", "yaw_rate")
    )
    return Trial(world.ended, speeds, sideways, heights, np.hypot(roll, pitch), turns)


def run_score(trial: Trial) -> float:
    """Forward speed up to 0.8 m/s, level, straight; a fall weighs most."""
    speed = float(trial.speeds[50:].mean()) if len(trial.speeds) > 60 else 0.0
    wobble = float(trial.tilts.mean()) + 0.1 * float(np.abs(trial.turns).mean()) + float(np.abs(trial.sideways).mean())
    return min(speed, 0.8) - 0.7 * wobble - 3.0 * trial.fallen


def jump_score(trial: Trial) -> float:
    """Apexes up to 0.14 m above the stance, level, on the spot; a fall weighs most."""
    apex = min(float(trial.heights.max()) - 0.26, 0.14)
    drift = float(np.abs(trial.speeds.mean() - 0.1) + np.abs(trial.sideways.mean()))
    return 4 * apex - 1.0 * float(trial.tilts.mean()) - drift - 3.0 * trial.fallen


SCORES: dict[str, Callable[[Trial], float]] = {"run": run_score, "jump": jump_score}
GAITS: dict[str, Gait] = {"run": gaits.RUN, "jump": gaits.JUMP}
SCALES = {  # of a constant: what a sizeable change of it is
    "pitch": 0.15, "pitch_rate": 0.02, "roll": 0.15, "roll_rate": 0.02, "forward": 0.1, "lateral": 0.12, "yaw": 0.04,
    "frequency": 1.0, "duty": 0.1, "stride": 0.12, "clearance": 0.04, "height": 0.04, "nose": 0.04, "ahead": 0.04,
    "speed": 0.3, "crouch": 0.04, "crouching": 0.1, "thrust": 0.05, "thrusting": 0.05, "back": 0.05, "tuck": 0.04,
    "flight": 0.1, "landing": 0.1,
}  # fmt: skip
BOUNDS = {"duty": (0.4, 0.75), "frequency": (1.5, 3.5), "crouching": (0.1, 0.4), "thrusting": (0.04, 0.3),
          "landing": (0.06, 0.5), "flight": (0.2, 0.6)}  # fmt: skip


def constants(gait: Gait) -> dict[str, float]:
    """A gait's constants by name."""
    values = asdict(gait)
    return {**values.pop("balance"), **values}


def with_constants(gait: Gait, values: dict[str, float]) -> Gait:
    """The gait with other constants."""
    balance = {name: values[name] for name in asdict(gait.balance)}
    rest: dict[str, Any] = {name: value for name, value in values.items() if name not in balance}
    return replace(gait, balance=gaits.Balance(**balance), **rest)


def main() -> None:
    """Tune a gait and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("gait", choices=list(GAITS))
    parser.add_argument("--out", type=Path, required=True, help="file of the search's state")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--episodes", type=int, default=5, help="that each candidate is tried on")
    parser.add_argument("--elites", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    gait, score, world = GAITS[args.gait], SCORES[args.gait], Quadruped()
    names = list(constants(gait))
    scale = np.array([SCALES[name] for name in names])
    state = {"round": 0, "mean": constants(gait), "spread": dict.fromkeys(names, SPREAD)}
    if args.out.exists():
        state = json.loads(args.out.read_text())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for number in range(state["round"], args.rounds):
        rng = np.random.default_rng((args.seed, number))
        mean, spread = (np.array([state[key][name] for name in names]) for key in ("mean", "spread"))
        drawn = mean + scale * spread * rng.normal(size=(args.candidates, len(names)))
        drawn[0] = mean
        for column, name in enumerate(names):
            drawn[:, column] = np.clip(drawn[:, column], *BOUNDS.get(name, (-np.inf, np.inf)))
        scores = np.array(
            [
                np.mean(
                    [
                        score(
                            attempt(
                                world, with_constants(gait, dict(zip(names, row, strict=True))), (args.seed, number, e)
                            )
                        )
                        for e in range(args.episodes)
                    ]
                )
                for row in drawn.tolist()
            ]
        )
        best = drawn[np.argsort(-scores)[: args.elites]]
        mean = 0.2 * mean + 0.8 * best.mean(0)
        spread = 0.3 * spread + 0.7 * best.std(0) / scale
        state = {
            "round": number + 1,
            "mean": dict(zip(names, mean.tolist(), strict=True)),
            "spread": dict(zip(names, spread.tolist(), strict=True)),
        }
        args.out.write_text(json.dumps(state, indent=1))
        print(
            f"round {number}: mean's score {scores[0]:.3f}, elites' {np.sort(scores)[-args.elites :].mean():.3f}",
            flush=True,
        )
    tuned = with_constants(gait, {name: round(value, 4) for name, value in state["mean"].items()})
    trials = [attempt(world, tuned, (args.seed, 10**6, episode)) for episode in range(50)]
    print(tuned)
    print(
        f"50 episodes: {sum(t.fallen for t in trials)} falls, "
        f"speed {np.mean([t.speeds[50:].mean() for t in trials if len(t.speeds) > 60]):.2f} m/s, "
        f"highest {np.mean([t.heights.max() for t in trials]):.3f} m"
    )


if __name__ == "__main__":
    main()
