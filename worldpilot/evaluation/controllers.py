"""Policies of the rewards protocol by name: each turns states into controls, for one robot and one reward.

prior                one sample of the action prior after another, whatever is asked
mpc, cem, mppi       the planner with the artifact's model; mpc (sample, score, rank) starts from the prior's proposals
simulator            mpc with the world itself as its model
reactive@FOLDER      a policy of `worldpilot distil`, or a clone of recorded episodes
single_step@FOLDER   mpc whose proposals are such a clone rolled out in the model, step by step, as in MBOP
run, jump, walk …    the behaviours that the data was recorded from
mpc@FOLDER …         the same with another artifact: dynamics of another kind, say
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from worldpilot import graph
from worldpilot.contracts import ActionPrior, WorldModel
from worldpilot.errors import InvalidInput, RewardError, UnknownName
from worldpilot.evaluation.simulated import SimulatedModel
from worldpilot.evaluation.single_step import RolledPolicy
from worldpilot.history import HistoryBuffer
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode
from worldpilot.models.policy.artifact import OnnxPolicy
from worldpilot.pending import PendingControls
from worldpilot.planners.gate import Gate, GateConfig
from worldpilot.planners.mpc import Mpc
from worldpilot.planners.rewards.registry import parse_spec
from worldpilot.planners.solvers import make as make_solver
from worldpilot.planners.stall import EscapeConfig
from worldpilot.sim.legged import LeggedWorld
from worldpilot.sim.tasks import task
from worldpilot.types import FloatArray, History, Plan, RewardSpec

STANDING = parse_spec(
    {
        "name": "stay up, stay with what is known",
        "terms": [
            {"plugin": "expression", "weight": 2.0, "params": {"expression": "-fall_probability"}},
            {"plugin": "expression", "weight": 0.1, "params": {"expression": "-disagreement"}},
        ],
    }
)

FRUGAL = {"samples": 8, "refinements": 2, "elites": 4}
ROLLED_NOISE = 0.1  # of a single-step policy's roll-outs, see `RolledPolicy`


@dataclass(frozen=True)
class Planning:
    """How the planners plan."""

    solver: Mapping[str, Any] = field(default_factory=dict)  # settings that replace the solver's defaults
    replan: int = 2  # control steps that a plan is followed
    proposals: int | None = None  # of the prior; None: the artifact's number
    standing: RewardSpec | None = STANDING
    delay: float = 0.0  # that they reckon with [s]
    correction: float = 0.0  # see `Mpc`
    escape: EscapeConfig | None = None  # see `Mpc`

    @classmethod
    def of(cls, task_name: str) -> "Planning":
        """As the task's graph plans; where a task has none, the defaults."""
        try:
            described = graph.load()
            mpc, prior = (described.settings(task_name, node) for node in ("mpc", "action_prior"))
        except UnknownName:
            return cls()
        standing = mpc.get("standing_reward")
        return cls(
            solver=json.loads(mpc.get("solver_settings", "{}")),
            replan=mpc.get("replan_every", cls.replan),
            proposals=mpc.get("propose") or prior.get("count"),
            standing=parse_spec(standing) if standing else None,
            correction=mpc.get("correction", cls.correction),
            escape=EscapeConfig.of(mpc.get("escape_after", 0.0), mpc.get("escape_steps", EscapeConfig.steps)),
        )

    def searching(self, solver: Mapping[str, Any], weights: Mapping[str, float]) -> "Planning":
        """The same with another search.

        Args:
            solver: settings that replace the solver's.
            weights: of the standing reward's terms, times what they are: a word of their expressions -> a factor.

        Raises:
            InvalidInput: a setting that the solver has not or refuses, a word that no term has, a factor that is no
                number or negative.
        """
        settings = {**self.solver, **solver}
        make_solver("ssr", **settings)
        terms = [] if self.standing is None else list(self.standing.terms)
        for word, factor in weights.items():
            named = [i for i, term in enumerate(terms) if word in str(term.params)]
            if not named or not isinstance(factor, int | float) or not 0 <= factor < np.inf:
                raise InvalidInput(f"planning: no term of the standing reward has {word!r}, or {factor!r} is no factor")
            for i in named:
                terms[i] = replace(terms[i], weight=terms[i].weight * factor)
        standing = self.standing and replace(self.standing, terms=tuple(terms))
        return replace(self, solver=settings, standing=standing)


@dataclass(frozen=True)
class Setting:
    """What a policy is made from."""

    artifact: Artifact
    world: LeggedWorld
    reward: RewardSpec
    planning: Planning
    seed: int

    def frugal(self) -> "Setting":
        """With few candidates, and half as many plans: for a model of which each candidate costs tens of ms."""
        solver = {**self.planning.solver, **FRUGAL}
        planning = replace(self.planning, solver=solver, proposals=16, replan=2 * self.planning.replan)
        return replace(self, planning=planning)

    def rng(self, use: int) -> np.random.Generator:
        """Randomness that depends on the episode's seed and what it is for, not on the policy."""
        return np.random.default_rng([self.seed, use])


class Driven:
    """An episode of a legged robot as it is driven, from the state that it is in now."""

    def __init__(self, world: LeggedWorld) -> None:
        self._world = world
        self._states, self._signals, self._controls = [world.observe().data], [world.signals()], list[FloatArray]()
        self.previous: FloatArray = np.zeros(world.action.control_dim, np.float32)  # the control in force, (U,)

    @property
    def state(self) -> FloatArray:
        """The newest, of shape (S,)."""
        return self._states[-1]

    def readings(self, model: WorldModel, seconds: float) -> dict[str, float]:
        """What a model reads of the robot: its signals' means over the newest `seconds` [s], or over all there were."""
        newest = np.stack(self._states[-round(seconds / self._world.action.control_dt) :])
        return {name: float(read.mean()) for name, read in model.signals(model.encode(newest)).items()}

    def drive(self, control: FloatArray) -> None:
        """One control step under what is within bounds of a control of shape (U,)."""
        action = self._world.action
        self.previous = np.clip(control, action.low, action.high).astype(np.float32)
        self._world.drive(self.previous)
        self._controls.append(self.previous)
        self._states.append(self._world.observe().data)
        self._signals.append(self._world.signals())

    def episode(self, meta: Mapping[str, Any]) -> Episode:
        """What was seen, done and measured; the world's outcome is added to `meta`."""
        return Episode.stack(self._states, self._controls, self._signals, {**meta, **self._world.outcome()})


class Controller(Protocol):
    """Chooses controls, one after another, in one episode."""

    solves: list[float]  # time of each decision that was computed, proposals included [s]

    def watch(self, state: FloatArray, previous: FloatArray) -> None:
        """A step in which another one drives: the newest state (S,), the control in force before it (U,)."""
        ...

    def act(self, state: FloatArray, previous: FloatArray) -> FloatArray:
        """The next control, of shape (U,)."""
        ...


class _Remembering:
    """Keeps the history that a model conditions on."""

    def __init__(self, artifact: Artifact, delay: float) -> None:
        self.solves: list[float] = []
        self._pending = PendingControls(artifact.spec.action, delay)
        self._spec, self._model = artifact.spec, artifact.world_model
        self._buffer = HistoryBuffer(artifact.spec.action, max(artifact.spec.history - 1, 1))

    def watch(self, state: FloatArray, previous: FloatArray) -> None:
        self._remember(state, previous)

    def _remember(self, state: FloatArray, previous: FloatArray) -> tuple[FloatArray, History]:
        """The newest latent, and the history that ends with it."""
        latent = self._model.encode(state[None])[0]
        self._buffer.push(latent, self._pending.send(previous))
        return latent, self._buffer.history(self._spec.history)


class PriorAlone(_Remembering):
    """One sample of the prior after another, each followed as long as the planner follows a plan: no reward."""

    def __init__(self, setting: Setting, use: int = 0) -> None:
        super().__init__(setting.artifact, setting.planning.delay)
        self._prior, self._rng, self._every = setting.artifact.prior, setting.rng(use), setting.planning.replan
        self._left: list[FloatArray] = []

    def act(self, state: FloatArray, previous: FloatArray) -> FloatArray:
        _, history = self._remember(state, previous)
        if not self._left:
            begin = time.perf_counter()
            sample = self._prior.propose(history, 1, self._rng)[0]
            self._left = list(self._spec.action.controls(sample)[: self._every])
            self.solves.append(time.perf_counter() - begin)
        return self._left.pop(0)


class Planner(_Remembering):
    """Receding horizon; the solver "ssr" starts from the prior's proposals, the others from nothing."""

    def __init__(
        self, setting: Setting, solver: str, model: WorldModel | None = None, prior: ActionPrior | None = None
    ) -> None:
        super().__init__(setting.artifact, setting.planning.delay)
        planning, artifact = setting.planning, setting.artifact
        self._prior, self._rng = prior or artifact.prior, setting.rng(1)
        self._count = planning.proposals or int(artifact.manifest["proposals"])
        self._proposes = solver == "ssr"
        self.plan: Plan | None = None  # the one in execution
        settings = planning.solver if solver == "ssr" else {}
        self._mpc = Mpc(
            model or artifact.world_model,
            make_solver(solver, **settings),
            setting.reward,
            Gate(self._spec.action, GateConfig(recovery=1)),
            seed=int(setting.rng(2).integers(2**31)),
            standing=planning.standing,
            replan_every=planning.replan,
            delay=planning.delay,
            correction=planning.correction,
            escape=planning.escape,
        )

    def swap(self, reward: RewardSpec) -> None:
        """Follow another reward from the next step on.

        Raises:
            RewardError: it is refused.
        """
        answer = self._mpc.swap(reward)
        if not answer.accepted:
            raise RewardError(answer.message)

    def watch(self, state: FloatArray, previous: FloatArray) -> None:
        latent, _ = self._remember(state, previous)
        self._mpc.watch(latent, previous)

    def act(self, state: FloatArray, previous: FloatArray) -> FloatArray:
        latent, history = self._remember(state, previous)
        begin, solves = time.perf_counter(), self._mpc.plans_next
        proposals = self._prior.propose(history, self._count, self._rng) if solves and self._proposes else None
        tick = self._mpc.tick(latent, previous, proposals)
        if solves:
            self.solves.append(time.perf_counter() - begin)
        self.plan = tick.plan
        return tick.control


class Reactive(_Remembering):
    """A policy without a planner: a model step's action at a time."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        super().__init__(setting.artifact, setting.planning.delay)
        self._policy = OnnxPolicy.load(folder, setting.artifact.spec)
        self._left: list[FloatArray] = []

    def act(self, state: FloatArray, previous: FloatArray) -> FloatArray:
        _, history = self._remember(state, previous)
        if not self._left:
            begin = time.perf_counter()
            action = self._policy.act(history.latents)
            self.solves.append(time.perf_counter() - begin)
            self._left = list(self._spec.action.controls(action[None]))
        return self._left.pop(0)


class Behaviour:
    """What the data was recorded from. It drives from the first step on: it has a beginning of its own."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.solves: list[float] = []
        made = task(setting.artifact.spec.task).behaviours[name].make()
        self._controls = made(setting.world, setting.rng(3))

    def act(self, state: FloatArray, previous: FloatArray) -> FloatArray:
        return np.asarray(next(self._controls), np.float32)

    def watch(self, state: FloatArray, previous: FloatArray) -> None:
        raise InvalidInput("a behaviour of the data drives from the first step on")


PLANNERS: Mapping[str, Callable[[Setting], Controller]] = {
    "mpc": lambda setting: Planner(setting, "ssr"),
    "cem": lambda setting: Planner(setting, "cem"),
    "mppi": lambda setting: Planner(setting, "mppi"),
    "simulator": lambda setting: Planner(
        setting.frugal(), "ssr", SimulatedModel(setting.world, setting.artifact.world_model)
    ),
}


def _single_step(setting: Setting, folder: Path) -> Controller:
    """The planner with the roll-outs of a cloned policy in place of the prior's proposals."""
    policy = OnnxPolicy.load(folder, setting.artifact.spec)
    prior = RolledPolicy(setting.artifact.world_model, policy.act_all, ROLLED_NOISE)
    return Planner(setting, "ssr", prior=prior)


@dataclass(frozen=True)
class Kind:
    """What a policy's name stands for."""

    name: str
    make: Callable[[Setting], Controller]
    plans: bool  # it does something else for another reward
    warms: bool = True  # the prior may drive before it


def kind(name: str, task_name: str) -> Kind:
    """What a policy's name stands for on a task.

    Raises:
        UnknownName: there is no such policy.
        ArtifactError: the folder after the @ holds no artifact or policy that fits.
    """
    base, _, folder = name.partition("@")
    behaviours = task(task_name).behaviours
    if base == "reactive" and folder:
        return Kind(name, lambda setting: Reactive(setting, Path(folder)), plans=False)
    if base == "single_step" and folder:
        return Kind(name, lambda setting: _single_step(setting, Path(folder)), plans=True)
    if base in behaviours and not folder:
        return Kind(name, lambda setting: Behaviour(setting, base), plans=False, warms=False)
    if base not in {"prior", *PLANNERS}:
        raise UnknownName("policy", base, ["prior", *PLANNERS, "reactive@FOLDER", "single_step@FOLDER", *behaviours])
    make = PLANNERS.get(base, PriorAlone)
    if not folder:
        return Kind(name, make, plans=base in PLANNERS)
    return Kind(name, lambda setting: make(_elsewhere(setting, Path(folder))), plans=base in PLANNERS)


@cache
def _load(folder: Path) -> Artifact:
    return Artifact.load(folder)


def _elsewhere(setting: Setting, folder: Path) -> Setting:
    """The same with another artifact, which must see and move the same robot.

    Raises:
        InvalidInput: it does not.
    """
    other, ours = _load(folder), setting.artifact.spec
    if (other.spec.task, other.spec.action, other.spec.observation_shape) != (
        ours.task,
        ours.action,
        ours.observation_shape,
    ):
        raise InvalidInput(f"{folder} is an artifact of {other.spec.task} with other states or controls")
    return replace(setting, artifact=other)
