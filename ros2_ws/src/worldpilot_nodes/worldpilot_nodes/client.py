"""A running graph seen from a plain Python program: the newest of what it says, and its services as methods."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import rclpy
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from worldpilot_msgs.action import ReachGoal, Reason
from worldpilot_msgs.msg import Alert, GroundTruth, PlannerStatus
from worldpilot_msgs.srv import InjectFault, ListRewards, SwapReward

from worldpilot.errors import InvalidInput, NotReady
from worldpilot.graph import load
from worldpilot_nodes import qos
from worldpilot_nodes.actions import ActionClient
from worldpilot_nodes.base import Age
from worldpilot_nodes.convert import message_class

_NEEDED = {"mpc/swap_reward": SwapReward, "sim/inject_fault": InjectFault}  # met at the start, discovered before use
_QUESTIONS = (GetParameters, GetState, ListRewards)
_TOPICS = ("planner_status", "alert", "ground_truth", "prediction_error")


class Client:
    """Blocking calls from one thread; messages arrive in another.

    Args:
        domain_id: ROS_DOMAIN_ID of the graph; None: as in the environment.
        namespace: of the graph.
        timeout: how long a service may take to appear or to answer [s].
    """

    def __init__(self, *, domain_id: int | None = None, namespace: str = "", timeout: float = 5.0) -> None:
        self._newest: dict[str, Any] = {}  # topic -> message
        self._ages = {name: Age() for name in _TOPICS}
        self._timeout = timeout
        self._clients: dict[str, Any] = {}  # by the service's name
        self._arrived = threading.Condition()
        self._context = Context()
        for name, value in load().environment.items():  # read once by the middleware, when it starts
            os.environ.setdefault(name, value)
        rclpy.init(context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("client", context=self._context, namespace=namespace)
        topics = load().topics
        for name in _TOPICS:
            spec = topics[name]
            self._node.create_subscription(
                message_class(spec.type), name, lambda m, name=name: self._take(name, m), qos.SUBSCRIPTIONS[spec.qos]
            )
        for service, kind in _NEEDED.items():
            self._client(kind, service)
        self._reach = ActionClient(self._node, ReachGoal, "mpc/reach_goal")
        self._reason = ActionClient(self._node, Reason, "reasoning/reason")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def status(self) -> PlannerStatus:
        """The planner's newest."""
        return self._newest["planner_status"]

    @property
    def moves(self) -> bool:
        """Whether the planner runs freely."""
        return self.status.state == PlannerStatus.RUNNING

    @property
    def held(self) -> bool:
        """Whether the planner holds the robot."""
        return self.status.state == PlannerStatus.HOLD

    @property
    def alarmed(self) -> bool:
        """Whether the monitor asks for a hold."""
        return self.alert.level == Alert.HOLD

    @property
    def alert(self) -> Alert:
        """The monitor's newest."""
        return self._newest["alert"]

    @property
    def truth(self) -> GroundTruth:
        """The simulator's newest."""
        return self._newest["ground_truth"]

    def age(self, topic: str) -> float:
        """How long ago a topic last spoke [s]."""
        return self._ages[topic]()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=1.0)
        self._context.try_shutdown()
        self._thread.join(timeout=2.0)
        self._node.destroy_node()

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Block until `condition` holds, looking at each message; False if it doesn't within `timeout` [s]."""
        with self._arrived:
            return self._arrived.wait_for(condition, max(timeout, 0.0))

    def wait_ready(self, timeout: float) -> None:
        """Block until every topic has spoken and every service is there.

        Raises:
            NotReady: something is missing after `timeout` [s].
        """
        end = time.monotonic() + timeout
        if not self.wait_until(lambda: all(name in self._newest for name in _TOPICS), timeout):
            raise NotReady(
                f"nothing came on {', '.join(n for n in _TOPICS if n not in self._newest)} in {timeout:.0f} s"
            )
        waits = {
            **{service: self._client(kind, service).wait_for_service for service, kind in _NEEDED.items()},
            "mpc/reach_goal": self._reach.wait_for_server,
        }
        for name, wait in waits.items():
            if not wait(timeout_sec=max(end - time.monotonic(), 0.0)):
                raise NotReady(f"{name} is not there after {timeout:.0f} s")

    def swap_reward(self, spec: Mapping[str, Any] | str) -> SwapReward.Response:
        """Ask for another reward, as data or as JSON; the answer says whether it was accepted, and if not, why."""
        text = spec if isinstance(spec, str) else json.dumps(spec)
        return self.call(SwapReward, "mpc/swap_reward", spec_json=text)

    def inject_fault(self, name: str, **params: float) -> None:
        """Make something go wrong in the simulation.

        Raises:
            InvalidInput: it was refused.
        """
        response = self.call(InjectFault, "sim/inject_fault", name=name, params_json=json.dumps(params))
        if not response.success:
            raise InvalidInput(response.message)

    def reach_pose(
        self, x: float, y: float, yaw: float, *, tolerance: float, yaw_tolerance: float, timeout: float
    ) -> "Reaching":
        """Start the action for a goal pose [m, m, rad]; returns when it is accepted.

        Raises:
            InvalidInput: it was rejected.
        """
        goal = ReachGoal.Goal(kind=ReachGoal.Goal.POSE, x=x, y=y, yaw=yaw, timeout=timeout)
        goal.tolerance, goal.yaw_tolerance = tolerance, yaw_tolerance
        reaching = Reaching()
        handle = self._wait(self._reach.send_goal_async(goal, feedback_callback=reaching.hear), "mpc/reach_goal")
        if not handle.accepted:
            raise InvalidInput("mpc/reach_goal: the goal was rejected; the mpc node's log says why")
        reaching.start(handle)
        return reaching

    def reason(
        self,
        instruction: str,
        *,
        propose: bool = False,
        deadline: float = 0.0,
        hear: Callable[[str], None] | None = None,
    ) -> "Reasoning":
        """Give an instruction in words; returns when it is accepted.

        Args:
            instruction: at most 2000 characters.
            propose: only say which reward it would be.
            deadline: from acceptance to result [s]; 0: the node's default.
            hear: called with what the model says, piece by piece, in another thread.

        Raises:
            NotReady: there is no reasoning node.
            InvalidInput: it is busy.
        """
        if not self._reason.wait_for_server(timeout_sec=self._timeout):
            raise NotReady("reasoning/reason is not there; the node is optional: `worldpilot up --with reasoning`")
        mode = Reason.Goal.PROPOSE if propose else Reason.Goal.APPLY
        goal = Reason.Goal(instruction=instruction, mode=mode, deadline=deadline)
        sent = self._reason.send_goal_async(goal, lambda m: hear(m.feedback.text) if hear is not None else None)
        handle: Any = self._wait(sent, "reasoning/reason")
        if not handle.accepted:
            raise InvalidInput("reasoning/reason: busy with another instruction, or not active; try again later")
        return Reasoning(handle)

    def has(self, kind: Any, service: str, timeout: float) -> bool:
        """Whether a service is there within `timeout` [s]."""
        return self._client(kind, service).wait_for_service(timeout_sec=timeout)

    def call(self, kind: Any, service: str, *, timeout: float | None = None, **fields: Any) -> Any:
        """The answer of any service of the graph; what only asks is repeated each second until it is answered.

        A service that has not discovered its client yet carries out a request, but its answer is lost (rmw_fastrtps).

        Raises:
            NotReady: it is not there, or has not answered in `timeout` [s] (default: the client's).
        """
        if not self.has(kind, service, self._timeout):
            raise NotReady(f"{service} is not there after {self._timeout:.0f} s; does the graph run, on this domain?")
        client, limit = self._client(kind, service), timeout or self._timeout
        tries = max(round(limit), 1) if kind in _QUESTIONS else 1
        for _ in range(tries):
            with contextlib.suppress(NotReady):
                return self._wait(client.call_async(kind.Request(**fields)), service, limit / tries)
        raise NotReady(f"{service} has not answered in {limit:.0f} s")

    def parameter(self, node: str, name: str) -> Any:
        """The value of a node's parameter; None if it has none of that name."""
        answer = self.call(GetParameters, f"{node}/get_parameters", names=[name])
        return parameter_value_to_python(answer.values[0]) if answer.values else None

    def set_parameter(self, node: str, name: str, value: Any) -> None:
        """Set a node's parameter.

        Raises:
            InvalidInput: it was refused.
        """
        parameter = Parameter(name, value=value).to_parameter_msg()
        (result,) = self.call(SetParameters, f"{node}/set_parameters", parameters=[parameter]).results
        if not result.successful:
            raise InvalidInput(f"{node}.{name}: {result.reason}")

    def _client(self, kind: Any, service: str) -> Any:
        """Of a service, kept: a new one must first be discovered."""
        if service not in self._clients:
            self._clients[service] = self._node.create_client(kind, service)
        return self._clients[service]

    def _wait(self, future: Future, what: str, timeout: float | None = None) -> Any:
        done, limit = threading.Event(), timeout or self._timeout
        future.add_done_callback(lambda _: done.set())
        if not done.wait(limit):
            raise NotReady(f"{what} has not answered in {limit:.0f} s")
        return future.result()

    def _take(self, topic: str, message: Any) -> None:
        with self._arrived:
            self._newest[topic] = message
            self._ages[topic].touch()
            self._arrived.notify_all()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()


class Reaching:
    """A ReachGoal under way."""

    def __init__(self) -> None:
        self.feedback: ReachGoal.Feedback | None = None  # the newest
        self.result: ReachGoal.Result | None = None  # None while it is under way

    def start(self, handle: Any) -> None:
        """The goal was accepted."""
        handle.get_result_async().add_done_callback(self._finish)

    def hear(self, message: Any) -> None:
        """Feedback has arrived."""
        self.feedback = message.feedback

    def _finish(self, future: Future) -> None:
        answer = future.result()
        assert answer is not None
        self.result = answer.result


class Reasoning:
    """An instruction under way.

    Args:
        handle: of the accepted goal.
    """

    def __init__(self, handle: Any) -> None:
        self._handle, self._answered = handle, threading.Event()
        self._answer = handle.get_result_async()
        self._answer.add_done_callback(lambda _: self._answered.set())

    def cancel(self) -> None:
        """Ask for its end; it comes within a round of decoding."""
        self._handle.cancel_goal_async()

    def result(self, timeout: float) -> Reason.Result | None:
        """What became of it; None if it is under way still after `timeout` [s]."""
        return self._answer.result().result if self._answered.wait(timeout) else None
