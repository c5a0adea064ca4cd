"""What does a reward cost that was sent as text? The same pose cost as an expression, a plugin and plain numpy.

    python benchmarks/rewards.py [--plans 256] [--horizon 5] [--json FILE]

Each is timed in turn, round by round, so that all share whatever else the machine is doing; medians are reported.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from worldpilot.planners.rewards.base import RewardContext, angle_diff
from worldpilot.planners.rewards.registry import build, parse_spec
from worldpilot.types import ActionSpec, FloatArray, ModelSpec, Rollouts, SignalSpec

ACTION = ActionSpec(("vx", "vy"), ("m/s", "m/s"), (-0.25, -0.25), (0.25, 0.25), (5.0, 5.0), control_dt=0.1, block=5)
SIGNALS = (SignalSpec("block_x", "m", 1), SignalSpec("block_y", "m", 1), SignalSpec("block_yaw", "rad", 1))
EXPRESSION = "-(block_x - 0.1)**2 - (block_y + 0.05)**2 - 0.01 * angle_diff(block_yaw, 0.8)**2"
POSE = {"x": 0.1, "y": -0.05, "yaw": 0.8, "length": 0.1, "when": "mean", "discount": 1.0}


def by_hand(rollouts: Rollouts) -> FloatArray:
    """The cost as one would write it with numpy."""
    s = rollouts.signals
    cost = (s["block_x"] - 0.1) ** 2 + (s["block_y"] + 0.05) ** 2
    return -(cost + 0.01 * angle_diff(s["block_yaw"], 0.8) ** 2).mean(axis=1)


def measure(plans: int, horizon: int, rounds: int) -> dict[str, float]:
    """Median time of one scoring [µs], by implementation."""
    rng = np.random.default_rng(0)
    signals = {s.name: rng.normal(size=(plans, horizon)).astype(np.float32) for s in SIGNALS}
    actions = rng.uniform(-0.25, 0.25, (plans, horizon, ACTION.dim)).astype(np.float32)
    latents, spread = np.zeros((plans, horizon, 2), np.float32), np.zeros((plans, horizon), np.float32)
    rollouts = Rollouts(latents, actions, signals, spread, ACTION, np.zeros(2, np.float32))
    context = RewardContext(ModelSpec("bench", "bench", 2, 2, horizon, 1, "state", (2,), ACTION, SIGNALS))

    def plugin(name: str, params: Mapping[str, object]) -> Callable[[Rollouts], FloatArray]:
        return build(parse_spec({"terms": [{"plugin": name, "params": params}]}), context).score

    ways = {
        "numpy": by_hand,
        "goal_pose": plugin("goal_pose", POSE),
        "expression": plugin("expression", {"expression": EXPRESSION}),
    }
    for way in ways.values():
        np.testing.assert_allclose(way(rollouts), by_hand(rollouts), rtol=1e-4)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(rollouts)
            times[name].append(time.perf_counter() - start)
    return {name: 1e6 * float(np.median(values)) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of scoring with an expression, a plugin and plain numpy.")
    parser.add_argument("--plans", type=int, default=256)
    parser.add_argument("--horizon", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    median_us = measure(args.plans, args.horizon, args.rounds)
    for name, value in median_us.items():
        print(f"{name:<12}{value:8.1f} µs  {value / median_us['numpy']:5.2f} x numpy")
    if args.json:
        result = {"plans": args.plans, "horizon": args.horizon, "rounds": args.rounds, "median_us": median_us}
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
