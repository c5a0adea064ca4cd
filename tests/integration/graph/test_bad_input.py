"""The nodes of a robot, without the simulator: the test is the camera, the world model or the monitor."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import Image
from worldpilot_msgs.msg import PlannerStatus
from worldpilot_nodes import qos
from worldpilot_nodes.convert import header, image_message, message_class

from worldpilot import graph as graphs

GOOD = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


class Camera:
    """Sends `picture` at 10 Hz until it is closed; None: nothing."""

    def __init__(self, node: Any) -> None:
        self.picture: Any = GOOD
        self._node, self._closed = node, threading.Event()
        self._publisher = node.create_publisher(Image, "image", qos.PUBLISHERS["sensor"])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(0.1):
            now = self._node.get_clock().now().nanoseconds * 1e-9
            picture = self.picture
            if picture is None:
                continue
            message = picture if not isinstance(picture, np.ndarray) else image_message(picture, now, "camera")
            message.header = header(now, "camera")
            self._publisher.publish(message)


@pytest.fixture(scope="module")
def graph(start: Callable[..., Any]) -> Iterator[Any]:
    run = start(without=["sim", "recorder"])
    run.probe.listen("planner_status", "latent", "command")
    run.camera = Camera(run.probe.node)
    run.supervisor.wait_for("active", timeout=60)
    yield run
    run.camera.close()


@pytest.fixture
def running(graph: Any) -> Any:
    graph.camera.picture = GOOD
    graph.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.RUNNING, timeout=10)
    return graph


def wrong_encoding() -> Any:
    message = image_message(np.zeros((64, 64, 3), np.uint8), 0.0, "camera")
    message.encoding = "bgr8"
    return message


def cut_short() -> Any:
    message = image_message(np.zeros((64, 64, 3), np.uint8), 0.0, "camera")
    message.data = message.data[:100]
    return message


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((64, 64, 3), np.uint8), "blank"),
        (np.full((64, 64, 3), 255, np.uint8), "blank"),
        (np.zeros((32, 64, 3), np.uint8), r"(64, 64, 3)"),
        (wrong_encoding(), "rgb8"),
        (cut_short(), "bytes"),
        (None, None),
    ],
    ids=["black", "white", "small", "bgr8", "short", "none"],
)
def test_a_camera_that_shows_nothing_usable_holds_the_robot(running: Any, picture: Any, said: str | None) -> None:
    begin = time.monotonic()
    running.camera.picture = picture
    held = running.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.HOLD, timeout=2.0, begin=begin)
    assert held.at - begin <= 0.6  # 0.5 s after the last good picture
    assert held.message.reason
    running.probe.wait_for("command", lambda c: c.twist.linear.x == c.twist.linear.y == 0.0, timeout=0.5)
    if said is not None:
        deadline = time.monotonic() + 2.0
        while not any(node == "world_model" and said in line for node, line in running.log):
            assert time.monotonic() < deadline, f"world_model has not said {said!r}"
            time.sleep(0.05)
    running.camera.picture = GOOD
    running.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.RUNNING, timeout=5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda latent: latent.z.__setitem__(3, float("nan")), "not finite"),
        (lambda latent: latent.z.__setitem__(0, float("inf")), "not finite"),
        (lambda latent: latent.z.pop(), "16 dimensions"),
        (lambda latent: setattr(latent, "model_id", "another"), "same artifact"),
    ],
    ids=["nan", "inf", "short", "model"],
)
def test_a_bad_latent_holds_the_robot(running: Any, change: Callable[[Any], Any], said: str) -> None:
    spec = graphs.load().topics["latent"]
    publisher = running.probe.node.create_publisher(message_class(spec.type), "latent", qos.PUBLISHERS[spec.qos])
    latent = running.probe.newest("latent")
    change(latent)
    begin = time.monotonic()
    while publisher.get_subscription_count() < 3:
        assert time.monotonic() < begin + 5.0, "the nodes have not found the publisher"
        time.sleep(0.05)
    held: list[PlannerStatus] = []
    while not held:  # the planner keeps only the newest latent, which may be a good one: send again
        assert time.monotonic() < begin + 7.0, f"the planner has not held for {said!r}"
        publisher.publish(latent)
        time.sleep(0.05)
        statuses = [heard.message for heard in running.probe.since("planner_status", begin)]
        held = [status for status in statuses if status.state == PlannerStatus.HOLD and said in status.reason]
    running.probe.node.destroy_publisher(publisher)
    running.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.RUNNING, timeout=5)


def test_a_command_that_is_not_finite_ends_no_node(running: Any) -> None:
    spec = graphs.load().topics["command"]
    command_class = message_class(spec.type)
    publisher = running.probe.node.create_publisher(command_class, "command", qos.PUBLISHERS[spec.qos])
    starts = {name: status.starts for name, status in running.supervisor.status.items()}
    bad = command_class(header=header(running.probe.node.get_clock().now().nanoseconds * 1e-9, "world"))
    bad.twist.linear.x = float("nan")
    deadline = time.monotonic() + 7.0
    for node in ("world_model", "action_prior"):
        while not any(name == node and "command not used" in line for name, line in running.log):
            assert time.monotonic() < deadline, f"{node} has not refused the command"
            publisher.publish(bad)
            time.sleep(0.05)
    running.probe.node.destroy_publisher(publisher)
    assert {name: status.starts for name, status in running.supervisor.status.items()} == starts
    running.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.RUNNING, timeout=5)
