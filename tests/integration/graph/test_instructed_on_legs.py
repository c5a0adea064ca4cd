"""The shipped quadruped in its graph does what it is told in words: the shipped language model, real time."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from worldpilot_msgs.msg import PlannerStatus

from worldpilot.models.artifact import zoo_path

pytestmark = pytest.mark.slow
STRETCH = 100  # control steps: 2 s


@pytest.fixture(scope="module")
def running(start: Callable[..., Any]) -> Iterator[Any]:
    run = start(artifact=zoo_path("quadruped"), task="quadruped", without=["recorder"], also=["reasoning"])
    run.probe.listen("planner_status", "ground_truth")
    run.supervisor.wait_for("active", timeout=120)
    yield run
    run.supervisor.stop()


@pytest.mark.parametrize(
    ("say", "signal", "low", "high"),
    [
        ("turn left", "yaw_rate", 0.2, np.inf),
        ("keep your body close to the ground", "height", 0.0, 0.25),
        ("put your nose down", "pitch", 0.03, np.inf),
    ],
)
def test_it_does_what_it_is_told(running: Any, domain: int, say: str, signal: str, low: float, high: float) -> None:
    command = [sys.executable, "-m", "worldpilot.cli.main", "language", "ask", say]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    told = time.monotonic()
    while not low < mean_of(running.probe, signal, told) < high:
        assert time.monotonic() < told + 40, f"{say!r}: {signal} was {mean_of(running.probe, signal, told):.3f}"
        time.sleep(0.5)


def mean_of(probe: Any, signal: str, since: float) -> float:
    """Over the last stretch since a moment; nan if the robot was not let walk through all of it."""
    heard = probe.since("ground_truth", since)[-STRETCH:]
    if len(heard) < STRETCH:
        return np.nan
    states = {h.message.state for h in probe.since("planner_status", heard[0].at)}
    values = [each.value for h in heard for each in h.message.signals if each.name == signal]
    return float(np.mean(values)) if states == {PlannerStatus.RUNNING} else np.nan
