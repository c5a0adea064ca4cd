"""The demo's story, shortened, on the artifact that is shipped: over real DDS, with real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from worldpilot import graph
from worldpilot.demo.recording import Recording

UNSAID = {"imagined", "state", "joint_command"}  # the shipped model has no decoder; push_t no joints
pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The run's folder, its report, what was printed."""
    out = tmp_path_factory.mktemp("runs")
    environment = {name: value for name, value in os.environ.items() if name != "ROS_DOMAIN_ID"}  # one of its own
    command = [sys.executable, "-m", "worldpilot.cli.main", "demo", "push_t", "--out", str(out)]
    done = subprocess.run(
        [*command, "--goal-s", "10", "--swap-s", "6"], env=environment, capture_output=True, text=True, timeout=240
    )
    folders = list(out.iterdir())
    logs = "".join(path.read_text()[-3000:] for path in out.rglob("nodes.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    return folders[0], json.loads((folders[0] / "report.json").read_text()), done.stdout


def test_rewards_are_swapped_live(run: tuple[Path, dict[str, Any], str]) -> None:
    swap = run[1]["swap"]
    assert swap["accepted"]
    assert [entry["was_running"] for entry in swap["swaps"]] == [True, True]
    assert all(entry["in_force_after_ms"] < 500 for entry in swap["swaps"])
    assert swap["refused"]["refused"]
    assert swap["refused"]["old_reward_kept"]
    assert "valid names" in swap["refused"]["message"]


def test_faults_are_noticed_and_overcome(run: tuple[Path, dict[str, Any], str]) -> None:
    alert = run[1]["alert"]
    assert [fault["fault"] for fault in alert["faults"]] == ["teleport", "recolour"]
    assert alert["raised"]
    assert alert["delay_s"] < 2.0
    assert alert["held"]
    assert alert["recovered"]


def test_nothing_is_left_running_and_no_node_ended_before(run: tuple[Path, dict[str, Any], str]) -> None:
    assert run[1]["orphans"] == 0
    assert run[1]["restarts"] == {}


def test_the_recording_holds_every_topic_of_the_graph(run: tuple[Path, dict[str, Any], str]) -> None:
    folder, report, _ = run
    recording = Recording.load(folder / report["recording"])
    said = {name.rsplit("/", 1)[-1] for name in graph.load().nodes["recorder"].subscribes} - UNSAID
    assert said <= {topic for topic, count in recording.counts.items() if count > 0}
    assert len(recording.images) > 150


def test_the_video_plays(run: tuple[Path, dict[str, Any], str]) -> None:
    folder, report, _ = run
    video = cv2.VideoCapture(str(folder / report["video"]))
    frames = 0
    while video.read()[0]:
        frames += 1
    assert frames == report["video_frames"] > 150


def test_what_is_said_about_the_goal_is_what_was_measured(run: tuple[Path, dict[str, Any], str]) -> None:
    folder, report, printed = run
    assert report["goal_reached"] == (report["goal"]["best_overlap"] > 0.9)
    assert ("GOAL NOT REACHED" in printed) == (not report["goal_reached"])
    page = (folder / "report.html").read_text()
    assert f"{report['goal']['best_overlap']:.2f}" in page
    assert page.count("data:image/png;base64,") == 2
