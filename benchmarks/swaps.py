"""Does swapping rewards disturb control? Valid, invalid and hostile specifications at 10 Hz against a running graph.

Run it in the ROS environment: `. .venv/ros_env.bash && python benchmarks/swaps.py --json docs/results/swaps.json`
"""

import argparse
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from worldpilot_nodes.client import Client

from worldpilot import graph
from worldpilot.demo.host import free_domain, processes_of
from worldpilot.supervisor import Supervisor

INVALID_OR_HOSTILE = (
    "",
    "{",
    "[" * 50_000,
    '"' + "x" * 70_000 + '"',
    '{"terms": []}',
    '{"terms": [{"plugin": "goal_pose", "weight": NaN, "params": {"x": 0, "y": 0}}]}',
    '{"terms": [{"plugin": "os.system", "params": {}}]}',
    '{"terms": [{"plugin": "goal_pose", "params": {"x": "left"}}]}',
    *(
        json.dumps({"terms": [{"plugin": "expression", "params": {"expression": text}}]})
        for text in ("__import__('os').system('true')", "((9.0**4)**4)**4**4", "block_z", "1 / (block_x - block_x)")
    ),
)


def valid(rng: random.Random) -> dict[str, Any]:
    """A reward that must be accepted, never the same twice."""
    x, y, yaw = rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1), rng.uniform(-3, 3)
    terms = rng.choice(
        [
            {"plugin": "goal_pose", "params": {"x": x, "y": y, "yaw": yaw}},
            {"plugin": "expression", "params": {"expression": f"-abs(angle_diff(block_yaw, {yaw}))"}},
            {"plugin": "tolerance", "params": {"signal": "block_x", "lower": x, "upper": x + 0.05, "margin": 0.1}},
        ]
    )
    return {"terms": [terms]}


def measure(seconds: float, rate: float, seed: int) -> dict[str, Any]:
    """Swap for `seconds` [s] at `rate` [Hz], in turn a valid specification and a bad one."""
    rng, domain = random.Random(seed), free_domain()
    answers, latency, in_time, refusals = {"accepted": 0, "refused": 0}, [], [], set()
    supervisor = Supervisor(graph.load(), task="push_t", domain_id=domain, without=["recorder"], echo=lambda *_: None)
    with supervisor, Client(domain_id=domain) as client:
        supervisor.wait_for("active", timeout=60)
        client.wait_ready(30)
        time.sleep(3)  # the first ticks warm up
        missed, tick = client.status.missed_ticks, client.status.tick
        begin = time.monotonic()
        for i in range(round(seconds * rate)):
            time.sleep(max(begin + i / rate - time.monotonic(), 0))
            wanted = i % 2 == 0
            version = client.status.reward_version
            start = time.perf_counter()
            response = client.swap_reward(valid(rng) if wanted else rng.choice(INVALID_OR_HOSTILE))
            latency.append(1e3 * (time.perf_counter() - start))
            answers["accepted" if response.accepted else "refused"] += 1
            if response.accepted != wanted or not (response.accepted or response.message):
                raise SystemExit(f"wrong answer to swap {i}: {response}")
            if response.accepted:
                client.wait_until(lambda v=version: client.status.reward_version > v, 1.0)
                in_time.append(client.status.tick == response.in_force_tick)
            else:
                refusals.add(response.message[:100])
        elapsed = time.monotonic() - begin
        restarts = sum(status.starts - 1 for status in supervisor.status.values())
        figures = {"missed_ticks": client.status.missed_ticks - missed, "ticks": client.status.tick - tick}
    p50, p99, most = (float(x) for x in np.percentile(latency, [50, 99, 100]))
    return {
        "seconds": elapsed,
        "rate_hz": rate,
        "seed": seed,
        **answers,
        **figures,
        "seen_in_force_at_the_promised_tick": f"{sum(in_time)} of {len(in_time)}",
        "answer_ms": {"p50": p50, "p99": p99, "max": most},
        "different_reasons": len(refusals),
        "node_restarts": restarts,
        "orphans": len(processes_of(os.getpid())),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = measure(args.seconds, args.rate, args.seed)
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
