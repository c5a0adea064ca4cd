"""Certificates of a real artifact from real episodes on disk: what holds, what is noticed, what is refused."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldpilot.calibration import bounds, certificate
from worldpilot.calibration.monitor import PredictionTracker
from worldpilot.certification import certify, measured_again
from worldpilot.cli.main import main
from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models.artifact import Artifact, update_manifest, verify
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter


def episode(seed: int, steps: int = 40, behaviour: str = "walk") -> Episode:
    """A bright square that wanders over the image."""
    rng = np.random.default_rng(seed)
    frames = np.full((steps + 1, 64, 64, 3), 90, np.uint8)
    x, y = rng.integers(8, 48, 2)
    for frame in frames:
        x, y = np.clip(np.array([x, y]) + rng.integers(-2, 3, 2), 0, 48)
        frame[y : y + 16, x : x + 16] = 220
    controls = rng.uniform(-0.25, 0.25, (steps, 2)).astype(np.float32)
    return Episode(frames, controls, {}, {"seed": seed, "behaviour": behaviour})


def write(folder: Path, *episodes: Episode) -> EpisodeStore:
    with EpisodeWriter(folder, {"task": "push_t"}) as writer:
        for entry in episodes:
            writer.append(entry)
    return EpisodeStore(folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    short = episode(1000, steps=10)  # a history and 5 steps of 5 controls take 30
    return write(tmp_path_factory.mktemp("data"), *(episode(seed) for seed in range(60)), short)


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_artifact, tmp_path / "push_t"))


@pytest.fixture
def certified(artifact: Path, store: EpisodeStore) -> Path:
    content = certify(Artifact.load(artifact), store, 0.05)
    update_manifest(artifact, lambda manifest: manifest.update(certificate=content))
    return artifact


def test_the_errors_are_those_of_the_monitor(tiny_artifact: Path, store: EpisodeStore) -> None:
    model = Artifact.load(tiny_artifact).world_model
    spec, entry = model.spec, store[0]
    windows = certificate.Windows.of(model, entry)
    assert windows is not None
    errors = windows.errors(model.predict_each(windows.latents, windows.actions).mean(0))
    tracker, span = PredictionTracker(model, horizon=spec.horizon), (spec.history - 1 + spec.horizon) * 5
    latents, previous = model.encode(entry.observations), [entry.controls[0], *entry.controls]
    seen = [tracker.update(i * 0.1, latents[i], previous[i]) for i in range(len(latents))]
    h_step = [error.h_step for error in seen[span:] if error is not None]
    one_step = [error.one_step for error in seen[spec.history * 5 :] if error is not None][: len(h_step)]
    np.testing.assert_allclose(errors["h_step"], h_step, rtol=1e-4)
    np.testing.assert_allclose(errors["one_step"], one_step, rtol=1e-4)


def test_a_certificate_says_what_its_losses_give(certified: Path, store: EpisodeStore) -> None:
    manifest = verify(certified)
    content = manifest["certificate"]
    assert certificate.check(manifest) == []
    assert measured_again(Artifact.load(certified), store) == []
    seeds, scale = content["data"]["seeds"], content["scale"]["seeds"]
    assert sorted(seeds + scale) == list(range(60))  # the short episode gives no loss
    assert len(scale) > 3
    stated = content["held_out"]["h_step"]
    assert stated["n"] == len(seeds) == len(stated["losses"])
    assert stated["bound"] == pytest.approx(bounds.held_out_bound(np.mean(stated["losses"]), len(seeds), 0.05))
    units = {unit.seed: unit for unit in certificate.measure(Artifact.load(certified).world_model, store)}
    clip = content["scale"]["clip"]["h_step"]
    others = np.concatenate([units[seed].errors["h_step"] for seed in scale])
    assert clip == pytest.approx(np.quantile(others, 0.99), rel=1e-5)
    for seed, loss in zip(seeds, stated["losses"], strict=True):
        exact = float(np.minimum(units[seed].errors["h_step"].astype(np.float64) / clip, 1).mean())
        assert exact <= loss <= exact + 1.1e-5


def test_episodes_of_one_seed_count_as_one(tiny_artifact: Path, tmp_path: Path) -> None:
    model = Artifact.load(tiny_artifact).world_model
    alone = [write(tmp_path / name, episode(3, behaviour=name)) for name in ("walk", "run")]
    both = write(tmp_path / "both", episode(3, behaviour="walk"), episode(3, behaviour="run", steps=60), episode(4))
    (unit, other), (walk,) = list(certificate.measure(model, both)), list(certificate.measure(model, alone[0]))
    assert (unit.seed, other.seed) == (3, 4)
    assert sorted(unit.behaviours) == ["run", "walk"]
    assert len(unit.errors["h_step"]) == len(walk.errors["h_step"]) + 31


def test_losses_are_stored_so_that_bounds_hold() -> None:
    losses = [0.123456, 0.5, 1.0, 0.0, 0.9999999, 1e-9, 0.1 + 0.2]
    stored = certificate.rounded_up(losses)
    assert stored == [0.12346, 0.5, 1.0, 0.0, 1.0, 0.00001, 0.3]
    assert certificate.losses_sha256([0.5, 1.0]) == certificate.losses_sha256([0.500000001, 1])


def spoil_loss(content: dict[str, Any]) -> None:
    content["held_out"]["h_step"]["losses"][0] = 0.0


def spoil_loss_and_hash(content: dict[str, Any]) -> None:
    stated = content["held_out"]["h_step"]
    stated["losses"][0] = 0.0
    stated["losses_sha256"] = certificate.losses_sha256(stated["losses"])


def spoil_bound(content: dict[str, Any]) -> None:
    content["held_out"]["one_step"]["bound"] *= 0.99


def spoil_delta(content: dict[str, Any]) -> None:
    content["held_out"]["h_step"]["delta"] = 0.01


def spoil_model(content: dict[str, Any]) -> None:
    content["model_id"] = "0123456789ab"


def spoil_graph(content: dict[str, Any]) -> None:
    content["graphs"]["predictor"] = "0" * 64


def spoil_seeds(content: dict[str, Any]) -> None:
    content["data"]["seeds"][0] = content["data"]["seeds"][1]


def spoil_count(content: dict[str, Any]) -> None:
    content["data"]["seeds"].pop()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_loss, "not those of their hash"),
        (spoil_loss_and_hash, "risk is"),
        (spoil_bound, "one_step: bound is"),
        (spoil_delta, "bound is"),
        (spoil_model, "of model 0123456789ab"),
        (spoil_graph, "another predictor"),
        (spoil_seeds, "a seed counts twice"),
        (spoil_count, "losses of"),
    ],
)
def test_what_does_not_follow_is_noticed(
    certified: Path, spoil: Callable[[dict[str, Any]], None], says: str, capsys: pytest.CaptureFixture
) -> None:
    update_manifest(certified, lambda manifest: spoil(manifest["certificate"]))
    assert any(says in problem for problem in certificate.check(verify(certified)))
    assert main(["certify", "push_t", "--artifact", str(certified), "--check"]) == 1
    assert says in capsys.readouterr().out
    assert main(["models", "verify", str(certified)]) == 1
    assert "certificate FAILED" in capsys.readouterr().out


def test_losses_of_other_episodes_are_noticed(certified: Path, store: EpisodeStore, tmp_path: Path) -> None:
    other = write(tmp_path / "other", *(episode(seed) for seed in range(100, 110)))
    assert "hash is another" in measured_again(Artifact.load(certified), other)[0]

    def lie(manifest: dict[str, Any]) -> None:  # consistent in itself, but not what the model does
        stated = manifest["certificate"]["held_out"]["h_step"]
        losses = [loss / 2 for loss in stated["losses"]]
        stated |= certificate.statement(losses, stated["delta"])

    update_manifest(certified, lie)
    assert certificate.check(verify(certified)) == []
    assert any("away from the one measured again" in p for p in measured_again(Artifact.load(certified), store))


def test_what_cannot_be_certified_is_refused(artifact: Path, store: EpisodeStore, tmp_path: Path) -> None:
    update_manifest(artifact, lambda manifest: manifest["provenance"].update(data_sha256=store.sha256()))
    with pytest.raises(InvalidInput, match="was trained on these episodes"):
        certify(Artifact.load(artifact), store, 0.05)
    short = write(tmp_path / "short", *(episode(seed, steps=12) for seed in range(20)))
    with pytest.raises(InvalidInput, match="no episode is long enough"):
        certify(Artifact.load(artifact), short, 0.05)
    manifest = verify(artifact)
    unit = certificate.Unit(1, ("walk",), dict.fromkeys(certificate.LOSSES, np.ones(3, np.float32)), {})
    scale = {"data_sha256": "0" * 64, "seeds": [1], "clip": dict.fromkeys(certificate.LOSSES, 1.0)}
    with pytest.raises(InvalidInput, match="other seeds"):
        certificate.certificate(manifest, scale, {}, [unit], 0.05)


def test_a_certificate_of_another_form_is_refused(certified: Path) -> None:
    def spoil(manifest: dict[str, Any]) -> None:
        manifest["certificate"]["held_out"]["h_step"]["bound"] = 1.5

    with pytest.raises(ArtifactError, match="greater than the maximum"):
        update_manifest(certified, spoil)


def test_the_command_line_certifies_checks_and_leaves_the_model_as_it_is(
    artifact: Path, store: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before, result = verify(artifact)["model_id"], tmp_path / "certificate.json"
    command = ["certify", "push_t", "--artifact", str(artifact)]
    assert main([*command, "--check"]) == 1
    assert "run `worldpilot certify`" in capsys.readouterr().out
    assert main([*command, "--data", str(store.path), "--delta", "0.1", "--json", str(result)]) == 0
    said = capsys.readouterr().out
    assert "held out, 5 model steps ahead: at most 0." in said
    assert "with probability 0.9; measured" in said
    manifest = verify(artifact)
    assert manifest["model_id"] == before
    assert json.loads(result.read_text())["held_out"] == manifest["certificate"]["held_out"]
    assert main([*command, "--check", "--data", str(store.path)]) == 0
    assert "certificate ok" in capsys.readouterr().out
    assert main([*command, "--check", "--again"]) == 2
    assert "give them with --data" in capsys.readouterr().err
    assert main(["models", "verify", str(artifact)]) == 0
    assert "certificate ok: prediction error at most" in capsys.readouterr().out
    assert main([*command, "--behaviours", "walk=many"]) == 2
    assert "NAME=N" in capsys.readouterr().err


def test_simulation_gives_the_same_losses_again(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["certify", "push_t", "--artifact", str(artifact), "--seed", "4100000"]
    assert main([*command, "--behaviours", "random_push=3", "--work", str(tmp_path / "kept")]) == 0
    collected = verify(artifact)["certificate"]["data"]["collected"]
    assert collected == {"seed": 4_100_000, "episodes": {"random_push": 3}}
    assert main([*command, "--check", "--again"]) == 0  # collected anew, elsewhere
    assert "certificate ok" in capsys.readouterr().out


def test_the_manifest_stays_readable(certified: Path) -> None:
    text = (certified / "manifest.json").read_text()
    assert len(text.splitlines()) < 400
    assert json.loads(text) == verify(certified)
    content = copy.deepcopy(verify(certified))
    update_manifest(certified, lambda manifest: None)
    assert verify(certified) == content
