"""Language: an instruction becomes a reward, a question gets an answer, while the robot goes on."""

import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from rclpy.action.server import GoalResponse, ServerGoalHandle
from worldpilot_msgs.action import Reason
from worldpilot_msgs.msg import Alert as AlertMsg
from worldpilot_msgs.msg import Latent, PlannerStatus
from worldpilot_msgs.srv import ListRewards, ListSignals, SwapReward

from worldpilot.errors import InvalidInput, NotReady, WorldpilotError
from worldpilot.planners.rewards import registry
from worldpilot.reasoning.expand import is_stop
from worldpilot.reasoning.reasoner import Outcome, Reasoner, Status, check_instruction
from worldpilot.reasoning.scene import STRIDE, Scene, settled
from worldpilot.reasoning.streaming import TextStream
from worldpilot.types import Alert, RewardSpec
from worldpilot_nodes import convert, params
from worldpilot_nodes.base import Age, PilotNode, run
from worldpilot_nodes.model import load

_LONGEST = 600.0  # [s], a deadline
_FOLLOWED = (Reason.Result.REWARD_APPLIED, Reason.Result.REWARD_PROPOSED, Reason.Result.ANSWERED)
_STATUS = {
    Status.REWARD: Reason.Result.REWARD_PROPOSED,
    Status.ANSWERED: Reason.Result.ANSWERED,
    Status.REFUSED: Reason.Result.REFUSED,
    Status.INVALID: Reason.Result.INVALID,
    Status.CANCELLED: Reason.Result.CANCELLED,
    Status.DEADLINE: Reason.Result.DEADLINE,
}


class ReasoningNode(PilotNode):
    """Action `Reason`, one goal at a time. What is possible and what is the case it learns from the running graph.

    A goal is worked on in the worker's thread, the planner's services included, whose answers come through the
    executor. The executor stays free: a cancellation is heard at once and heeded at the next round of decoding.
    """

    def __init__(self) -> None:
        super().__init__("reasoning", params.REASONING)

    def configure(self) -> None:
        self._spec = load(self).spec
        self._engine = _engine(self.params)
        self.at_cleanup(self._engine.close)
        self.get_logger().info(self._engine.report)
        self._reasoner = Reasoner(self._engine)
        scene = Scene.of(self._spec, {}, registry.available())
        self._reasoner.reason("what can you do?", scene)  # the first is the slowest
        self._task: _Task | None = None
        kept = round(STRIDE / self._spec.action.control_dt) if scene.walks else 1
        self._readings: deque[dict[str, float]] = deque(maxlen=max(kept, 1))  # of the signals, the newest
        self._latent_age = Age()
        self._alert: Alert | None = None  # the last that was not nominal
        self._alert_age = Age()  # how long ago it was repeated
        self._in_force = False  # whether it is the monitor's word still
        self._hold = ""  # why the planner keeps the robot still
        self._reward_id = ""  # of the reward in force
        self._before_stop: RewardSpec | None = None  # the last in force that was no stop
        self._interrupted = threading.Event()
        self.at_cleanup(lambda: self._end(_result(Reason.Result.CANCELLED, "the node is shutting down")))
        self._worker = self.worker(self._work, lambda _, result: self._end(result), self._fail)
        self.at_cleanup(self._interrupted.set)
        self._list_signals = self._client(ListSignals, "mpc/list_signals")
        self._list_rewards = self._client(ListRewards, "mpc/list_rewards")
        self._swap_reward = self._client(SwapReward, "mpc/swap_reward")
        self.subscription("latent", self._hear_latent)
        self.subscription("planner_status", self._hear_status)
        self.subscription("alert", self._hear_alert)
        self.action(Reason, "reason", self._judge, self._accept)

    def activate(self) -> None:
        self._interrupted.clear()

    def deactivate(self) -> None:
        self._interrupted.set()

    def _client(self, service: Any, name: str) -> Any:
        made = self.create_client(service, name)
        self.owns(lambda: self.destroy_client(made))
        return made

    # --- observe -------------------------------------------------------------------------------------------------

    def _hear_latent(self, message: Latent) -> None:
        convert.latent(message, self._spec)
        if self._latent_age() > self.params.latent_timeout:
            self._readings.clear()
        self._readings.append(convert.signal_values(message.signals))
        self._latent_age.touch()

    def _hear_status(self, message: PlannerStatus) -> None:
        self._hold = "" if message.state == PlannerStatus.RUNNING else message.reason
        if message.reward_id == self._reward_id or not message.reward_json:
            return
        self._reward_id, reward = message.reward_id, registry.parse_spec(message.reward_json)
        if not is_stop(reward):
            self._before_stop = reward

    def _hear_alert(self, message: AlertMsg) -> None:
        self._in_force = message.level != AlertMsg.NOMINAL
        if self._in_force:
            self._alert = convert.alert(message)
            self._alert_age.touch()

    # --- goals ---------------------------------------------------------------------------------------------------

    def _judge(self, _: Any) -> GoalResponse:
        if self.active and self._task is None:
            return GoalResponse.ACCEPT
        reason = "busy with another instruction; cancel it or try again later" if self.active else "not active"
        self.get_logger().warning(f"instruction rejected: {reason}")
        return GoalResponse.REJECT

    def _accept(self, handle: ServerGoalHandle) -> None:
        self._task = _Task(handle, self.params.deadline, self._engine.tokenizer, self._interrupted)
        try:
            _check(handle.request)
        except InvalidInput as error:
            self._end(_result(Reason.Result.INVALID, str(error)))
        else:
            self._worker.submit(self._task)

    def _fail(self, _: "_Task", error: WorldpilotError) -> None:
        kind = Reason.Result.UNAVAILABLE if isinstance(error, NotReady) else Reason.Result.INVALID
        self._end(_result(kind, str(error)))

    def _end(self, result: Reason.Result) -> None:
        """Give the result. The handle is executed only now, as rclpy would block or poll while a callback waits."""
        task, self._task = self._task, None
        if task is None:
            return
        result.seconds = task.elapsed
        end = "followed" if result.status in _FOLLOWED else "not followed"
        self.get_logger().info(f"{end} after {result.seconds:.2f} s: {result.message or result.rationale}")

        def finish(handle: ServerGoalHandle) -> Reason.Result:
            if result.status in _FOLLOWED:
                handle.succeed()
            elif handle.is_cancel_requested:
                handle.canceled()
            else:
                handle.abort()
            return result

        task.handle.execute(finish)

    # --- reason: in the worker's thread --------------------------------------------------------------------------

    def _work(self, task: "_Task") -> Reason.Result:
        scene = self._scene()
        request = task.handle.request
        outcome = self._reasoner.reason(request.instruction, scene, task.deadline, task.hear, task.cancelled)
        result = self._described(outcome)
        if outcome.spec is None or request.mode == Reason.Goal.PROPOSE:
            return result
        if outcome.is_sure(self.params.sure):
            self._apply(result, task)
        else:
            result.status = Reason.Result.UNSURE
            result.message = (
                f"not sure that this is meant: the model gives it {outcome.probability:.2f}, the least to apply it is "
                f"{self.params.sure:.2f}; confirm it, or say it in other words"
            )
        return result

    def _scene(self) -> Scene:
        """The running graph, as far as an instruction is concerned.

        Raises:
            NotReady: the planner does not answer, or has another model.
        """
        signals = self._ask(self._list_signals, ListSignals.Request())
        if signals.model_id != self._spec.model_id:
            raise NotReady(
                f"the planner has model {signals.model_id!r}, this node {self._spec.model_id!r}: load the same artifact"
            )
        rewards = self._ask(self._list_rewards, ListRewards.Request())
        return Scene.of(
            self._spec,
            settled(self._readings.copy()) if self._latent_age() <= self.params.latent_timeout else {},
            rewards.names,
            has_goal=rewards.has_goal_image,
            reward=registry.parse_spec(rewards.active_json) if rewards.active_json else None,
            before_stop=self._before_stop,
            alert=self._alert,
            alert_age=0.0 if self._in_force else self._alert_age(),
            hold=self._hold,
        )

    def _described(self, outcome: Outcome) -> Reason.Result:
        """What came of the model's answer, the reward not yet applied."""
        result = _result(_STATUS[outcome.status], "")
        if result.status in _FOLLOWED:
            result.rationale = outcome.rationale
        elif result.status == Reason.Result.REFUSED:
            result.rationale = result.message = outcome.rationale
        else:
            result.message = outcome.rationale
        result.spec_json = json.dumps(registry.to_dict(outcome.spec)) if outcome.spec else ""
        if outcome.generation is not None:
            result.probability = outcome.probability
            stats = outcome.generation.stats
            result.tokens, result.method = len(outcome.generation.tokens), self._engine.method
            result.hit_rate = stats.hit_rate
            result.tokens_per_round = result.tokens / len(stats.verify) if stats.verify else np.nan
        return result

    def _apply(self, result: Reason.Result, task: "_Task") -> None:
        """Ask the planner to swap; it validates again."""
        if task.cancelled():
            result.status, result.message = Reason.Result.CANCELLED, "cancelled before the reward was applied"
            return
        if time.monotonic() > task.deadline:
            result.status, result.message = Reason.Result.DEADLINE, "the deadline passed before the reward was applied"
            return
        swap = self._ask(self._swap_reward, SwapReward.Request(spec_json=result.spec_json))
        result.status = Reason.Result.REWARD_APPLIED if swap.accepted else Reason.Result.SWAP_REFUSED
        result.message, result.reward_id, result.in_force_tick = swap.message, swap.reward_id, swap.in_force_tick

    def _ask(self, client: Any, request: Any) -> Any:
        """The answer of one of the planner's services.

        Raises:
            NotReady: it is not there, or silent.
        """
        timeout = self.params.service_timeout
        if not client.wait_for_service(timeout):
            raise NotReady(f"{client.srv_name} is not there: is mpc running?")
        answer = client.call(request, timeout)
        if answer is None:
            raise NotReady(
                f"{client.srv_name} has not answered in {timeout:g} s; planner_status tells what is in force"
            )
        return answer


class _Task:
    """A goal under way.

    Args:
        handle: of the goal.
        deadline: if the goal names none [s].
        tokenizer: of the model.
        interrupted: set when the node stops working.
    """

    def __init__(self, handle: ServerGoalHandle, deadline: float, tokenizer: Any, interrupted: threading.Event) -> None:
        self.handle, self._interrupted = handle, interrupted
        self._began = time.monotonic()
        self.deadline = self._began + (handle.request.deadline or deadline)  # time.monotonic() [s]
        self._text, self._tokens = TextStream(tokenizer), 0

    @property
    def elapsed(self) -> float:
        """Since acceptance [s]."""
        return time.monotonic() - self._began

    def cancelled(self) -> bool:
        """Whether to give up."""
        return self._interrupted.is_set() or self.handle.is_cancel_requested

    def hear(self, tokens: Sequence[int]) -> None:
        """Tokens were committed."""
        self._tokens += len(tokens)
        text = self._text.push(tokens)
        self.handle.publish_feedback(Reason.Feedback(text=text, tokens=self._tokens, elapsed=self.elapsed))


def _check(request: Any) -> None:
    """Refuse a goal that makes no sense, before anything is done for it.

    Raises:
        InvalidInput: what is wrong with it.
    """
    check_instruction(request.instruction)
    if request.mode not in (Reason.Goal.APPLY, Reason.Goal.PROPOSE):
        raise InvalidInput(f"mode must be 0 (apply) or 1 (propose), got {request.mode}")
    if not 0 <= request.deadline <= _LONGEST:
        raise InvalidInput(f"deadline must be between 0 (default) and {_LONGEST:g} s, got {request.deadline}")


def _result(status: int, message: str) -> Reason.Result:
    unknown = {"probability": np.nan, "hit_rate": np.nan, "tokens_per_round": np.nan}
    return Reason.Result(status=status, message=message, **unknown)


def _engine(settings: Any) -> Any:
    """The language model that the node's parameters describe.

    Raises:
        NotReady: what it needs is not installed.
        InvalidInput, UnknownName, ArtifactError: what the parameters ask for can't be had.
    """
    try:
        from worldpilot.models.language.engine import Engine, EngineConfig
    except ImportError as error:
        raise NotReady(f"{error}: the language model needs `pip install worldpilot[language]`") from error
    cores = (settings.target_core, settings.draft_core)
    if min(cores) < 0 <= max(cores):
        raise InvalidInput(f"target_core and draft_core: set both or neither (-1), got {cores}")
    return Engine(
        EngineConfig(
            target=settings.language_model,
            draft=settings.draft_model or None,
            method=settings.method,
            dtype=settings.dtype,
            device=settings.language_device,
            draft_device=settings.draft_device,
            threads=settings.language_threads,
            cores=cores if min(cores) >= 0 else None,
        )
    )


def main() -> None:
    """Run the node."""
    run(ReasoningNode)


if __name__ == "__main__":
    main()
