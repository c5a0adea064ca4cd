"""Beginnings and ends: refusal at configure, transitions asked for from outside, recordings, no orphans."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from worldpilot import graph as graphs
from worldpilot.errors import NotReady

MODEL_NODES = {"world_model", "action_prior", "mpc", "uncertainty_monitor"}


def graph_processes(mark: str) -> list[psutil.Process]:
    """Processes whose command line holds `mark`."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_an_artifact_with_a_wrong_hash_is_refused_at_configure(
    start: Callable[..., Any], tiny_artifact: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_artifact, broken)
    with (broken / "predictor.onnx").open("ab") as file:
        file.write(b"\0")
    run = start(artifact=broken, without=["sim", "recorder"])
    with pytest.raises(NotReady, match=r"unconfigured.*sha256"):
        run.supervisor.wait_for("active", timeout=60)
    run.supervisor.wait_for("unconfigured", MODEL_NODES, timeout=30)  # all of them, and they stay
    state = run.probe.call(GetState, "mpc/get_state").current_state
    assert state.id == State.PRIMARY_STATE_UNCONFIGURED
    refusals = [line for node, line in run.log if node == "mpc" and "configure refused" in line]
    assert len(refusals) == 1
    assert re.search(r"predictor.*the manifest expects [0-9a-f]{12}", refusals[0])
    run.supervisor.stop()


def test_a_node_can_be_led_through_its_life_from_outside(start: Callable[..., Any]) -> None:
    nodes = set(graphs.load().nodes) - {"sim"}
    run = start(without=nodes, settings={"sim": {"autostart": False}})
    run.probe.listen("ground_truth")

    def change(transition: int) -> Any:
        return run.probe.call(ChangeState, "sim/change_state", timeout=15.0, transition=Transition(id=transition))

    def state() -> int:
        return run.probe.call(GetState, "sim/get_state").current_state.id

    for _ in range(2):  # twice: what cleanup lets go of can be made again
        assert change(Transition.TRANSITION_CONFIGURE).success
        assert state() == State.PRIMARY_STATE_INACTIVE
        silent = time.monotonic()
        time.sleep(0.3)
        assert not run.probe.since("ground_truth", silent)
        assert change(Transition.TRANSITION_ACTIVATE).success
        run.probe.wait_for("ground_truth", lambda m: True, timeout=3.0)
        assert change(Transition.TRANSITION_DEACTIVATE).success
        assert change(Transition.TRANSITION_CLEANUP).success
        assert state() == State.PRIMARY_STATE_UNCONFIGURED
    run.supervisor.stop()


def test_the_recording_holds_every_topic_and_needs_no_workspace_to_be_read(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "run.mcap"
    run = start(settings={"recorder": {"path": str(path)}})
    unused = {"state", "joint_command"}  # push_t has a camera and is driven by a twist
    expected = {f"/{topic.lstrip('/')}" for topic in set(graphs.load().nodes["recorder"].subscribes) - unused}
    run.supervisor.wait_for("active", timeout=60)
    deadline = time.monotonic() + 20
    while {line.split()[-1] for _, line in run.log if "]: recording /" in line} != expected:
        assert time.monotonic() < deadline, "the recorder has not heard every topic"
        time.sleep(0.1)
    begin = time.monotonic()
    run.supervisor.stop()
    assert time.monotonic() - begin < 2.5  # about 1 s on a machine with nothing else to do
    assert not [line for _, line in run.log if "Traceback" in line]
    topics = set()
    with path.open("rb") as file:  # the decoder knows only the schemas in the file
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        assert reader.get_header().profile == "ros2"
        for _, channel, _, message in reader.iter_decoded_messages():
            topics.add(channel.topic)
            if channel.topic == "/planner_status":
                assert message.reward_json
    assert topics == expected


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_leaves_no_process_behind(sig: signal.Signals, domain: int, tiny_artifact: Path, tmp_path: Path) -> None:
    mark = str(tmp_path / "run.mcap")
    usual = [name for name, node in graphs.load().nodes.items() if not node.optional]
    up = subprocess.Popen(
        [
            *(sys.executable, "-m", "worldpilot.cli.main", "up", "--artifact", str(tiny_artifact)),
            *(argument for node in usual for argument in ("--set", f"{node}.mark={mark}")),
            *("--set", f"recorder.path={mark}"),
        ],
        env={**os.environ, "ROS_DOMAIN_ID": str(domain), "_ROS_WHEELS_BOOTSTRAP_COMPLETE": ""},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert up.stdout is not None
    active = 0
    for line in up.stdout:
        active += "lifecycle state: active" in line
        if active == len(usual):
            break
    started = graph_processes(mark)
    assert len(started) == 1 + len(usual)
    begin = time.monotonic()
    up.send_signal(sig)
    assert up.wait(timeout=5) == (0 if sig != signal.SIGKILL else -signal.SIGKILL)
    _, alive = psutil.wait_procs(started, timeout=3)
    assert not alive
    assert time.monotonic() - begin < 4
    assert "stopping" in up.stdout.read() or sig == signal.SIGKILL
