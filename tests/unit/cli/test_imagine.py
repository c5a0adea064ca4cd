"""`worldpilot imagine`, as a user types it: a real artifact, untrained, in the real simulator and on a store."""

import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from worldpilot.cli.main import main
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter


@pytest.fixture(scope="module")
def artifact(tiny_artifact_builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported for 5 steps, as the shipped ones are: to go beyond, it must be asked again."""
    return tiny_artifact_builder.build(tmp_path_factory.mktemp("fixed") / "push_t", horizon=5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    with EpisodeWriter(folder, {"task": "push_t"}) as writer:
        for seed in range(12):
            rng = np.random.default_rng(seed)
            frames = rng.integers(0, 255, (41, 64, 64, 3), dtype=np.uint8)
            controls = rng.uniform(-0.25, 0.25, (40, 2)).astype(np.float32)
            signals = {"block_x": rng.normal(size=41).astype(np.float32)}
            writer.append(Episode(frames, controls, signals, {"seed": seed, "behaviour": "expert"}))
    return folder


def test_a_fresh_episode_is_recorded_imagined_and_drawn(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["imagine", "push_t", "--artifact", str(artifact), "--episode", "2", "--start", "20", "--steps", "7"]
    out, result = tmp_path / "strip.png", tmp_path / "figures.json"
    assert main([*command, "--out", str(out), "--json", str(result)]) == 0
    picture = cv2.imread(str(out))
    assert picture is not None
    assert picture.shape[1] > picture.shape[0] > 300
    first = json.loads(result.read_text())
    assert first["episode"] == {"behaviour": "random_push", "seed": 1_000_002}
    assert first["after_s"] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert first["start_s"] == 2.0
    assert set(first["errors"]) == {"block", "pusher", "block_yaw"}
    assert len(first["nmse"]) == len(first["errors"]["block"]["values"]) == 8
    assert np.isfinite(first["nmse"]).all()
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("     3.5 ")]) == 1


def test_a_stored_episode_is_taken_from_what_training_held_out(artifact: Path, store: Path, tmp_path: Path) -> None:
    command = ["imagine", "push_t", "--artifact", str(artifact), "--data", str(store), "--out", str(tmp_path / "s.png")]
    options = ["--held-out", "0.3", "--start", "5", "--steps", "6", "--json", str(tmp_path / "s.json")]
    assert main([*command, *options]) == 0
    held_out = EpisodeStore(store).split(0.3)[1]
    figures = json.loads((tmp_path / "s.json").read_text())
    assert figures["episode"]["seed"] == EpisodeStore(store)[held_out[0]].meta["seed"]

    model, episode = Artifact.load(artifact).world_model, EpisodeStore(store)[held_out[0]]
    read = model.signals(model.encode(episode.observations[5:6]))["block_x"][0]
    assert figures["errors"]["block"]["values"][0] == pytest.approx(abs(read - episode.signals["block_x"][5]), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--start", "2"], "start between 5 and"),
        (["--steps", "40"], "40 model steps"),
        (["--steps", "0"], "at least one step"),
        (["--data", "nowhere"], "no data set"),
        (["--held-out", "1", "--episode", "12"], "12 such episodes, from 0; got --episode 12"),
    ],
)
def test_what_cannot_be_imagined_is_refused_with_one_line(
    artifact: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    out = tmp_path / "x.png"
    command = ["imagine", "push_t", "--artifact", str(artifact), "--data", str(store), "--out", str(out), *options]
    assert main(command) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--episode", "-1"], "0 or more"), (["--behaviour", "dancing"], "valid names: expert")],
)
def test_what_cannot_be_recorded_is_refused(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    command = ["imagine", "push_t", "--artifact", str(artifact), "--out", str(tmp_path / "x.png"), *options]
    assert main(command) == 2
    assert says in capsys.readouterr().err


def test_without_a_decoder_there_is_nothing_to_see(
    tiny_artifact_builder: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = tiny_artifact_builder.build(tmp_path / "push_t", decoder=False)
    assert main(["imagine", "push_t", "--artifact", str(blind), "--out", str(tmp_path / "x.png")]) == 2
    assert "decoder" in capsys.readouterr().err
