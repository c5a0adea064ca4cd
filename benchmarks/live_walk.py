"""Does it walk in its graph, and is a broken joint noticed there? Real time, real messages, on an idle machine.

    . .venv/ros_env.bash && python benchmarks/live_walk.py walker --json docs/results/live_walker.json

Episodes that are left alone for some seconds after the planner was let go, then others in which a joint's torque is cut
on the way. An alarm is an alert at which the robot is held; one that comes after the fall doesn't count.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from std_srvs.srv import Trigger
from worldpilot_nodes.client import Client

from worldpilot import graph
from worldpilot.calibration.detection import share
from worldpilot.calibration.intervals import bootstrap_mean
from worldpilot.demo.host import free_domain
from worldpilot.models.artifact import zoo_path
from worldpilot.supervisor import Supervisor

UNDER_WAY = 3.0  # from the planner's start to the fault [s]
WATCHED = 5.0  # from the fault on [s]

Episode = dict[str, Any]


def run(client: Client, seconds: float, fault: tuple[str, dict[str, float]] | None) -> Episode:
    """One episode of `seconds` [s] from the planner's start, or from the fault."""
    client.call(Trigger, "sim/reset")
    time.sleep(0.5)  # what came before is gone from what is heard
    if not client.wait_until(lambda: client.moves and not signal(client, "fallen"), 20.0):
        raise SystemExit("the planner has not begun within 20 s")
    if fault is not None:
        healthy = watch(client, UNDER_WAY)
        if healthy["fell_after"] is not None or healthy["alarm_after"] is not None:
            return healthy | {"fault": False}
        client.inject_fault(fault[0], **fault[1])
    return watch(client, seconds) | {"fault": fault is not None}


def watch(client: Client, seconds: float) -> Episode:
    """Until the time is up or the robot has fallen: mean speed, first alarm and fall [s]."""
    begin, speeds = time.monotonic(), list[float]()
    alarm: float | None = None
    fall: float | None = None
    while fall is None and (elapsed := time.monotonic() - begin) < seconds:
        speeds.append(signal(client, "forward_velocity"))
        if alarm is None and client.alarmed:
            alarm = elapsed
        if signal(client, "fallen"):
            fall = elapsed
        time.sleep(0.01)
    return {"speed": float(np.mean(speeds)), "alarm_after": alarm, "fell_after": fall}


def signal(client: Client, name: str) -> float:
    """What the simulator says."""
    return next(s.value for s in client.truth.signals if s.name == name)


def happened(episodes: list[Episode], key: str) -> dict[str, Any]:
    """In what share of them something happened."""
    return share([episode[key] is not None for episode in episodes])


def summarise(good: list[Episode], broken: list[Episode]) -> dict[str, Any]:
    """The figures of both parts."""
    struck = [episode for episode in broken if episode["fault"]]
    delays = [episode["alarm_after"] for episode in struck if episode["alarm_after"] is not None]
    return {
        "walks": {
            "speed": float(np.mean([episode["speed"] for episode in good])),
            "speed_ci": bootstrap_mean([episode["speed"] for episode in good]),
            "falls": happened(good, "fell_after"),
            "alarms": happened(good, "alarm_after"),
        },
        "broken": {
            "not_under_way": len(broken) - len(struck),
            "noticed": happened(struck, "alarm_after"),
            "delay_median_s": float(np.median(delays)) if delays else None,
            "falls": happened(struck, "fell_after"),
        },
    }


def main() -> None:
    """Run the graph and all episodes, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["walker"])
    parser.add_argument("--episodes", type=int, default=20, help="that are left alone")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each")
    parser.add_argument("--broken", type=int, default=20, help="episodes with a joint that breaks")
    parser.add_argument("--fault", default="weak_joint")
    parser.add_argument("--params", type=json.loads, default={"joint": 2, "fraction": 0.0}, help="of the fault, JSON")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    manifest = json.loads((zoo_path(args.task) / "manifest.json").read_text())
    domain = free_domain()
    quiet = Supervisor(graph.load(), task=args.task, domain_id=domain, without=["recorder"], echo=lambda *_: None)
    with quiet as supervisor, Client(domain_id=domain) as client:
        supervisor.wait_for("active", timeout=60)
        client.wait_ready(30)
        good = [run(client, args.seconds, None) for _ in range(args.episodes)]
        broken = [run(client, WATCHED, (args.fault, args.params)) for _ in range(args.broken)]
    result = {
        "task": args.task,
        "model_id": manifest["model_id"],
        "seconds": args.seconds,
        "fault": {"name": args.fault, **args.params},
        **summarise(good, broken),
        "episodes": {"good": good, "broken": broken},
    }
    print(json.dumps({key: value for key, value in result.items() if key != "episodes"}, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
