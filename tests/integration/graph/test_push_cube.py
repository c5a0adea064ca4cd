"""The shipped arm in its graph: an image from an angle, a command of three velocities, real time."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from worldpilot_msgs.msg import PlannerStatus
from worldpilot_nodes import convert

from worldpilot.models.artifact import zoo_path

pytestmark = pytest.mark.slow
GOAL = (0.0, 0.1)  # [m], of launch/config/push_cube.yaml
CLOSER = 0.04  # [m]


def test_it_pushes_the_cube_towards_its_goal(start: Callable[..., Any]) -> None:
    run = start(artifact=zoo_path("push_cube"), task="push_cube", without=["recorder"])
    run.probe.listen("planner_status", "ground_truth", "command")
    run.supervisor.wait_for("active", timeout=60)
    running = run.probe.wait_for("planner_status", lambda status: status.state == PlannerStatus.RUNNING, timeout=20)
    first = away(run.probe.newest("ground_truth"))
    assert first > 2 * CLOSER
    arrived = run.probe.wait_for("ground_truth", lambda truth: away(truth) < first - CLOSER, timeout=60)
    sent = [heard.message.twist.linear for heard in run.probe.since("command", running.at) if heard.at < arrived.at]
    assert all(max(abs(getattr(linear, axis)) for linear in sent) > 0.05 for axis in "xyz")
    states = [heard.message.state for heard in run.probe.since("planner_status", running.at)]
    assert states.count(PlannerStatus.RUNNING) > len(states) / 2


def away(truth: Any) -> float:
    """How far the cube is from its goal [m]."""
    place = convert.signal_values(truth.signals)
    return math.dist((place["cube_x"], place["cube_y"]), GOAL)
