"""Every solver on linear dynamics with a known optimum."""

from typing import Any

import numpy as np
import pytest

from worldpilot.contracts import Solver, WorldModel
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.planners.rewards.goal import GoalPose
from worldpilot.planners.solvers import SOLVERS, make
from worldpilot.types import FloatArray, History, Plan, Rollouts

STILL = np.zeros(2, np.float32)
NONE = np.zeros((0, 4, 10), np.float32)
SECONDS, FASTEST = 2.0, 0.25  # 20 control steps of 0.1 s, at most 0.25 m/s

all_solvers = pytest.mark.parametrize("name", sorted(SOLVERS))


def last_position(x: float, y: float) -> GoalPose:
    return GoalPose(x=x, y=y, when="last", discount=1.0)


def solve(
    solver: Solver, model: WorldModel, history: History, goal: GoalPose, seed: int = 0, **changes: FloatArray
) -> Plan:
    proposals, previous = changes.get("proposals", NONE), changes.get("previous", STILL)
    return solver.solve(model, history, proposals, goal, previous, np.random.default_rng(seed))


@all_solvers
def test_is_a_solver(name: str) -> None:
    assert isinstance(make(name), Solver)


@all_solvers
def test_reaches_what_can_be_reached(name: str, point: WorldModel, origin: History) -> None:
    solver = make(name)
    for _ in range(3):  # a warm start, as from tick to tick
        solve(solver, point, origin, last_position(0.2, -0.15))
    plan = solve(solver, point, origin, last_position(0.2, -0.15))
    assert plan.score > -(0.02**2)  # optimum 0: the point is within reach


@all_solvers
def test_goes_as_far_as_bounds_and_rates_allow(name: str, point: WorldModel, origin: History) -> None:
    solver = make(name)
    for seed in range(12):
        solve(solver, point, origin, last_position(5.0, 0.0), seed)
    plan = solve(solver, point, origin, last_position(5.0, 0.0))
    # Full speed ahead, after 0.2 m/s in the first step (2 m/s² for 0.1 s).
    farthest = FASTEST * SECONDS - (FASTEST - 0.2) * 0.1
    reached = float(plan.imagined.signals["block_x"][0, -1])
    assert 0.85 * farthest < reached <= farthest + 1e-6


@all_solvers
def test_plans_keep_bounds_and_rates(name: str, point: WorldModel, origin: History) -> None:
    previous = np.array([0.25, -0.25], np.float32)
    proposals = np.random.default_rng(1).normal(0, 5, (8, 4, 10)).astype(np.float32)
    plan = solve(make(name), point, origin, last_position(-1.0, 1.0), previous=previous, proposals=proposals)
    action = point.spec.action
    controls = np.concatenate([previous[None], action.controls(plan.actions)])
    assert np.abs(controls).max() <= 0.25
    assert np.abs(np.diff(controls, axis=0)).max() <= 2.0 * 0.1 + 1e-6


@all_solvers
def test_same_seed_same_plan(name: str, point: WorldModel, origin: History) -> None:
    plans = [solve(make(name), point, origin, last_position(0.1, 0.1), seed) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(plans[0].actions, plans[1].actions)
    assert not np.array_equal(plans[0].actions, plans[2].actions)


@all_solvers
def test_the_plan_is_what_was_imagined(name: str, point: WorldModel, origin: History) -> None:
    goal = last_position(0.1, 0.1)
    plan = solve(make(name), point, origin, goal)
    again = point.rollout(origin, plan.actions[None], STILL)
    np.testing.assert_allclose(plan.imagined.latents, again.latents, atol=1e-6)
    assert plan.score == pytest.approx(float(goal.score(again)[0]), abs=1e-6)


@all_solvers
def test_non_finite_candidates_lose(name: str, point: WorldModel, origin: History) -> None:
    class NotToTheLeft:
        def score(self, rollouts: Rollouts) -> FloatArray:
            x = rollouts.signals["block_x"][:, -1]
            return np.where(x < 0, np.nan, -x).astype(np.float32)

    proposals = np.full((2, 4, 10), np.nan, np.float32)
    rng = np.random.default_rng(0)
    plan = make(name).solve(point, origin, proposals, NotToTheLeft(), STILL, rng)
    assert np.isfinite(plan.score)
    assert np.isfinite(plan.actions).all()


@all_solvers
def test_refuses_when_nothing_has_a_score(name: str, point: WorldModel, origin: History) -> None:
    class Undefined:
        def score(self, rollouts: Rollouts) -> FloatArray:
            return np.full(len(rollouts), np.nan, np.float32)

    with pytest.raises(InvalidInput, match="finite score"):
        make(name).solve(point, origin, NONE, Undefined(), STILL, np.random.default_rng(0))


def test_ssr_is_never_worse_than_the_best_proposal(point: WorldModel, origin: History) -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        proposals = point.spec.action.actions(rng.uniform(-0.1, 0.1, (16, 20, 2)).astype(np.float32))
        goal = last_position(*rng.uniform(-0.3, 0.3, 2))
        best = goal.score(point.rollout(origin, proposals, STILL)).max()
        plan = solve(make("ssr", samples=4, refinements=0), point, origin, goal, seed, proposals=proposals)
        assert plan.score >= best - 1e-7


def test_ssr_keeps_its_plan_among_equals(point: WorldModel, origin: History) -> None:
    class Indifferent:
        def score(self, rollouts: Rollouts) -> FloatArray:
            return np.zeros(len(rollouts), np.float32)

    solver = make("ssr")
    plan = solve(solver, point, origin, last_position(0.2, 0.1))
    again = solver.solve(point, origin, NONE, Indifferent(), STILL, np.random.default_rng(9))
    np.testing.assert_array_equal(plan.actions, again.actions)


def test_advance_shifts_the_plan_at_the_control_rate(point: WorldModel, origin: History) -> None:
    class Indifferent:
        def score(self, rollouts: Rollouts) -> FloatArray:
            return np.zeros(len(rollouts), np.float32)

    solver = make("ssr")
    controls = point.spec.action.controls(solve(solver, point, origin, last_position(0.2, 0.1)).actions)
    solver.advance(3)
    plan = solver.solve(point, origin, NONE, Indifferent(), controls[2], np.random.default_rng(9))
    shifted = point.spec.action.controls(plan.actions)
    np.testing.assert_array_equal(shifted[:-3], controls[3:])
    np.testing.assert_array_equal(shifted[-3:], np.tile(controls[-1], (3, 1)))
    solver.reset()
    plan = solver.solve(point, origin, NONE, Indifferent(), STILL, np.random.default_rng(9))
    np.testing.assert_array_equal(plan.actions, np.zeros_like(plan.actions))


def test_proposals_must_fit_the_model(point: WorldModel, origin: History) -> None:
    with pytest.raises(InvalidInput, match=r"\(N, 4, 10\)"):
        solve(make("ssr"), point, origin, last_position(0, 0), proposals=np.zeros((3, 4, 9), np.float32))


def test_names_and_settings_are_checked() -> None:
    with pytest.raises(UnknownName, match="cem, icem, mppi, ssr"):
        make("sgd")
    with pytest.raises(InvalidInput, match="no setting temperature"):
        make("ssr", temperature=1.0)
    for name in SOLVERS:
        with pytest.raises(InvalidInput, match="samples must be positive"):
            make(name, samples=0)
    bad: list[Any] = [2.5, "many", True, None]
    for value in bad:
        with pytest.raises(InvalidInput, match="samples must be a whole number"):
            make("ssr", samples=value)
    with pytest.raises(InvalidInput, match="noise must be a number, got nan"):
        make("ssr", noise=float("nan"))
    make("ssr", samples=4, noise=1)
