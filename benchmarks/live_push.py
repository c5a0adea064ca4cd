"""Does the arm push its cube to where the planner's service is told to, in the running graph? On an idle machine.

    . .venv/ros_env.bash && python benchmarks/live_push.py --json docs/results/live_push_cube.json

Each episode begins anew. The planner is given a reward by its service, a place drawn by the seed, and has as long as in
`evaluate` to bring the cube within its distance. Real time, real messages, judged by the simulator's ground truth.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from std_srvs.srv import Trigger
from worldpilot_nodes import convert
from worldpilot_nodes.client import Client

from worldpilot import graph
from worldpilot.calibration.detection import share
from worldpilot.demo.host import free_domain
from worldpilot.models.artifact import zoo_path
from worldpilot.sim import push_cube
from worldpilot.supervisor import Supervisor

SECONDS = push_cube.BUDGET * push_cube.ACTION.control_dt
SETTLES = 1.0  # after the reset [s]: the models have forgotten what came before


def away(client: Client, goal: np.ndarray) -> float:
    """How far the cube is from a place in the plane [m]."""
    place = convert.signal_values(client.truth.signals)
    return float(np.hypot(place["cube_x"] - goal[0], place["cube_y"] - goal[1]))


def run(client: Client, rng: np.random.Generator) -> dict[str, Any]:
    """One episode to a place that the cube is not at."""
    client.call(Trigger, "sim/reset")
    time.sleep(SETTLES)
    while away(client, goal := rng.uniform(-push_cube.CUBE_RANGE, push_cube.CUBE_RANGE)) < 2 * push_cube.REACHED:
        pass
    params = {"object": "cube", "x": float(goal[0]), "y": float(goal[1]), "pusher": "gripper", "approach": 0.05}
    first = away(client, goal)
    missed = client.status.missed_ticks
    client.swap_reward({"name": "there", "terms": [{"plugin": "goal_pose", "params": params}]})
    begin, held = time.monotonic(), list[bool]()
    while (distance := away(client, goal)) > push_cube.REACHED and time.monotonic() - begin < SECONDS:
        held.append(client.held)
        time.sleep(0.05)
    return {
        "goal": goal.tolist(),
        "first_m": first,
        "last_m": distance,
        "seconds": time.monotonic() - begin,
        "reached": distance <= push_cube.REACHED,
        "held": float(np.mean(held)) if held else 0.0,
        "missed_ticks": client.status.missed_ticks - missed,
    }


def main() -> None:
    """Run the graph and all episodes, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng, domain = np.random.default_rng(args.seed), free_domain()
    quiet = Supervisor(graph.load(), task="push_cube", domain_id=domain, without=["recorder"], echo=lambda *_: None)
    with quiet as supervisor, Client(domain_id=domain) as client:
        supervisor.wait_for("active", timeout=60)
        client.wait_ready(30)
        episodes = [run(client, rng) for _ in range(args.episodes)]
    result = {
        "model_id": json.loads((zoo_path("push_cube") / "manifest.json").read_text())["model_id"],
        "seed": args.seed,
        "reached": share([episode["reached"] for episode in episodes]),
        "seconds_median": float(np.median([e["seconds"] for e in episodes if e["reached"]] or [np.nan])),
        "held": float(np.mean([episode["held"] for episode in episodes])),
        "missed_ticks": sum(episode["missed_ticks"] for episode in episodes),
        "ticks": round(sum(episode["seconds"] for episode in episodes) / push_cube.ACTION.control_dt),
        "episodes": episodes,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "episodes"}, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
