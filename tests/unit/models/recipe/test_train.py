"""`worldpilot train dynamics --recipe`: from a store to the same files as without, by settings that were found."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from worldpilot.cli.main import main
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter
from worldpilot.models.dynamics.networks import Dynamics
from worldpilot.models.dynamics.train import DynamicsNets, DynamicsTrainConfig, load, train_dynamics
from worldpilot.models.recipe import train as recipe_train
from worldpilot.models.recipe.search import neighbours
from worldpilot.models.recipe.train import ENSEMBLE, MEMBERS, STUDENT, train_recipe
from worldpilot.types import ActionSpec

ACTION = ActionSpec(("joint",), ("rad",), (-1.0,), (1.0,), (50.0,), control_dt=0.02, block=2)
META = {"task": "joint", "action": ACTION.to_dict(), "state": {"names": ["q", "dq"], "units": ["rad", "rad/s"]}}
SIZES = ["--history", "2", "--horizon", "4", "--hidden", "16", "--layers", "1", "--rollout", "2", "--batch", "32"]
SETTINGS = {"learning_rate": 4e-3, "weight_decay": 0.1, "steps": 60}


def episode(seed: int, falls: bool, steps: int = 60) -> Episode:
    """A damped joint under a PD controller, as it is measured."""
    rng = np.random.default_rng(seed)
    controls = np.repeat(rng.uniform(-1, 1, (steps // 6 + 1, 1)), 6, axis=0)[:steps].astype(np.float32)
    q, dq, states = rng.uniform(-0.5, 0.5), 0.0, []
    for control in [*controls[:, 0], 0.0]:
        states.append((q, dq))
        dq += 0.02 * (60 * (control - q) - 6 * dq)
        q += 0.02 * dq
    measured = np.array(states) + rng.normal(0, [0.02, 0.2], (steps + 1, 2))
    fallen = np.zeros(steps + 1, np.float32)
    fallen[-3:] = seed % 2
    signals = {"fallen": fallen} if falls else {}
    return Episode(measured.astype(np.float32), controls, signals, {"seed": seed, "behaviour": "move"})


def record(folder: Path, episodes: int, falls: bool) -> Path:
    with EpisodeWriter(folder, META) as writer:
        for seed in range(episodes):
            writer.append(episode(seed, falls))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("joint"), 12, falls=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings for two amounts of data."""
    file = tmp_path_factory.mktemp("found") / "recipe.json"
    file.write_text(json.dumps({"found": [{"transitions": 700, **SETTINGS}, {"transitions": 10, "steps": 1}]}))
    return file


def run(data: Path, out: Path, recipe: str, *more: str) -> DynamicsNets:
    command = ["train", "dynamics", "--data", str(data), "--out", str(out), "--recipe", recipe, *SIZES]
    assert main([*command, "--steps", "40", "--evaluate-every", "40", *more]) == 0
    return load(out)


def test_a_search_is_kept_and_what_it_found_is_used(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_train, "LONGEST", 4)
    nets = run(data, tmp_path, "search", "--learning-rate", "0.02", "--weight-decay", "0.5", "--seed", "3")
    told = json.loads((tmp_path / "recipe.json").read_text())
    trials = [json.loads(line) for line in (tmp_path / "search.jsonl").read_text().splitlines()[1:]]
    losses = {tuple(trial["point"].values()): trial["loss"] for trial in trials}
    used = {name: told["used"][name] for name in trials[0]["point"]}
    beside = [losses[tuple(point.values())] for point in neighbours(used, {"steps": (1, 160)})]
    assert min(beside) >= (1 - recipe_train.GAIN) * losses[tuple(used.values())]
    assert told["found"] == [{"transitions": told["transitions"], **told["used"]}]
    assert nets.config.members == 2
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["nmse"][0] < 0.5 * metrics["nmse_copy"][0]
    assert metrics["fall_auroc"]["now"] is not None


def test_an_ensemble_has_eight_members_by_settings_of_its_own(data: Path, found: Path, tmp_path: Path) -> None:
    nets = run(data, tmp_path, "ensemble", "--found", str(found))
    told = json.loads((tmp_path / "recipe.json").read_text())
    assert nets.config.members == MEMBERS
    assert told["used"]["steps"] == round(SETTINGS["steps"] * ENSEMBLE["steps"])
    assert told["used"]["weight_decay"] == SETTINGS["weight_decay"] * ENSEMBLE["weight_decay"]
    assert not (tmp_path / "search.jsonl").exists()
    weight = nets.predictor.get_parameter("output.weight")
    assert all(not torch.equal(weight[0], other) for other in weight[1:])


def test_a_student_is_taught_by_eight(data: Path, found: Path, tmp_path: Path) -> None:
    nets = run(data, tmp_path, "distilled", "--found", str(found), "--members", "1")
    told = json.loads((tmp_path / "recipe.json").read_text())
    assert nets.config.members == 1
    assert told["used"]["steps"] == round(SETTINGS["steps"] * STUDENT["steps"])
    teacher = torch.load(tmp_path / "teacher.pt", weights_only=True)
    assert len(teacher["predictor"]["output.weight"]) == MEMBERS
    torch.manual_seed(5)
    member = torch.load(tmp_path / "members.pt", weights_only=True)["predictor"]
    for name, weights in nets.predictor.named_parameters():  # the fall's training left the predictor as it was
        torch.testing.assert_close(weights, member[name])
    again = run(data, tmp_path, "distilled", "--found", str(found), "--members", "1")
    for name, weights in nets.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weights)


def test_data_without_falls_leave_nothing_to_be_learned_after_the_recipe(found: Path, tmp_path: Path) -> None:
    nets = run(record(tmp_path / "data", 8, falls=False), tmp_path / "nets", "search", "--found", str(found))
    assert nets.fall is None
    assert json.loads((tmp_path / "nets" / "metrics.json").read_text())["step"] == 1


def test_what_a_recipe_cannot_do_is_refused(data: Path, tmp_path: Path) -> None:
    store, config = EpisodeStore(data), DynamicsTrainConfig(steps=10)
    with pytest.raises(UnknownName, match="distilled, ensemble, search"):
        train_recipe(store, ACTION, tmp_path, config, "luck")
    with pytest.raises(InvalidInput, match="diffusion"):
        train_recipe(store, ACTION, tmp_path, config, "search", "diffusion")
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(InvalidInput, match="no settings"):
        train_recipe(store, ACTION, tmp_path, config, "search", found=tmp_path / "none.json")
    few = EpisodeStore(record(tmp_path / "few", 2, falls=False))
    with pytest.raises(InvalidInput, match="2 or more"):
        train_recipe(few, ACTION, tmp_path, config, "search", history=1, horizon=4)


def test_a_predictor_that_is_given_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    store, config = EpisodeStore(data), DynamicsTrainConfig(steps=20, batch=32, rollout=2, evaluate_every=20)

    def train(folder: Path, given: Dynamics | None) -> DynamicsNets:
        return train_dynamics(store, ACTION, folder, config, "step", given, history=2, horizon=4, hidden=16, layers=1)

    given = train(tmp_path / "first", None).predictor
    nets = train(tmp_path / "second", given)
    for name, weights in given.named_parameters():
        torch.testing.assert_close(nets.predictor.get_parameter(name), weights)
    falls = [load(tmp_path / name).state_dict()["fall.layers.0.weight"] for name in ("first", "second")]
    assert not torch.equal(*falls)  # that goes on being learned
