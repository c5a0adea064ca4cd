"""What every node shares: the lifecycle, a worker thread for inference, the ages of inputs, a clean exit."""

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Generic, NoReturn, TypeVar

import numpy as np
import rclpy
from rclpy.action.server import ActionServer, CancelResponse, GoalResponse, ServerGoalHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.guard_condition import GuardCondition
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from rclpy.utilities import try_shutdown

from worldpilot.errors import InvalidInput, WorldpilotError
from worldpilot.graph import Graph, load
from worldpilot.pending import PendingControls
from worldpilot.types import ActionSpec, FloatArray
from worldpilot_nodes import params, qos
from worldpilot_nodes.commands import Command, Commands, carried
from worldpilot_nodes.convert import message_class

_LEAVE_WITHIN = 0.8  # [s], from having closed everything to the end of the process

Sample = TypeVar("Sample")
Result = TypeVar("Result")


class PilotNode(LifecycleNode):
    """A lifecycle node that is refused at configure with the reason in its log, and wired by `launch/graph.yaml`.

    Subclasses override `configure`, `activate` and `deactivate`; these raise WorldpilotError to refuse.
    """

    def __init__(self, name: str, declared: Sequence[params.Param]) -> None:
        super().__init__(name)
        self._declared = declared
        params.declare(self, declared)
        self.params = params.read(self, declared)
        self.graph: Graph = load()
        self.active = False
        self._cleanups: list[Callable[[], Any]] = []  # of the threads and files that configure made, in order
        self._entities: list[Callable[[], Any]] = []  # destroy the ROS entities that it made, in order
        if self.params.autostart:
            self._starter = self.create_timer(0.0, self._autostart)

    def configure(self) -> None:
        """Load, verify, warm up, create publishers and subscriptions."""

    def activate(self) -> None:
        """Begin to move."""

    def deactivate(self) -> None:
        """Stop moving."""

    def now(self) -> float:
        """The node's time [s]: the system's, or simulated time where `use_sim_time` is set."""
        return self.get_clock().now().nanoseconds * 1e-9

    def at_cleanup(self, undo: Callable[[], Any]) -> None:
        """Call `undo`, which ends a thread or closes a file, at cleanup and at the end of the process."""
        self._cleanups.append(undo)

    def owns(self, destroy: Callable[[], Any]) -> None:
        """Call `destroy`, which destroys a ROS entity, at cleanup."""
        self._entities.append(destroy)

    def publisher(self, topic: str) -> Publisher:
        """A publisher of a topic of the graph; silent unless the node is active."""
        spec = self.graph.topics[topic]
        made: Any = self.create_lifecycle_publisher(message_class(spec.type), topic, qos.PUBLISHERS[spec.qos])
        self.owns(lambda: self.destroy_lifecycle_publisher(made))
        return made

    def subscription(self, topic: str, callback: Callable[[Any], None], **options: Any) -> Subscription:
        """A subscription to a topic of the graph; `callback` runs only while the node is active.

        A message that `callback` refuses with InvalidInput is dropped, with the reason in the log.
        """
        spec = self.graph.topics[topic]

        def hear(message: Any) -> None:
            if not self.active:
                return
            try:
                callback(message)
            except InvalidInput as error:
                self.get_logger().warning(f"{topic} not used: {error}", throttle_duration_sec=1.0)

        made = self.create_subscription(
            message_class(spec.type),
            topic,
            hear,
            options.pop("qos", qos.SUBSCRIPTIONS[spec.qos]),
            **options,
        )
        self.owns(lambda: self.destroy_subscription(made))
        return made

    def service(self, service_type: Any, name: str, callback: Callable[[Any, Any], Any]) -> None:
        """A service of the node's own, from configure to cleanup."""
        made = self.create_service(service_type, f"~/{name}", callback)
        self.owns(lambda: self.destroy_service(made))

    def action(
        self,
        action_type: Any,
        name: str,
        judge: Callable[[Any], GoalResponse],
        accept: Callable[[ServerGoalHandle], None],
    ) -> None:
        """An action of the node's own, from configure to cleanup; a cancellation is always accepted.

        Nothing runs when a goal is accepted: `accept` keeps its handle, and whoever ends the goal executes that with
        what gives the result, as rclpy would block or poll while a callback waits.
        """
        server = ActionServer(
            self,
            action_type,
            f"~/{name}",
            execute_callback=lambda _: action_type.Result(),  # replaced when the goal ends
            goal_callback=judge,
            handle_accepted_callback=accept,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )
        self.owns(server.destroy)

    def every(self, period: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` each `period` [s] while the node is active."""
        made = self.create_timer(period, lambda: callback() if self.active else None)
        self.owns(lambda: self.destroy_timer(made))
        return made

    def commands(self, spec: ActionSpec) -> Commands:
        """How controls travel."""
        return carried(spec, self.params.command_fields)

    def driver(self, spec: ActionSpec, delay: float = 0.0) -> "InForce":
        """Listens to commands as the robot's driver does, whose controls are seen to act `delay` [s] later."""
        commands = self.commands(spec)
        driver = InForce(commands, spec, delay)
        self.subscription(commands.topic, driver.update)
        return driver

    def worker(
        self,
        work: Callable[[Sample], Result],
        done: Callable[[Sample, Result], None],
        failed: Callable[[Sample, WorldpilotError], None],
        then: Callable[[Sample, Result], None] | None = None,
    ) -> "Worker[Sample, Result]":
        """A worker thread whose results come back in this node's executor."""
        made = Worker(self, work, done, failed, then)
        self.at_cleanup(made.close)
        return made

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.params = params.read(self, self._declared)
        return self._transition("configure", self.configure, super().on_configure, state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._transition("activate", self.activate, super().on_activate, state)
        self.active = result == TransitionCallbackReturn.SUCCESS
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        return self._transition("deactivate", self.deactivate, super().on_deactivate, state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._undo()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.active:
            self.active = False
            self.deactivate()
        self._undo()
        return super().on_shutdown(state)

    def close(self) -> None:
        """Stop moving, end threads and files; the process is about to exit."""
        if self.active:
            self.trigger_deactivate()
        _pop_all(self._cleanups)

    def _transition(
        self,
        name: str,
        own: Callable[[], None],
        entities: Callable[[LifecycleState], TransitionCallbackReturn],
        state: LifecycleState,
    ) -> TransitionCallbackReturn:
        try:
            own()
        except WorldpilotError as error:
            self.get_logger().error(f"{name} refused: {error}")
            if name == "configure":
                self._undo()
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # rclpy would swallow it without a word
            self.get_logger().fatal(f"{name} failed: {type(error).__name__}: {error}")
            if name == "configure":
                self._undo()
            raise
        return entities(state)

    def _undo(self) -> None:
        _pop_all(self._cleanups)
        _pop_all(self._entities)

    def _autostart(self) -> None:
        self._starter.cancel()
        for trigger, state in ((self.trigger_configure, "inactive"), (self.trigger_activate, "active")):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                self.get_logger().error("lifecycle state: unconfigured")
                return
            self.get_logger().info(f"lifecycle state: {state}")


def _pop_all(undos: list[Callable[[], Any]]) -> None:
    """Last made, first undone."""
    while undos:
        undos.pop()()


class Worker(Generic[Sample, Result]):
    """Runs `work` on the newest sample in a thread of its own; a sample that is overtaken is dropped.

    `done` or `failed` is called in the node's executor thread. Anything but a WorldpilotError ends the node. `then` is
    called in the worker's thread after `work`, while its result is already on its way.
    """

    def __init__(
        self,
        node: LifecycleNode,
        work: Callable[[Sample], Result],
        done: Callable[[Sample, Result], None],
        failed: Callable[[Sample, WorldpilotError], None],
        then: Callable[[Sample, Result], None] | None = None,
    ) -> None:
        self._node, self._work, self._done, self._failed = node, work, done, failed
        self._then = then
        self._sample: list[Sample] = []  # at most one
        self._outcome: list[tuple[Sample, Result | BaseException]] = []  # at most one
        self._condition = threading.Condition()
        self._closed = False
        self._guard: GuardCondition = node.create_guard_condition(self._deliver)
        self._thread = threading.Thread(target=self._run, name=f"{node.get_name()} worker", daemon=True)
        self._thread.start()

    def submit(self, sample: Sample) -> bool:
        """Hand over the newest sample; False if one that nobody had looked at was dropped for it."""
        with self._condition:
            dropped = bool(self._sample)
            self._sample = [sample]
            self._condition.notify()
        return not dropped

    def close(self) -> None:
        """Finish the work at hand and end the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join(timeout=2.0)
        self._node.destroy_guard_condition(self._guard)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._sample)
                if self._closed:
                    return
                sample = self._sample.pop()
            try:
                result = self._work(sample)
                self._hand_over(sample, result)
                if self._then is not None:
                    self._then(sample, result)
            except Exception as error:
                self._hand_over(sample, error)

    def _hand_over(self, sample: Sample, outcome: Result | BaseException) -> None:
        with self._condition:
            if not self._closed:
                self._outcome = [(sample, outcome)]
                self._guard.trigger()

    def _deliver(self) -> None:
        with self._condition:
            if not self._outcome:
                return
            sample, outcome = self._outcome.pop()
        if isinstance(outcome, WorldpilotError):
            self._failed(sample, outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            self._done(sample, outcome)


class Age:
    """How long ago something last arrived, on a clock that nobody sets."""

    def __init__(self) -> None:
        self._at: float | None = None

    def touch(self) -> None:
        """It arrived now."""
        self._at = time.monotonic()

    def __call__(self) -> float:
        """Seconds since; infinite if it never did."""
        return float("inf") if self._at is None else time.monotonic() - self._at


class InForce:
    """The control that the driver applies: what the newest command has for now, or zero once its lifespan is over.

    To be asked once a control period, when that is over: where controls act late, the answer is the one that acted in
    the period before.
    """

    def __init__(self, commands: Commands, spec: ActionSpec, delay: float) -> None:
        self._commands, self._age, self._pending = commands, Age(), PendingControls(spec, delay)
        self._command: Command | None = None
        self._zero, self._period = np.zeros(spec.control_dim, np.float32), spec.control_dt

    def update(self, message: Any) -> None:
        """A command has arrived; InvalidInput if it is none for this robot."""
        self._command = self._commands.command(message)
        self._age.touch()

    def __call__(self, stamp: float, taken: FloatArray | None = None) -> FloatArray:
        """Of shape (U,).

        Args:
            stamp: of the observation with which the period ends [s].
            taken: the command of the period, of shape (U,), where the driver itself says which that was.
        """
        if taken is None and self._command is not None and self._age() <= qos.LIFESPAN:
            taken = self._command.at(stamp - 0.5 * self._period)  # half way in the period, as stamps are not exact
        return self._pending.send(self._zero if taken is None else taken)


def run(make: Callable[[], PilotNode]) -> NoReturn:
    """The life of a node's process: spin until SIGINT or SIGTERM, then stop moving, end threads and files."""
    _die_with_supervisor()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # its own would pull the context away under callbacks
    node = make()
    ended = threading.Event()
    _at_signal(node.create_guard_condition(ended.set).trigger)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    code = 0
    try:
        while not ended.is_set():
            executor.spin_once()
    except Exception:
        traceback.print_exc()
        code = 1
    node.close()
    # Leave the graph, but not for long: Fast DDS may wait for seconds, with Python's lock held, when its peers leave at
    # the same moment, and for ever in the destructors that run at the interpreter's own end.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _LEAVE_WITHIN)
    node.destroy_node()
    try_shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _at_signal(call: Callable[[], None]) -> None:
    """Call `call` in a thread of its own at SIGINT or SIGTERM, even while the main thread waits in the middleware."""
    heard, raised = os.pipe()
    os.set_blocking(raised, False)
    signal.set_wakeup_fd(raised)
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, lambda *_: None)

    def listen() -> None:
        os.read(heard, 1)
        call()

    threading.Thread(target=listen, name="signals", daemon=True).start()


def _die_with_supervisor() -> None:
    """If `worldpilot.supervisor` started this process, end with it, however it ends."""
    supervisor = os.environ.get("WORLDPILOT_SUPERVISOR_PID")
    if supervisor is None:
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(supervisor):  # it ended before we asked
        raise SystemExit("the supervisor is gone")
