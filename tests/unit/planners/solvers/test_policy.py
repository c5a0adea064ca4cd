"""A policy in place of a search: its action is the plan, for the reward it was distilled for and no other."""

from dataclasses import replace

import numpy as np
import pytest

from worldpilot.contracts import Solver, WorldModel
from worldpilot.errors import RewardError
from worldpilot.planners.gate import Gate
from worldpilot.planners.mpc import Mpc
from worldpilot.planners.solvers.policy import PolicySolver, policy_reward_id
from worldpilot.types import FloatArray, RewardSpec, RewardTerm

EAST = RewardSpec((RewardTerm("expression", params={"expression": "block_x"}),), "east")
NORTH = RewardSpec((RewardTerm("expression", params={"expression": "block_y"}),), "north")


class Eastwards:
    """Full speed along x, until x = 0.5 m."""

    reward_id = policy_reward_id(EAST)

    def act(self, latents: FloatArray) -> FloatArray:
        return np.tile(np.array([0.25 if latents[-1, 0] < 0.5 else 0.0, 0.0], np.float32), 5)


def mpc(model: WorldModel, reward: RewardSpec | None = EAST, replan_every: int = 1) -> Mpc:
    return Mpc(model, PolicySolver(Eastwards()), reward, Gate(model.spec.action), seed=0, replan_every=replan_every)


def test_is_a_solver() -> None:
    assert isinstance(PolicySolver(Eastwards()), Solver)


@pytest.mark.parametrize("replan_every", [1, 20])
def test_drives_by_the_policy_alone(point: WorldModel, replan_every: int) -> None:
    """Also when a plan is to be followed for longer than the policy's is."""
    pilot, position, control = mpc(point, replan_every=replan_every), np.zeros(2, np.float32), np.zeros(2, np.float32)
    for tick in range(40):
        result = pilot.tick(position, control, None)
        control = result.control
        assert result.plan is not None
        assert result.plan.actions.shape == (1, 10)
        assert result.plan.terms == {"expression": pytest.approx(result.plan.imagined.signals["block_x"][0, 0])}
        if tick == 0:
            assert control == pytest.approx([0.2, 0.0])  # the gate's rate limit
        position = (position + control * 0.1).astype(np.float32)
    assert 0.5 <= position[0] < 0.65
    assert position[1] == 0.0


def test_serves_the_reward_it_was_distilled_for_and_no_other(point: WorldModel) -> None:
    pilot = mpc(point, None)
    refused = pilot.swap(NORTH)
    assert not refused.accepted
    assert "distilled for another reward" in refused.message
    assert pilot.reward is None
    assert pilot.swap(replace(EAST, name="another name")).accepted
    with pytest.raises(RewardError, match="plan instead"):
        mpc(point, NORTH)
