"""Does it walk in its graph, and is a broken joint noticed there? Real time, real messages, on an idle machine.

    . .venv/ros_env.bash && python benchmarks/live_walk.py walker --json docs/results/live_walker.json
    python benchmarks/live_walk.py quadruped --params '{"joint": 8, "fraction": 0.05}' --episodes 10 --broken 10 \\
        --seconds 7 --asked 5 --json docs/results/live_quadruped.json

Episodes that are left alone for some seconds after the planner was let go, then others in which a joint is weakened
on the way. An alarm is an alert at which the robot is held; one that comes after a fall does not count. With `--asked`,
each of the quadruped's novel rewards is then swapped in on the way by the planner's service, and the quantity that it
asks for is averaged over what the simulator says.

With the figures goes what the machine left for it: how old the observation was when a command went out, and what share
of the cores' time others took (`steal`, on a virtual machine). An episode begins when they have taken next to nothing
for a second, or after a minute; figures are given of all episodes, and of those that nobody disturbed.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from std_srvs.srv import Trigger
from worldpilot_nodes import convert
from worldpilot_nodes.client import Client

from worldpilot import graph
from worldpilot.calibration.detection import share
from worldpilot.calibration.intervals import bootstrap_mean
from worldpilot.cli.arguments import json_object
from worldpilot.demo.host import free_domain
from worldpilot.evaluation import asked
from worldpilot.evaluation.locomotion import task_units
from worldpilot.models.artifact import zoo_path
from worldpilot.planners.rewards.registry import to_dict
from worldpilot.supervisor import Supervisor

UNDER_WAY = 3.0  # from the planner's start to the fault [s]
WATCHED = 5.0  # from the fault on [s]
RESTS = 1.0  # on its feet before the planner starts [s], at least: the models have forgotten what came before
PATIENCE = 60.0  # for a machine that is left alone [s]
DISTURBED = 0.02  # share of the cores' time that others take
SETTLES = 1.0  # after a swap, before it is measured [s]

Episode = dict[str, Any]


def run(client: Client, seconds: float, fault: tuple[str, dict[str, float]] | None) -> Episode:
    """One episode of `seconds` [s] from the planner's start, or from the fault."""
    begin_episode(client)
    if fault is not None:
        healthy = watch(client, UNDER_WAY)
        if healthy["fell_after"] is not None or healthy["alarm_after"] is not None:
            return healthy | {"fault": False}
        client.inject_fault(fault[0], **fault[1])
    return watch(client, seconds) | {"fault": fault is not None}


def begin_episode(client: Client) -> None:
    """The planner stops, the robot is put on its feet and rests there, the planner starts."""
    client.call(ChangeState, "mpc/change_state", transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
    client.call(Trigger, "sim/reset")
    begin = time.monotonic()
    while taken_by_others(RESTS) > DISTURBED and time.monotonic() - begin < PATIENCE:
        pass
    client.call(ChangeState, "mpc/change_state", transition=Transition(id=Transition.TRANSITION_ACTIVATE))
    if not client.wait_until(lambda: client.moves and not signal(client, "fallen"), 20.0):
        raise SystemExit("the planner has not begun within 20 s")


def taken_by_others(seconds: float | None = None) -> float:
    """What share of the cores' time, in the next `seconds` [s], or since it was last asked."""
    return psutil.cpu_times_percent(seconds).steal / 100


def run_asked(client: Client, wanted: asked.Asked, seconds: float, first: str, units: dict[str, str]) -> Episode:
    """An episode under the graph's own reward, `first` (JSON), then for `seconds` [s] under another one."""
    client.swap_reward(first)
    begin_episode(client)
    if watch(client, UNDER_WAY)["fell_after"] is not None:
        return {"under_way": False}
    client.swap_reward(to_dict(wanted.reward))
    taken_by_others()  # from here on
    begin, rows, seen = time.monotonic(), list[dict[str, float]](), None
    while time.monotonic() - begin < seconds and not signal(client, "fallen"):
        if client.truth is not seen:
            seen = client.truth
            rows.append(convert.signal_values(seen.signals) | {"after": time.monotonic() - begin})
        time.sleep(0.003)
    fell = time.monotonic() - begin if signal(client, "fallen") else None
    rows = [row for row in rows if row["after"] >= SETTLES] or rows[-1:]
    signals = {name: np.array([row[name] for row in rows], np.float32) for name in units}
    means = {quantity: asked.mean(quantity, signals, units) for quantity in wanted.quantities}
    return {"under_way": True, "means": means, "fell_after": fell, "cpu_taken_by_others": taken_by_others()}


def watch(client: Client, seconds: float) -> Episode:
    """Until the time is up or the robot has fallen: mean speed, first alarm and fall [s], how late commands were."""
    taken_by_others()  # from here on
    begin, speeds = time.monotonic(), list[float]()
    ages: dict[int, float] = {}  # tick -> age of the observation when its command went out [s]
    alarm: float | None = None
    fall: float | None = None
    while fall is None and (elapsed := time.monotonic() - begin) < seconds:
        speeds.append(signal(client, "forward_velocity"))
        ages[client.status.tick] = client.status.observation_age
        if alarm is None and client.alarmed:
            alarm = elapsed
        if signal(client, "fallen"):
            fall = elapsed
        time.sleep(0.01)
    p50, p95 = (1e3 * float(np.percentile(list(ages.values()), q)) for q in (50, 95))
    late = {"age_p50_ms": p50, "age_p95_ms": p95, "cpu_taken_by_others": taken_by_others()}
    return {"speed": float(np.mean(speeds)), "alarm_after": alarm, "fell_after": fall, **late}


def signal(client: Client, name: str) -> float:
    """What the simulator says."""
    return convert.signal_values(client.truth.signals)[name]


def happened(episodes: list[Episode], key: str) -> dict[str, Any] | None:
    """In what share of them something happened; None of none."""
    return share([episode[key] is not None for episode in episodes]) if episodes else None


def summarise_walks(episodes: list[Episode]) -> dict[str, Any] | None:
    """The figures of episodes that are left alone; None of none."""
    if not episodes:
        return None
    speeds, machine = [episode["speed"] for episode in episodes], ("age_p50_ms", "age_p95_ms", "cpu_taken_by_others")
    return {
        "speed": float(np.mean(speeds)),
        "speed_ci": bootstrap_mean(speeds),
        "falls": happened(episodes, "fell_after"),
        "alarms": happened(episodes, "alarm_after"),
        **{name: float(np.median([episode[name] for episode in episodes])) for name in machine},
    }


def summarise(good: list[Episode], broken: list[Episode]) -> dict[str, Any]:
    """The figures of both parts."""
    struck = [episode for episode in broken if episode["fault"]]
    delays = [episode["alarm_after"] for episode in struck if episode["alarm_after"] is not None]
    return {
        "walks": summarise_walks(good),
        "walks_undisturbed": summarise_walks([e for e in good if e["cpu_taken_by_others"] <= DISTURBED]),
        "broken": {
            "not_under_way": len(broken) - len(struck),
            "noticed": happened(struck, "alarm_after"),
            "delay_median_s": float(np.median(delays)) if delays else None,
            "falls": happened(struck, "fell_after"),
        },
    }


def summarise_asked(wanted: asked.Asked, episodes: list[Episode]) -> dict[str, Any]:
    """What a reward asked for, and what came of it."""
    begun = [episode for episode in episodes if episode["under_way"]]
    values = [episode["means"][wanted.quantity] for episode in begun]
    kept = [keep.holds(float(np.mean([episode["means"][keep.quantity] for episode in begun]))) for keep in wanted.keeps]
    return {
        "asked": {"quantity": wanted.quantity, "unit": wanted.unit, "direction": wanted.direction},
        "n": len(begun),
        "not_under_way": len(episodes) - len(begun),
        "mean": float(np.mean(values)),
        "ci": bootstrap_mean(values),
        "keeps": kept,
        "falls": happened(begun, "fell_after"),
    }


def main() -> None:
    """Run the graph and all episodes, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["walker", "hopper", "quadruped"])
    parser.add_argument("--episodes", type=int, default=20, help="that are left alone")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each")
    parser.add_argument("--broken", type=int, default=20, help="episodes with a joint that breaks")
    parser.add_argument("--fault", default="weak_joint")
    parser.add_argument("--params", type=json_object, default={"joint": 2, "fraction": 0.0}, help="of the fault, JSON")
    parser.add_argument("--asked", type=int, default=0, help="episodes under each novel reward of the task")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    protocol = asked.load()
    rewards = protocol.rewards if args.asked else ()
    if rewards and protocol.task != args.task:
        parser.error(f"--asked: the novel rewards are for {protocol.task}")
    manifest = json.loads((zoo_path(args.task) / "manifest.json").read_text())
    domain = free_domain()
    quiet = Supervisor(graph.load(), task=args.task, domain_id=domain, without=["recorder"], echo=lambda *_: None)
    with quiet as supervisor, Client(domain_id=domain) as client:
        supervisor.wait_for("active", timeout=60)
        client.wait_ready(30)
        good = [run(client, args.seconds, None) for _ in range(args.episodes)]
        broken = [run(client, WATCHED, (args.fault, args.params)) for _ in range(args.broken)]
        first, units = client.status.reward_json, task_units(args.task)
        swapped = {
            wanted.name: [run_asked(client, wanted, args.seconds, first, units) for _ in range(args.asked)]
            for wanted in rewards
        }
    result = {
        "task": args.task,
        "model_id": manifest["model_id"],
        "seconds": args.seconds,
        "fault": {"name": args.fault, **args.params},
        **summarise(good, broken),
        "asked": {wanted.name: summarise_asked(wanted, swapped[wanted.name]) for wanted in rewards},
        "episodes": {"good": good, "broken": broken, "asked": swapped},
    }
    print(json.dumps({key: value for key, value in result.items() if key != "episodes"}, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
