"""A robot of joints without a camera: states in, joint positions out, the same nodes."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Duration
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from worldpilot_msgs.msg import PlannerStatus
from worldpilot_msgs.srv import SwapReward
from worldpilot_nodes import convert, qos
from worldpilot_nodes.base import InForce
from worldpilot_nodes.commands import JointCommands, TwistCommands, carried
from worldpilot_nodes.convert import message_class, state_message

from worldpilot import graph as graphs
from worldpilot.errors import InvalidInput
from worldpilot.sim import push_t
from worldpilot.sim.quadruped import ACTION, ROBOT

NAMES = list(ROBOT.state)
STANDING = np.array([0.27, *[0.0] * 8, *[1.0] * 4, *[0.0, 0.9, -1.8] * 4, *[0.0] * 24], np.float32)


def test_what_carries_a_control_follows_from_its_units() -> None:
    assert isinstance(carried(ACTION, ["linear.x"]), JointCommands)
    assert isinstance(carried(push_t.ACTION, ["linear.x", "linear.y"]), TwistCommands)


def test_joint_positions_go_by_name() -> None:
    commands, control = JointCommands(ACTION), np.linspace(-0.4, 0.4, 12, dtype=np.float32)
    message: Any = commands.message(control[None], 1.5, 1.6, "base_link")
    names, positions = list(message.joint_names), list(message.points[0].positions)
    np.testing.assert_array_equal(commands.command(message).controls, control[None])
    turned = trajectory(names[::-1], positions[::-1])
    np.testing.assert_array_equal(commands.command(turned).controls, control[None])
    for wrong in (
        trajectory(names[:-1], positions[:-1]),
        trajectory(names, positions[:-1]),
        trajectory(names, positions, positions[:-1]),
        trajectory(["other", *names[1:]], positions),
        trajectory([names[1], *names[1:]], positions),
        trajectory(names),
        trajectory(names, [float("nan"), *positions[1:]]),
        trajectory(names, positions, positions, period=0),
    ):
        with pytest.raises(InvalidInput, match=r"fl_hip|finite|time_from_start must rise"):
            commands.command(wrong)


def trajectory(names: list[str], *positions: list[float], period: int = 20_000_000) -> JointTrajectory:
    """One point each `period` [ns]."""
    points = [
        JointTrajectoryPoint(positions=each, time_from_start=Duration(nanosec=i * period))
        for i, each in enumerate(positions)
    ]
    return JointTrajectory(joint_names=names, points=points)


def test_where_nothing_newer_comes_the_driver_goes_on_with_the_plan() -> None:
    commands = JointCommands(ACTION)
    driver = InForce(commands, ACTION, 0.0)
    plan = np.tile(np.array([[0.1], [0.2], [0.3]], np.float32), (1, ACTION.control_dim))
    dt, begins = ACTION.control_dt, 12.0
    assert driver(begins + dt)[0] == 0.0  # nothing was heard yet
    driver.update(commands.message(plan, begins, begins, "base_link"))
    stamps = begins + dt * np.arange(6) + 1e-4  # of the observations with which periods end
    found = [float(driver(stamp)[0]) for stamp in stamps]
    np.testing.assert_allclose(found, [0.1, 0.1, 0.2, 0.3, 0.3, 0.3])  # the first before its time, the last after it
    driver.update(commands.message(plan, begins + 3 * dt, begins, "base_link"))
    assert driver(begins + 5 * dt)[0] == pytest.approx(0.2)  # of a plan that came late, what is for now
    driver.update(commands.message(np.zeros_like(plan[:1]), begins + 9.9, begins, "base_link"))
    assert driver(begins + 6 * dt)[0] == 0.0  # a hold is for at once, whatever its clock says
    driver.update(commands.message(plan, begins, begins, "base_link"))
    time.sleep(qos.LIFESPAN + 0.01)
    assert driver(begins + 2 * dt)[0] == 0.0


@pytest.fixture(scope="module")
def running(start: Callable[..., Any], legged_artifact: Path) -> Any:
    run = start(artifact=legged_artifact, task="quadruped", without=["recorder"])
    run.probe.listen("planner_status", "ground_truth", "state", "joint_command", "latent")
    run.supervisor.wait_for("active", timeout=60)
    run.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.RUNNING, timeout=10)
    return run


def test_states_lead_to_joint_positions(running: Any) -> None:
    state = running.probe.wait_for("state", lambda _: True, timeout=2.0).message
    assert list(state.names) == NAMES
    command = running.probe.wait_for("joint_command", lambda c: any(c.points[0].positions), timeout=2.0).message
    assert tuple(command.joint_names) == ACTION.names
    assert len(command.points) == 10  # as much of the plan as a command lives
    stamps = {convert.seconds(heard.message.header.stamp) for heard in running.probe.since("state", 0.0)}
    assert convert.seconds(command.header.stamp) in stamps  # from the observation that it answers on
    assert command.header.frame_id == "base_link"
    truth = running.probe.wait_for("ground_truth", lambda t: any(t.control), timeout=2.0).message
    assert math.isnan(truth.overlap)
    for topic in ("image", "command"):
        assert not running.probe.node.get_publishers_info_by_topic(topic)
    assert running.probe.node.get_publishers_info_by_topic("joint_command")


def test_a_standing_reward_counts_whatever_is_swapped_in(running: Any) -> None:
    spec = '{"terms": [{"plugin": "expression", "params": {"expression": "-abs(forward_velocity)"}}]}'
    answer = running.probe.call(SwapReward, "mpc/swap_reward", spec_json=spec)
    assert answer.accepted, answer.message
    status = running.probe.wait_for(
        "planner_status", lambda s: s.reward_id == answer.reward_id and len(s.term_names) > 1, timeout=2.0
    ).message
    standing = json.loads(graphs.load().settings("quadruped", "mpc")["standing_reward"])["terms"]
    assert [name.startswith("standing_") for name in status.term_names] == [False, *[True] * len(standing)]


def test_a_step_is_stamped_with_the_moment_it_was_due(running: Any) -> None:
    begin = time.monotonic()
    time.sleep(1.0)
    now = running.probe.node.get_clock().now().nanoseconds * 1e-9 - time.monotonic()
    heard = running.probe.since("state", begin)
    stamps = np.array([convert.seconds(state.message.header.stamp) for state in heard])
    steps = np.diff(stamps) / ACTION.control_dt
    assert len(stamps) > 20
    assert steps.min() > 0.5  # no two steps have one stamp
    np.testing.assert_allclose(steps, np.round(steps), atol=0.05)  # nor is there jitter in them
    assert min(now + state.at - stamp for state, stamp in zip(heard, stamps, strict=True)) > 0  # nor a future


def test_a_plan_that_was_made_ahead_is_not_waited_for(running: Any) -> None:
    begin = time.monotonic()
    time.sleep(3.0)
    latents = np.array([latent.at for latent in running.probe.since("latent", begin)])
    statuses = [s for s in running.probe.since("planner_status", begin) if s.at > latents[0]]
    took = np.array([1e-3 * s.message.solve_ms for s in statuses])
    waited = np.array([s.at - latents[latents < s.at][-1] for s in statuses])
    plans = took > 5 * np.median(took)  # one tick in six begins a new one, the others follow it
    assert plans.sum() > 10
    longer = np.median(waited[plans]) - np.median(waited[~plans])
    assert longer < 0.5 * np.median(took[plans])


def test_an_episode_begins_when_asked(running: Any) -> None:
    assert running.probe.call(Trigger, "sim/reset").success
    running.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.RUNNING, timeout=5.0)
    running.supervisor.stop()


class Robot:
    """Says `state` at 50 Hz until it is closed."""

    def __init__(self, node: Any) -> None:
        self.names, self.values = NAMES, STANDING
        self.control: np.ndarray | None = None  # that its driver says it took
        spec = graphs.load().topics["state"]
        self._node, self._closed = node, threading.Event()
        self._publisher = node.create_publisher(message_class(spec.type), "state", qos.PUBLISHERS[spec.qos])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._node.destroy_publisher(self._publisher)

    def _run(self) -> None:
        while not self._closed.wait(0.02):
            now = self._node.get_clock().now().nanoseconds * 1e-9
            self._publisher.publish(state_message(self.values, self.names, now, "base_link", self.control))


@pytest.fixture(scope="module")
def alone(start: Callable[..., Any], legged_artifact: Path) -> Iterator[Any]:
    """The nodes of a robot, without the simulator: the test is the robot."""
    run = start(artifact=legged_artifact, task="quadruped", without=["sim", "recorder"])
    run.probe.listen("planner_status", "joint_command", "latent")
    run.robot = Robot(run.probe.node)
    run.supervisor.wait_for("active", timeout=60)
    yield run
    run.robot.close()


def test_what_the_driver_says_it_took_goes_with_the_latent(alone: Any) -> None:
    alone.probe.wait_for("latent", lambda latent: not latent.control, timeout=10)
    taken = np.linspace(-0.1, 0.1, ACTION.control_dim, dtype=np.float32)
    alone.robot.control = taken
    alone.probe.wait_for("latent", lambda latent: np.array_equal(latent.control, taken), timeout=2.0)
    alone.robot.control = taken[:-1]
    alone.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.HOLD, timeout=2.0)
    wait_for_log(alone, "world_model", "12 finite numbers, or none, are expected")
    alone.robot.control = None
    alone.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.RUNNING, timeout=5.0)


def test_a_control_that_the_driver_took_is_believed_before_the_newest_command() -> None:
    commands = JointCommands(ACTION)
    driver = InForce(commands, ACTION, 0.0)
    sent, taken = (np.full(ACTION.control_dim, value, np.float32) for value in (0.1, 0.05))
    driver.update(commands.message(sent[None], 0.0, 0.0, "base_link"))
    np.testing.assert_array_equal(driver(0.02), sent)
    np.testing.assert_array_equal(driver(0.02, taken), taken)


def not_finite() -> np.ndarray:
    values = STANDING.copy()
    values[NAMES.index("pitch")] = np.nan
    return values


@pytest.mark.parametrize(
    ("names", "values", "said"),
    [
        (NAMES[1:], STANDING[1:], "missing: height"),
        ([*NAMES, "battery"], np.append(STANDING, np.float32(1)), "unknown: battery"),
        ([NAMES[1], NAMES[0], *NAMES[2:]], STANDING, "in this order, height, forward_velocity"),
        (NAMES, STANDING[:-1], "49 names, 48 values"),
        (NAMES, not_finite(), "not finite: pitch"),
    ],
    ids=["missing", "unknown", "order", "short", "nan"],
)
def test_a_state_that_the_model_does_not_know_holds_the_robot(
    alone: Any, names: list[str], values: np.ndarray, said: str
) -> None:
    alone.robot.names, alone.robot.values = NAMES, STANDING
    alone.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.RUNNING, timeout=10)
    begin = time.monotonic()
    alone.robot.names, alone.robot.values = names, values
    held = alone.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.HOLD, timeout=2.0, begin=begin)
    assert held.at - begin <= 0.6
    alone.probe.wait_for("joint_command", lambda c: not any(c.points[0].positions), timeout=0.5)
    wait_for_log(alone, "world_model", said)


def wait_for_log(run: Any, node: str, said: str) -> None:
    deadline = time.monotonic() + 2.0
    while not any(source == node and said in line for source, line in run.log):
        assert time.monotonic() < deadline, f"{node} has not said {said!r}"
        time.sleep(0.05)
