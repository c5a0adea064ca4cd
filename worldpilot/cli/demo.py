"""`worldpilot demo`: the graph over real DDS, the story, the report."""

import argparse
import importlib
import os
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from worldpilot import __version__, graph
from worldpilot.cli import ros
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.supervisor import Supervisor

STORIES = {"push_t": "worldpilot.demo.push_story", "quadruped": "worldpilot.demo.gait_story"}  # modules that need ROS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", default="push_t", help="which story (default: push_t)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="runs/<stamp>/ is made in here (default: runs)")
    parser.add_argument("--artifact", type=Path, help="model folder (default: the one shipped for the task)")
    parser.add_argument("--seed", type=int, default=0, help="of the world, the proposals and the planner (default: 0)")
    parser.add_argument("--goal-s", type=float, help="time to reach the first goal [s] (default: the story's)")
    parser.add_argument("--swap-s", type=float, help="time for each swapped reward [s] (default: the story's)")


def run(args: argparse.Namespace) -> int:
    """0 if the story could be told: swaps accepted, alerts raised, no orphans. Goals are reported, not required."""
    if args.task not in STORIES:
        raise UnknownName("demo task", args.task, STORIES)
    if min(args.goal_s or 2, args.swap_s or 2) < 2 or args.seed < 0:
        raise InvalidInput("--goal-s and --swap-s must be at least 2 s, --seed at least 0")
    ros.enter()
    try:
        return _run(args)
    except KeyboardInterrupt:  # the supervisor has ended its nodes on the way here
        say("interrupted: the graph was ended, there is no report")
        return 130


def _run(args: argparse.Namespace) -> int:
    # What only the demo needs: ROS, the simulation, the packages of the report.
    from worldpilot_nodes.client import Client

    from worldpilot.demo import host, report
    from worldpilot.models.artifact import Artifact, zoo_path

    story = importlib.import_module(STORIES[args.task])
    timing = replace(story.TIMING, goal=args.goal_s or story.TIMING.goal, swap=args.swap_s or story.TIMING.swap)
    started, begin = datetime.now(), time.monotonic()
    artifact = Artifact.load((args.artifact or zoo_path(args.task)).resolve())
    folder = (args.out / started.strftime("%Y%m%d-%H%M%S")).resolve()
    folder.mkdir(parents=True)
    domain = int(os.environ.get("ROS_DOMAIN_ID") or host.free_domain())
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    settings: dict[str, dict[str, Any]] = {node: {"seed": args.seed} for node in ("sim", "action_prior", "mpc")}
    settings |= {"*": {"artifact": str(artifact.path)}, "recorder": {"path": str(folder / report.RECORDING)}}
    say(f"{args.task}: model {artifact.spec.model_id}, seed {args.seed}, ROS domain {domain}")
    with (folder / "nodes.log").open("w") as log:
        supervisor = Supervisor(
            graph.load(),
            task=args.task,
            settings=settings,
            echo=lambda node, line: print(f"[{node}] {line}", file=log, flush=True),
            domain_id=domain,
        )
        with supervisor:
            supervisor.wait_for("active", timeout=60)
            with Client(domain_id=domain) as client:
                client.wait_ready(timeout=20)
                say(f"graph up after {time.monotonic() - begin:.1f} s: {', '.join(supervisor.status)}")
                outcome = story.STORY(client, timing, say).tell()
            restarts = {node: status.starts - 1 for node, status in supervisor.status.items() if status.starts > 1}
    left = host.processes_of(os.getpid())
    say(f"graph ended; orphan processes: {len(left)}" + "".join(f"\n  {line}" for line in left))
    say("writing video, plots and report")
    facts = {
        "task": args.task,
        "seed": args.seed,
        "model_id": artifact.spec.model_id,
        "version": __version__,
        "started": started.isoformat(timespec="seconds"),
        "duration_s": round(time.monotonic() - begin, 1),
        "restarts": restarts,
        "orphans": len(left),
    }
    threshold = (artifact.thresholds or {}).get("limits", {}).get("surprise")
    written = report.write(folder, outcome, facts, threshold)
    say("\n".join(summary(written)))
    say(f"{folder / 'report.html'}   ({time.monotonic() - begin:.0f} s in all)")
    told = written["swap"]["accepted"] and written["alert"]["raised"] and written["alert"]["held"]
    return 0 if told and not left else 1


def summary(report: dict[str, Any]) -> list[str]:
    """The report in a few lines; what did not work says so."""
    from worldpilot.demo.shows import SHOWS

    goal, swap, alert, show = report["goal"], report["swap"], report["alert"], SHOWS[report["task"]]
    reached = "goal reached" if report["goal_reached"] else "GOAL NOT REACHED"
    swapped = "rewards swapped live" if swap["accepted"] else "A SWAP WAS REFUSED"
    raised = "alerts raised, robot held" if alert["raised"] and alert["held"] else "NOT EVERY FAULT WAS NOTICED"
    went_on = "went on" if alert["recovered"] else "DID NOT GO ON after each"
    slowest = "" if alert["delay_s"] is None else f", at most {alert['delay_s']:.2f} s after the fault"
    again = ", ".join(f"{node} {count}x" for node, count in report["restarts"].items())
    restarted = f"NODES ENDED AND WERE STARTED AGAIN, see nodes.log: {again}" if again else "no node was restarted"
    return [
        f"{reached}: {show.goal(goal)}",
        f"{swapped}: {swap['latency_ms']:.0f} ms at most, {swap['missed_ticks']} missed ticks",
        *(f"  {entry['name']}: {show.swap(entry)}" for entry in swap["swaps"]),
        f"{raised}{slowest}, {went_on}; holds without a fault: {alert['unprovoked']}",
        f"orphan processes: {report['orphans']}; {restarted}",
    ]


def say(text: str) -> None:
    """A line of the story."""
    print(text, flush=True)
