"""Receding-horizon control: observe → propose → imagine → score → act, with a reward replaceable between ticks."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.contracts import ActionPrior, Solver, WorldModel
from worldpilot.errors import InvalidInput, NotReady, RewardError, WorldpilotError
from worldpilot.history import HistoryBuffer
from worldpilot.pending import PendingControls
from worldpilot.planners.gate import Gate, GateDecision, GateState
from worldpilot.planners.rewards import registry
from worldpilot.planners.rewards.base import RewardContext, difference
from worldpilot.planners.rewards.composite import CompositeReward
from worldpilot.planners.solvers.sample import Sample
from worldpilot.planners.stall import EscapeConfig, StallDetector
from worldpilot.types import AlertLevel, FloatArray, History, ModelSpec, Plan, RewardSpec, Rollouts


@dataclass(frozen=True)
class RewardInForce:
    """A built reward, what it was built with, and its place in the sequence of accepted ones."""

    reward: CompositeReward
    context: RewardContext
    version: int = 0  # counts accepted swaps

    @property
    def spec(self) -> RewardSpec:
        return self.reward.spec

    @property
    def id(self) -> str:
        """Short hash of the specification."""
        return registry.reward_id(self.spec)


@dataclass(frozen=True)
class SwapResult:
    """The answer to a request for another reward or goal."""

    accepted: bool
    message: str  # why it was refused; when accepted, empty or a remark
    reward_id: str  # of the reward in force from `in_force_tick` on; empty if there is none
    in_force_tick: int  # the first tick that is scored with it; 0 if refused
    latency_s: float  # from request to answer [s]


@dataclass(frozen=True)
class Tick:
    """One control period: what is sent, and what it was chosen for."""

    index: int  # counts ticks from 1
    control: FloatArray  # (U,), after the gate
    decision: GateDecision
    plan: Plan | None  # None if there was none; its `terms` are the weighted contributions, standing ones too
    reward: RewardInForce | None  # what this tick was scored with
    swapped: bool  # this is the first tick with that reward
    solve_s: float  # [s]
    escapes: bool = False  # nothing moved any more: the plan is a proposal as it is, not searched


class _Objective:
    """What a solver sees: the reward in force beside the standing terms. Remembers what it scored last, for a swap's
    dry run, and how."""

    def __init__(self, reward: CompositeReward, standing: CompositeReward | None) -> None:
        self._parts = {"": reward} if standing is None else {"": reward, "standing_": standing}
        self._scored: list[Mapping[str, FloatArray]] = []  # the terms of `last`, by part
        self.last: Rollouts | None = None

    def score(self, rollouts: Rollouts) -> FloatArray:
        """Scores of shape (N,)."""
        with np.errstate(all="ignore"):  # what is not finite is found by whoever ranks the scores
            self.last, self._scored = rollouts, [part.terms(rollouts) for part in self._parts.values()]
            return np.sum([np.sum(list(terms.values()), axis=0) for terms in self._scored], axis=0)

    def terms(self, rollouts: Rollouts) -> dict[str, float]:
        """What each term contributes to the first plan's score; standing terms are named so."""
        scored = self._scored if rollouts is self.last else [part.terms(rollouts) for part in self._parts.values()]
        contributions = zip(self._parts, scored, strict=True)
        return {prefix + name: float(values[0]) for prefix, terms in contributions for name, values in terms.items()}


class _Around:
    """A model as it is, for those below to change a part of it. Implements `contracts.WorldModel`."""

    def __init__(self, model: WorldModel) -> None:
        self._model = model

    @property
    def spec(self) -> ModelSpec:
        return self._model.spec

    def encode(self, observations: npt.NDArray[Any]) -> FloatArray:
        return self._model.encode(observations)

    def predict(self, history: History, actions: FloatArray) -> FloatArray:
        return self._model.predict(history, actions)

    def signals(self, latents: FloatArray) -> dict[str, FloatArray]:
        return self._model.signals(latents)

    def rollout(self, history: History, actions: FloatArray, previous_control: FloatArray) -> Rollouts:
        return self._model.rollout(history, actions, previous_control)


class _Late(_Around):
    """A model as a late loop meets it: a plan acts after what is on its way."""

    def __init__(self, model: WorldModel, pending: PendingControls) -> None:
        super().__init__(model)
        self._pending = pending

    def predict(self, history: History, actions: FloatArray) -> FloatArray:
        return super().predict(history, self._pending.effect(actions))

    def rollout(self, history: History, actions: FloatArray, previous_control: FloatArray) -> Rollouts:
        rollouts = super().rollout(history, self._pending.effect(actions), previous_control)
        return replace(rollouts, actions=actions)


class _Corrected(_Around):
    """A model whose readings of the future are moved by what the last ones were off.

    Args:
        model: imagines.
        weight: of the newest error in the running mean.
    """

    def __init__(self, model: WorldModel, weight: float) -> None:
        super().__init__(model)
        self._weight = weight
        self._offset: dict[str, float] = {}  # signal -> running mean of what was read less what the model had imagined

    def rollout(self, history: History, actions: FloatArray, previous_control: FloatArray) -> Rollouts:
        rollouts = super().rollout(history, actions, previous_control)
        moved = {name: rollouts.signals[name] + np.float32(offset) for name, offset in self._offset.items()}
        return replace(rollouts, signals={**rollouts.signals, **moved})

    def clear(self) -> None:
        """Forget all errors."""
        self._offset = {}

    def learn(self, names: Iterable[str], imagined: Mapping[str, float], now: Mapping[str, float]) -> None:
        """Compare what was imagined for now, the correction of then included, with what is read now."""
        before, self._offset = self._offset, {}
        for name in names:
            corrected, old = float(difference(name, now[name], imagined[name])), before.get(name, 0.0)
            self._offset[name] = old + self._weight * corrected  # the model's own error is `corrected + old`


class Mpc:
    """Plans at every tick, from the newest latent, with the reward in force.

    `tick` and `plan_ahead` are called by one thread. `swap`, `set_goal_latent` and `set_goal_pose` may be called from
    any other thread while they run: they stage a complete, tried reward, and the next tick begins by putting it in
    force. History and warm start survive a swap.

    Args:
        model: imagines.
        solver: chooses.
        reward: specification of the first reward; None holds the robot until one is swapped in.
        gate: the last check of every control.
        seed: of everything random.
        goal_latent: for rewards that need one, of shape (D,).
        swap_budget_s: how long a new reward may take to score the current population [s].
        replan_every: control steps that a plan is followed; a new reward, a hold or a gap ends it before.
        standing: terms that always count beside the reward in force, such as a penalty for the probability of a fall
            or for leaving the data (the expression `-disagreement`). No swap removes them.
        shrink: replan for what is left of the horizon, until nothing is and a new horizon begins, instead of always
            for the whole of it. A plan that shall *end* at a goal then arrives, where a receding one may put it off.
        delay: from what an observation shows until the control that answers it takes effect [s]. Plans then begin
            after the controls that were sent and are not in force yet, and history knows when each was.
        correction: weight of the newest error in a running mean of what the model was off, one plan after another, in
            the signals that the reward wants at a value; the next plan's readings are moved by it, as offset-free MPC
            does (Pannocchia and Rawlings 2003). Where a plan keeps promising a motion that does not come, the next
            one must promise more, until something moves. 0: the model is taken at its word.
        escape: what to do when nothing has moved for a while though something is left to do: one of the proposals is
            followed as it is. Where the planner finds again and again what only the model takes for a way, the
            prior, which has never seen this model, goes another one. None: search on.
        prior: proposes where `tick` gets no proposals.
        proposals: how many it proposes.
        follow: how many of the plan's next controls pass the gate with each tick's own (`GateDecision.controls`): what
            a driver goes on with where the next tick's is late.

    Raises:
        RewardError, UnknownName: the first reward, or a standing term, can't be built.
        InvalidInput: a number is out of its range.
    """

    def __init__(
        self,
        model: WorldModel,
        solver: Solver,
        reward: RewardSpec | None,
        gate: Gate,
        *,
        seed: int,
        goal_latent: FloatArray | None = None,
        standing: RewardSpec | None = None,
        swap_budget_s: float = 0.02,
        replan_every: int = 1,
        shrink: bool = False,
        delay: float = 0.0,
        correction: float = 0.0,
        escape: EscapeConfig | None = None,
        prior: ActionPrior | None = None,
        proposals: int = 0,
        follow: int = 0,
    ) -> None:
        self._pending = PendingControls(model.spec.action, delay)
        self._model, self._solver, self._gate = _Late(model, self._pending) if delay else model, solver, gate
        if not 0.0 <= correction < 1.0:
            raise InvalidInput(f"mpc: correction must be within [0, 1), got {correction}")
        self._corrected = _Corrected(self._model, correction) if correction else None
        self._seed, self._episode, self._rng = seed, 0, np.random.default_rng(seed)
        self._prior, self._count, self._follow = prior, proposals, follow
        self._history = HistoryBuffer(model.spec.action, depth=max(model.spec.history - 1, 1))
        if not 1 <= replan_every <= model.spec.horizon * model.spec.action.block:
            longest = model.spec.horizon * model.spec.action.block
            raise InvalidInput(f"mpc: replan_every must be between 1 and the horizon's {longest}, got {replan_every}")
        if self._pending.periods >= model.spec.horizon * model.spec.action.block:
            raise InvalidInput(f"mpc: a delay of {delay} s leaves nothing of the horizon; give a shorter one")
        self._swap_budget_s, self._replan_every = swap_budget_s, replan_every
        self._shrink = shrink
        self._escape, self._sample, self._escapes = escape, Sample(), False
        self._stall = None if escape is None else StallDetector(model.spec, escape.after)
        self._followed: Plan | None = None  # the plan in execution
        self._next: Plan | None = None  # made ahead: the one that the next tick begins
        self._lead = 0  # control steps from the observation of the plan in execution until it began
        self._steps = 0  # control steps of it that were taken
        self._spent = 0  # control steps of the shrinking horizon that were taken
        self._lock = threading.Lock()  # over the fields below, never held while planning or scoring
        self._swap_lock = threading.Lock()  # one swap at a time
        self._index = 0
        self._context = RewardContext(model.spec) if goal_latent is None else RewardContext.towards(model, goal_latent)
        self._active: RewardInForce | None = None
        if reward is not None:
            solver.accept(reward)
            self._active = RewardInForce(registry.build(reward, self._context), self._context, version=0)
        self._standing = None if standing is None else registry.build(standing, self._context)
        if self._standing is not None and self._standing.uses_goal_image:
            raise RewardError("mpc: a standing term can't read the goal image: goals change, standing terms don't")
        self._staged: RewardInForce | None = None
        self._population: Rollouts | None = None  # the last one scored

    @property
    def has_goal_image(self) -> bool:
        """Whether a reward may read one."""
        return self._context.goal_latent is not None

    @property
    def reward(self) -> RewardInForce | None:
        """The reward of the next tick."""
        with self._lock:
            return self._staged or self._active

    def reset(self) -> None:
        """A new episode: forget history and warm start, keep the reward.

        The n-th episode of a seed is always the same, but not the one before it: what fell in one need not in the next.
        """
        self._history.clear()
        self._pending.clear()
        self._solver.reset()
        self._stop_following()
        if self._corrected is not None:
            self._corrected.clear()
        self._episode += 1
        self._rng = np.random.default_rng([self._seed, self._episode])

    @property
    def plans_next(self) -> bool:
        """Whether the next tick makes a plan, and so has a use for proposals."""
        with self._lock:
            return self._staged is not None or (self._next is None and self._ends())

    def tick(
        self,
        latent: FloatArray,
        previous_control: FloatArray,
        proposals: FloatArray | None,
        *,
        stamp_age: float = 0.0,
        alert_level: AlertLevel | None = AlertLevel.NOMINAL,
        skipped: int = 0,
    ) -> Tick:
        """One control period.

        Args:
            latent: the newest, of shape (D,).
            previous_control: the control in force since the latent before, of shape (U,); where there is a delay, the
                one that was sent.
            proposals: of shape (N, H, A), from the latent on; None: the prior's, if there is one.
            stamp_age: age of the observation behind the latent [s].
            alert_level: the monitor's newest level; None if it has not been heard.
            skipped: control periods since the last tick that had none, as its planning took too long: the robot went on
                with its plan meanwhile, and so does the planner.
        """
        index, active, swapped = self._begin()
        start = time.perf_counter()
        plan, reason, ahead_s = None, "", 0.0
        try:
            self._skip(latent, skipped)
            history = self._observe(latent, previous_control)
            if swapped and self._stall is not None:
                self._stall.clear()  # nothing was tried for this one yet
            if swapped or self._ends():
                stalled = active is not None and self._look_back(history.latents[-1], active.reward)
                if self._next is not None and not (swapped or stalled):
                    plan, ahead_s, self._lead = self._next, self._next.solve_s, 1
                    self._steps = skipped  # it was to begin a control period after the last tick
                else:
                    steps = self._left(self._pending.periods, fresh=swapped or self._followed is None)
                    plan = self._plan(history, proposals, active, previous_control, steps, stalled=stalled)
                    self._lead, self._steps = 0, 0
                self._next = None
            else:
                plan = self._followed
        except (InvalidInput, NotReady) as error:
            reason = str(error)
        solve_s = ahead_s + time.perf_counter() - start
        decision = self._act(plan, stamp_age, alert_level, previous_control, reason)
        plan = plan and replace(plan, solve_s=solve_s)
        return Tick(
            index, decision.control, decision, plan, active, swapped, solve_s, self._escapes and plan is not None
        )

    def plan_ahead(self, control: FloatArray, proposals: FloatArray | None) -> None:
        """Make the plan that the next tick begins, if it is to begin one: its command then need not wait for planning.

        Called once the last tick's control is sent. The plan is for one control step later, after that control, and
        from an observation one control step old. A swap, a hold or a stall until then undoes it: the tick plans itself.

        Args:
            control: the last tick's, of shape (U,).
            proposals: of shape (N, H, A), from the last tick's latent on; None: the prior's, if there is one.
        """
        active = self._active
        if self._followed is None or active is None or not self._ends():
            return
        start = time.perf_counter()
        try:
            history = self._history.history(self._model.spec.history)
            steps = self._left(self._pending.periods + 1)
            plan = self._plan(history, proposals, active, control, steps, ahead=True)
            self._next = replace(plan, solve_s=time.perf_counter() - start)
        except InvalidInput:
            self._next = None  # the tick meets the same, and says so

    def watch(self, latent: FloatArray, previous_control: FloatArray) -> None:
        """A control period in which something else drives: what it does is history when planning goes on.

        Args:
            latent: the newest, of shape (D,).
            previous_control: the control in force since the latent before, of shape (U,).

        Raises:
            InvalidInput: another shape, or not finite.
        """
        self._observe(latent, previous_control)
        self._stop_following()

    def swap(self, spec: RewardSpec | str | bytes | Mapping[str, Any]) -> SwapResult:
        """Replace the reward from the next tick on, or refuse with the reason and keep the old one. Never raises."""
        start = time.perf_counter()
        with self._swap_lock:
            return self._try(lambda: self._stage(spec, self._context), start)

    def set_goal_latent(self, latent: FloatArray) -> SwapResult:
        """A goal image's latent, of shape (D,), for the reward in force and those to come."""
        start = time.perf_counter()

        def stage() -> tuple[int, str]:
            context, current = RewardContext.towards(self._model, latent), self.reward
            used = current is not None and current.reward.uses_goal_image
            tick = self._stage(current.spec, context)[0] if current and used else self._index + 1
            self._context = context
            return tick, "" if used else "kept; no term of the active reward reads the goal image"

        with self._swap_lock:
            return self._try(stage, start)

    def set_goal_pose(self, x: float, y: float, yaw: float | None) -> SwapResult:
        """Another pose [m, m, rad] for the goal_pose terms of the reward in force."""
        start = time.perf_counter()

        def stage() -> tuple[int, str]:
            current = self.reward
            pose = {"x": x, "y": y, "yaw": yaw}
            if current is None or all(term.plugin != "goal_pose" for term in current.spec.terms):
                raise RewardError("goal: the active reward has no goal_pose term; swap one in first")
            terms = tuple(
                replace(term, params={**term.params, **pose}) if term.plugin == "goal_pose" else term
                for term in current.spec.terms
            )
            return self._stage(replace(current.spec, terms=terms), self._context)

        with self._swap_lock:
            return self._try(stage, start)

    # --- the tick's steps ----------------------------------------------------------------------------------------

    def _begin(self) -> tuple[int, RewardInForce | None, bool]:
        """Count the tick and put a staged reward in force."""
        with self._lock:
            self._index += 1
            swapped = self._staged is not None
            self._active, self._staged = self._staged or self._active, None
            return self._index, self._active, swapped

    def _observe(self, latent: FloatArray, previous_control: FloatArray) -> History:
        """The history with the newest latent. A bad one breaks it: what comes after starts a new history."""
        expected = {"latent": (latent, self._model.spec.latent_dim)}
        expected["control in force"] = (previous_control, self._model.spec.action.control_dim)
        for name, (value, dim) in expected.items():
            if np.shape(value) != (dim,) or not np.isfinite(value).all():
                self._history.clear()
                self._solver.reset()
                raise InvalidInput(f"the {name} is not finite or not of shape ({dim},)")
        self._history.push(latent, self._pending.send(previous_control))
        return self._history.history(self._model.spec.history)

    def _skip(self, latent: FloatArray, periods: int) -> None:
        """Control periods without a tick, until `latent` was seen: what went on meanwhile is the plan, and the history
        gets what lies between. A plan that has no control left for now ends."""
        if not periods or not len(self._history):
            return
        last = self._history.history(1).latents[-1]
        between = np.linspace(last, latent, periods + 1, endpoint=False)[1:] if last.shape == np.shape(latent) else ()
        went_on = np.zeros((periods, self._model.spec.action.control_dim), np.float32)
        if self._followed is not None:
            planned = self._model.spec.action.controls(self._followed.actions)
            sent = np.minimum(np.arange(periods), self._follow)  # beyond what came with the command its driver stays
            went_on = planned[np.minimum(self._steps - 1 + sent, len(planned) - 1)]
            self._solver.advance(periods)
            self._steps, self._spent = self._steps + periods, self._spent + periods
        for passed, control in zip(between, went_on, strict=False):
            self._observe(np.asarray(passed, np.float32), control)
        if self._next is not None and periods >= len(self._next.actions) * self._model.spec.action.block:
            self._next = None

    def _propose(self, proposals: FloatArray | None, history: History, target: Mapping[str, float]) -> FloatArray:
        """The proposals that were given or else the prior's, if there are any."""
        if proposals is None and self._prior is not None:
            proposals = self._prior.propose(history, self._count, self._rng, target)
        if proposals is None:
            return np.zeros((0, self._model.spec.horizon, self._model.spec.action.dim), np.float32)
        return self._pending.ahead(proposals)

    def _ends(self) -> bool:
        """Whether there is no plan to follow any longer."""
        if self._followed is None or self._next is not None:
            return True
        length = len(self._followed.actions) * self._model.spec.action.block - self._pending.periods - self._lead
        wanted = self._escape.steps if self._escape is not None and self._escapes else self._replan_every
        return self._steps >= min(wanted, length)

    def _left(self, unscored: int, fresh: bool = False) -> int:
        """Model steps to plan for: H, or what is left of a shrinking horizon if more than `unscored` controls are."""
        horizon, block = self._model.spec.horizon, self._model.spec.action.block
        controls = horizon * block - self._spent
        left = -(-controls // block)  # rounded up
        if fresh or not self._shrink or controls <= unscored:
            self._spent, left = 0, horizon
        return left

    def _plan(
        self,
        history: History,
        proposals: FloatArray | None,
        active: RewardInForce | None,
        previous_control: FloatArray,
        steps: int,
        *,
        stalled: bool = False,
        ahead: bool = False,
    ) -> Plan:
        """Propose, imagine, score, choose: from now on, or `ahead`: from when `previous_control`, just sent, ends."""
        if active is None:
            raise NotReady("no reward is active; swap one in")
        objective = _Objective(active.reward, self._standing)
        candidates = self._propose(proposals, history, active.reward.target)
        self._escapes = stalled and len(candidates) > 0
        if self._escapes and self._stall is not None:
            self._stall.clear()
            self._solver.reset()  # its last plan is what did not help
            self._spent, steps = 0, self._model.spec.horizon
        model, solver = self._corrected or self._model, self._sample if self._escapes else self._solver
        if ahead:
            action = self._model.spec.action
            sent = PendingControls(action, action.control_dt)
            sent.send(previous_control)
            model, candidates = _Late(model, sent), sent.ahead(candidates)
        plan = solver.solve(model, history, candidates, objective, previous_control, self._rng, steps)
        self._population = objective.last
        return replace(plan, terms=objective.terms(plan.imagined))

    def _look_back(self, latent: FloatArray, reward: CompositeReward) -> bool:
        """Hear how far off the plan that was followed is, if it says something of now; whether nothing moves."""
        if self._corrected is None and self._stall is None:
            return False
        now = {name: float(values[0]) for name, values in self._model.signals(latent[None]).items()}
        done, rest = divmod(self._steps + self._lead, self._model.spec.action.block)
        if self._corrected is not None and self._followed is not None and done and not rest:
            signals = self._followed.imagined.signals
            names = [name for name in reward.target if name in signals]
            self._corrected.learn(names, {name: float(signals[name][0, done - 1]) for name in names}, now)
        return self._stall is not None and self._stall.hear(self._index, now, reward.target)

    def _act(
        self,
        plan: Plan | None,
        stamp_age: float,
        alert_level: AlertLevel | None,
        previous_control: FloatArray,
        reason: str,
    ) -> GateDecision:
        """The plan's controls from this step on through the gate; the warm start moves on only if the robot does."""
        planned = None
        if plan is not None:
            planned = self._model.spec.action.controls(plan.actions)[self._steps :][: 1 + self._follow]
        decision = self._gate.check(
            planned, stamp_age=stamp_age, alert_level=alert_level, previous=previous_control, reason=reason
        )
        if decision.state is GateState.HOLD:
            self._stop_following()
        else:
            self._solver.advance(1)
            self._followed, self._steps, self._spent = plan, self._steps + 1, self._spent + 1
        return decision

    def _stop_following(self) -> None:
        """The plan in execution ends, and whether anything moves is asked anew."""
        self._followed, self._next, self._escapes = None, None, False
        if self._stall is not None:
            self._stall.clear()

    # --- swapping ------------------------------------------------------------------------------------------------

    def _stage(self, spec: RewardSpec | str | bytes | Mapping[str, Any], context: RewardContext) -> tuple[int, str]:
        """Validate, build, try, stage; returns the tick it will be in force from, and a remark.

        Raises:
            RewardError, UnknownName: it must not be used.
        """
        parsed = registry.parse_spec(registry.to_dict(spec) if isinstance(spec, RewardSpec) else spec)
        self._solver.accept(parsed)
        reward = registry.build(parsed, context)
        registry.dry_run(reward, self._population or self._stand_still(), self._swap_budget_s)
        with self._lock:
            before = self._staged or self._active
            version = 1 if before is None else before.version + 1
            self._staged = RewardInForce(reward, context, version)
            return self._index + 1, ""

    def _try(self, stage: Callable[[], tuple[int, str]], start: float) -> SwapResult:
        """The answer to a request, whatever becomes of it."""
        try:
            tick, message = stage()
            accepted = True
        except WorldpilotError as error:
            tick, message, accepted = 0, str(error), False
        current = self.reward
        return SwapResult(accepted, message, current.id if current else "", tick, time.perf_counter() - start)

    def _stand_still(self) -> Rollouts:
        """Where doing nothing leads from an empty history: something to try a reward on before the first tick."""
        spec = self._model.spec
        history = History(
            np.zeros((spec.history, spec.latent_dim), np.float32),
            np.zeros((spec.history - 1, spec.action.dim), np.float32),
        )
        actions = np.zeros((8, spec.horizon, spec.action.dim), np.float32)
        return self._model.rollout(history, actions, np.zeros(spec.action.control_dim, np.float32))
