"""How long from an instruction in words to the reward in force, through ROS, and does it disturb control?

The held-out instructions of a task that ask for a reward are sent, one after the other, to the running graph with its
language model. Run it in the ROS environment, on a machine that does nothing else:
`. .venv/ros_env.bash && python benchmarks/instruct.py --json docs/results/instruct.json`
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from worldpilot_msgs.action import Reason
from worldpilot_nodes.client import Client

from worldpilot import graph
from worldpilot.demo.host import free_domain
from worldpilot.reasoning.evaluation import load_questions
from worldpilot.supervisor import Supervisor

WITHIN = 30.0  # [s], at most, for one instruction
STATUS = (
    "applied",
    "proposed",
    "answered",
    "refused",
    "invalid",
    "swap refused",
    "cancelled",
    "deadline",
    "unavailable",
    "unsure",
)


def measure(count: int, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Send `count` instructions; times [s] are of those after which a new reward was in force."""
    texts = [question.say for question in load_questions() if question.task == "push_t" and question.kind == "reward"]
    drawn = [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))[:count]]
    domain, applied, generated, statuses, methods = free_domain(), [], [], Counter[str](), Counter[str]()
    supervisor = Supervisor(
        graph.load(),
        task="push_t",
        domain_id=domain,
        without=["recorder"],
        also=["reasoning"],
        settings={"reasoning": settings},
        echo=lambda *_: None,
    )
    with supervisor, Client(domain_id=domain) as client:
        supervisor.wait_for("active", timeout=120)
        client.wait_ready(30)
        time.sleep(3)  # the first ticks warm up
        missed, tick = client.status.missed_ticks, client.status.tick
        for text in drawn:
            version, begin = client.status.reward_version, time.monotonic()
            result = client.reason(text).result(WITHIN)
            if result is None:
                raise SystemExit(f"no result after {WITHIN:.0f} s: {text}")
            statuses[STATUS[result.status]] += 1
            methods[result.method] += 1
            generated.append(result.seconds)
            if result.status == Reason.Result.REWARD_APPLIED:
                client.wait_until(lambda v=version: client.status.reward_version > v, 1.0)
                applied.append(time.monotonic() - begin)
        control = {"missed_ticks": client.status.missed_ticks - missed, "ticks": client.status.tick - tick}
    return {
        "seed": seed,
        "instructions": len(drawn),
        "settings": settings,
        "ended": dict(statuses),
        "method": dict(methods),
        "to_the_applied_reward_s": _spread(applied),
        "in_the_node_s": _spread(generated),
        **control,
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    p50, p95, most = (round(float(x), 3) for x in np.percentile(seconds, [50, 95, 100]))
    return {"n": len(seconds), "p50": p50, "p95": p95, "max": most}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", type=json.loads, default={}, help="parameters of the reasoning node, as JSON")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = measure(args.count, args.seed, args.settings)
    print(json.dumps(found, indent=2))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
