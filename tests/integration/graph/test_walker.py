"""The shipped walker in its graph: real time, real messages, two cores."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from worldpilot_msgs.msg import Alert, PlannerStatus
from worldpilot_msgs.srv import InjectFault

from worldpilot.models.artifact import zoo_path

pytestmark = pytest.mark.slow
STRETCH = 200  # control steps: 4 s


@pytest.fixture(scope="module")
def walking(start: Callable[..., Any]) -> Iterator[Any]:
    run = start(artifact=zoo_path("walker"), task="walker", without=["recorder"])
    run.probe.listen("planner_status", "ground_truth", "alert")
    run.supervisor.wait_for("active", timeout=60)
    yield run
    run.supervisor.stop()


def test_it_walks_and_nothing_is_alarmed(walking: Any) -> None:
    deadline = time.monotonic() + 60
    while not has_walked(walking.probe):
        assert time.monotonic() < deadline, "it has not walked for 4 s at a stretch within a minute"
        time.sleep(0.5)


def has_walked(probe: Any) -> bool:
    """Whether it was let walk, and walked, through all of the last stretch."""
    heard = probe.since("ground_truth", 0.0)[-STRETCH:]
    if len(heard) < STRETCH:
        return False
    speeds = [signal.value for h in heard for signal in h.message.signals if signal.name == "forward_velocity"]
    states = {h.message.state for h in probe.since("planner_status", heard[0].at)}
    return min(speeds) > 0.5 and states == {PlannerStatus.RUNNING}


def test_a_weak_ankle_is_noticed(walking: Any) -> None:
    answer = walking.probe.call(
        InjectFault, "sim/inject_fault", name="weak_joint", params_json='{"joint": 2, "fraction": 0.1}'
    )
    assert answer.success, answer.message
    walking.probe.wait_for("alert", lambda alert: alert.level != Alert.NOMINAL, timeout=5)
