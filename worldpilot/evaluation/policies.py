"""Policies by name: each makes, for one case, something that turns an image into a control."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from worldpilot.contracts import Reward
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.evaluation.cases import Case
from worldpilot.history import HistoryBuffer
from worldpilot.models.artifact import Artifact
from worldpilot.pending import PendingControls
from worldpilot.planners.gate import Gate
from worldpilot.planners.mpc import Mpc
from worldpilot.planners.rewards import registry
from worldpilot.planners.rewards.base import RewardContext
from worldpilot.planners.solvers import make as make_solver
from worldpilot.planners.solvers.cem import Cem, CemConfig
from worldpilot.planners.stall import EscapeConfig
from worldpilot.sim.experts import Expert
from worldpilot.sim.push_t import PushT
from worldpilot.sim.tasks import World
from worldpilot.types import FloatArray, ImageArray, Plan, RewardSpec, RewardTerm


class Policy(Protocol):
    """Chooses controls, one after another, in one episode."""

    sees: bool  # `act` needs the image
    solves: list[float]  # time of each planning [s]

    def act(self, image: ImageArray | None) -> FloatArray:
        """The next control, of shape (U,)."""
        ...


@dataclass(frozen=True)
class Setting:
    """What a policy is made from."""

    artifact: Artifact
    world: World
    case: Case
    rng: np.random.Generator
    replan: int  # control steps between plans of an MPC
    shrink: bool  # the MPC's horizon shrinks
    solver: Mapping[str, Any]  # settings that replace the solver's defaults
    delay: float = 0.0  # that a planner is told of [s]
    proposals: int | None = None  # samples of the prior a plan; None: the artifact's
    correction: float = 0.0  # see `Mpc`
    escape: EscapeConfig | None = None  # see `Mpc`


class Scripted:
    """Controls that need no image."""

    sees = False

    def __init__(self, controls: Iterator[npt.NDArray[Any]]) -> None:
        self.solves: list[float] = []
        self._controls = controls

    def act(self, image: ImageArray | None) -> FloatArray:
        return next(self._controls).astype(np.float32)


class PriorAlone:
    """One sample of the prior after another, each executed to its end: told the goal, but no model, no reward."""

    sees = True

    def __init__(self, setting: Setting) -> None:
        self.solves: list[float] = []
        self._artifact, self._rng, self._spec = setting.artifact, setting.rng, setting.artifact.spec
        self._goal = target(self._artifact, setting.case)
        self._buffer = HistoryBuffer(self._spec.action, self._spec.history)
        self._previous = np.zeros(self._spec.action.control_dim, np.float32)
        self._plan: list[FloatArray] = []

    def act(self, image: ImageArray | None) -> FloatArray:
        self._buffer.push(_encode(self._artifact, image), self._previous)
        if not self._plan:
            history = self._buffer.history(self._spec.history)
            proposal = self._artifact.prior.propose(history, 1, self._rng, self._goal)[0]
            self._plan = list(self._spec.action.controls(proposal))
        self._previous = self._plan.pop(0)
        return self._previous


class Planner:
    """Receding horizon with the artifact's model; `solver` "ssr" starts from the prior's proposals, others do not."""

    sees = True

    def __init__(self, setting: Setting, solver: str) -> None:
        artifact, case = setting.artifact, setting.case
        self.solves = []
        self._artifact, self._rng, self._spec = artifact, setting.rng, artifact.spec
        self._mpc = Mpc(
            artifact.world_model,
            make_solver(solver, **setting.solver),
            case.reward,
            Gate(self._spec.action),
            seed=int(setting.rng.integers(2**31)),
            goal_latent=None if case.goal_image is None else _encode(artifact, case.goal_image),
            replan_every=setting.replan,
            shrink=setting.shrink,
            delay=setting.delay,
            correction=setting.correction,
            escape=setting.escape,
        )
        self._count = setting.proposals or int(artifact.manifest["proposals"])
        self.plan: Plan | None = None  # the one in execution
        self._proposes = solver == "ssr"
        self._pending = PendingControls(self._spec.action, setting.delay)
        self._buffer = HistoryBuffer(self._spec.action, self._spec.history)
        self._previous = np.zeros(self._spec.action.control_dim, np.float32)

    def act(self, image: ImageArray | None) -> FloatArray:
        latent, proposals = _encode(self._artifact, image), None
        self._buffer.push(latent, self._pending.send(self._previous))
        begin = time.perf_counter()
        solves = self._mpc.plans_next
        if self._proposes and solves:
            goal = self._mpc.reward.reward.target if self._mpc.reward else None
            history = self._buffer.history(self._spec.history)
            proposals = self._artifact.prior.propose(history, self._count, self._rng, goal)
        tick = self._mpc.tick(latent, self._previous, proposals)
        if solves:
            self.solves.append(time.perf_counter() - begin)
        self._previous, self.plan = tick.control, tick.plan
        return self._previous


class PaperCem:
    """The planner of LeWorldModel: CEM of 300 samples, 30 elites, 30 iterations on the last latent's distance to the
    goal's, each plan executed to its end. No proposals, no signals."""

    sees = True

    def __init__(self, setting: Setting) -> None:
        artifact, case = setting.artifact, setting.case
        if case.goal_image is None:
            raise InvalidInput("evaluate: the policy paper_cem needs a goal image; use --protocol goal-image")
        self.solves = []
        self._artifact, self._rng, self._spec = artifact, setting.rng, artifact.spec
        self._solver = Cem(CemConfig(samples=300, elites=30, iterations=30, momentum=0.0))
        reward = RewardSpec((RewardTerm("goal_latent", params={"when": "last", "discount": 1.0}),))
        context = RewardContext.towards(artifact.world_model, _encode(artifact, case.goal_image))
        self._reward: Reward = registry.build(reward, context)
        self._buffer = HistoryBuffer(self._spec.action, self._spec.history)
        self._previous = np.zeros(self._spec.action.control_dim, np.float32)
        self._plan: list[FloatArray] = []

    def act(self, image: ImageArray | None) -> FloatArray:
        self._buffer.push(_encode(self._artifact, image), self._previous)
        if not self._plan:
            spec, begin = self._spec, time.perf_counter()
            none = np.zeros((0, spec.horizon, spec.action.dim), np.float32)
            self._solver.reset()
            history = self._buffer.history(spec.history)
            plan = self._solver.solve(
                self._artifact.world_model, history, none, self._reward, self._previous, self._rng
            )
            self.solves.append(time.perf_counter() - begin)
            self._plan = list(spec.action.controls(plan.actions))
        self._previous = self._plan.pop(0)
        return self._previous


def target(artifact: Artifact, case: Case) -> Mapping[str, float]:
    """The signals that a case's reward wants at a value: what proposals may aim at."""
    context = RewardContext(artifact.spec)
    if case.goal_image is not None:
        context = RewardContext.towards(artifact.world_model, _encode(artifact, case.goal_image))
    return registry.build(case.reward, context).target


def _encode(artifact: Artifact, image: ImageArray | None) -> FloatArray:
    assert image is not None
    return artifact.world_model.encode(image[None])[0]


def _noop(setting: Setting) -> Iterator[npt.NDArray[Any]]:
    while True:
        yield np.zeros(setting.artifact.spec.action.control_dim)


def _random(setting: Setting) -> Iterator[npt.NDArray[Any]]:
    action = setting.artifact.spec.action
    while True:
        control = setting.rng.uniform(action.low, action.high)
        for _ in range(action.block):
            yield control


def _expert(setting: Setting) -> Iterator[npt.NDArray[Any]]:
    if not isinstance(setting.world, PushT) or setting.case.goal_image is not None:
        raise InvalidInput("evaluate: the policy expert is for push_t's task protocol")
    return Expert().controls(setting.world, setting.rng)


POLICIES: dict[str, Callable[[Setting], Policy]] = {
    "noop": lambda setting: Scripted(_noop(setting)),
    "random": lambda setting: Scripted(_random(setting)),
    "prior": PriorAlone,
    "mpc": lambda setting: Planner(setting, "ssr"),
    "cem": lambda setting: Planner(setting, "cem"),
    "mppi": lambda setting: Planner(setting, "mppi"),
    "paper_cem": PaperCem,
    "expert": lambda setting: Scripted(_expert(setting)),
}


def make(name: str, setting: Setting) -> Policy:
    """A policy for one case.

    Raises:
        UnknownName: there is no such policy.
    """
    if name not in POLICIES:
        raise UnknownName("policy", name, POLICIES)
    return POLICIES[name](setting)
