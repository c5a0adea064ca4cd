"""`worldpilot evaluate`: success rates with Wilson intervals, policies side by side on the same starts and goals."""

import argparse
import json
import sys
from pathlib import Path

from worldpilot.evaluation import GOALS, Tally, evaluate
from worldpilot.models.artifact import Artifact, zoo_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=["push_t"])
    parser.add_argument("--policies", default="noop,random,prior,mpc,expert", help="comma separated")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--protocol", choices=["task"], default="task", help="random start, overlap > 90 %% in budget")
    parser.add_argument("--goals", choices=GOALS, default="novel", help="novel: a goal pose drawn for each episode")
    parser.add_argument("--artifact", type=Path, default=None, help="default: the shipped one")
    parser.add_argument("--record", type=Path, default=None, help="add the episodes to this store (for `calibrate`)")
    parser.add_argument("--json", type=Path, default=None, help="write the figures as one JSON object")


def run(args: argparse.Namespace) -> int:
    artifact = Artifact.load(args.artifact or zoo_path(args.task))

    def progress(name: str, episode: int, tally: Tally) -> None:
        if sys.stderr.isatty():
            print(f"\r{name}: {sum(tally.successes)}/{episode + 1} ", end="", file=sys.stderr, flush=True)

    result = evaluate(artifact, args.policies.split(","), args.episodes, args.seed, args.goals, args.record, progress)
    print(f"{args.task}, {args.goals} goals, seed {args.seed}: overlap > 90 % within the episode's budget")
    print(f"{'policy':8} success  95 % interval      n  mean best overlap  solve p50/p99 [ms]")
    for name, p in result["policies"].items():
        low, high = p["ci"]
        solve = f"{p['solve_ms']['p50']:6.1f} / {p['solve_ms']['p99']:.1f}" if p["solve_ms"]["p99"] else "     -"
        print(f"{name:8} {p['success']:7.1%}  [{low:6.1%}, {high:6.1%}] {p['n']:4} {p['overlap_mean']:18.2f}  {solve}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0
