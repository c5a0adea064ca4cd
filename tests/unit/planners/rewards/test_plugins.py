"""What each shipped plugin prefers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from worldpilot.contracts import WorldModel
from worldpilot.errors import RewardError, UnknownName
from worldpilot.planners.rewards.base import RewardContext, reduce
from worldpilot.planners.rewards.goal import GoalLatent, GoalPose
from worldpilot.planners.rewards.smoothness import Smoothness
from worldpilot.planners.rewards.tolerance import AT_MARGIN, Tolerance, tolerance
from worldpilot.types import Rollouts


def with_signals(rollouts: Rollouts, **signals: list[float]) -> Rollouts:
    """One plan whose signals are these, step by step."""
    shape = (1, len(next(iter(signals.values()))))
    arrays = {name: np.asarray(values, np.float32)[None] for name, values in signals.items()}
    return replace(
        rollouts,
        signals=arrays,
        actions=np.zeros((*shape, 10), np.float32),
        latents=np.zeros((*shape, 2), np.float32),
        disagreement=np.zeros(shape, np.float32),
    )


class TestReduce:
    values = np.array([[-4.0, -1.0, -3.0]], np.float32)

    @pytest.mark.parametrize(("when", "score"), [("last", -3.0), ("best", -1.0), ("mean", -8 / 3)])
    def test_without_discount(self, when: Any, score: float) -> None:
        assert reduce(self.values, when, 1.0)[0] == pytest.approx(score)

    @pytest.mark.parametrize("when", ["last", "best", "mean"])
    def test_with_discount_earlier_is_better(self, when: Any) -> None:
        early, late = np.array([[-4.0, 0.0, 0.0], [-4.0, -4.0, 0.0]], np.float32)
        assert reduce(early[None], when, 0.9) > reduce(late[None], when, 0.9)


class TestGoalPose:
    def test_it_tells_its_target(self) -> None:
        assert GoalPose(x=0.1, y=0.2).target() == {"block_x": 0.1, "block_y": 0.2}
        assert GoalPose(x=0.1, y=0.2, yaw=0.3).target()["block_yaw"] == 0.3

    def test_cost_is_squared_metres_with_radians_at_a_lever(self, rollouts: Rollouts) -> None:
        pose = with_signals(rollouts, block_x=[0.3], block_y=[0.4], block_yaw=[0.5])
        assert GoalPose(x=0.0, y=0.0).score(pose)[0] == pytest.approx(-0.25)
        assert GoalPose(x=0.3, y=0.4, yaw=0.0, length=0.1).score(pose)[0] == pytest.approx(-0.0025)

    def test_angles_wrap(self, rollouts: Rollouts) -> None:
        pose = with_signals(rollouts, block_x=[0.0], block_y=[0.0], block_yaw=[3.1])
        score = GoalPose(x=0.0, y=0.0, yaw=-3.1, length=1.0).score(pose)[0]
        assert score == pytest.approx(-((2 * np.pi - 6.2) ** 2), rel=1e-3)

    def test_approach_draws_the_pusher_until_it_is_within_reach(self, rollouts: Rollouts) -> None:
        goal = GoalPose(x=0.0, y=0.0, approach=0.5, reach=0.1, when="last")
        scores = [
            goal.score(with_signals(rollouts, block_x=[0.0], block_y=[0.0], pusher_x=[x], pusher_y=[0.0]))[0]
            for x in (0.3, 0.2, 0.1, 0.05)
        ]
        np.testing.assert_allclose(scores, [-0.5 * 0.04, -0.5 * 0.01, 0, 0], atol=1e-7)

    def test_needs_only_what_it_uses(self) -> None:
        assert GoalPose(x=0, y=0).needs() == ("block_x", "block_y")
        assert GoalPose(x=0, y=0, yaw=1, approach=0.1, object="cup", pusher="hand").needs() == (
            "cup_x", "cup_y", "cup_yaw", "hand_x", "hand_y",
        )  # fmt: skip

    def test_an_unknown_signal_is_refused_with_those_there_are(self, point: WorldModel) -> None:
        with pytest.raises(UnknownName, match="block_x, block_y, block_yaw"):
            GoalPose(x=0, y=0, object="cup").bind(RewardContext(point.spec))


class TestGoalLatent:
    def test_prefers_the_nearest(self, point: WorldModel, rollouts: Rollouts) -> None:
        goal = rollouts.latents[3, -1]
        bound = GoalLatent(when="last", discount=1.0).bind(RewardContext(point.spec, goal))
        scores = bound.score(rollouts)
        assert scores.argmax() == 3
        assert scores[3] == 0

    def test_disagreement_makes_it_the_distance_the_members_expect(self, point: WorldModel, rollouts: Rollouts) -> None:
        """Two members around their mean: the mean of their squared distances, per latent dimension."""
        rng = np.random.default_rng(0)
        members = rollouts.latents + rng.normal(0, 0.1, (2, *rollouts.latents.shape)).astype(np.float32)
        mean = members.mean(0)
        spread = np.sqrt(np.square(members - mean).mean((0, -1)))
        goal = np.array([0.1, -0.1], np.float32)
        doubting = GoalLatent(when="last", discount=1.0).bind(RewardContext(point.spec, goal))
        scores = doubting.score(replace(rollouts, latents=mean, disagreement=spread))
        np.testing.assert_allclose(scores, -np.square(members[:, :, -1] - goal).mean((0, -1)), rtol=1e-4)

    def test_it_tells_what_the_goal_image_shows(self, point: WorldModel) -> None:
        context = RewardContext(point.spec, np.zeros(2, np.float32), {"block_x": 0.2})
        assert GoalLatent().bind(context).target() == {"block_x": 0.2}

    def test_signals_count_beside_the_latent(self, point: WorldModel, rollouts: Rollouts) -> None:
        """Equal latents: the one whose block ends nearest to where the goal image shows it, angles the short way."""
        shown = {"block_x": 0.2, "block_yaw": 3.1}
        context = RewardContext(point.spec, np.zeros(2, np.float32), shown)
        goal = GoalLatent(discount=1.0, signals="block_x, block_yaw", emphasis=10.0).bind(context)

        def score(x: float, yaw: float) -> float:
            return float(goal.score(with_signals(rollouts, block_x=[0.5, x], block_yaw=[0.5, yaw]))[0])

        assert score(0.2, 3.1) == pytest.approx(0.0, abs=1e-4)
        assert score(0.1, 3.1) == pytest.approx(-10 * 0.01, rel=1e-4)
        assert score(0.2, 3.1 - 2 * np.pi + 0.1) == pytest.approx(-10 * 0.01, rel=1e-3)

    def test_signals_that_the_model_does_not_read_are_refused(self, point: WorldModel) -> None:
        context = RewardContext(point.spec, np.zeros(2, np.float32), {"block_x": 0.2})
        with pytest.raises(UnknownName, match="cube_x"):
            GoalLatent(signals="block_x,cube_x").bind(context)

    @pytest.mark.parametrize("goal", [None, np.zeros(3, np.float32), np.full(2, np.nan, np.float32)])
    def test_needs_a_goal(self, point: WorldModel, goal: Any) -> None:
        with pytest.raises(RewardError, match="goal"):
            GoalLatent().bind(RewardContext(point.spec, goal))


class TestSmoothness:
    def test_still_is_perfect_and_full_swings_cost_one(self, rollouts: Rollouts) -> None:
        largest = 2.0 * 0.1  # rate limit [m/s²] times control period [s]
        zigzag = np.zeros((1, 20, 2), np.float32)
        zigzag[:, ::2] = largest
        actions = np.concatenate([np.zeros((1, 20, 2), np.float32), zigzag]).reshape(2, 4, 10)
        np.testing.assert_allclose(Smoothness().score(replace(rollouts, actions=actions)), [0, -1], rtol=1e-6)

    def test_begins_with_the_control_in_force(self, rollouts: Rollouts) -> None:
        constant = replace(rollouts, actions=np.full((1, 4, 10), 0.2, np.float32))
        assert Smoothness().score(constant)[0] == pytest.approx(-1 / 20)
        in_force = replace(constant, previous_control=np.full(2, 0.2, np.float32))
        assert Smoothness().score(in_force)[0] == 0


class TestTolerance:
    @pytest.mark.parametrize("sigmoid", ["gaussian", "hyperbolic", "long_tail", "linear", "quadratic", "cosine"])
    def test_one_inside_and_a_tenth_a_margin_away(self, sigmoid: Any) -> None:
        values = tolerance(np.array([0.0, 1.0, 1.5, -0.5], np.float32), 0, 1, margin=0.5, sigmoid=sigmoid)
        np.testing.assert_allclose(values, [1, 1, AT_MARGIN, AT_MARGIN], rtol=1e-5)

    def test_without_margin_it_is_a_step(self) -> None:
        np.testing.assert_array_equal(tolerance(np.array([-0.1, 0, 1, 1.1], np.float32), 0, 1), [0, 1, 1, 0])

    def test_an_arc_goes_through_pi(self) -> None:
        angles = np.array([3.1, -3.1, 0.0], np.float32)
        np.testing.assert_array_equal(tolerance(angles, 3.0, 3.3, angle=True), [1, 1, 0])

    @pytest.mark.parametrize(
        "arguments",
        [
            {"lower": 1, "upper": 0},
            {"lower": np.nan},
            {"margin": -1},
            {"margin": np.nan},
            {"sigmoid": "step"},
            {"angle": True, "lower": 0},
        ],
    )
    def test_bad_arguments_are_refused(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(RewardError, match="tolerance"):
            tolerance(np.zeros(1, np.float32), **arguments)

    def test_the_plugin_knows_angles_by_their_unit(self, point: WorldModel, rollouts: Rollouts) -> None:
        plugin = Tolerance(signal="block_yaw", lower=3.0, upper=3.3).bind(RewardContext(point.spec))
        scores = plugin.score(with_signals(rollouts, block_yaw=[-3.1, 0.0]))
        np.testing.assert_array_equal(scores, [[1, 0]])
        with pytest.raises(RewardError, match="both"):
            Tolerance(signal="block_yaw", lower=3.0).bind(RewardContext(point.spec))

    def test_the_plugin_needs_a_bound(self) -> None:
        with pytest.raises(RewardError, match="lower"):
            Tolerance(signal="block_x")
        with pytest.raises(RewardError, match="exceed"):
            Tolerance(signal="block_x", lower=1, upper=0)
