"""What is collected for a policy: the planner's decisions where it, or the policy, comes to."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.tiny_legged import build
from worldpilot import distillation
from worldpilot.distillation import Act, Candidate, DaggerConfig, best, dagger, label
from worldpilot.errors import InvalidInput
from worldpilot.evaluation.controllers import Planner, Planning, Setting
from worldpilot.models.artifact import Artifact
from worldpilot.models.policy.train import Examples
from worldpilot.sim.quadruped import Quadruped
from worldpilot.types import FloatArray, RewardSpec, RewardTerm

REWARD = RewardSpec((RewardTerm("expression", params={"expression": "-abs(pitch)"}),))
PLANNING = Planning(solver={"samples": 4, "refinements": 1, "elites": 2}, standing=None)
SHORT = DaggerConfig(planned=2, warm_up=3, steps=6)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return Artifact.load(build(tmp_path_factory.mktemp("zoo") / "quadruped"))


class Driven(Quadruped):
    """Remembers what it was told."""

    def reset(self, **given: object) -> object:  # type: ignore[override]
        self.told: list[FloatArray] = []
        return super().reset(**given)  # type: ignore[arg-type]

    def drive(self, control: FloatArray) -> None:  # type: ignore[override]
        self.told.append(control)
        super().drive(control)


class Falling(Quadruped):
    """Falls in the fourth control step."""

    def drive(self, control: FloatArray) -> None:  # type: ignore[override]
        super().drive(control)
        self.ended = self.ended or self.outcome()["steps"] >= 4


def test_the_planner_drives_and_its_first_actions_are_the_labels(artifact: Artifact) -> None:
    world = Driven()
    made, _ = label(Setting(artifact, world, REWARD, PLANNING, seed=5), SHORT, None)
    spec = artifact.spec
    assert made.latents.shape == (3, spec.history, spec.latent_dim)  # a label every model step of 2 control steps
    told = np.stack(world.told)
    assert len(told) == 9
    np.testing.assert_allclose(told[3:].reshape(3, -1), made.actions, atol=1e-6)
    again, _ = label(Setting(artifact, world, REWARD, PLANNING, seed=5), SHORT, None)
    np.testing.assert_array_equal(again.actions, made.actions)
    world.close()


def test_who_drives_sees_the_state_and_the_policy_the_latents(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an encoder that changes what it sees."""
    encode = artifact.world_model.encode
    monkeypatch.setattr(artifact.world_model, "encode", lambda observed: 3 * encode(observed))
    world, seen = Driven(), list[FloatArray]()

    class Watching(Planner):
        def _remember(self, state: FloatArray, previous: FloatArray) -> Any:
            seen.append(state)
            return super()._remember(state, previous)

    monkeypatch.setattr(distillation, "Planner", Watching)
    made, _ = label(Setting(artifact, world, REWARD, PLANNING, seed=5), SHORT, None)
    assert len(seen) == 9
    np.testing.assert_allclose(made.latents[-1, -1], 3 * encode(seen[7][None])[0], rtol=1e-6)
    assert seen[0][artifact.spec.observation_names.index("height")] == pytest.approx(0.26, abs=0.03)
    world.close()


def test_a_plan_that_is_followed_longer_labels_all_that_is_done_of_it(artifact: Artifact) -> None:
    world, config = Driven(), replace(SHORT, steps=12)
    made, _ = label(Setting(artifact, world, REWARD, replace(PLANNING, replan=6), seed=5), config, None)
    told = np.stack(world.told)
    np.testing.assert_allclose(told[3:].reshape(6, -1), made.actions, atol=1e-6)
    first, _ = label(Setting(artifact, world, REWARD, replace(PLANNING, replan=2), seed=5), config, None)
    np.testing.assert_array_equal(first.actions[0], made.actions[0])
    assert not np.array_equal(first.actions[1], made.actions[1])
    world.close()


def test_the_policy_drives_and_the_planner_says_what_it_would_do(artifact: Artifact) -> None:
    world, spec = Driven(), artifact.spec.action
    mine = np.linspace(-0.05, 0.05, spec.dim).astype(np.float32)
    seen: list[FloatArray] = []

    def act(latents: FloatArray) -> FloatArray:
        seen.append(latents)
        return mine

    made, _ = label(Setting(artifact, world, REWARD, PLANNING, seed=5), SHORT, act)
    told = np.stack(world.told)
    np.testing.assert_allclose(told[3:].reshape(3, -1), np.tile(mine, (3, 1)), atol=1e-6)
    np.testing.assert_array_equal(made.latents, np.stack(seen))
    assert np.abs(made.actions - mine).max() > 1e-3
    states = made.latents[:, -1]  # the tiny model's latents are the states: the control in force is among them
    in_force = [world.state_names.index(f"control_{name}") for name in spec.names]
    np.testing.assert_allclose(states[1:, in_force], np.tile(mine[spec.control_dim :], (2, 1)), atol=1e-6)
    world.close()


def test_an_episode_ends_with_a_fall_and_may_give_no_example(artifact: Artifact) -> None:
    world = Falling()
    examples, episode = label(Setting(artifact, world, REWARD, PLANNING, seed=5), SHORT, None)
    assert (len(examples), len(episode), episode.meta["fallen"]) == (1, 4, True)
    assert len(label(Setting(artifact, world, REWARD, PLANNING, seed=5), replace(SHORT, warm_up=9), None)[0]) == 0
    world.close()


def test_each_policy_drives_before_one_is_chosen(artifact: Artifact) -> None:
    """Of three policies that do always the same, from standing still to what the planner would never do."""
    spec, learned = artifact.spec.action, list[int]()

    def fit(examples: Examples) -> tuple[int, Act]:
        learned.append(len(examples))
        action = np.tile(np.array([0, 0.3, -0.3] * 4, np.float32), spec.block) * np.float32(len(learned) - 1)
        return len(learned), lambda latents: action

    config = replace(SHORT, rounds=2, driven=2, steps=20)
    made = dagger(artifact, REWARD, PLANNING, config, fit)
    assert [candidate.policy for candidate in made] == [1, 2, 3]
    assert [candidate.examples for candidate in made] == learned == [20, 40, 60]
    assert all(candidate.episodes == 2 for candidate in made)
    scores = [candidate.score for candidate in made]
    assert scores[0] > max(scores[1:])  # whoever stands does not pitch
    assert best(made).policy == 1


def test_the_best_policy_is_no_better_by_falling() -> None:
    made = [Candidate(str(falls), 10, score, falls, 12) for falls, score in ((0, 0.5), (1, 0.6), (2, 0.9))]
    assert best(made).policy == "1"
    assert best([Candidate("old", 10, 0.5, 0, 12), Candidate("new", 20, 0.5, 0, 12)]).policy == "new"


def test_impossible_wishes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="planned >= 2"):
        DaggerConfig(planned=1)
