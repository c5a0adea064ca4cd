"""Proposals of a policy of single steps, rolled out in the model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldpilot.evaluation import asked
from worldpilot.evaluation.controllers import Planning
from worldpilot.evaluation.locomotion import plan_trials, run_trials
from worldpilot.evaluation.single_step import RolledPolicy
from worldpilot.models.artifact import Artifact
from worldpilot.models.policy.artifact import OnnxPolicy
from worldpilot.models.policy.export import export_policy
from worldpilot.models.policy.networks import Policy, PolicyConfig
from worldpilot.types import FloatArray, History


@pytest.fixture
def history(legged: Artifact) -> History:
    spec, rng = legged.spec, np.random.default_rng(0)
    latents = rng.standard_normal((spec.history, spec.latent_dim)).astype(np.float32)
    return History(latents, np.zeros((max(spec.history - 1, 1), spec.action.dim), np.float32))


def test_each_step_is_chosen_from_what_is_imagined(legged: Artifact, history: History) -> None:
    seen = list[FloatArray]()
    action, model = legged.spec.action, legged.world_model

    def act(latents: FloatArray) -> FloatArray:
        seen.append(latents)
        return np.tile(0.01 * np.tanh(latents[:, -1, :1]), action.dim).astype(np.float32)

    actions = RolledPolicy(model, act, noise=0.0).propose(history, 3, np.random.default_rng(0))
    assert actions.shape == (3, legged.spec.horizon, action.dim)
    assert len(seen) == legged.spec.horizon
    np.testing.assert_array_equal(seen[0], np.repeat(history.latents[None], 3, axis=0))
    imagined = model.predict(history, actions).mean(axis=0)
    for step in range(1, legged.spec.horizon):
        np.testing.assert_allclose(seen[step][:, -1], imagined[:, step - 1], atol=1e-5)
        np.testing.assert_allclose(actions[:, step, 0], 0.01 * np.tanh(imagined[:, step - 1, 0]), atol=1e-6)


def test_noise_tells_them_apart_within_bounds(legged: Artifact, history: History) -> None:
    action = legged.spec.action
    prior = RolledPolicy(
        legged.world_model, lambda latents: np.zeros((len(latents), action.dim), np.float32), noise=0.8
    )
    first, again = (prior.propose(history, 4, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()
    assert (first >= action.action_low).all()
    assert (first <= action.action_high).all()
    assert np.ptp(first) > 0


def test_a_clone_drives_by_itself_and_as_what_is_proposed(
    legged: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, asks = legged.spec, list[int]()
    policy = Policy(PolicyConfig(spec.latent_dim, spec.history, spec.action.dim, members=1, hidden=8)).eval()
    export_policy(policy, spec, tmp_path, {"reward": None, "reward_id": "", "provenance": {}, "metrics": {}})
    protocol = replace(asked.load(), warm_up=6, steps=8)
    names = [f"reactive@{tmp_path}", f"single_step@{tmp_path}", "mpc"]
    trials = plan_trials(names, protocol.select(("slow", "fast")), range(1), "quadruped")
    assert [trial.key[1] for trial in trials] == ["", "slow", "fast", "slow", "fast"]  # a clone does one thing
    planning = Planning(solver={"samples": 2, "refinements": 1}, replan=4)
    asked_all = OnnxPolicy.act_all

    def act_all(policy: OnnxPolicy, latents: FloatArray) -> FloatArray:
        asks.append(len(latents))
        return asked_all(policy, latents)

    monkeypatch.setattr(OnnxPolicy, "act_all", act_all)
    alone, rolled, *_ = run_trials(legged, protocol, trials, planning)
    assert (alone.controls[6:] != rolled.controls[6:]).any()
    steps, plans = spec.horizon, 2 * 2  # two rewards, a plan every 4 of 8 steps
    assert asks.count(int(legged.manifest["proposals"])) == steps * plans
