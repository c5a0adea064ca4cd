"""A running graph over real DDS, on a domain of its own, and a probe that watches it as any ROS client could."""

import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("worldpilot_msgs", reason="the ROS workspace is not sourced: . .venv/ros_env.bash")

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from worldpilot_nodes import qos
from worldpilot_nodes.actions import ActionClient
from worldpilot_nodes.convert import message_class

from tests.support.futures import answered
from worldpilot import graph as graphs
from worldpilot.calibration.thresholds import Thresholds
from worldpilot.models.artifact import update_manifest
from worldpilot.supervisor import Supervisor

LAUNCH = Path(__file__).resolve().parents[3] / "launch"
for name, value in graphs.load(LAUNCH / "graph.yaml").environment.items():
    os.environ.setdefault(name, value)  # the probe is found as quickly as the nodes


STALL = 0.2  # [s] of the half second that a hold may take


class Pulse:
    """Wakes every 20 ms on each core and remembers how late it was: by more than a stall only if the core or this
    process stood still, and with it a node of the graph, or what the test heard of it."""

    def __init__(self) -> None:
        self.worst = 0.0  # [s], since the test began
        for core in os.sched_getaffinity(0):
            threading.Thread(target=self._beat, args=(core,), daemon=True).start()

    def _beat(self, core: int) -> None:
        os.sched_setaffinity(0, {core})  # of this thread
        while True:
            begin = time.monotonic()
            time.sleep(0.02)
            self.worst = max(self.worst, time.monotonic() - begin - 0.02)

    def stalled(self, error: BaseException | None) -> bool:
        """Whether a core stood still for a while: what the test says of times is nothing about the graph then.

        It is asked after each test; with the `error` of one that failed.
        """
        if error is not None and self.worst > STALL:
            warnings.warn(f"a core stood still for {self.worst:.2f} s: the test is run once more", stacklevel=2)
        return self.worst > STALL


pulse = Pulse()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker("ros")
            item.add_marker(pytest.mark.flaky(reruns=1, condition=pulse.stalled))


def pytest_runtest_setup() -> None:
    pulse.worst = 0.0


@dataclass
class Heard:
    """A message and when it arrived [s, monotonic]."""

    at: float
    message: Any


@dataclass
class Probe:
    """Hears topics, calls services."""

    node: Any
    heard: dict[str, list[Heard]] = field(default_factory=dict)
    clients: dict[str, Any] = field(default_factory=dict)  # of services and actions
    changed: threading.Condition = field(default_factory=threading.Condition)

    def listen(self, *topics: str) -> None:
        """Begin to keep what comes on topics of the graph."""
        for name in topics:
            spec = graphs.load(LAUNCH / "graph.yaml").topics[name]
            self.heard[name] = []
            self.node.create_subscription(
                message_class(spec.type),
                name,
                lambda message, name=name: self._hear(name, message),
                _deep(qos.SUBSCRIPTIONS[spec.qos]),
            )

    def since(self, topic: str, begin: float) -> list[Heard]:
        """What has come since `begin` [s, monotonic]."""
        with self.changed:
            return [heard for heard in self.heard[topic] if heard.at >= begin]

    def newest(self, topic: str) -> Any:
        """The newest message; fails the test if none has come."""
        with self.changed:
            assert self.heard[topic], f"nothing has come on {topic}"
            return self.heard[topic][-1].message

    def wait_for(
        self, topic: str, holds: Callable[[Any], bool], *, timeout: float, begin: float | None = None
    ) -> Heard:
        """The first message for which `holds`, of those that come within `timeout` [s] of `begin` (default: now)."""
        begin = time.monotonic() if begin is None else begin

        def first() -> Heard | None:
            return next((h for h in self.heard[topic] if h.at >= begin and holds(h.message)), None)

        with self.changed:
            found = self.changed.wait_for(first, max(begin + timeout - time.monotonic(), 0.0))
            newest = self.heard[topic][-1].message if self.heard[topic] else None
            assert found, f"{topic}: not within {timeout} s; newest: {newest}"
            return found

    def call(self, service: Any, name: str, /, *, timeout: float = 5.0, **fields: Any) -> Any:
        """The response of a service."""
        self._keep(name, lambda: self.node.create_client(service, name))
        assert self.clients[name].wait_for_service(timeout), f"there is no service {name}"
        return answered(self.clients[name].call_async(service.Request(**fields)), timeout, name)

    def action(self, action: Any, name: str, /) -> ActionClient:
        """The client of an action that is there."""
        self._keep(name, lambda: ActionClient(self.node, action, name))
        assert self.clients[name].wait_for_server(5.0), f"there is no action {name}"
        return self.clients[name]

    def _keep(self, name: str, make: Callable[[], Any]) -> None:
        if name not in self.clients:
            self.clients[name] = make()
            time.sleep(0.2)  # the middleware drops answers to a client that the server has not discovered yet

    def _hear(self, topic: str, message: Any) -> None:
        with self.changed:
            self.heard[topic].append(Heard(time.monotonic(), message))
            self.changed.notify_all()


def _deep(profile: QoSProfile) -> QoSProfile:
    """A test misses nothing, however late it is scheduled."""
    return QoSProfile(depth=1000, reliability=profile.reliability, durability=profile.durability)


@dataclass
class Running:
    """A graph that runs."""

    supervisor: Supervisor
    probe: Probe
    log: list[tuple[str, str]]


@pytest.fixture(scope="session")
def domain() -> int:
    """The ROS domain of this test run."""
    return int(os.environ.get("ROS_DOMAIN_ID") or 1 + os.getpid() % 100)


@pytest.fixture(scope="module")
def probe(domain: int) -> Iterator[Probe]:
    """A client on the domain, spinning in a thread."""
    context = Context()
    rclpy.init(context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("probe", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    yield Probe(node)
    executor.shutdown(timeout_sec=1.0)
    try_shutdown(context=context)  # its node is left: Fast DDS may wait for ever when it is destroyed as peers leave
    thread.join(timeout=2.0)


@pytest.fixture(scope="session")
def legged_artifact(tiny_legged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny artifact of the quadruped with thresholds that nothing exceeds."""
    return with_thresholds(tiny_legged, tmp_path_factory.mktemp("legged") / "quadruped")


def with_thresholds(artifact: Path, copy: Path) -> Path:
    """A copy of an artifact with thresholds that nothing exceeds."""
    shutil.copytree(artifact, copy)

    def calibrate(manifest: dict[str, Any]) -> None:
        manifest["thresholds"] = Thresholds(
            model_id=manifest["model_id"],
            behaviours=("run",),
            alpha=0.05,
            episodes=100,
            scales={"one_step": 1.0, "h_step": 1.0, "disagreement": 1.0},
            limits={"surprise": 1e9},
            quantiles=tuple(np.geomspace(0.1, 10.0, 63).tolist()),
        ).to_dict()

    update_manifest(copy, calibrate)
    return copy


@pytest.fixture(scope="module")
def start(domain: int, probe: Probe, tiny_artifact: Path) -> Iterator[Callable[..., Running]]:
    """Starts graphs with the tiny artifact; they end with the module."""
    supervisors: list[Supervisor] = []

    def start(*, artifact: Path | None = None, **options: Any) -> Running:
        log: list[tuple[str, str]] = []
        settings = {"*": {"artifact": str(artifact or tiny_artifact)}, **options.pop("settings", {})}
        supervisor = Supervisor(
            graphs.load(LAUNCH / "graph.yaml"),
            task=options.pop("task", "push_t"),
            settings=settings,
            echo=lambda node, line: log.append((node, line)),
            domain_id=domain,
            **options,
        )
        supervisors.append(supervisor)
        supervisor.start()
        return Running(supervisor, probe, log)

    yield start
    for supervisor in supervisors:
        supervisor.stop()
