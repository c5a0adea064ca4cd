"""Imitating a known law from histories; on disk, what was exported is what acts, and nothing else does."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models.data.episodes import Episode
from worldpilot.models.policy.artifact import OnnxPolicy
from worldpilot.models.policy.export import export_policy
from worldpilot.models.policy.train import Examples, PolicyTrainConfig, error, recorded, train_policy
from worldpilot.types import ActionSpec, ModelSpec

ACTION = ActionSpec(("q",), ("rad",), (-0.5,), (1.0,), (5.0,), control_dt=0.02, block=2)
SPEC = ModelSpec("walker", "0123456789ab", 3, 2, 4, 1, "state", (3,), ACTION, ())
QUICK = PolicyTrainConfig(epochs=30, batch=32, members=2, hidden=32, weight_decay=2.0**-9, search=False)
DESCRIPTION: dict[str, Any] = {"reward": None, "reward_id": "", "provenance": {}, "metrics": {}}


def examples(episodes: int = 6, noise: float = 0.0) -> Examples:
    """The action is a law of both latents of the history."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(episodes * 100, 2, 3)).astype(np.float32)
    wanted = 0.25 + 0.3 * np.tanh(latents[:, 1, :2] - latents[:, 0, 2:])
    actions = wanted + noise * rng.normal(size=wanted.shape)
    return Examples(latents, actions.astype(np.float32), np.repeat(np.arange(episodes), 100))


def test_learns_a_law_of_the_history() -> None:
    policy, metrics = train_policy(examples(), ACTION, QUICK)
    assert metrics["r2"] > 0.85  # 500 examples of a law in six dimensions
    assert metrics["held_out_episodes"] == 1
    assert metrics["examples"] == 500
    fresh = examples(1)
    assert error(policy, fresh, ACTION) < 0.01


def test_finds_more_weight_decay_where_the_data_are_few_and_noisy() -> None:
    """In place of none it generalises better; the search ends where both neighbours are worse."""
    few = examples(3, noise=0.3)
    plain = train_policy(few, ACTION, replace(QUICK, epochs=60))[1]
    tuned = train_policy(few, ACTION, replace(QUICK, epochs=60, weight_decay=0.5, search=True))[1]
    assert tuned["held_out_error"] < plain["held_out_error"]
    best, tried = tuned["weight_decay"], tuned["tried"]
    assert tried[f"{best:g}"] == min(tried.values())
    assert {f"{best / 2:g}", f"{best * 2:g}"} <= set(tried)


def test_one_seed_gives_one_policy() -> None:
    first, second = (train_policy(examples(2), ACTION, replace(QUICK, epochs=2))[0] for _ in range(2))
    other = train_policy(examples(2), ACTION, replace(QUICK, epochs=2, seed=1))[0]
    assert all((a == b).all() for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert any((a != b).any() for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_episodes_are_held_out_whole() -> None:
    train, held = examples(5).split(0.3, seed=0)
    assert not set(train.episodes) & set(held.episodes)
    assert len(np.unique(held.episodes)) == 2
    with pytest.raises(InvalidInput, match="at least two episodes"):
        examples(1).split(0.3, seed=0)


def test_joined_examples_are_of_different_episodes() -> None:
    joined = Examples.join([examples(2), examples(3)])
    assert len(joined) == 500
    assert np.unique(joined.episodes).tolist() == [0, 1, 2, 3, 4]


def test_examples_of_a_recorded_episode() -> None:
    """Frame t with the one a model step before, and the model step of controls that followed."""
    states = np.tile(np.arange(8, dtype=np.float32)[:, None], 3)
    episode = Episode(states, np.arange(7, dtype=np.float32)[:, None], {}, {"seed": 0, "behaviour": "walk"})
    made = recorded(episode, lambda observations: observations * 10, ACTION, history=2, name=4)
    assert made.latents[:, :, 0].tolist() == [[0, 20], [10, 30], [20, 40], [30, 50]]
    assert made.actions.tolist() == [[2, 3], [3, 4], [4, 5], [5, 6]]
    assert set(made.episodes) == {4}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    export_policy(train_policy(examples(2), ACTION, QUICK)[0], SPEC, folder, DESCRIPTION)
    return folder


def test_what_is_exported_acts_in_physical_units(exported: Path) -> None:
    made, loaded = examples(2), OnnxPolicy.load(exported, SPEC)
    assert loaded.reward_id == ""
    acted = np.stack([loaded.act(history) for history in made.latents])
    assert np.abs(acted - made.actions).mean() < 0.1
    assert (acted >= -0.5).all()
    assert (acted <= 1.0).all()
    with pytest.raises(InvalidInput, match="not finite"):
        loaded.act(np.full((2, 3), np.nan, np.float32))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model_id": "another"}, "latents of model another"),
        ({"format": 2}, "reads format 1"),
        ({"reward_id": None}, "lacks reward_id"),
        ({"sha256": "0" * 64}, "expects 000000000000"),
    ],
)
def test_what_does_not_match_its_description_is_refused(
    exported: Path, tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "policy"))
    content = json.loads((folder / "policy.json").read_text()) | change
    content = {name: value for name, value in content.items() if value is not None or name == "reward"}
    (folder / "policy.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=text):
        OnnxPolicy.load(folder, SPEC)


def test_a_missing_graph_and_a_model_of_another_shape_are_refused(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "policy"))
    with pytest.raises(ArtifactError, match="does not run"):
        OnnxPolicy.load(folder, replace(SPEC, history=3))
    (folder / "policy.onnx").unlink()
    with pytest.raises(ArtifactError, match="is no policy"):
        OnnxPolicy.load(folder, SPEC)
