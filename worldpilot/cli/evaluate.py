"""`worldpilot evaluate`: policies side by side, on the same starts and goals, or under the same rewards.

Where there is a goal, success rates with Wilson intervals; under rewards, what each asks for against the action prior
alone, with bootstrap intervals.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from worldpilot.cli.arguments import json_object
from worldpilot.evaluation import asked, locomotion
from worldpilot.evaluation.cases import GOALS, PROTOCOLS
from worldpilot.evaluation.controllers import Planning
from worldpilot.evaluation.run import Tally, evaluate
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.data.episodes import Episode
from worldpilot.planners.rewards.registry import parse_spec
from worldpilot.planners.stall import EscapeConfig
from worldpilot.sim.tasks import available
from worldpilot.system import System

REWARDS = "rewards"  # the protocol of legged robots


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=list(available()))
    parser.add_argument("--policies", default="noop,random,prior,mpc", help="comma separated")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--protocol",
        choices=(*PROTOCOLS, REWARDS),
        default="task",
        help="task: random start, overlap > 90 %% in budget; goal-image: an image 25 steps ahead, 50 steps; "
        "rewards: a legged robot under each of --rewards, against the prior alone",
    )
    parser.add_argument("--rewards", default="", help="protocol rewards: names, comma separated; default: all")
    parser.add_argument("--rewards-file", type=Path, default=asked.NOVEL, help="where they are described")
    parser.add_argument(
        "--standing", type=parse_spec, default=None, help="protocol rewards: terms that always count, as JSON"
    )
    parser.add_argument("--proposals", type=int, help="samples of the prior for each plan; default: the artifact's")
    parser.add_argument(
        "--correction",
        type=float,
        default=0.0,
        help="task, goal-image: weight of a plan's newest error in the mean that corrects the next (default: 0, none)",
    )
    parser.add_argument(
        "--escape-after",
        type=float,
        default=0.0,
        help="task, goal-image: seconds without motion after which mpc follows a proposal as it is (default: 0, never)",
    )
    parser.add_argument("--escape-steps", type=int, default=EscapeConfig.steps, help="control steps that it follows it")
    parser.add_argument("--goals", choices=GOALS, default="novel", help="task protocol; novel: drawn for each episode")
    parser.add_argument("--replan", type=int, help="control steps between plans; default: 1; else a model step")
    parser.add_argument(
        "--shrink",
        action=argparse.BooleanOptionalAction,
        help="plan for what is left of the horizon, not for all of it; default: in goal-image",
    )
    parser.add_argument("--solver", type=json_object, default={}, help="solver settings as JSON that replace defaults")
    parser.add_argument("--artifact", type=Path, default=None, help="default: the shipped one")
    parser.add_argument("--system", type=Path, help="the world is made like this (see `calibrate latency`, `system`)")
    parser.add_argument("--delay", type=float, help="that the planner reckons with [s]; default: the system's")
    parser.add_argument("--record", type=Path, default=None, help="add the episodes to this store (for `calibrate`)")
    parser.add_argument("--json", type=Path, default=None, help="write the figures as one JSON object")


def run(args: argparse.Namespace) -> int:
    artifact = Artifact.load(args.artifact or zoo_path(args.task))
    result = _under_rewards(args, artifact) if args.protocol == REWARDS else _towards_goals(args, artifact)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _towards_goals(args: argparse.Namespace, artifact: Artifact) -> dict[str, Any]:
    def progress(name: str, episode: int, tally: Tally) -> None:
        if sys.stderr.isatty():
            print(f"\r{name}: {sum(tally.successes)}/{episode + 1} ", end="", file=sys.stderr, flush=True)

    images = args.protocol == "goal-image"
    result = evaluate(
        artifact,
        args.policies.split(","),
        args.episodes,
        args.seed,
        protocol=args.protocol,
        goals=args.goals,
        replan=args.replan or (artifact.spec.action.block if images else 1),
        shrink=images if args.shrink is None else args.shrink,
        solver=args.solver,
        record=args.record,
        system=System.load(args.system, args.task) if args.system else None,
        delay=args.delay,
        proposals=args.proposals,
        correction=args.correction,
        escape=EscapeConfig.of(args.escape_after, args.escape_steps),
        progress=progress,
    )
    print(f"{args.task}, protocol {args.protocol}, goals: {result['goals']}, seed {args.seed}")
    print(
        f"{'policy':9} success  95 % interval      n | object moves           n | plan [s/episode]  solve p50/p99 [ms]"
    )
    for name, figures in result["policies"].items():
        print(_line(name, figures))
    return result


def _under_rewards(args: argparse.Namespace, artifact: Artifact) -> dict[str, Any]:
    protocol = asked.load(args.rewards_file)
    names = tuple(args.rewards.split(",")) if args.rewards else tuple(a.name for a in protocol.rewards)
    rewards, policies = protocol.select(names), args.policies.split(",")
    given = {"solver": args.solver, "replan": args.replan, "proposals": args.proposals, "standing": args.standing}
    system = System.load(args.system, args.task) if args.system else None
    delay = args.delay if args.delay is not None else system.delay if system else 0.0
    planning = replace(Planning.of(args.task), delay=delay, **{name: value for name, value in given.items() if value})
    trials = locomotion.plan_trials(policies, rewards, range(args.seed, args.seed + args.episodes), args.task)

    def progress(index: int, episode: Episode) -> None:
        if sys.stderr.isatty():
            print(f"\r{index + 1}/{len(trials)} {episode.meta['behaviour']} ", end="", file=sys.stderr, flush=True)

    episodes = locomotion.run_trials(
        artifact, protocol, trials, planning, record=args.record, system=system, progress=progress
    )
    result = locomotion.summarise(episodes, artifact, protocol, rewards)
    print(f"{args.task}, protocol {args.protocol}, {args.episodes} seeds from {args.seed}")
    for name, figures in result["rewards"].items():
        goal = figures["asked"]
        print(f"{name}: {goal['quantity']} [{goal['unit']}] {goal['direction']}")
        for policy, found in figures["policies"].items():
            print(_reward_line(policy, found))
    return result


def _reward_line(policy: str, figures: dict[str, Any]) -> str:
    def interval(part: dict[str, Any]) -> str:
        low, high = part["ci"] or (float("nan"), float("nan"))
        return f"{part['mean']:+7.3f} [{low:+.3f}, {high:+.3f}]"

    line = f"  {policy:12} {interval(figures['asked'])}  falls {figures['falls']['count']}/{figures['n']}"
    if "difference" not in figures:
        return line
    verdict = "achieved" if figures["achieved"] else "moved" if figures["moved"] else ""
    return f"{line}  to the prior {interval(figures['difference'])} {verdict}"


def _line(name: str, figures: dict[str, Any]) -> str:
    def rate(part: dict[str, Any]) -> str:
        return (
            f"{part['success']:6.1%} [{part['ci'][0]:5.1%}, {part['ci'][1]:5.1%}] {part['n']:4}" if part["n"] else "-"
        )

    solve = figures["solve_ms"]
    return (
        f"{name:9} {rate(figures):28} | {rate(figures['object_moves']):28} | {figures['plan_s_per_episode']:6.2f} "
        f"{solve['p50']:8.1f} / {solve['p99']:.1f}"
    )
