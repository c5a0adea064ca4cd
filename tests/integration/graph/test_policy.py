"""A distilled policy in the planner's place, in a graph that plans ahead."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worldpilot_msgs.msg import PlannerStatus
from worldpilot_msgs.srv import SwapReward

from worldpilot import graph as graphs
from worldpilot.models.artifact import Artifact
from worldpilot.models.policy.export import export_policy
from worldpilot.models.policy.networks import Policy, PolicyConfig
from worldpilot.planners.rewards.registry import parse_spec
from worldpilot.planners.solvers.policy import policy_reward_id
from worldpilot.sim.quadruped import ACTION

POSE = np.array([0.1, -0.1, 0.2] * 4, np.float32)  # [rad] that the policy takes, whatever it sees


@pytest.fixture(scope="module")
def running(start: Callable[..., Any], legged_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    spec = Artifact.load(legged_artifact).spec
    policy = Policy(PolicyConfig(spec.latent_dim, spec.history, spec.action.dim, hidden=8, members=1)).eval()
    low, high = np.asarray(ACTION.low, np.float32), np.asarray(ACTION.high, np.float32)
    with torch.no_grad():
        policy.output.weight.zero_()
        policy.output.bias.copy_(torch.from_numpy(np.tile(2 * (POSE - low) / (high - low) - 1, ACTION.block)))
    mpc = graphs.load().settings("quadruped", "mpc")
    assert mpc["plan_ahead"]
    folder, served = tmp_path_factory.mktemp("policy"), policy_reward_id(parse_spec(mpc["reward"]))
    export_policy(policy, spec, folder, {"reward": None, "reward_id": served, "provenance": {}, "metrics": {}})
    settings = {"mpc": {"policy": str(folder)}}
    run = start(artifact=legged_artifact, task="quadruped", without=["recorder"], settings=settings)
    run.probe.listen("planner_status", "joint_command")
    run.supervisor.wait_for("active", timeout=60)
    return run


def test_it_acts(running: Any) -> None:
    running.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.RUNNING, timeout=10)
    running.probe.wait_for(
        "joint_command",
        lambda c: np.abs(np.array(c.points[0].positions, np.float32) - POSE).max() < 1e-3,
        timeout=5.0,
    )


def test_another_reward_is_refused_and_it_goes_on(running: Any) -> None:
    spec = '{"terms": [{"plugin": "expression", "params": {"expression": "-abs(forward_velocity)"}}]}'
    answer = running.probe.call(SwapReward, "mpc/swap_reward", spec_json=spec)
    assert not answer.accepted
    assert "distilled for another reward" in answer.message
    running.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.RUNNING, timeout=2.0)
