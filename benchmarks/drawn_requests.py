"""What a quadruped's planner does of what can be asked of it, with the reward that is meant: requests to choose by.

    python benchmarks/drawn_requests.py --json FILE
    python benchmarks/drawn_requests.py --artifact models/zoo/quadruped_run_jump --attitude 2 --disagreement 2

Requests are drawn: one to three goals, a level or a value each, with the bounds within which each is met. There are no
words in them and no language model; each is made a reward as an instruction's is (`reasoning.expand`) and judged as the
held-out instructions are, from starts of their own. So weights and models can be chosen without those. 95 % intervals.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.calibration.detection import share
from worldpilot.cli.arguments import json_object
from worldpilot.errors import WorldpilotError
from worldpilot.evaluation.controllers import Planning
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.reasoning.evaluation import LegStage, Question
from worldpilot.reasoning.expand import expand

STARTS = 7  # seed of the starts; the held-out instructions' is 0
DRAWS = 123  # seed of the requests

Bounds = tuple[float | None, float | None]
Drawn = tuple[str, Bounds]  # a level as in `reasoning.schema`, and what a mean has to be within to meet it


def _forward(rng: np.random.Generator) -> Drawn:
    levels: list[Drawn] = [
        ("forward", (0.1, None)),
        ("high", (0.6, None)),
        ("low", (0.02, 0.35)),
        ("middle", (0.25, 0.85)),
        ("backward", (None, -0.02)),
    ]
    if (kind := int(rng.integers(7))) < len(levels):
        return levels[kind]
    value = round(float(rng.uniform(-0.3, 0.9)), 2)
    value = value if abs(value) > 0.1 else 0.2
    return f"{'forward' if value > 0 else 'backward'} {abs(value)} m/s", (value - 0.15, value + 0.15)


def _sided(rng: np.random.Generator, least: float, values: tuple[float, float], unit: str, within: float) -> Drawn:
    """To the left, which is positive, or to the right."""
    sign = int(rng.choice([-1, 1]))
    side = "left" if sign > 0 else "right"
    if rng.random() < 0.6:
        return side, ((least, None) if sign > 0 else (None, -least))
    value = round(float(rng.uniform(*values)), 2)
    return f"{side} {value} {unit}", (sign * value - within, sign * value + within)


def _height(rng: np.random.Generator) -> Drawn:
    levels: list[Drawn] = [("low", (None, 0.25)), ("high", (0.28, None)), ("middle", (0.25, 0.285))]
    if (kind := int(rng.integers(4))) < len(levels):
        return levels[kind]
    value = int(rng.integers(22, 32))
    return f"{value} cm", (value / 100 - 0.015, value / 100 + 0.015)


def _one_of(rng: np.random.Generator, *levels: Drawn) -> Drawn:
    return levels[rng.integers(len(levels))]


GOALS: Mapping[str, tuple[float, Callable[[np.random.Generator], Drawn]]] = {  # signal -> how often, and what of it
    "forward_velocity": (0.25, _forward),
    "lateral_velocity": (0.2, lambda rng: _sided(rng, 0.05, (0.12, 0.3), "m/s", 0.08)),
    "yaw_rate": (0.15, lambda rng: _sided(rng, 0.2, (0.2, 0.8), "rad/s", 0.15)),
    "height": (0.2, _height),
    "pitch": (
        0.1,
        lambda rng: _one_of(rng, ("nose up", (None, -0.13)), ("nose down", (0.03, None)), ("low", (-0.06, 0.06))),
    ),
    "roll": (0.1, lambda rng: _one_of(rng, ("left", (None, -0.05)), ("right", (0.05, None)), ("low", (-0.05, 0.05)))),
}
STANDS: Mapping[str, Bounds] = {
    "forward_velocity": (-0.1, 0.1),
    "lateral_velocity": (-0.1, 0.1),
    "yaw_rate": (-0.3, 0.3),
}


def draw(rng: np.random.Generator, name: str) -> Question:
    """A request."""
    count = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))
    signals = [str(s) for s in rng.choice(list(GOALS), count, replace=False, p=[share for share, _ in GOALS.values()])]
    goals: list[Any] = []
    means: dict[str, Bounds] = {}
    if stops := rng.random() < 0.12:
        signals = [signal for signal in signals if not signal.endswith("velocity")][:2]
        goals.append("stop")
        means |= STANDS
    for signal in signals:
        level, means[signal] = GOALS[signal][1](rng)
        goals.append({"set": signal, "to": level})
    if not stops and all(goal["to"] == "low" and goal["set"] in ("pitch", "roll") for goal in goals):
        means["forward_velocity"] = (0.1, None)  # to be level, the robot need not stop
    return Question("quadruped", name, ({"goals": goals},), ({"mean": means},))


def main() -> None:
    """Ask for all of them, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--artifact", type=Path, default=zoo_path("quadruped"))
    parser.add_argument(
        "--attitude", type=float, default=1.0, help="times the weight of the standing reward's attitude"
    )
    parser.add_argument("--disagreement", type=float, default=1.0, help="times the weight of its disagreement")
    parser.add_argument("--solver", type=json_object, default={}, help="settings as JSON that replace the graph's")
    parser.add_argument("--proposals", type=int, help="that the planner draws (default: as in its graph)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    weights = {"hypot": args.attitude, "disagreement": args.disagreement}
    planning = Planning.of("quadruped").searching(args.solver, weights)
    planning = replace(planning, proposals=args.proposals or planning.proposals)
    artifact, cases = Artifact.load(args.artifact), list[dict[str, Any]]()
    with closing(LegStage("quadruped", STARTS, artifact, planning)) as stage:
        for index in range(args.count):
            question = draw(np.random.default_rng([DRAWS, index]), f"dev {index}")  # what is said decides the start
            goals = question.intents[0]["goals"]
            try:
                meant = expand(question.intents[0], stage.scene(question))[0]
            except WorldpilotError as error:  # it leads out of reach
                print(f"{index:3} left out: {error}")
                continue
            cases.append({"goals": goals, "done": stage.judge(meant, question, meant)})
            print(f"{index:3} {'done    ' if cases[-1]['done'] else 'not done'} {json.dumps(goals)}", flush=True)
    by_count = {n: [case["done"] for case in cases if len(case["goals"]) == n] for n in (1, 2, 3)}
    result = {
        "model_id": artifact.spec.model_id,
        "weights": {"attitude": args.attitude, "disagreement": args.disagreement},
        "proposals": planning.proposals,
        "solver": dict(planning.solver),
        "done": share([case["done"] for case in cases]),
        "by_goals": {str(n): share(done) for n, done in by_count.items() if done},
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result | {"cases": cases}, indent=2) + "\n")


if __name__ == "__main__":
    main()
