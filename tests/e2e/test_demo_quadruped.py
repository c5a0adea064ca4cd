"""The quadruped's story, shortened, on the artifact that is shipped: over real DDS, with real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from worldpilot.demo.recording import Recording
from worldpilot.models.artifact import zoo_path

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The run's folder, its report, what was printed."""
    out = tmp_path_factory.mktemp("runs")
    environment = {name: value for name, value in os.environ.items() if name != "ROS_DOMAIN_ID"}  # one of its own
    command = [sys.executable, "-m", "worldpilot.cli.main", "demo", "quadruped", "--out", str(out)]
    done = subprocess.run(
        [*command, "--goal-s", "5", "--swap-s", "4"], env=environment, capture_output=True, text=True, timeout=400
    )
    logs = "".join(path.read_text()[-3000:] for path in out.rglob("nodes.log"))
    assert list(out.rglob("report.json")), f"{done.stdout}\n{done.stderr}\n{logs}"
    (folder,) = out.iterdir()
    return folder, json.loads((folder / "report.json").read_text()), done.stdout


def test_rewards_are_swapped_live(run: tuple[Path, dict[str, Any], str]) -> None:
    swap = run[1]["swap"]
    assert swap["accepted"]
    assert [entry["name"] for entry in swap["swaps"]] == ["slow", "turn left", "crouch run", "stop"]
    assert all(entry["in_force_after_ms"] < 500 for entry in swap["swaps"])
    assert swap["refused"]["refused"]
    assert swap["refused"]["old_reward_kept"]


def test_a_weak_joint_is_noticed(run: tuple[Path, dict[str, Any], str]) -> None:
    (fault,) = run[1]["alert"]["faults"]
    assert fault["fault"] == "weak_joint"
    assert fault["raised"]
    assert fault["held"]


def test_nothing_is_left_running_and_no_node_ended_before(run: tuple[Path, dict[str, Any], str]) -> None:
    assert run[1]["orphans"] == 0
    assert run[1]["restarts"] == {}


def test_the_report_has_the_keys_of_every_demo(run: tuple[Path, dict[str, Any], str]) -> None:
    folder, report, _ = run
    assert {"goal_reached", "swap", "alert", "orphans", "recording", "solve_ms", "missed_ticks"} <= report.keys()
    assert report["model_id"] == json.loads((zoo_path("quadruped") / "manifest.json").read_text())["model_id"]
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # gait diagram, motion, surprise


def test_the_recording_and_the_video_hold_the_whole_story(run: tuple[Path, dict[str, Any], str]) -> None:
    folder, report, _ = run
    recording = Recording.load(folder / report["recording"])
    assert len(recording.states) > 1000
    assert recording.counts["joint_command"] > 500
    assert recording.counts["proposals"] == 0  # left out: 5 MB a second
    video, frames = cv2.VideoCapture(str(folder / report["video"])), 0
    while video.read()[0]:
        frames += 1
    assert frames == report["video_frames"] > 500
