"""The action `ReachGoal`: accept, report, and say when the goal is reached, given up or called off."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rclpy.action.server import GoalResponse, ServerGoalHandle
from worldpilot_msgs.action import ReachGoal

from worldpilot.errors import InvalidInput, WorldpilotError
from worldpilot.planners.rewards.base import angle_diff
from worldpilot.types import FloatArray
from worldpilot_nodes.base import Age, PilotNode

_SETTLED = 3  # ticks in a row within tolerance, so that a noisy reading is no success


class ReachGoalServer:
    """One goal at a time; a newer one replaces it. Driven by the planner's ticks: no callback waits.

    Args:
        node: owner.
        start: plans for a goal's request, returns its latent if it is an image; WorldpilotError refuses the goal.
        stop: called with the reason when a goal has ended.
    """

    def __init__(
        self,
        node: PilotNode,
        start: Callable[[ReachGoal.Goal], FloatArray | None],
        stop: Callable[[str], None],
    ) -> None:
        self._node, self._start, self._stop = node, start, stop
        self._goal: ServerGoalHandle | None = None
        self._latent: FloatArray | None = None  # of the goal image
        self._age, self._within = Age(), 0
        node.action(ReachGoal, "reach_goal", self._judge, self._accept)
        node.at_cleanup(lambda: self.abort("the planner is shutting down"))

    def progress(self, latent: FloatArray, signals: Mapping[str, float], score: float) -> None:
        """A tick has passed: report, and end the goal if it is reached, cancelled or out of time."""
        if self._goal is None:
            return
        feedback = self._measure(latent, signals, score)
        self._goal.publish_feedback(feedback)
        self._within = self._within + 1 if self._is_within(feedback) else 0
        if self._goal.is_cancel_requested:
            self._end(feedback, False, "cancelled")
        elif self._within >= _SETTLED:
            self._end(feedback, True, "goal reached")
        elif feedback.elapsed > self._goal.request.timeout:
            self._end(feedback, False, f"not reached within {self._goal.request.timeout:g} s")

    def abort(self, why: str) -> None:
        """End the goal, if there is one, because of something else."""
        if self._goal is not None:
            self._end(ReachGoal.Feedback(position_error=np.nan, yaw_error=np.nan, error=np.nan), False, why)

    def _judge(self, request: Any) -> GoalResponse:
        try:
            if not self._node.active:
                raise InvalidInput("the planner is not active")
            if request.kind not in (request.POSE, request.IMAGE, request.SPEC):
                raise InvalidInput(f"kind must be 0 (pose), 1 (image) or 2 (spec), got {request.kind}")
            limits = [request.tolerance, request.yaw_tolerance, request.timeout]
            if not (np.isfinite(limits).all() and min(limits) >= 0 and request.timeout > 0):
                raise InvalidInput(f"tolerances must be >= 0 and timeout > 0, all finite, got {limits}")
            latent = self._start(request)
        except WorldpilotError as error:
            self._node.get_logger().warning(f"goal refused: {error}")
            return GoalResponse.REJECT
        self._latent = latent
        return GoalResponse.ACCEPT

    def _accept(self, goal: ServerGoalHandle) -> None:
        self._goal, self._within, self._age = goal, 0, Age()
        self._age.touch()

    def _measure(self, latent: FloatArray, signals: Mapping[str, float], score: float) -> ReachGoal.Feedback:
        assert self._goal is not None  # only called with a goal
        goal = self._goal.request
        feedback = ReachGoal.Feedback(position_error=np.nan, yaw_error=np.nan, score=score, elapsed=self._age())
        if goal.kind == goal.POSE:
            dx, dy = signals.get("block_x", np.nan) - goal.x, signals.get("block_y", np.nan) - goal.y
            feedback.position_error = float(np.hypot(dx, dy))
            feedback.yaw_error = abs(float(angle_diff(signals.get("block_yaw", np.nan), goal.yaw)))
            feedback.error = feedback.position_error
        elif self._latent is not None:
            feedback.error = float(np.square(latent - self._latent).mean())
        else:
            feedback.error = -score
        return feedback

    def _is_within(self, feedback: ReachGoal.Feedback) -> bool:
        assert self._goal is not None  # only called with a goal
        goal = self._goal.request
        turned = goal.kind != goal.POSE or feedback.yaw_error <= goal.yaw_tolerance
        return bool(feedback.error <= goal.tolerance and turned)

    def _end(self, last: ReachGoal.Feedback, reached: bool, message: str) -> None:
        """Give the result. The handle is executed only now, as rclpy would block or poll while a callback waits."""
        goal, self._goal = self._goal, None
        assert goal is not None  # only called with a goal
        result = ReachGoal.Result(reached=reached, message=message, error=last.error)
        result.position_error, result.yaw_error = last.position_error, last.yaw_error

        def finish(handle: ServerGoalHandle) -> ReachGoal.Result:
            if handle.is_cancel_requested:
                handle.canceled()
            elif reached:
                handle.succeed()
            else:
                handle.abort()
            return result

        goal.execute(finish)
        self._stop(message)
