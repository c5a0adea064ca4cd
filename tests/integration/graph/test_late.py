"""A graph whose simulator is late, as a system file says, and whose nodes are told so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from worldpilot_msgs.msg import PlannerStatus
from worldpilot_msgs.srv import SwapReward
from worldpilot_nodes.base import InForce
from worldpilot_nodes.commands import TwistCommands

from worldpilot.cli.up import late
from worldpilot.sim import push_t
from worldpilot.system import System

REWARD = '{"terms": [{"plugin": "expression", "params": {"expression": "pusher_x + pusher_y"}}]}'


def test_the_pusher_moves_as_late_as_the_file_says_and_the_planner_goes_on(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "system.yaml"
    System("push_t", 0.4, 0.1).save(file)
    settings = late(System.load(file, "push_t"), file)
    assert settings["mpc"]["delay"] == 0.5
    settings["mpc"] |= {"reward": "", "require_monitor": False}  # held until one is swapped in
    run = start(settings=settings, without=["recorder", "uncertainty_monitor"])
    run.probe.listen("planner_status", "ground_truth")
    run.supervisor.wait_for("active", timeout=60)
    run.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.HOLD, timeout=20)
    run.probe.wait_for("ground_truth", lambda t: not np.any(t.control), timeout=20)
    swapped = run.probe.call(SwapReward, "mpc/swap_reward", spec_json=REWARD)
    assert swapped.accepted, swapped.message
    first = run.probe.wait_for("ground_truth", lambda t: np.abs(t.control).max() > 0.05, timeout=20)
    run.probe.wait_for("ground_truth", lambda t: t.header.stamp.sec > first.message.header.stamp.sec + 1, timeout=20)
    told = [heard.message for heard in run.probe.since("ground_truth", 0.0)]
    controls = np.array([message.control for message in told])
    places = np.array([[s.value for s in m.signals if s.name.startswith("pusher")] for m in told])
    sent = int(np.argmax(np.abs(controls).max(-1) > 0.05))
    moved = int(np.argmax(np.linalg.norm(places - places[0], axis=-1) > 1e-3))
    assert moved - sent == 4  # periods of 0.1 s


def test_the_control_in_force_is_the_one_sent_a_delay_ago() -> None:
    spec = push_t.ACTION
    commands = TwistCommands(spec, ["linear.x", "linear.y"])
    driver = InForce(commands, spec, 0.2)
    found = []
    for i in range(1, 5):
        driver.update(commands.message(np.array([[0.01 * i, 0.0]], np.float32), 0.1 * i, 0.1 * i, "world"))
        found.append(float(driver(0.1 * (i + 1))[0]))
    np.testing.assert_allclose(found, [0, 0, 0.01, 0.02], atol=1e-6)
