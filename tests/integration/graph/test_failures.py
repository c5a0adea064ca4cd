"""What happens when a part of the graph dies, hangs, or the world goes wrong: hold, say why, go on when it is over."""

import contextlib
import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from worldpilot_msgs.msg import Alert, PlannerStatus
from worldpilot_msgs.srv import InjectFault, Recalibrate

from worldpilot.models.artifact import update_manifest

HOLD_WITHIN = 0.5  # [s]


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny artifact with thresholds of its own: it errs by about 1e-3, and by 0.3 when the block is painted."""
    folder = tmp_path_factory.mktemp("zoo") / "push_t"
    shutil.copytree(tiny_artifact, folder)

    def set_limits(manifest: dict[str, Any]) -> None:
        manifest["thresholds"]["limits"] = {"surprise": 0.1}
        manifest["thresholds"]["rewards"] = {"smoothness": 100}

    update_manifest(folder, set_limits)
    return folder


@pytest.fixture(scope="module")
def graph(start: Callable[..., Any], artifact: Path) -> Any:
    run = start(artifact=artifact, without=["recorder"])
    run.probe.listen("planner_status", "ground_truth", "latent", "alert", "/diagnostics", "command", "proposals")
    run.supervisor.wait_for("active", timeout=60)
    return run


@pytest.fixture
def running(graph: Any) -> Any:
    """The graph, planning freely for half a second."""
    begin = time.monotonic()
    graph.probe.wait_for("planner_status", is_running, timeout=15)
    while True:
        graph.probe.wait_for("planner_status", is_running, timeout=15)
        if time.monotonic() > begin + 0.5 and all(
            is_running(heard.message) for heard in graph.probe.since("planner_status", time.monotonic() - 0.5)
        ):
            return graph


def is_running(status: PlannerStatus) -> bool:
    return status.state == PlannerStatus.RUNNING


def is_hold(status: PlannerStatus) -> bool:
    return status.state == PlannerStatus.HOLD


def held_by(*reasons: str) -> Callable[[PlannerStatus], bool]:
    """A hold that names one of these; on a slow machine others come with it."""
    return lambda status: is_hold(status) and any(reason in status.reason for reason in reasons)


def stopped(truth: Any) -> bool:
    return not np.any(truth.control)


def moving(truth: Any) -> bool:
    return bool(np.any(truth.control))


def test_a_killed_world_model_is_noticed_started_again_and_the_planner_goes_on(running: Any) -> None:
    begin = time.monotonic()
    running.supervisor.kill("world_model")
    held = running.probe.wait_for("planner_status", is_hold, timeout=2.0, begin=begin)
    assert held.at - begin <= HOLD_WITHIN
    running.probe.wait_for("planner_status", held_by("world model", "old"), timeout=2.0, begin=begin)
    running.probe.wait_for("ground_truth", stopped, timeout=0.5, begin=held.at)
    running.supervisor.wait_for("active", ["world_model"], timeout=30)
    assert running.supervisor.status["world_model"].starts >= 2
    running.probe.wait_for("planner_status", is_running, timeout=10)
    running.probe.wait_for("ground_truth", moving, timeout=5)


def test_a_world_model_that_hangs_is_noticed_too(running: Any) -> None:
    begin = time.monotonic()
    running.supervisor.kill("world_model", signal.SIGSTOP)
    held = running.probe.wait_for("planner_status", is_hold, timeout=2.0, begin=begin)
    running.supervisor.kill("world_model", signal.SIGCONT)
    assert held.at - begin <= HOLD_WITHIN
    running.probe.wait_for("planner_status", is_running, timeout=10)


def test_the_driver_stops_by_itself_when_the_planner_dies(running: Any) -> None:
    running.probe.wait_for("ground_truth", moving, timeout=5)
    begin = time.monotonic()
    running.supervisor.kill("mpc")
    still = running.probe.wait_for("ground_truth", stopped, timeout=2.0, begin=begin)
    assert still.at - begin <= HOLD_WITHIN
    later = [heard.message for heard in running.probe.since("command", still.at)]
    assert not later  # nobody told it to
    running.supervisor.wait_for("active", ["mpc"], timeout=30)
    running.probe.wait_for("planner_status", is_running, timeout=10)


def test_without_the_monitor_the_robot_is_held(running: Any) -> None:
    begin = time.monotonic()
    running.supervisor.kill("uncertainty_monitor")
    silent = running.probe.wait_for("planner_status", held_by("monitor"), timeout=2.0, begin=begin)
    assert silent.at - begin <= HOLD_WITHIN
    running.supervisor.wait_for("active", ["uncertainty_monitor"], timeout=30)
    running.probe.wait_for("planner_status", is_running, timeout=10)


def test_without_the_prior_the_planner_goes_on(running: Any) -> None:
    begin = time.monotonic()
    running.supervisor.kill("action_prior")
    running.supervisor.wait_for("waiting", ["action_prior"], timeout=5)
    running.supervisor.wait_for("active", ["action_prior"], timeout=30)
    heard = running.probe.since("planner_status", begin)
    assert any(is_running(status.message) for status in heard)
    assert not [s.message.reason for s in heard if "proposal" in s.message.reason]


def paint_until_an_alert(running: Any) -> Any:
    """The tiny model errs at the change of colour only, and there is no error across a late image."""
    begin = time.monotonic()
    for light in (1, 0, 1, 0):
        colour = json.dumps({"r": light, "g": light})
        fault = running.probe.call(InjectFault, "sim/inject_fault", name="recolour", params_json=colour)
        assert fault.success, fault.message
        with contextlib.suppress(AssertionError):
            return running.probe.wait_for("alert", lambda a: a.level == Alert.HOLD, timeout=2.0)
    pytest.fail(f"no alert in {time.monotonic() - begin:.0f} s")


def test_an_alert_holds_the_robot_until_it_is_over(running: Any) -> None:
    begin = time.monotonic()
    alert = paint_until_an_alert(running)
    assert alert.message.channel == "surprise"
    assert alert.message.score > alert.message.threshold
    running.probe.wait_for("planner_status", held_by("monitor"), timeout=1.0, begin=alert.at)
    diagnosed = running.probe.wait_for(
        "/diagnostics", lambda d: d.status[0].level == DiagnosticStatus.ERROR, timeout=2.0, begin=begin
    )
    assert {value.key for value in diagnosed.message.status[0].values} >= {"surprise", "drift"}
    assert "not fitted under goal_pose" in alert.message.message
    running.probe.wait_for("alert", lambda a: a.level < Alert.HOLD, timeout=10)
    running.probe.wait_for("planner_status", is_running, timeout=5)


def test_a_reward_that_the_thresholds_were_not_fitted_under_is_diagnosed(running: Any) -> None:
    begin = time.monotonic()
    warned = running.probe.wait_for(
        "/diagnostics", lambda d: d.status[0].level == DiagnosticStatus.WARN, timeout=5.0, begin=begin
    )
    said = {value.key: value.value for value in warned.message.status[0].values}
    assert said["reward in force"].startswith("goal_pose(")
    assert said["thresholds fitted under"] == "smoothness"
    assert "but under smoothness" in warned.message.status[0].message


def test_an_unknown_fault_is_answered_with_those_there_are(running: Any) -> None:
    response = running.probe.call(InjectFault, "sim/inject_fault", name="telport")
    assert not response.success
    assert "teleport" in response.message
    assert "JSON" in running.probe.call(InjectFault, "sim/inject_fault", name="delay", params_json="[1]").message


def test_recalibration_from_too_short_a_past_is_refused_with_what_is_needed(running: Any) -> None:
    response = running.probe.call(Recalibrate, "uncertainty_monitor/recalibrate", duration=2.0)
    assert not response.success
    assert "are needed" in response.message
    assert '"surprise"' in response.thresholds_json  # those in force stay
    assert "duration" in running.probe.call(Recalibrate, "uncertainty_monitor/recalibrate", duration=-1.0).message
