"""`worldpilot calibrate monitor` and `worldpilot models verify`, on a real artifact and real episodes on disk."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from worldpilot.cli.calibrate import good_behaviours
from worldpilot.cli.main import main
from worldpilot.models.artifact import Artifact, verify
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_artifact, tmp_path / "push_t"))


def write_episodes(folder: Path, n: int, steps: int = 30, fallen: int = 0) -> Path:
    """A bright square that wanders over the image; the tiny model predicts it badly, and equally so in each episode."""
    with EpisodeWriter(folder, {"task": "push_t"}) as writer:
        for seed in range(n):
            rng = np.random.default_rng(seed)
            frames = np.full((steps + 1, 64, 64, 3), 90, np.uint8)
            x, y = rng.integers(8, 48, 2)
            for frame in frames:
                x, y = np.clip(np.array([x, y]) + rng.integers(-2, 3, 2), 0, 48)
                frame[y : y + 16, x : x + 16] = 220
            controls = rng.uniform(-0.25, 0.25, (steps, 2)).astype(np.float32)
            behaviour = "expert" if seed % 4 else "random_push"
            meta = {"seed": seed, "behaviour": behaviour} | ({"fallen": seed < fallen} if fallen else {})
            writer.append(Episode(frames, controls, {}, meta))
    return folder


def test_calibrate_stores_thresholds_that_hold(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = write_episodes(tmp_path / "data", 100)
    model_id = verify(artifact)["model_id"]
    command = ["calibrate", "monitor", "--artifact", str(artifact), "--data", str(data), "--held-out", "1"]
    result = tmp_path / "result.json"
    assert main([*command, "--alpha", "0.1", "--json", str(result)]) == 0
    assert "75 good episodes (expert)" in capsys.readouterr().out
    manifest = verify(artifact)
    assert manifest["model_id"] == model_id
    assert manifest["thresholds"]["episodes"] == 75
    assert manifest["thresholds"]["behaviours"] == ["expert"]
    alarms = manifest["metrics"]["monitor_false_alarms"]
    assert alarms["n"] == 75
    assert alarms["ci"][0] <= alarms["value"] <= alarms["ci"][1] < 0.3
    written = json.loads(result.read_text())
    assert written["limits"] == manifest["thresholds"]["limits"]
    assert written["false_alarms"] == alarms
    assert Artifact.load(artifact).thresholds == manifest["thresholds"]


def test_calibrate_refuses_what_it_cannot_do(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = write_episodes(tmp_path / "data", 20)
    before = (artifact / "manifest.json").read_bytes()
    command = ["calibrate", "monitor", "--artifact", str(artifact), "--data", str(data), "--held-out", "1"]
    assert main(command) == 2
    assert "15 good episodes are too few" in capsys.readouterr().err
    assert main([*command, "--behaviours", "mpc"]) == 2
    assert 'there are "expert", "random_push"' in capsys.readouterr().err
    assert (artifact / "manifest.json").read_bytes() == before


def test_episodes_in_which_the_robot_fell_are_not_good_ones(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = write_episodes(tmp_path / "data", 60, steps=15, fallen=8)
    command = ["calibrate", "monitor", "--artifact", str(artifact), "--data", str(data), "--held-out", "1"]
    assert main([*command, "--behaviours", "expert,random_push", "--alpha", "0.2"]) == 0
    out = capsys.readouterr().out
    assert "8 episodes left out: the robot fell in them" in out
    assert "52 good episodes (expert, random_push)" in out


def test_without_a_better_name_all_behaviours_are_good(tmp_path: Path) -> None:
    def behaviours(name: str, *there: str) -> EpisodeStore:
        with EpisodeWriter(tmp_path / name, {}) as writer:
            for seed, behaviour in enumerate(there):
                states, controls = np.zeros((3, 1), np.float32), np.zeros((2, 1), np.float32)
                writer.append(Episode(states, controls, {}, {"seed": seed, "behaviour": behaviour}))
        return EpisodeStore(tmp_path / name)

    assert good_behaviours(behaviours("legged", "jump", "run"), None) == ("jump", "run")
    assert good_behaviours(behaviours("pushed", "random_push", "expert"), None) == ("expert",)
    assert good_behaviours(behaviours("more", "walk", "mpc"), "mpc,run") == ("mpc",)
    assert good_behaviours(behaviours("none", "walk"), "mpc") == ("mpc",)  # the store then says what it has


def test_verify_says_what_is_there(artifact: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["models", "verify", str(artifact)]) == 0
    out = capsys.readouterr().out
    assert "thresholds ok" in out
    assert "block_yaw [rad] 0.80" in out
    assert "vx [m/s], vy [m/s] every 0.1 s, 5 a model step" in out


@pytest.mark.parametrize("what", ["graph", "thresholds"])
def test_verify_fails_on_what_does_not_check_out(artifact: Path, what: str, capsys: pytest.CaptureFixture) -> None:
    if what == "graph":
        (artifact / "prior.onnx").write_bytes(b"")
    else:
        file = artifact / "manifest.json"
        manifest = json.loads(file.read_text())
        manifest["thresholds"]["model_id"] = "0123456789ab"
        file.write_text(json.dumps(manifest))
    assert main(["models", "verify", str(artifact)]) == 1
    message = "prior: sha256" if what == "graph" else "fitted for model 0123456789ab"
    assert message in capsys.readouterr().out


def test_verify_of_an_unknown_task(capsys: pytest.CaptureFixture) -> None:
    assert main(["models", "verify", "juggling"]) == 1
    assert "shipped tasks" in capsys.readouterr().out
