"""The benchmark of scarce data: which data a method gets, what is kept of a run, what the page says."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode, EpisodeWriter
from worldpilot.models.dynamics.networks import DynamicsConfig, dynamics
from worldpilot.models.recipe.distil import Teaching
from worldpilot.types import ActionSpec, History

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"
ACTION = ActionSpec(("joint",), ("rad",), (-1.0,), (1.0,), (50.0,), control_dt=0.02, block=2)
META = {"task": "joint", "action": ACTION.to_dict(), "state": {"names": ["q", "dq"], "units": ["rad", "rad/s"]}}
AMOUNTS = (30, 90, 150, 210)
SMALL: dict[str, Any] = {
    "DATA": AMOUNTS,
    "SEEDS": range(2),
    "TUNING": range(2, 4),
    "EPISODES": 6,
    "VALIDATION": 3,
    "TEST": 4,
    "MEMBERS": 3,
    "NET": DynamicsConfig(2, 2, history=1, horizon=16, hidden=8, layers=1),
    "BEGIN": 0.25,
    "LIMITS": {"steps": (5, 400)},
    "GAIN": 0.8,
    "TEACHING": Teaching(copies=2, state_noise=0.3, action_noise=0.3),
    "RATIOS_AT": 90,
    "TRIED": 2,
}


@pytest.fixture(scope="module")
def bench() -> Any:
    sys.path.insert(0, str(FOLDER))
    module = importlib.import_module("scarce_data")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(module, name, value)
        yield module


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a joint; every third episode is short."""
    folder = tmp_path_factory.mktemp("scarce")
    with EpisodeWriter(folder / "data", META) as writer:
        for seed in range(6 * 4 + 3 + 4):
            rng, steps = np.random.default_rng(seed), 40 if seed % 3 == 0 else 60
            controls = np.repeat(rng.uniform(-1, 1, (10, 1)), 6, axis=0)[:steps].astype(np.float32)
            q, dq, states = rng.uniform(-0.5, 0.5), 0.0, []
            for control in [*controls[:, 0], 0.0]:
                states.append((q, dq))
                dq += 0.02 * (60 * (control - q) - 6 * dq)
                q += 0.02 * dq
            seen = np.array(states) + rng.normal(0, [0.02, 0.2], (steps + 1, 2))
            meta = {"seed": 100 - seed, "behaviour": "move"}
            writer.append(Episode(seen.astype(np.float32), controls, {}, meta))
    return folder


@pytest.fixture(scope="module")
def done(bench: Any, work: Path) -> Any:
    """The lab after settings and losses of all amounts."""
    lab = bench.Lab(work, 10.0)
    for amount in AMOUNTS:
        bench.settle(lab, amount)
        bench.judge(lab, amount)
    return lab


def test_an_amount_is_the_first_whole_episodes_that_hold_it(bench: Any, work: Path) -> None:
    lab = bench.Lab(work, 1.0)
    for seed in range(4):
        there = np.diff(lab.pool.starts)[6 * seed : 6 * seed + 6] - 1
        chosen = lab.episodes(seed, 100)
        assert chosen.start == 6 * seed
        assert there[: len(chosen)].sum() >= 100 > there[: len(chosen) - 1].sum()
        assert set(lab.episode[lab.data(seed, 100)]) == set(chosen)
    with pytest.raises(SystemExit, match="asked for"):
        lab.episodes(0, 1000)


def test_losses_are_those_of_the_groups_means(bench: Any, done: Any) -> None:
    torch.manual_seed(0)
    predictor = dynamics(replace(SMALL["NET"], members=3))
    found = bench.errors(done, predictor, [[0, 1, 2], [1]], done.test, 5)
    latents, actions = done.test.window(done.test.first[::5], 1, 16)
    with torch.no_grad():
        seen = predictor(latents[:, :1], actions)
    for group, row in zip(([0, 1, 2], [1]), found, strict=True):
        off = (seen[group].mean(0) - latents[:, 1:]) / done.scale
        np.testing.assert_allclose(row, off.square().mean((0, 2))[[0, 3, 7, 15]], rtol=1e-4)


def test_a_run_that_goes_on_trains_nothing_again(
    bench: Any, done: Any, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file: file.read_text() for file in (work / "kept").glob("*.json")}
    lab = bench.Lab(work, 10.0)

    def no(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(lab, "train", no)
    for amount in AMOUNTS:
        bench.settle(lab, amount)
        bench.judge(lab, amount)
    assert {file: file.read_text() for file in (work / "kept").glob("*.json")} == before
    assert len(before) == 2 * len(AMOUNTS)


def test_without_time_nothing_is_begun(bench: Any, work: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(work / "data")
    with pytest.raises(bench.OutOfTime):
        bench.settle(bench.Lab(tmp_path, 0.0), 100)


def test_settings_are_multiples_of_the_tuned_ones(bench: Any, done: Any) -> None:
    chosen, factors = bench.chosen(done, 150), bench.ratios(done)
    for method, name in (("ensemble", "ensemble"), ("distilled", "student"), ("self-distilled", "student")):
        assert chosen[method].steps == pytest.approx(chosen["tuned"].steps * factors[name]["steps"], abs=1)
        assert chosen[method].learning_rate == chosen["tuned"].learning_rate
    assert chosen["standard"].weight_decay == 0.1


def test_the_page_says_what_was_found(bench: Any, done: Any, work: Path, tmp_path: Path) -> None:
    steered = {
        amount: {"model_id": "abc", **{n: RUNS for n in ("shipped", *sys.modules["scarce_data_page"].METHODS)}}
        for amount in AMOUNTS[:2]
    }
    figures = bench.figures(bench.setting(), bench.read(work, "settings"), bench.read(work, "losses"), steered)
    kept = json.loads((work / "kept" / "losses-90.json").read_text())
    first = figures["losses"]["90"]
    assert first["methods"]["tuned"]["8"]["mean"] == pytest.approx(
        np.mean(kept["methods"]["tuned"]["losses"], 0)[2], rel=1e-6
    )
    assert len(first["ensemble"]["by_k"]) == 3
    assert set(figures["horizons"]) == {"1"}
    assert figures["control"]["amounts"]["30"]["tuned"]["return"]["mean"] == pytest.approx(0.3)
    assert figures["control"]["amounts"]["30"]["tuned"]["falls"]["value"] == 0.5
    text = bench.page(json.loads(json.dumps(figures)))  # as it is read again from the file
    for told in ("## Data efficiency, 1 model step ahead", "| 30 | shipped | 0.3 [", "variance / K holds"):
        assert told in text
    bench.draw(figures, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


RUNS = {"0": [{"return": 0.2, "fallen": True}], "1": [{"return": 0.4, "fallen": False}]}


def test_another_predictor_in_an_artifact_sees_the_states_as_it_was_trained(
    bench: Any, tiny_legged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the artifact's latents are: here the states themselves."""
    artifact = Artifact.load(tiny_legged)
    spec, rng = artifact.spec, np.random.default_rng(0)
    net = DynamicsConfig(spec.latent_dim, spec.action.dim, history=1, horizon=16, hidden=8, layers=1)
    monkeypatch.setattr(bench, "NET", net)

    mean, std = rng.normal(size=net.latent_dim), rng.uniform(0.5, 2, net.latent_dim)

    def encode(states: Any) -> torch.Tensor:
        return torch.from_numpy(((states - mean) / std).astype(np.float32))

    lab = SimpleNamespace(artifact=artifact, spec=spec.action, mean=mean, std=std, encode=encode)
    torch.manual_seed(0)
    predictor = dynamics(net)
    states = rng.normal(size=(spec.history, net.latent_dim)).astype(np.float32)
    actions = rng.uniform(-0.1, 0.1, (5, 16, spec.action.dim)).astype(np.float32)
    history = History(artifact.world_model.encode(states), np.zeros((spec.history - 1, spec.action.dim), np.float32))
    imagined = bench.Replaced(lab, predictor).predict(history, actions)
    low, high = spec.action.action_low, spec.action.action_high
    with torch.no_grad():
        scaled = torch.from_numpy(((actions - low) / (high - low) * 2 - 1).astype(np.float32))
        wanted = predictor(encode(states[-1:]).expand(5, 1, -1), scaled).numpy() * std + mean
    np.testing.assert_allclose(imagined, wanted, rtol=1e-4, atol=1e-4)
