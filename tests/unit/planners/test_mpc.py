"""The tick, and replacing the reward between two of them."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from worldpilot.contracts import WorldModel
from worldpilot.errors import InvalidInput, RewardError, UnknownName
from worldpilot.pending import PendingControls
from worldpilot.planners.gate import Gate, GateConfig, GateState
from worldpilot.planners.mpc import Mpc, Tick
from worldpilot.planners.rewards.registry import parse_spec, reward_id
from worldpilot.planners.solvers import make
from worldpilot.types import AlertLevel, FloatArray, History, RewardSpec

DT = 0.1
ORIGIN: FloatArray = np.zeros(2, np.float32)


def pose(x: float, y: float) -> RewardSpec:
    return parse_spec(
        {"terms": [{"plugin": "goal_pose", "params": {"x": x, "y": y}}, {"plugin": "smoothness", "weight": 1e-3}]}
    )


def controller(model: WorldModel, reward: RewardSpec | None = None, **settings: Any) -> Mpc:
    gate = Gate(model.spec.action, GateConfig(recovery=2))
    return Mpc(model, make("ssr", samples=32), reward, gate, seed=0, **settings)


def moved(position: FloatArray, control: FloatArray) -> FloatArray:
    """Where the point is one control step later."""
    return np.asarray(position + DT * control, np.float32)


def drive(mpc: Mpc, position: FloatArray, steps: int, ahead: bool = False) -> tuple[FloatArray, list[Tick]]:
    """Close the loop around the point for some control steps; `ahead`: plan ahead after each control that is sent."""
    control, ticks = ORIGIN, list[Tick]()
    for _ in range(steps):
        ticks.append(mpc.tick(position, control, None))
        control = ticks[-1].control
        if ahead:
            mpc.plan_ahead(control, None)
        position = moved(position, control)
    return position, ticks


def test_reaches_the_goal(point: WorldModel) -> None:
    position, ticks = drive(controller(point, pose(0.2, -0.1)), np.zeros(2, np.float32), 25)
    np.testing.assert_allclose(position, [0.2, -0.1], atol=0.02)
    assert [tick.index for tick in ticks] == list(range(1, 26))
    assert {tick.decision.state for tick in ticks} == {GateState.RUN}


def test_same_seed_same_controls(point: WorldModel) -> None:
    runs = [drive(controller(point, pose(0.1, 0.1)), np.zeros(2, np.float32), 8)[1] for _ in range(2)]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a.control, b.control)


def test_another_episode_of_a_seed_draws_otherwise_and_again_the_same(point: WorldModel) -> None:
    runs = list[list[FloatArray]]()
    for _ in range(2):
        mpc = controller(point, pose(0.1, 0.1))
        runs.append([])
        for _ in range(3):
            runs[-1].append(np.array([tick.control for tick in drive(mpc, ORIGIN, 8)[1]]))
            mpc.reset()
    np.testing.assert_array_equal(runs[0], runs[1])
    first, second, third = runs[0]
    assert (first != second).any()
    assert (second != third).any()


def test_what_follows_a_control_is_what_the_plan_has_next(point: WorldModel) -> None:
    mpc = controller(point, pose(0.2, -0.1), replan_every=3, follow=4)
    _, ticks = drive(mpc, ORIGIN, 6)
    for tick in ticks:
        assert tick.plan is not None
        assert tick.decision.controls[1:].shape == (4, 2)
        controls = point.spec.action.controls(tick.plan.actions)
        at = (tick.index - 1) % 3  # of the plan
        np.testing.assert_allclose([tick.control, *tick.decision.controls[1:]], controls[at : at + 5], atol=1e-6)
    held = mpc.tick(ORIGIN, ORIGIN, None, alert_level=AlertLevel.HOLD)
    assert held.decision.controls[1:].shape == (0, 2)


def test_terms_add_up_to_the_score(point: WorldModel) -> None:
    plan = controller(point, pose(0.1, 0.0)).tick(np.zeros(2, np.float32), np.zeros(2, np.float32), None).plan
    assert plan is not None
    assert set(plan.terms) == {"goal_pose", "smoothness"}
    assert sum(plan.terms.values()) == pytest.approx(plan.score, abs=1e-6)


def fence(weight: float) -> RewardSpec:
    """Keep left of x = 0.1 m."""
    params = {"expression": "-max(block_x - 0.1, 0)"}
    return parse_spec({"terms": [{"plugin": "expression", "weight": weight, "params": params}]})


def test_standing_terms_count_beside_the_reward_and_survive_swaps(point: WorldModel) -> None:
    mpc = controller(point, pose(0.2, 0.0), standing=fence(100.0))
    position, ticks = drive(mpc, np.zeros(2, np.float32), 25)
    assert position[0] == pytest.approx(0.1, abs=0.02)
    plan = ticks[-1].plan
    assert plan is not None
    assert set(plan.terms) == {"goal_pose", "smoothness", "standing_expression"}
    assert sum(plan.terms.values()) == pytest.approx(plan.score, abs=1e-6)
    assert mpc.swap(pose(0.2, 0.1)).accepted
    position, ticks = drive(mpc, position, 25)
    np.testing.assert_allclose(position, [0.1, 0.1], atol=0.02)
    assert mpc.reward is not None
    assert [term.plugin for term in mpc.reward.spec.terms] == ["goal_pose", "smoothness"]  # a swap names its own only


def test_a_standing_term_is_checked_when_the_planner_is_made(point: WorldModel) -> None:
    unknown = parse_spec({"terms": [{"plugin": "expression", "params": {"expression": "-fall_probability"}}]})
    with pytest.raises(UnknownName, match="fall_probability"):
        controller(point, pose(0.2, 0.0), standing=unknown)
    goal = parse_spec({"terms": [{"plugin": "goal_latent"}]})
    with pytest.raises(RewardError, match="standing term can't read the goal image"):
        controller(point, pose(0.2, 0.0), standing=goal, goal_latent=np.zeros(2, np.float32))


def test_a_swap_is_in_force_at_the_next_tick(point: WorldModel) -> None:
    mpc = controller(point, pose(0.2, 0.0))
    position, _ = drive(mpc, np.zeros(2, np.float32), 5)
    result = mpc.swap('{"terms": [{"plugin": "goal_pose", "params": {"x": -0.2, "y": 0}}]}')
    assert result.accepted, result.message
    assert result.in_force_tick == 6
    position, ticks = drive(mpc, position, 25)
    assert [tick.swapped for tick in ticks[:2]] == [True, False]
    assert ticks[0].index == result.in_force_tick
    assert ticks[0].reward is not None
    assert (ticks[0].reward.id, ticks[0].reward.version) == (result.reward_id, 1)
    np.testing.assert_allclose(position, [-0.2, 0.0], atol=0.02)


def test_a_plan_is_followed_until_it_is_time_to_replan(point: WorldModel) -> None:
    mpc = controller(point, pose(0.2, 0.1), replan_every=5)
    position, ticks = drive(mpc, np.zeros(2, np.float32), 10)
    plans = [tick.plan.actions.tobytes() for tick in ticks if tick.plan is not None]
    assert [plans[i] == plans[i - 1] for i in range(1, 10)] == [True] * 4 + [False] + [True] * 4
    first = ticks[0].plan
    assert first is not None
    np.testing.assert_array_equal([t.control for t in ticks[:5]], point.spec.action.controls(first.actions)[:5])
    _, ticks = drive(mpc, position, 20)
    assert ticks[-1].plan is not None
    assert ticks[-1].plan.score > -1e-3


@pytest.mark.parametrize("ended_by", ["swap", "gap", "hold"])
def test_a_followed_plan_ends_early_when_it_must(point: WorldModel, ended_by: str) -> None:
    mpc = controller(point, pose(0.2, 0.1), replan_every=5)
    position, ticks = drive(mpc, np.zeros(2, np.float32), 2)
    assert not mpc.plans_next
    if ended_by == "swap":
        assert mpc.swap(pose(-0.2, 0.0)).accepted
    elif ended_by == "gap":
        mpc.reset()
    else:
        mpc.tick(position, ticks[-1].control, None, alert_level=AlertLevel.HOLD)
    assert mpc.plans_next
    following = mpc.tick(position, ticks[-1].control, None).plan
    assert following is not None
    assert ticks[-1].plan is not None
    assert (following.actions != ticks[-1].plan.actions).any()


def test_a_shrinking_horizon_ends_and_begins_anew(point: WorldModel) -> None:
    mpc = controller(point, pose(0.2, 0.1), replan_every=5, shrink=True)
    position, ticks = drive(mpc, np.zeros(2, np.float32), 25)
    lengths = [len(tick.plan.actions) for tick in ticks if tick.plan is not None]
    assert lengths == [4] * 5 + [3] * 5 + [2] * 5 + [1] * 5 + [4] * 5
    assert mpc.swap(pose(-0.1, 0.0)).accepted
    position, ticks = drive(mpc, position, 20)
    assert ticks[0].plan is not None
    assert len(ticks[0].plan.actions) == 4  # another reward has its own horizon
    np.testing.assert_allclose(position, [-0.1, 0.0], atol=0.02)


def test_a_shrinking_horizon_need_not_be_whole_model_steps(point: WorldModel) -> None:
    _, ticks = drive(controller(point, pose(0.2, 0.1), replan_every=3, shrink=True), np.zeros(2, np.float32), 21)
    lengths = [len(tick.plan.actions) for tick in ticks[::3] if tick.plan is not None]
    assert lengths == [4, 4, 3, 3, 2, 1, 1]


def test_a_plan_made_ahead_is_begun_without_planning(point: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    mpc, rollout, asked = controller(point, pose(0.2, -0.1), replan_every=3), point.rollout, list[str]()
    position, control = ORIGIN, ORIGIN
    for step in range(10):
        monkeypatch.setattr(point, "rollout", lambda *args, step=step: asked.append(f"tick {step}") or rollout(*args))
        control = mpc.tick(position, control, None).control
        monkeypatch.setattr(point, "rollout", lambda *args, step=step: asked.append(f"after {step}") or rollout(*args))
        mpc.plan_ahead(control, None)
        position = moved(position, control)
    assert set(asked) == {"tick 0", "after 2", "after 5", "after 8"}  # only the first plan is waited for


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.05])
def test_what_a_plan_made_ahead_imagines_comes_true(point: WorldModel, delay: float) -> None:
    mpc = controller(point, pose(0.3, 0.2), replan_every=6, delay=delay)
    pending, control = PendingControls(point.spec.action, delay), ORIGIN
    positions, ticks = [ORIGIN], list[Tick]()
    for _ in range(13):
        ticks.append(mpc.tick(positions[-1], control, None))
        control = ticks[-1].control
        mpc.plan_ahead(control, None)
        positions.append(moved(positions[-1], pending.send(control)))
    plan = ticks[6].plan  # made of the observation before; its first model step ends five control steps after that
    assert plan is not None
    assert plan.imagined.signals["block_x"][0, 0] == pytest.approx(positions[10][0], abs=1e-5)


def test_planning_ahead_reaches_the_goal_the_same_way_twice(point: WorldModel) -> None:
    (position, first), (_, second) = (
        drive(controller(point, pose(0.2, -0.1), replan_every=3), ORIGIN, 30, ahead=True) for _ in range(2)
    )
    np.testing.assert_allclose(position, [0.2, -0.1], atol=0.02)
    np.testing.assert_array_equal([tick.control for tick in first], [tick.control for tick in second])


@pytest.mark.parametrize("undone_by", ["swap", "hold", "interruption"])
def test_a_plan_made_ahead_is_undone_by_what_comes_between(point: WorldModel, undone_by: str) -> None:
    mpc = controller(point, pose(0.2, -0.1), replan_every=3)
    position, ticks = drive(mpc, ORIGIN, 3, ahead=True)
    assert not mpc.plans_next
    if undone_by == "swap":
        assert mpc.swap(pose(-0.2, 0.1)).accepted
    elif undone_by == "hold":
        mpc.tick(position, ticks[-1].control, None, alert_level=AlertLevel.HOLD)
    else:
        mpc.reset()
    assert mpc.plans_next
    tick = mpc.tick(position, ticks[-1].control, None)
    assert tick.plan is not None
    if undone_by == "swap":
        assert tick.control[0] < ticks[-1].control[0] - 0.1  # it turns round, as fast as its rate allows


def test_planning_ahead_keeps_to_a_shrinking_horizon(point: WorldModel) -> None:
    mpc = controller(point, pose(0.2, 0.0), shrink=True, replan_every=2)
    position, ticks = drive(mpc, ORIGIN, 40, ahead=True)
    assert position[0] == pytest.approx(0.2, abs=0.03)
    assert all(tick.plan is not None for tick in ticks)


@pytest.mark.parametrize("ahead", [False, True])
def test_periods_without_a_tick_are_as_if_the_plan_had_gone_on(point: WorldModel, ahead: bool) -> None:
    """A planner that was busy for two periods sends what it would have sent, and has the same history."""
    runs = list[list[FloatArray]]()
    for missed in ((), (2, 3), (5, 6)):
        mpc = controller(point, pose(0.3, 0.2), replan_every=5, follow=4)
        position, control, sent, tail, skipped = ORIGIN, ORIGIN, list[FloatArray](), ORIGIN[None], 0
        for step in range(9):
            if step in missed:
                skipped += 1
                tail = tail[1:]
            else:
                tick = mpc.tick(position, control, None, skipped=skipped)
                skipped, tail = 0, tick.decision.controls
                if ahead:
                    mpc.plan_ahead(tick.control, None)
            control = tail[0]
            sent.append(control)
            position = moved(position, control)
        runs.append(sent)
    np.testing.assert_allclose(runs[1], runs[0], atol=1e-5)
    np.testing.assert_allclose(runs[2][:5], runs[0][:5], atol=1e-6)
    if ahead:  # the plan that was ready is begun where it should be by now
        np.testing.assert_allclose(runs[2][7:], runs[0][7:], atol=1e-5)


def test_a_plan_that_ended_while_nothing_was_ticked_is_followed_by_another(point: WorldModel) -> None:
    mpc = controller(point, pose(0.3, 0.2), replan_every=5)
    position, ticks = drive(mpc, ORIGIN, 2)
    tick = mpc.tick(position, ticks[-1].control, None, skipped=4)
    assert tick.plan is not None
    assert ticks[-1].plan is not None
    assert tick.plan.actions is not ticks[-1].plan.actions
    assert tick.decision.state is GateState.RUN


def test_a_plan_cannot_be_followed_beyond_its_end(point: WorldModel) -> None:
    with pytest.raises(InvalidInput, match="between 1 and the horizon's 20, got 21"):
        controller(point, replan_every=21)


def sticky(mpc: Mpc, steps: int, stick: float = 0.06) -> np.ndarray:
    """Close the loop around a point that does not move at less than `stick` [m/s], of which the model knows nothing."""
    position, control = np.zeros(2, np.float32), np.zeros(2, np.float32)
    for _ in range(steps):
        control = mpc.tick(position, control, None).control
        if np.linalg.norm(control) > stick:
            position = (position + control * np.float32(DT)).astype(np.float32)
    return position


def test_a_promise_that_is_not_kept_is_not_believed_for_ever(point: WorldModel) -> None:
    """What sticks where the model says that it moves comes loose once the plans must promise more."""
    goal, settings = pose(0.01, 0.0), {"replan_every": point.spec.action.block}
    stuck = sticky(controller(point, goal, **settings), 60)
    loose = sticky(controller(point, goal, correction=0.5, **settings), 60)
    np.testing.assert_array_equal(stuck, [0.0, 0.0])
    assert np.linalg.norm(loose - [0.01, 0.0]) < 0.006


def test_a_model_that_is_right_is_not_corrected(point: WorldModel) -> None:
    plain, corrected = (
        drive(controller(point, pose(0.2, -0.1), correction=weight), np.zeros(2, np.float32), 10)[0]
        for weight in (0.0, 0.5)
    )
    np.testing.assert_allclose(plain, corrected, atol=1e-5)
    with pytest.raises(InvalidInput, match=r"correction must be within \[0, 1\)"):
        controller(point, pose(0.2, 0.0), correction=1.0)


def test_history_and_warm_start_survive_a_swap(point: WorldModel) -> None:
    kept, swapped = controller(point, pose(0.2, 0.1)), controller(point, pose(0.2, 0.1))
    position, _ = drive(kept, np.zeros(2, np.float32), 5)
    drive(swapped, np.zeros(2, np.float32), 5)
    assert swapped.swap(pose(0.2, 0.1)).accepted
    for a, b in zip(drive(kept, position, 5)[1], drive(swapped, position, 5)[1], strict=True):
        np.testing.assert_array_equal(a.control, b.control)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("not json", "JSON"),
        ('{"terms": []}', "terms"),
        ('{"terms": [{"plugin": "nope"}]}', "valid names: expression, goal_latent, goal_pose"),
        ('{"terms": [{"plugin": "goal_pose", "params": {"x": 0}}]}', "'y' is a required property"),
        ('{"terms": [{"plugin": "goal_latent"}]}', "goal image"),
        ('{"terms": [{"plugin": "expression", "params": {"expression": "height"}}]}', "block_x"),
        ('{"terms": [{"plugin": "expression", "params": {"expression": "log(0 * block_x - 1)"}}]}', "not finite"),
    ],
)
@pytest.mark.parametrize("ticks_before", [0, 3])
def test_a_refused_swap_says_why_and_keeps_the_old_reward(
    point: WorldModel, spec: str, says: str, ticks_before: int
) -> None:
    mpc = controller(point, pose(0.1, 0.0))
    position, _ = drive(mpc, np.zeros(2, np.float32), ticks_before)
    result = mpc.swap(spec)
    assert not result.accepted
    assert says in result.message
    assert result.in_force_tick == 0
    assert result.reward_id == reward_id(pose(0.1, 0.0))
    (tick,) = drive(mpc, position, 1)[1]
    assert tick.reward is not None
    assert (tick.reward.id, tick.reward.version, tick.swapped) == (result.reward_id, 0, False)


def test_a_reward_that_is_too_slow_is_refused(point: WorldModel) -> None:
    result = controller(point, pose(0.1, 0.0), swap_budget_s=0.0).swap(pose(0.2, 0.0))
    assert not result.accepted
    assert "budget" in result.message


def test_without_a_reward_it_holds_until_one_comes(point: WorldModel) -> None:
    mpc = controller(point)
    (tick,) = drive(mpc, np.zeros(2, np.float32), 1)[1]
    assert tick.decision.state is GateState.HOLD
    assert "no reward" in tick.decision.reason
    assert mpc.swap(pose(0.1, 0.0)).accepted
    assert drive(mpc, np.zeros(2, np.float32), 3)[1][-1].decision.state is GateState.RUN


@pytest.mark.parametrize("bad", [np.full(2, np.nan, np.float32), np.zeros(3, np.float32)])
def test_a_bad_latent_holds_and_recovers(point: WorldModel, bad: np.ndarray) -> None:
    mpc = controller(point, pose(0.1, 0.0))
    drive(mpc, np.zeros(2, np.float32), 3)
    tick = mpc.tick(bad, np.zeros(2, np.float32), None)
    assert tick.plan is None
    assert tick.decision.state is GateState.HOLD
    assert "latent" in tick.decision.reason
    states = [tick.decision.state for tick in drive(mpc, np.zeros(2, np.float32), 3)[1]]
    assert states == [GateState.HOLD, GateState.RUN, GateState.RUN]


def test_what_another_one_drives_is_history(point: WorldModel) -> None:
    watched, drove = (controller(point, pose(0.2, 0.1), replan_every=5) for _ in range(2))
    moved, moving = np.array([0.05, 0.0], np.float32), np.array([0.25, 0.0], np.float32)
    for step in (watched.watch, lambda latent, control: drove.tick(latent, control, None)):
        step(np.zeros(2, np.float32), np.zeros(2, np.float32))
        step(moved, moving)
    seen = [mpc._history.history(2) for mpc in (watched, drove)]
    np.testing.assert_array_equal(seen[0].latents, seen[1].latents)
    np.testing.assert_array_equal(seen[0].actions, seen[1].actions)
    assert watched.plans_next  # it follows no plan of its own
    assert not drove.plans_next
    with pytest.raises(InvalidInput, match="latent"):
        watched.watch(np.full(2, np.nan, np.float32), moving)


def test_without_proposals_it_draws_them_of_the_prior_for_what_is_seen_now(point: WorldModel) -> None:
    asked: list[tuple[float, int, dict[str, float]]] = []

    class Prior:
        horizon = point.spec.horizon

        def propose(
            self, history: History, n: int, rng: np.random.Generator, goal: Mapping[str, float] | None = None
        ) -> FloatArray:
            asked.append((float(history.latents[-1, 0]), n, dict(goal or {})))
            return np.full((n, self.horizon, point.spec.action.dim), 0.05, np.float32)

    solver = make("ssr", samples=1, refinements=0, elites=1, noise=1e-6)
    mpc = Mpc(point, solver, pose(0.2, 0.0), Gate(point.spec.action), seed=0, prior=Prior(), proposals=3)
    _, ticks = drive(mpc, np.array([0.01, 0.0], np.float32), 1)
    assert ticks[0].plan is not None
    assert asked == [(pytest.approx(0.01), 3, {"block_x": 0.2, "block_y": 0.0})]
    np.testing.assert_allclose(ticks[0].plan.actions, 0.05, atol=1e-4)
    mpc.tick(np.zeros(2, np.float32), np.zeros(2, np.float32), np.zeros((1, *ticks[0].plan.actions.shape), np.float32))
    assert len(asked) == 1  # those that are given come first


def test_bad_proposals_hold(point: WorldModel) -> None:
    mpc = controller(point, pose(0.1, 0.0))
    tick = mpc.tick(np.zeros(2, np.float32), np.zeros(2, np.float32), np.zeros((4, 9, 9), np.float32))
    assert tick.decision.state is GateState.HOLD
    assert "proposals must have shape (N, 4, 10)" in tick.decision.reason


def test_the_alert_level_reaches_the_gate(point: WorldModel) -> None:
    mpc, still = controller(point, pose(0.1, 0.0)), np.zeros(2, np.float32)
    assert mpc.tick(still, still, None, alert_level=AlertLevel.HOLD).decision.state is GateState.HOLD
    assert mpc.tick(still, still, None, alert_level=None).decision.state is GateState.HOLD


def test_goals_move_without_changing_the_kind_of_reward(point: WorldModel) -> None:
    mpc = controller(point, pose(0.2, 0.0))
    assert mpc.set_goal_pose(0.0, 0.15, None).accepted
    assert mpc.reward is not None
    assert [term.plugin for term in mpc.reward.spec.terms] == ["goal_pose", "smoothness"]
    position, _ = drive(mpc, np.zeros(2, np.float32), 20)
    np.testing.assert_allclose(position, [0.0, 0.15], atol=0.02)
    assert not mpc.set_goal_pose(np.nan, 0.0, None).accepted


def test_a_goal_latent_is_kept_for_rewards_to_come(point: WorldModel) -> None:
    mpc = controller(point, pose(0.2, 0.0))
    assert not mpc.has_goal_image
    result = mpc.set_goal_latent(np.array([0.0, -0.15], np.float32))
    assert result.accepted
    assert mpc.has_goal_image
    assert "goal image" in result.message
    assert mpc.swap('{"terms": [{"plugin": "goal_latent"}]}').accepted
    position, _ = drive(mpc, np.zeros(2, np.float32), 20)
    np.testing.assert_allclose(position, [0.0, -0.15], atol=0.02)
    assert mpc.set_goal_latent(np.array([0.0, 0.1], np.float32)).accepted
    position, _ = drive(mpc, position, 25)
    np.testing.assert_allclose(position, [0.0, 0.1], atol=0.02)
    assert not mpc.set_goal_latent(np.zeros(7, np.float32)).accepted
    assert not mpc.set_goal_pose(0.0, 0.0, None).accepted  # no goal_pose term


def test_swaps_from_another_thread_never_break_a_tick(point: WorldModel) -> None:
    mpc, results = controller(point, pose(0.1, 0.0)), []
    specs = [pose(0.1, 0.1), "junk", pose(-0.1, 0.0)] * 30
    thread = threading.Thread(target=lambda: results.extend(mpc.swap(spec) for spec in specs))
    position, ticks = np.zeros(2, np.float32), []
    thread.start()
    while thread.is_alive() or len(ticks) < 10:
        position, (tick,) = drive(mpc, position, 1)
        ticks.append(tick)
    thread.join()
    position, last = drive(mpc, position, 1)
    assert [result.accepted for result in results] == [True, False, True] * 30
    versions = [tick.reward.version for tick in ticks + last if tick.reward is not None]
    assert versions == sorted(versions)
    assert versions[-1] == 60
    assert all(tick.plan is not None for tick in ticks)


def late_drive(mpc: Mpc, delay: float, steps: int) -> tuple[FloatArray, list[Tick]]:
    """Close the loop around a point whose position is seen, and whose controls arrive, late: `delay` [s] in all."""
    whole, share = divmod(delay / DT, 1)
    position, seen = np.zeros(2, np.float32), list[FloatArray]()
    sent, ticks = [np.zeros(2, np.float32)] * (int(whole) + 2), list[Tick]()
    for _ in range(steps):
        seen.append(position)
        ticks.append(mpc.tick(position, sent[-1], None))
        sent.append(ticks[-1].control)
        before, after = sent[-2 - int(whole)], sent[-1 - int(whole)]
        position = np.asarray(position + DT * (share * before + (1 - share) * after), np.float32)
    return np.asarray(seen, np.float32), ticks


@pytest.mark.parametrize("delay", [0.25, 0.6])
def test_a_late_loop_that_is_told_so_stops_where_one_that_is_not_overshoots(point: WorldModel, delay: float) -> None:
    def overshoot(told: float) -> float:
        seen, _ = late_drive(controller(point, pose(0.2, -0.1), delay=told), delay, 60)
        return float(max(seen[:, 0].max() - 0.2, -0.1 - seen[:, 1].min()))

    assert overshoot(delay) < 0.01
    assert overshoot(0.0) > 0.05


def test_what_is_imagined_of_a_late_loop_comes_true(point: WorldModel) -> None:
    mpc = controller(point, pose(0.2, -0.1), delay=0.25, replan_every=17)
    seen, ticks = late_drive(mpc, 0.25, 12)
    plan = ticks[0].plan
    assert plan is not None
    np.testing.assert_allclose(seen[[5, 10]], plan.imagined.latents[0, :2], atol=1e-5)


def test_a_late_loop_keeps_to_a_shrinking_horizon(point: WorldModel) -> None:
    block, horizon = point.spec.action.block, point.spec.horizon
    mpc = controller(point, pose(0.2, 0.0), delay=0.1, replan_every=block, shrink=True)
    _, ticks = late_drive(mpc, 0.1, block * horizon + 4)
    lengths = [len(tick.plan.actions) for tick in ticks if tick.plan is not None]
    # the last plan of a horizon is followed as far as it has an effect; then a new horizon begins
    assert lengths == [4] * 5 + [3] * 5 + [2] * 5 + [1] * 4 + [4] * 5


def test_a_delay_longer_than_the_horizon_is_refused(point: WorldModel) -> None:
    with pytest.raises(InvalidInput, match="leaves nothing of the horizon"):
        controller(point, pose(0.2, 0.0), delay=2.0)
