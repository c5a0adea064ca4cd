"""The planner: one tick per latent, one command per tick, and a hold whenever something it relies on is missing."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray
from worldpilot_msgs.msg import ActionProposals, Latent, PlannerStatus, Signal
from worldpilot_msgs.msg import Alert as AlertMsg
from worldpilot_msgs.srv import ListRewards, ListSignals, SetGoal, SwapReward

from worldpilot.contracts import Solver
from worldpilot.errors import InvalidInput, WorldpilotError
from worldpilot.models.policy.artifact import OnnxPolicy
from worldpilot.planners import solvers
from worldpilot.planners.gate import Gate, GateConfig, GateState
from worldpilot.planners.mpc import Mpc, RewardInForce, SwapResult, Tick
from worldpilot.planners.rewards import registry
from worldpilot.planners.solvers.base import shift
from worldpilot.planners.solvers.policy import PolicySolver
from worldpilot.planners.stall import EscapeConfig
from worldpilot.types import AlertLevel, FloatArray, Rollouts
from worldpilot_nodes import convert, params, qos
from worldpilot_nodes.base import Age, PilotNode, run
from worldpilot_nodes.model import load, require_signature
from worldpilot_nodes.reach_goal import ReachGoalServer

_COLOURS = ((0.85, 0.25, 0.2), (0.35, 0.45, 0.65), (0.2, 0.6, 0.3), (0.6, 0.4, 0.7))  # of the plan's lines, RGB


@dataclass(frozen=True)
class _Seen:
    stamp: float  # [s], of the observation
    latent: FloatArray  # (D,)
    signals: dict[str, float]
    previous_control: FloatArray  # (U,)
    proposals: FloatArray | None  # (N, H, A)
    alert_level: AlertLevel | None


class MpcNode(PilotNode):
    """`Latent`, `ActionProposals` and `Alert` in; command, `PlannerStatus` and markers of the plan out.

    The tick runs in the worker. Services run in the executor meanwhile: they stage a tried reward, and the next tick
    begins with it. A watchdog holds the robot when latents or the planner's own results stop coming.
    """

    def __init__(self) -> None:
        super().__init__("mpc", params.MPC)

    def configure(self) -> None:
        artifact = load(self)
        self._model, self._spec = artifact.world_model, artifact.spec
        self._prior = artifact.prior if self.params.propose and not self.params.policy else None  # a policy needs none
        self._how = self.commands(self._spec.action)
        self._warm_up(artifact.manifest["proposals"])
        self._mpc = self._planner()
        self._level, self._alert_age = AlertLevel.NOMINAL, Age()
        self._proposals: tuple[float, FloatArray] | None = None  # for the observation at a stamp [s], (N, H, A)
        self._sent, self._sent_age = self._zero(), Age()  # the control in force
        self._latent_age, self._last_stamp = Age(), -np.inf
        self._tick, self._missed, self._idle = 0, 0, ""
        self._described: tuple[RewardInForce | None, str, str, list[Signal]] = (None, "", "", [])
        self._units = {signal.name: signal.unit for signal in self._spec.signals}
        placed = (name.removesuffix("_x") for name in self._units if name.endswith("_x"))
        self._objects = [name for name in placed if f"{name}_y" in self._units]  # whose x and y can be read
        self._commands = self.publisher(self._how.topic)
        self._statuses = self.publisher("planner_status")
        self._markers = self.publisher("plan_markers")
        ahead = self._plan_ahead if self.params.plan_ahead and not self.params.policy else None  # it takes no time
        self._worker = self.worker(self._plan, self._act, self._refuse, ahead)
        self._reach_goal = ReachGoalServer(self, self._start_goal, self._stop_goal)
        if self._prior is None:
            self.subscription("proposals", self._hear_proposals)
        self.subscription("alert", self._hear_alert)
        self.subscription("latent", self._hear_latent)
        self.service(SwapReward, "swap_reward", self._swap_reward)
        self.service(ListRewards, "list_rewards", self._list_rewards)
        self.service(ListSignals, "list_signals", self._list_signals)
        self.service(SetGoal, "set_goal", self._set_goal)
        self.every(self._spec.action.control_dt / 2, self._watch)

    def _planner(self) -> Mpc:
        return Mpc(
            self._model,
            self._solver(),
            registry.parse_spec(self.params.reward) if self.params.reward else None,
            Gate(self._spec.action, self._limits()),
            standing=registry.parse_spec(self.params.standing_reward) if self.params.standing_reward else None,
            seed=self.params.seed,
            replan_every=self.params.replan_every,
            shrink=self.params.shrink,
            delay=self.params.delay,
            correction=self.params.correction,
            escape=EscapeConfig.of(self.params.escape_after, self.params.escape_steps),
            prior=self._prior,
            proposals=self.params.propose,
            follow=round(qos.LIFESPAN / self._spec.action.control_dt) - 1,
        )

    def _limits(self) -> GateConfig:
        return GateConfig(max_age=self.params.latent_timeout, slow_factor=self.params.caution_factor)

    def _solver(self) -> Solver:
        if self.params.policy:
            require_signature(self, Path(self.params.policy))
            return PolicySolver(OnnxPolicy.load(self.params.policy, self._spec, threads=self.params.threads))
        return solvers.make(self.params.solver, **convert.settings(self.params.solver_settings))

    def _warm_up(self, proposals: int) -> None:
        """Plan for nothing with a planner that is thrown away, so that the first ticks are as fast as the others."""
        planner = self._planner()
        shape = (proposals, self._spec.horizon, self._spec.action.dim)
        given = None if self._prior else np.zeros(shape, np.float32)
        for _ in range(3):
            planner.tick(np.zeros(self._spec.latent_dim, np.float32), self._zero(), given)
        registry.schema()

    def deactivate(self) -> None:
        self._hold("deactivated")

    # --- observe -------------------------------------------------------------------------------------------------

    def _hear_proposals(self, message: ActionProposals) -> None:
        self._proposals = convert.seconds(message.header.stamp), convert.proposals(message, self._spec)

    def _hear_alert(self, message: AlertMsg) -> None:
        self._level = convert.alert_level(message)
        self._alert_age.touch()

    def _hear_latent(self, message: Latent) -> None:
        try:
            latent, taken = convert.latent(message, self._spec), convert.taken(message, self._spec)
        except InvalidInput as error:
            self._hold(str(error))
            return
        self._latent_age.touch()
        stamp = convert.seconds(message.header.stamp)
        seen = _Seen(
            stamp,
            latent,
            convert.signal_values(message.signals),
            self._sent if taken is None else taken,
            self._proposed(stamp),
            self._trust(),
        )
        self._missed += not self._worker.submit(seen)

    def _proposed(self, stamp: float) -> FloatArray | None:
        """The newest proposals, moved on to the observation at `stamp`; None if they are older than a model step.

        The prior works while the planner does, so its proposals are one control step behind.
        """
        if self._proposals is None:
            return None
        made, actions = self._proposals
        action = self._spec.action
        steps = round((stamp - made) / action.control_dt)
        if not 0 <= steps <= action.block:
            return None
        return action.actions(shift(action.controls(actions), steps))

    def _trust(self) -> AlertLevel | None:
        """The monitor's level; None if it is silent and may not be."""
        if self._alert_age() <= self.params.alert_timeout:
            return self._level
        return None if self.params.require_monitor else AlertLevel.NOMINAL

    # --- plan: in the worker's thread ----------------------------------------------------------------------------

    def _plan(self, seen: _Seen) -> Tick:
        passed, skipped = seen.stamp - self._last_stamp, 0
        if 0 < passed <= self.params.latent_timeout:
            skipped = max(round(passed / self._spec.action.control_dt) - 1, 0)
        else:
            self._mpc.reset()  # the stream was interrupted: what lies before is no history of what comes
        self._last_stamp = seen.stamp
        return self._mpc.tick(
            seen.latent,
            seen.previous_control,
            seen.proposals,
            stamp_age=self.now() - seen.stamp,
            alert_level=seen.alert_level,
            skipped=skipped,
        )

    def _plan_ahead(self, seen: _Seen, tick: Tick) -> None:
        self._mpc.plan_ahead(self._chosen(tick)[0], seen.proposals)

    # --- act -----------------------------------------------------------------------------------------------------

    def _act(self, seen: _Seen, tick: Tick) -> None:
        age, self._tick = self.now() - seen.stamp, tick.index
        self._missed += age > self._spec.action.control_dt + self.params.latent_timeout
        self._send(self._chosen(tick), seen.stamp + self.params.delay)
        status = self._status(_state(tick, self._idle), self._idle or _reason(tick), tick.reward)
        status.solve_ms, status.observation_age = 1e3 * tick.solve_s, age
        if tick.plan is not None:
            status.score = tick.plan.score
            status.term_names = list(tick.plan.terms)
            status.term_values = list(tick.plan.terms.values())
            status.plan = convert.floats(tick.plan.actions)
            if self._objects:
                self._markers.publish(self._plan_markers(tick.plan.imagined))
        self._statuses.publish(status)
        self._reach_goal.progress(seen.latent, seen.signals, status.score)

    def _chosen(self, tick: Tick) -> FloatArray:
        """The control for now and those that may follow it, of shape (1 + K, U)."""
        return self._zero()[None] if self._idle else tick.decision.controls

    def _refuse(self, _: _Seen, error: WorldpilotError) -> None:
        self._hold(str(error))

    def _watch(self) -> None:
        """Hold if a command is due and none can come."""
        if self._sent_age() < self._spec.action.control_dt:
            return
        if self._latent_age() > self.params.latent_timeout:
            self._hold("no latent from the world model" + _since(self._latent_age()))
        elif self._sent_age() > self.params.latent_timeout:
            self._hold("the planner is late" + _since(self._sent_age()))

    def _hold(self, reason: str) -> None:
        self._send(self._zero()[None], self.now())
        self._statuses.publish(self._status(PlannerStatus.HOLD, reason, self._mpc.reward))
        self.get_logger().warning(f"hold: {reason}", throttle_duration_sec=1.0)

    def _send(self, controls: FloatArray, begins: float) -> None:
        """Controls of shape (K, U), one a control period from `begins` [s] on."""
        self._commands.publish(self._how.message(controls, begins, self.now(), self.params.command_frame))
        self._sent = controls[0]
        self._sent_age.touch()

    def _zero(self) -> FloatArray:
        return np.zeros(self._spec.action.control_dim, np.float32)

    def _status(self, state: int, reason: str, reward: RewardInForce | None) -> PlannerStatus:
        if reward is not self._described[0] and reward is not None:
            target = convert.signals_message(reward.reward.target, self._units)
            self._described = (reward, json.dumps(registry.to_dict(reward.spec)), reward.id, target)
        status = PlannerStatus(header=convert.header(self.now(), self.params.command_frame))
        status.state, status.reason = state, reason
        status.tick, status.missed_ticks, status.alert_level = self._tick, self._missed, int(self._level)
        if reward is not None:
            _, status.reward_json, status.reward_id, status.target = self._described
            status.reward_version = reward.version
        return status

    def _plan_markers(self, imagined: Rollouts) -> MarkerArray:
        """A line for each object, through where the plan is imagined to bring it."""
        header, lines = convert.header(self.now(), self.params.command_frame), []
        for name in self._objects:
            line = Marker(header=header, ns=name, type=Marker.LINE_STRIP, action=Marker.ADD)
            line.pose.orientation.w, line.scale.x = 1.0, 0.004  # [m]
            r, g, b = _COLOURS[len(lines) % len(_COLOURS)]
            line.color = ColorRGBA(r=r, g=g, b=b, a=1.0)
            xs, ys = (imagined.signals[f"{name}_{axis}"][0] for axis in "xy")
            line.points = convert.points(
                np.concatenate([[imagined.current_signals[f"{name}_x"]], xs]),
                np.concatenate([[imagined.current_signals[f"{name}_y"]], ys]),
            )
            lines.append(line)
        return MarkerArray(markers=lines)

    # --- asked from outside --------------------------------------------------------------------------------------

    def _swap_reward(self, request: SwapReward.Request, response: SwapReward.Response) -> SwapReward.Response:
        result = self._mpc.swap(request.spec_json)
        if result.accepted:
            self._resume("the reward was swapped")
        response.accepted, response.message, response.reward_id = result.accepted, result.message, result.reward_id
        response.latency_ms, response.in_force_tick = 1e3 * result.latency_s, result.in_force_tick
        return response

    def _list_rewards(self, _: ListRewards.Request, response: ListRewards.Response) -> ListRewards.Response:
        active = self._mpc.reward
        response.names = sorted(registry.available())
        response.schema_json = json.dumps(registry.schema())
        response.has_goal_image = self._mpc.has_goal_image
        response.active_json = json.dumps(registry.to_dict(active.spec)) if active else ""
        return response

    def _list_signals(self, _: ListSignals.Request, response: ListSignals.Response) -> ListSignals.Response:
        response.signals, response.model_id = convert.signal_specs(self._spec), self._spec.model_id
        return response

    def _set_goal(self, request: SetGoal.Request, response: SetGoal.Response) -> SetGoal.Response:
        try:
            result = self._aim(request)
        except WorldpilotError as error:
            response.message = str(error)
            return response
        if result.accepted:
            self._resume("another goal was set")
        response.accepted, response.message, response.reward_id = result.accepted, result.message, result.reward_id
        return response

    def _aim(self, request: Any) -> SwapResult:
        """Another pose or goal image for the reward in force."""
        if request.kind == SetGoal.Request.POSE:
            return self._mpc.set_goal_pose(request.x, request.y, request.yaw)
        if request.kind == SetGoal.Request.IMAGE:
            return self._mpc.set_goal_latent(self._encode(request.image))
        raise InvalidInput(f"goal: kind must be 0 (pose) or 1 (image), got {request.kind}")

    def _encode(self, image: Any) -> FloatArray:
        return self._model.encode(convert.observation(image, self._spec).data[None])[0]

    def _resume(self, why: str) -> None:
        """A new reward or goal: move again, and end what was being done for the old one."""
        self._reach_goal.abort(why)
        self._idle = ""

    def _start_goal(self, request: Any) -> FloatArray | None:
        """Plan for the goal of an action; returns the goal's latent if it is an image."""
        latent, reward = None, registry.parse_spec(self.params.reward) if self.params.reward else None
        if request.kind == request.SPEC:
            result = self._mpc.swap(request.spec_json)
        elif request.kind == request.IMAGE:
            latent = self._encode(request.image)
            result = self._mpc.set_goal_latent(latent)
            if result.accepted:
                result = self._mpc.swap({"name": "goal image", "terms": [{"plugin": "goal_latent"}]})
        else:
            result = self._aim(request)
            if not result.accepted and reward is not None:  # the active reward has no pose: the first one may
                self._mpc.swap(reward)
                result = self._aim(request)
        if not result.accepted:
            raise InvalidInput(result.message)
        self._resume("another goal was set")
        return latent

    def _stop_goal(self, why: str) -> None:
        """The action has ended: stand still until something else is asked for."""
        self._idle = why


def _state(tick: Tick, idle: str) -> int:
    if tick.decision.state is GateState.HOLD:
        return PlannerStatus.HOLD
    return PlannerStatus.IDLE if idle else PlannerStatus.RUNNING


def _reason(tick: Tick) -> str:
    stalled = ["nothing moves: following one of the prior's proposals"] if tick.escapes else []
    return "; ".join(stalled + [tick.decision.reason] * bool(tick.decision.reason))


def _since(age: float) -> str:
    return " yet" if age == float("inf") else f" for {age:.2f} s"


def main() -> None:
    """Run the node."""
    run(MpcNode)


if __name__ == "__main__":
    main()
