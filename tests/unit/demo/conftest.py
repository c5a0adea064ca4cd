"""A small recording as the recorder node writes them, made without ROS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap_ros2.writer import Writer

from worldpilot.demo.goals import ELSEWHERE, GOAL
from worldpilot.demo.outcome import Event, Outcome

MESSAGES = Path(__file__).resolve().parents[3] / "ros2_ws" / "src" / "worldpilot_msgs" / "msg"
START, TICKS = 1_700_000_000.0, 40  # [s]; 0.1 s each
IMAGE = """std_msgs/Header header
uint32 height
uint32 width
string encoding
uint8 is_bigendian
uint32 step
uint8[] data"""
DEPENDENCIES = {
    "std_msgs/Header": "builtin_interfaces/Time stamp\nstring frame_id",
    "builtin_interfaces/Time": "int32 sec\nuint32 nanosec",
    "worldpilot_msgs/Signal": (MESSAGES / "Signal.msg").read_text(),
}


def definition(name: str) -> str:
    """A message of worldpilot_msgs with the definitions it uses."""
    main = IMAGE if name == "Image" else (MESSAGES / f"{name}.msg").read_text()
    return "\n".join([main, *(f"{'=' * 80}\nMSG: {key}\n{text}" for key, text in DEPENDENCIES.items())])


def ticks() -> Iterator[tuple[str, str, dict[str, Any], float]]:
    """(topic, message, content, stamp): the block lies on the first goal; the monitor says hold from tick 20 to 29."""
    for tick in range(TICKS):
        stamp = START + 0.1 * tick
        header = {"stamp": {"sec": int(stamp), "nanosec": round((stamp - int(stamp)) * 1e9)}, "frame_id": ""}
        pixels = np.full((64, 64, 3), 4 * tick, np.uint8)
        picture = {"height": 64, "width": 64, "encoding": "rgb8", "is_bigendian": 0, "step": 192}
        names = ("pusher_x", "pusher_y", "block_x", "block_y", "block_yaw")
        values = (0.1, 0.1, float(GOAL[0]), float(GOAL[1]), float(GOAL[2]))
        signals = [{"name": n, "unit": "", "value": v} for n, v in zip(names, values, strict=True)]
        held = 20 <= tick < 30
        zero = {"sec": 0, "nanosec": 0}
        alert = {"level": 2 if held else 0, "channel": "", "score": 0.0, "threshold": 0.0, "since": zero, "message": ""}
        planner = {"state": 2 if held else 1, "reason": "the monitor" if held else "", "tick": tick, "missed_ticks": 0}
        planner |= {"alert_level": 0, "reward_json": "", "reward_id": "", "reward_version": 1, "score": -1.0}
        planner |= {"term_names": [], "term_values": [], "solve_ms": 10.0, "observation_age": 0.01, "plan": []}
        error = {"model_id": "", "one_step": 90.0 if held else 1.0, "h_step": 1.0, "disagreement": 0.1}
        truth = {"signals": signals, "overlap": 1.0, "control": [0.0, 0.0], "faults": []}
        yield "/image", "Image", {"header": header, "data": pixels.tobytes(), **picture}, stamp
        yield "/ground_truth", "GroundTruth", {"header": header, **truth}, stamp
        yield "/latent", "Latent", {"header": header, "model_id": "", "z": [0.0], "signals": signals}, stamp
        yield "/prediction_error", "PredictionError", {"header": header, **error}, stamp
        yield "/alert", "Alert", {"header": header, **alert}, stamp
        yield "/planner_status", "PlannerStatus", {"header": header, **planner}, stamp


@pytest.fixture(scope="session")
def recording_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording, in a folder of its own."""
    path = tmp_path_factory.mktemp("run") / "recording.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        schemas: dict[str, Any] = {}
        for topic, message, content, stamp in ticks():
            package = "sensor_msgs" if message == "Image" else "worldpilot_msgs"
            if message not in schemas:
                schemas[message] = writer.register_msgdef(f"{package}/msg/{message}", definition(message))
            nanoseconds = round(stamp * 1e9)
            writer.write_message(topic, schemas[message], content, log_time=nanoseconds, publish_time=nanoseconds)
        writer.finish()
    return path


@pytest.fixture(scope="session")
def events() -> list[Event]:
    """The first goal, a swap after 1 s, a fault after 2 s."""
    return [
        Event(START, "goal", "goal", "the first goal", tuple(GOAL)),
        Event(START + 1.0, "swap", "swap: another pose", "another goal", tuple(ELSEWHERE)),
        Event(START + 1.9, "fault", "teleport", "somebody moves the block"),
        Event(START + 3.9, "end", "end", "the story is told"),
    ]


@pytest.fixture(scope="session")
def outcome(events: list[Event]) -> Outcome:
    """What a story measured whose goal was missed and whose second fault went unnoticed."""
    swap = {"name": "another", "spec": {}, "accepted": True, "message": "", "latency_ms": 12.0, "was_running": True}
    swap |= {"in_force_after_ms": 90.0, "missed_ticks": 1, "best_overlap": 0.5, "reached": False, "seconds": 1.0}
    fault = {"fault": "teleport", "raised": True, "delay_s": 0.4, "message": "surprise 90", "held": True}
    fault |= {"was_running": True, "recovered": True, "repaired": False, "recovered_after_s": 2.0}
    unnoticed = {**fault, "fault": "recolour", "raised": False, "delay_s": None, "held": False, "recovered": False}
    return Outcome(
        goal={"reached": False, "best_overlap": 0.73, "seconds": 1.0, "by_the_model": {"reached": False}},
        swaps=[swap, {**swap, "latency_ms": 20.0, "in_force_after_ms": None}],
        refused={"refused": True, "message": "unknown name <b>block_z</b>", "old_reward_kept": True},
        faults=[fault, {**unnoticed, "recovered_after_s": None}],
        events=events,
    )
