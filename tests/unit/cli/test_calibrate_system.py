"""From a recording to a file of delays and parameters, and to a simulator that is like it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from scipy.signal import lfilter

from worldpilot.cli.main import main
from worldpilot.cli.up import late
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.system import System

TRUE = System("push_t", 0.052, 0.05, {"mass": 0.3, "friction": 0.4})


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("excited")
    TRUE.save(folder / "true.yaml")
    command = ["collect", "push_t", "--excite", "1", "--steps", "450", "--workers", "1", "--out", str(folder / "data")]
    assert main([*command, "--system", str(folder / "true.yaml")]) == 0
    return folder / "data"


def test_delays_then_friction_come_into_one_file(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, figures = tmp_path / "system.yaml", tmp_path / "figures.json"
    assert {"force_x", "force_y"} <= EpisodeStore(recording)[0].signals.keys()
    both = ["--system", str(file), "--json", str(figures), "--plot"]
    assert main(["calibrate", "latency", "--data", str(recording), *both, str(tmp_path / "latency.png")]) == 0
    found = System.load(file, "push_t")
    assert found.control_delay == pytest.approx(TRUE.control_delay, abs=2e-3)
    assert found.camera_delay == pytest.approx(TRUE.camera_delay, abs=5e-3)  # half a minute is little for the camera
    assert json.loads(figures.read_text())["times"]["camera"]["std"] < 5e-3
    assert "control delay: 52" in capsys.readouterr().out

    command = ["calibrate", "system", "--data", str(recording), "--parameters", "friction"]
    assert main([*command, *both, str(tmp_path / "system.png")]) == 0
    again = System.load(file, "push_t")
    assert again.delay == found.delay
    assert set(again.measured) == {"latency", "system"}
    assert json.loads(figures.read_text())["segments"] >= 6
    assert (tmp_path / "latency.png").stat().st_size > 10_000
    assert (tmp_path / "system.png").stat().st_size > 10_000


def test_the_graph_is_told_by_the_file(tmp_path: Path) -> None:
    TRUE.save(tmp_path / "system.yaml")
    settings = late(TRUE, tmp_path / "system.yaml")
    assert settings["sim"] == {"system": str(tmp_path / "system.yaml")}
    assert {settings[node]["delay"] for node in ("mpc", "world_model", "action_prior")} == {TRUE.delay}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["latency"], "--data or --bag"),
        (["latency", "--data", "DATA", "--sources", "radar"], "camera, encoder"),
        (["latency", "--data", "DATA", "--position", "pusher_x,elbow"], "elbow"),
        (["latency", "--data", "DATA", "--sources", "encoder", "--segment", "15"], "at least 8"),
        (["system", "--data", "DATA", "--parameters", "colour"], "friction, mass"),
        (["system", "--data", "DATA/none"], "no data set"),
    ],
)
def test_what_cannot_be_done_is_refused(
    recording: Path, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("DATA", str(recording)) for argument in arguments]
    assert main(["calibrate", *given]) == 2
    assert why in capsys.readouterr().err


def test_a_task_that_nothing_excites_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "walker", "--excite", "1", "--out", str(tmp_path)]) == 2
    assert "nothing that tells" in capsys.readouterr().err


def test_a_bag_is_read_by_the_stamps_of_its_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands at 10 Hz whose driver needs 0.064 s, a position at 50 Hz; both with stamps of their own."""
    types, rng = get_typestore(Stores.ROS2_JAZZY), np.random.default_rng(0)
    sent_at = np.arange(0, 20, 0.1) + rng.uniform(0, 0.02, 200)
    sent = np.repeat(rng.uniform(-0.2, 0.2, (50, 2)), 4, axis=0)
    time = np.arange(0, 21, 1e-3)
    command = sent[np.clip(np.searchsorted(sent_at, time - 0.064, side="right") - 1, 0, None)]
    way = np.asarray(lfilter([0.03], [1, -0.97], np.cumsum(command, axis=0) * 1e-3, axis=0))

    def message(kind: str, seconds: float, **values: Any) -> Any:
        stamp = types.types["builtin_interfaces/msg/Time"](sec=1_000 + int(seconds), nanosec=int(seconds % 1 * 1e9))
        return types.types[kind](header=types.types["std_msgs/msg/Header"](stamp=stamp, frame_id=""), **values)

    point, vector, twist = (types.types[f"geometry_msgs/msg/{name}"] for name in ("Point", "Vector3", "Twist"))
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        said = [
            ("/command", t, "TwistStamped", {"twist": twist(linear=vector(x, y, 0.0), angular=vector(0.0, 0.0, 0.0))})
            for t, (x, y) in zip(sent_at, sent.tolist(), strict=True)
        ]
        said += [
            ("/odom", t, "PointStamped", {"point": point(*way[round(t * 1e3)].tolist(), 0.0)})
            for t in np.arange(0, 20, 0.02)
        ]
        connections = {
            topic: writer.add_connection(topic, f"geometry_msgs/msg/{kind}", typestore=types)
            for topic, kind in (("/command", "TwistStamped"), ("/odom", "PointStamped"))
        }
        for topic, t, kind, values in sorted(said, key=lambda item: item[1]):
            kind = f"geometry_msgs/msg/{kind}"
            data = types.serialize_cdr(message(kind, t, **values), kind)
            writer.write(connections[topic], int(t * 1e9), data)
    command = ["calibrate", "latency", "--bag", str(tmp_path / "bag"), "--sources", "encoder", "--servo-rate", "1000"]
    position = ["--position-topic", "/odom", "--position-fields", "point.x,point.y"]
    assert main([*command, *position, "--system", str(tmp_path / "system.yaml")]) == 0
    assert "no position was measured from images" in capsys.readouterr().out
    assert System.load(tmp_path / "system.yaml").control_delay == pytest.approx(0.064, abs=2e-3)
