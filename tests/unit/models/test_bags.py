"""Recordings laid on the control rate: values survive, at any rates, with jitter, across gaps and containers."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from mcap_ros2.writer import Writer as McapWriter
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from worldpilot.cli.main import main
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models.data.bags import BagImport, number, read_episodes, rgb, state, taken
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.types import ActionSpec

TYPES = get_typestore(Stores.ROS2_JAZZY)
SPEC = ActionSpec(("vx", "vy"), ("m/s", "m/s"), (-1.0, -1.0), (1.0, 1.0), (20.0, 20.0), control_dt=0.1, block=5)
WANTED = BagImport(SPEC, "/camera", "/cmd", ("twist.linear.x", "twist.linear.y"), min_steps=5, size=8)
START = 1_700_000_000 * 10**9  # [ns]
WANTED_WITH_X = replace(WANTED, signals={"x": ("/odom", "point.x")})


def message(kind: str, **values: Any) -> Any:
    return TYPES.types[kind](**values)


def header(stamp: int) -> Any:
    time = message("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
    return message("std_msgs/msg/Header", stamp=time, frame_id="")


def image(stamp: int, pixels: np.ndarray, encoding: str = "rgb8", padding: int = 0) -> Any:
    h, w = pixels.shape[:2]
    rows = np.pad(pixels.reshape(h, -1), ((0, 0), (0, padding)))
    return message(
        "sensor_msgs/msg/Image",
        header=header(stamp),
        height=h,
        width=w,
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.ravel(),
    )


def twist(stamp: int, x: float, y: float = 0.0) -> Any:
    zero = message("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    linear = message("geometry_msgs/msg/Vector3", x=x, y=y, z=0.0)
    return message(
        "geometry_msgs/msg/TwistStamped",
        header=header(stamp),
        twist=message("geometry_msgs/msg/Twist", linear=linear, angular=zero),
    )


def point(stamp: int, x: float) -> Any:
    at = message("geometry_msgs/msg/Point", x=x, y=0.0, z=0.0)
    return message("geometry_msgs/msg/PointStamped", header=header(stamp), point=at)


@dataclass
class Recorded:
    """Stamps [s] of images, commands and positions. Image i is of grey level i; command and position say their time."""

    images: Sequence[float]
    commands: Sequence[float]
    odometry: Sequence[float] = field(default_factory=list)
    delay: float = 0.0  # [s] from stamp to log
    shift: float = 0.0  # [s] of the camera's clock

    def messages(self) -> list[tuple[str, int, Any]]:
        def stamp(t: float) -> int:
            return START + round(t * 1e9)

        said = [
            *(
                ("/camera", stamp(t), image(stamp(t + self.shift), np.full((8, 8, 3), i, np.uint8)))
                for i, t in enumerate(self.images)
            ),
            *(("/cmd", stamp(t), twist(stamp(t), t / 100)) for t in self.commands),
            *(("/odom", stamp(t), point(stamp(t), t)) for t in self.odometry),
        ]
        return sorted(((topic, at + round(self.delay * 1e9), m) for topic, at, m in said), key=lambda item: item[1])


def write(path: Path, messages: Iterable[tuple[str, int, Any]], storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """A rosbag2 folder of (topic, log time [ns], message)."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections: dict[str, Any] = {}
        for topic, at, content in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, content.__msgtype__, typestore=TYPES)
            writer.write(connections[topic], at, TYPES.serialize_cdr(content, content.__msgtype__))
    return path


def every(period: float, duration: float, offset: float = 0.0) -> list[float]:
    return [offset + i * period for i in range(round((duration - offset) / period + 1e-9) + 1)]


def seen(episode: Any) -> list[int]:
    """Which images an episode is made of, by their grey level."""
    return episode.observations[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_at_the_control_rate_every_value_survives(tmp_path: Path, storage: StoragePlugin) -> None:
    ticks = every(0.1, 2.0)
    bag = write(tmp_path / "bag", Recorded(ticks, ticks, ticks).messages(), storage)
    (episode,) = read_episodes(bag, WANTED_WITH_X)
    assert seen(episode) == list(range(21))
    assert (episode.controls[:, 0] == (np.asarray(ticks[:-1]) / 100).astype(np.float32)).all()
    assert (episode.signals["x"] == np.asarray(ticks, np.float32)).all()
    assert episode.meta == {"seed": START, "behaviour": "recorded", "bag": "bag"}
    (single,) = read_episodes(next(bag.glob("*.db3" if storage is StoragePlugin.SQLITE3 else "*.mcap")), WANTED)
    assert (single.observations == episode.observations).all()


def test_jitter_below_half_a_period_changes_no_value(tmp_path: Path) -> None:
    rng, ticks = np.random.default_rng(0), np.asarray(every(0.1, 8.0))

    def jittered() -> np.ndarray:
        return np.concatenate([ticks[:1], ticks[1:] + rng.uniform(-0.04, 0.04, len(ticks) - 1)])

    images, commands = jittered(), jittered()
    (episode,) = read_episodes(
        write(tmp_path / "bag", Recorded(list(images), list(commands), list(images)).messages()), WANTED_WITH_X
    )
    assert seen(episode) == list(range(81))
    assert (episode.controls[:, 0] == (commands[:-1] / 100).astype(np.float32)).all()
    assert episode.signals["x"] == pytest.approx(images, abs=1e-6)  # measured at the image, not at the tick


def test_rates_that_do_not_divide(tmp_path: Path) -> None:
    images, commands, odometry = every(1 / 29.7, 5.0), every(1 / 23, 5.0), every(1 / 101, 5.0)
    (episode,) = read_episodes(write(tmp_path / "bag", Recorded(images, commands, odometry).messages()), WANTED_WITH_X)
    ticks = 0.1 * np.arange(len(episode) + 1)
    assert len(episode) >= 48
    assert np.abs(np.asarray(images)[seen(episode)] - ticks).max() <= 0.5 / 29.7 + 1e-6
    age = ticks[:-1] + 0.05 - episode.controls[:, 0] * 100  # in force in the middle of the period
    assert age.min() > -1e-4
    assert age.max() < 1 / 23 + 1e-4
    assert np.abs(episode.signals["x"] - np.asarray(images)[seen(episode)]).max() <= 0.5 / 101 + 1e-6


@pytest.mark.parametrize(("at", "first"), [(0.0, 0.0), (0.5, 0.03), (1.0, 0.08)])
def test_where_in_the_period_the_command_counts(tmp_path: Path, at: float, first: float) -> None:
    commands = sorted([0.0, *every(0.1, 2.0, 0.03), *every(0.1, 2.0, 0.08)])
    bag = write(tmp_path / "bag", Recorded(every(0.1, 2.0), commands).messages())
    (episode,) = read_episodes(bag, replace(WANTED, command_at=at))
    assert episode.controls[0, 0] == pytest.approx(first / 100, abs=1e-6)


def test_a_gap_in_images_splits_and_the_next_stretch_has_ticks_of_its_own(tmp_path: Path) -> None:
    images = [*every(0.1, 1.0), *every(0.1, 3.0, 1.75)]
    bag = write(tmp_path / "bag", Recorded(images, every(0.05, 3.0)).messages())
    first, second = read_episodes(bag, WANTED)
    assert (seen(first), seen(second)) == (list(range(11)), list(range(11, 25)))
    assert second.controls[0, 0] == pytest.approx(0.018, abs=1e-6)  # of 1.80 s, in the middle of 1.75 to 1.85
    (bridged,) = read_episodes(bag, replace(WANTED, max_gap=1.0))
    assert len(bridged) > len(first) + len(second)


def test_silence_on_the_command_topic_splits(tmp_path: Path) -> None:
    commands = [*every(0.1, 1.0), *every(0.1, 3.0, 2.0)]
    first, second = read_episodes(write(tmp_path / "bag", Recorded(every(0.1, 3.0), commands).messages()), WANTED)
    assert (len(first), len(second)) == (13, 10)  # a command holds for 2.5 periods
    assert second.meta["seed"] == START + 2 * 10**9


def test_one_lost_frame_is_bridged_and_short_stretches_are_left_out(tmp_path: Path) -> None:
    images = [t for t in every(0.1, 3.0) if round(t, 1) not in (0.7, 2.0, 2.1, 2.2)]
    recorded = Recorded(images, every(0.1, 3.0))
    episodes = read_episodes(write(tmp_path / "bag", recorded.messages()), replace(WANTED, min_steps=10))
    assert [len(episode) for episode in episodes] == [19]
    assert seen(episodes[0])[6:9] == [6, 6, 7]


def test_long_stretches_are_cut(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", Recorded(every(0.1, 3.0), every(0.1, 3.0)).messages())
    episodes = read_episodes(bag, replace(WANTED, max_steps=12))
    assert [len(episode) for episode in episodes] == [12, 12, 6]
    assert seen(episodes[1]) == list(range(12, 25))
    assert len({episode.meta["seed"] for episode in episodes}) == 3


def test_clocks_that_differ_are_told_and_log_time_helps(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", Recorded(every(0.1, 2.0), every(0.1, 2.0), delay=0.01, shift=-3600).messages())
    with pytest.raises(InvalidInput, match=r"longest stretch with all topics is 0 control steps.*take the recorder's"):
        read_episodes(bag, WANTED)
    (episode,) = read_episodes(bag, replace(WANTED, log_time=True))
    assert len(episode) == 20


def test_without_a_header_the_log_time_counts(tmp_path: Path) -> None:
    bare = [
        (topic, at, content.twist if topic == "/cmd" else content)
        for topic, at, content in Recorded(every(0.1, 2.0), every(0.1, 2.0)).messages()
    ]
    wanted = replace(WANTED, command_fields=("linear.x", "linear.y"))
    (episode,) = read_episodes(write(tmp_path / "bag", bare), wanted)
    assert episode.controls[3, 0] == np.float32(0.003)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"observation_topic": "/camera_2"}, UnknownName, r"'/camera_2'; valid names: /camera, /cmd$"),
        ({"command_fields": ("twist.linear.x", "twist.y")}, InvalidInput, r"/cmd .*no 'y'.*there are linear, angular"),
        ({"command_fields": ("twist.linear.x", "twist")}, InvalidInput, r"'twist' is no number, but linear"),
        ({"spec": replace(SPEC, high=(0.01, 1.0))}, InvalidInput, r"vx runs from 0 to 0.02, outside its bounds -1"),
        ({"spec": replace(SPEC, control_dt=0.02)}, InvalidInput, r"image every 0.1 s is too slow"),
        ({"min_steps": 30}, InvalidInput, r"longest stretch with all topics is 20 control steps, 30 are needed"),
        ({"observation_topic": "/cmd"}, InvalidInput, r"/cmd .*no image"),
    ],
)
def test_what_cannot_be_imported_is_refused(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], text: str
) -> None:
    bag = write(tmp_path / "bag", Recorded(every(0.1, 2.0), every(0.1, 2.0)).messages())
    with pytest.raises(error, match=text):
        read_episodes(bag, replace(WANTED, **change))


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", Recorded(every(0.1, 2.0), every(0.1, 2.0)).messages())
    (file,) = bag.glob("*.mcap")
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(file.read_bytes()[:20])
    for path in (broken, tmp_path / "missing.mcap", tmp_path):
        with pytest.raises(InvalidInput, match="is no readable recording"):
            read_episodes(path, WANTED)
    shutil.copy(file, tmp_path / "other.txt")
    with pytest.raises(InvalidInput, match="is no readable recording"):
        read_episodes(tmp_path / "other.txt", WANTED)


@pytest.mark.parametrize(
    ("encoding", "convert"),
    [
        ("rgb8", lambda p: p),
        ("bgr8", lambda p: p[:, :, ::-1]),
        ("rgba8", lambda p: np.dstack([p, p[:, :, :1]])),
        ("bgra8", lambda p: np.dstack([p[:, :, ::-1], p[:, :, :1]])),
    ],
)
def test_colours_survive_every_encoding(encoding: str, convert: Callable[[np.ndarray], np.ndarray]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (rgb(image(0, np.ascontiguousarray(convert(pixels)), encoding, padding=3)) == pixels).all()


def test_grey_compressed_and_unknown_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    grey = rgb(image(0, pixels[:, :, :1], "mono8"))
    assert (grey == pixels[:, :, :1]).all()
    png = cv2.imencode(".png", np.ascontiguousarray(pixels[:, :, ::-1]))[1].ravel()
    packed = message("sensor_msgs/msg/CompressedImage", header=header(0), format="png", data=png)
    assert (rgb(packed) == pixels).all()
    with pytest.raises(InvalidInput, match="'png' cannot be decoded"):
        rgb(message("sensor_msgs/msg/CompressedImage", header=header(0), format="png", data=png[:9]))
    with pytest.raises(UnknownName, match="unknown image encoding '32FC1'; valid names: bgr8"):
        rgb(image(0, pixels, "32FC1"))
    short = image(0, pixels)
    short.data = short.data[:-1]
    with pytest.raises(InvalidInput, match="6 rows of 24 bytes must hold 8 rgb8 pixels, got 143 bytes"):
        rgb(short)


def test_larger_images_are_averaged_down(tmp_path: Path) -> None:
    stripes = np.zeros((32, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    recorded = Recorded(every(0.1, 2.0), every(0.1, 2.0)).messages()
    wide = [(t, at, image(at, stripes) if t == "/camera" else content) for t, at, content in recorded]
    (episode,) = read_episodes(write(tmp_path / "bag", wide), WANTED)
    assert (episode.observations == 100).all()


def test_elements_by_number_and_by_name() -> None:
    joints = message(
        "sensor_msgs/msg/JointState",
        header=header(0),
        name=["a", "b"],
        position=np.array([0.1, 0.2]),
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )
    assert number(joints, "position.1") == 0.2
    with pytest.raises(InvalidInput, match=r"no '2' of field 'position.2'; there are 0 to 1"):
        number(joints, "position.2")
    status = message("diagnostic_msgs/msg/DiagnosticStatus", level=3, name="arm", message="", hardware_id="", values=[])
    assert (
        number(message("diagnostic_msgs/msg/DiagnosticArray", header=header(0), status=[status]), "status.arm.level")
        == 3
    )


def recorder_file(path: Path, definitions: Callable[[str], str], ticks: int) -> Path:
    """As the recorder node writes: images, and the simulator's truth about the period that ends with them."""
    with path.open("wb") as file:
        writer = McapWriter(file)
        kinds = {"/image": "sensor_msgs/msg/Image", "/ground_truth": "worldpilot_msgs/msg/GroundTruth"}
        schemas = {topic: writer.register_msgdef(kind, definitions(kind)) for topic, kind in kinds.items()}
        for tick in range(ticks):
            at = START + tick * 10**8
            stamp = {"stamp": {"sec": at // 10**9, "nanosec": at % 10**9}, "frame_id": ""}
            picture = {"height": 8, "width": 8, "encoding": "rgb8", "is_bigendian": 0, "step": 24}
            pixels = np.full((8, 8, 3), tick, np.uint8).tobytes()
            signals = [{"name": n, "unit": "m", "value": v} for n, v in (("block_x", tick / 64), ("block_y", -1.0))]
            truth = {"signals": signals, "overlap": 0.5, "control": [tick / 128, 0.25], "faults": []}
            log = at + 3_000_000
            writer.write_message("/image", schemas["/image"], {"header": stamp, "data": pixels, **picture}, log, log)
            writer.write_message("/ground_truth", schemas["/ground_truth"], {"header": stamp, **truth}, log, log)
        writer.finish()
    return path


IMAGE = """std_msgs/Header header
uint32 height
uint32 width
string encoding
uint8 is_bigendian
uint32 step
uint8[] data"""
JOINT_STATE = """std_msgs/Header header
string[] name
float64[] position
float64[] velocity
float64[] effort"""
STANDARD = {"sensor_msgs/msg/Image": IMAGE, "sensor_msgs/msg/JointState": JOINT_STATE}
USED = {
    "std_msgs/Header": "builtin_interfaces/Time stamp\nstring frame_id",
    "builtin_interfaces/Time": "int32 sec\nuint32 nanosec",
}


def definition(kind: str) -> str:
    messages = Path(__file__).resolve().parents[3] / "ros2_ws" / "src" / "worldpilot_msgs" / "msg"
    main_text = STANDARD.get(kind) or (messages / f"{kind.rsplit('/', 1)[-1]}.msg").read_text()
    used = USED | ({} if kind in STANDARD else {"worldpilot_msgs/Signal": (messages / "Signal.msg").read_text()})
    return "\n".join([main_text, *(f"{'=' * 80}\nMSG: {name}\n{text}" for name, text in used.items())])


def state_file(path: Path, ticks: int, late: tuple[int, ...] = ()) -> Path:
    """As the recorder node writes of a state task: states, and joint commands that answer each of them at once.

    Those that answer the ticks `late` come too late, and the driver says so.
    """
    with path.open("wb") as file:
        writer = McapWriter(file)
        kinds = {"/state": "worldpilot_msgs/msg/State", "/command": "sensor_msgs/msg/JointState"}
        schemas = {topic: writer.register_msgdef(kind, definition(kind)) for topic, kind in kinds.items()}
        for tick in range(ticks):
            at = START + tick * 2 * 10**7
            stamp = {"stamp": {"sec": at // 10**9, "nanosec": at % 10**9}, "frame_id": ""}
            state = {"header": stamp, "names": ["pitch", "height"], "values": [tick / 64, -tick / 64], "control": []}
            if late:
                state["control"] = [(tick - 1 - (tick - 1 in late)) / 128]
            writer.write_message("/state", schemas["/state"], state, at, at)
            command = {"header": stamp, "name": ["ankle"], "position": [tick / 128], "velocity": [], "effort": []}
            writer.write_message("/command", schemas["/command"], command, at, at)
        writer.finish()
    return path


def test_the_command_line_imports_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag, out = state_file(tmp_path / "run.mcap", 41), tmp_path / "store"
    command = ["import-bag", str(bag), "--out", str(out), "--state-topic", "/state", "--state", "height:m,pitch:rad"]
    command += ["--command-topic", "/command", "--command-fields", "position.0", "--names", "ankle", "--units", "rad"]
    command += ["--low", "-1", "--high", "1", "--control-dt", "0.02", "--block", "2", "--max-steps", "20"]
    assert main(command) == 0
    store = EpisodeStore(out)
    assert store.meta["state"] == {"names": ["height", "pitch"], "units": ["m", "rad"]}
    seen = np.concatenate([episode.observations[:-1] for episode in store])
    assert (seen == np.stack([-np.arange(40), np.arange(40)], 1).astype(np.float32) / 64).all()
    assert (np.concatenate([episode.controls for episode in store])[:, 0] == np.arange(40) / np.float32(128)).all()
    command[command.index("--state") + 1] = "height:m,roll"
    assert main(command) == 2
    assert "unknown state 'roll'; valid names: height, pitch" in capsys.readouterr().err
    assert main([part for part in command if part not in ("--state", "height:m,roll")]) == 2
    assert "--state-topic and --state" in capsys.readouterr().err


def test_what_the_driver_says_it_took_is_believed_before_what_was_sent(tmp_path: Path) -> None:
    wanted = BagImport(
        ActionSpec(("ankle",), ("rad",), (-1.0,), (1.0,), (10.0,), 0.02, 2),
        "/state",
        "/command",
        ("position.0",),
        state=("pitch",),
    )
    (episode,) = read_episodes(state_file(tmp_path / "run.mcap", 41, late=(7, 20)), wanted)
    expected = np.arange(40) / np.float32(128)
    expected[[7, 20]] = expected[[6, 19]]
    assert (episode.controls[:, 0] == expected).all()
    with pytest.raises(InvalidInput, match="took 2 controls, 1 are expected"):
        taken(SimpleNamespace(control=[0.0, 0.1]), 1)


@pytest.mark.parametrize(
    ("content", "text"),
    [({"names": ["a"], "values": np.zeros(2)}, "1 names and 2 values"), ({"data": 1}, "no state")],
)
def test_what_is_no_state_is_refused(content: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        state(SimpleNamespace(**content), ("a",))


def test_the_command_line_imports_the_stacks_own_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag, out = recorder_file(tmp_path / "run.mcap", definition, 41), tmp_path / "store"
    command = ["import-bag", str(bag), "--out", str(out), "--task", "push_t", "--image-topic", "/image"]
    command += ["--command-topic", "/ground_truth", "--command-fields", "control.0,control.1", "--command-at", "1"]
    command += ["--names", "vx,vy", "--units", "m/s,m/s", "--low", "-0.5", "-0.5", "--high", "0.5", "0.5"]
    command += ["--control-dt", "0.1", "--signal", "block_x=/ground_truth:signals.block_x.value:m", "--size", "8"]
    assert main(command) == 0
    assert "needs two or more" in capsys.readouterr().out
    store = EpisodeStore(out)
    assert store.meta["task"] == "push_t"
    assert store.meta["units"] == {"block_x": "m"}
    spec = ActionSpec.from_dict(store.meta["action"])
    assert (spec.names, spec.low, spec.max_rate) == (("vx", "vy"), (-0.5, -0.5), (10.0, 10.0))
    (episode,) = store
    assert seen(episode) == list(range(41))
    assert (episode.controls == np.stack([np.arange(1, 41) / 128, np.full(40, 0.25)], 1).astype(np.float32)).all()
    assert (episode.signals["block_x"] == np.arange(41, dtype=np.float32) / 64).all()
    assert main([*command, "--signal", "block_z=/ground_truth:signals.block_z.value"]) == 2
    assert "no 'block_z' of field" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--signal", "block_z"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"command_fields": ("twist.linear.x",)}, "2 controls need 2 command fields"),
        ({"command_at": 1.5}, r"command_at must lie in \[0, 1\]"),
        ({"max_gap": 0.01}, "at least one control period"),
        ({"max_steps": 3}, "max_steps at least min_steps"),
        ({"signals": {"Block X": ("/odom", "x")}}, "not Block X"),
    ],
)
def test_impossible_wishes_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        replace(WANTED, **change)
