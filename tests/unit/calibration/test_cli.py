"""`worldpilot calibrate monitor` and `worldpilot models verify`, on a real artifact and real episodes on disk."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldpilot.calibration.monitor import PredictionTracker
from worldpilot.calibration.thresholds import Thresholds
from worldpilot.cli.calibrate import good_behaviours, prediction_errors
from worldpilot.cli.main import main
from worldpilot.models.artifact import Artifact, verify
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_artifact, tmp_path / "push_t"))


def write_episodes(
    folder: Path, n: int, steps: int = 30, fallen: int = 0, store: dict[str, Any] | None = None, **said: Any
) -> Path:
    """A bright square that wanders over the image; the tiny model predicts it badly, and equally so in each episode.

    `store` is what the store says of all episodes, `said` what each says of itself.
    """
    with EpisodeWriter(folder, {"task": "push_t"} if store is None else store) as writer:
        for seed in range(n):
            rng = np.random.default_rng(seed)
            frames = np.full((steps + 1, 64, 64, 3), 90, np.uint8)
            x, y = rng.integers(8, 48, 2)
            for frame in frames:
                x, y = np.clip(np.array([x, y]) + rng.integers(-2, 3, 2), 0, 48)
                frame[y : y + 16, x : x + 16] = 220
            controls = rng.uniform(-0.25, 0.25, (steps, 2)).astype(np.float32)
            behaviour = "expert" if seed % 4 else "random_push"
            meta = {"seed": seed, "behaviour": behaviour} | ({"fallen": seed < fallen} if fallen else {}) | said
            writer.append(Episode(frames, controls, {}, meta))
    return folder


def test_calibrate_stores_thresholds_that_hold(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = write_episodes(tmp_path / "data", 100)
    model_id = verify(artifact)["model_id"]
    command = ["calibrate", "monitor", "--artifact", str(artifact), "--data", str(data), "--held-out", "1"]
    result = tmp_path / "result.json"
    plot = tmp_path / "maxima.png"
    assert main([*command, "--alpha", "0.1", "--json", str(result), "--plot", str(plot)]) == 0
    assert plot.stat().st_size > 5000
    out = capsys.readouterr().out
    assert "75 good episodes (expert)" in out
    assert "whitened by 15 of them, the other 60 give the thresholds" in out
    manifest = verify(artifact)
    assert manifest["model_id"] == model_id
    assert manifest["thresholds"]["episodes"] == 60
    assert len(manifest["thresholds"]["whitening"]) == manifest["latent_dim"]
    assert manifest["thresholds"]["behaviours"] == ["expert"]
    alarms = manifest["metrics"]["monitor_false_alarms"]
    assert alarms["n"] == 60
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
    assert main([*command, "--surprise", "whitened"]) == 2
    assert "12 good episodes are too few" in capsys.readouterr().err
    assert main([*command, "--behaviours", "mpc"]) == 2
    assert 'there are "expert", "random_push"' in capsys.readouterr().err
    assert (artifact / "manifest.json").read_bytes() == before


ACTION = {"names": ["vx", "vy"], "units": ["m/s", "m/s"], "control_dt": 0.1}


@pytest.mark.parametrize(
    ("store", "said", "reason"),
    [
        ({"task": "push_cube"}, {}, "task of .* is push_cube, of the artifact push_t"),
        ({"action": {**ACTION, "control_dt": 0.05}}, {}, r"control period \[s\] of .* is 0.05, of the artifact 0.1"),
        ({"action": {**ACTION, "names": ["vy", "vx"]}}, {}, "controls of .* is .'vy', 'vx'."),
        ({"state": {"names": ["height"]}}, {}, "state of .* is .'height'."),
        ({"model_id": "0123456789ab"}, {}, "model that acted of .* is 0123456789ab"),
        ({}, {"model_id": "0123456789ab"}, "model that acted of .* is 0123456789ab"),
    ],
)
def test_data_of_another_robot_or_policy_is_refused_with_what_differs(
    artifact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    store: dict[str, Any],
    said: dict[str, Any],
    reason: str,
) -> None:
    data = write_episodes(tmp_path / "data", 8, steps=12, store=store, **said)
    assert main(["calibrate", "monitor", "--artifact", str(artifact), "--data", str(data), "--held-out", "1"]) == 2
    assert re.search(reason, capsys.readouterr().err)


def test_the_rewards_in_force_are_stored_and_another_one_is_refused(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    family = "goal_pose(block_x, block_y)"
    own = {"model_id": verify(artifact)["model_id"], "reward_family": family, "target": {"block_x": 0.0}}
    data = write_episodes(tmp_path / "data", 40, steps=15, store={"action": ACTION}, **own)
    command = ["calibrate", "monitor", "--artifact", str(artifact), "--data", str(data), "--held-out", "1"]
    command += ["--alpha", "0.2"]
    asked, other = tmp_path / "reward.json", '{"terms": [{"plugin": "goal_latent"}]}'
    asked.write_text('{"terms": [{"plugin": "goal_pose", "params": {"x": 0.1, "y": 0}}]}')
    assert main([*command, "--reward", str(asked)]) == 0
    assert verify(artifact)["thresholds"]["rewards"] == {family: 30}
    assert main([*command, "--reward", other]) == 2
    assert f"no episode was recorded under goal_latent, but under {family}" in capsys.readouterr().err


def test_whitened_surprise_and_the_spread_of_proposals(artifact: Path, tmp_path: Path) -> None:
    data = write_episodes(tmp_path / "data", 60, steps=15)
    command = ["calibrate", "monitor", "--artifact", str(artifact), "--data", str(data), "--held-out", "1"]
    command += ["--alpha", "0.2", "--surprise", "whitened", "--channels", "surprise,spread"]
    assert main(command) == 0
    loaded = Artifact.load(artifact)
    assert loaded.thresholds is not None
    thresholds = Thresholds.from_dict(loaded.thresholds)
    assert thresholds.episodes == 36  # each fifth of 45 gave the whitening
    assert len(thresholds.whitening) == loaded.spec.latent_dim
    assert thresholds.limits["spread"] > 1.0
    # The tracker of a running robot measures in the same units: 1 is the median of good steps.
    tracker = PredictionTracker(loaded.world_model, thresholds)
    good = EpisodeStore(data).select(behaviour="expert")
    errors = [error.one_step for episode in good for error in prediction_errors(loaded, tracker, episode)]
    assert np.median(errors) == pytest.approx(1.0, rel=0.3)


def test_episodes_in_which_the_robot_fell_are_not_good_ones(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = write_episodes(tmp_path / "data", 60, steps=15, fallen=8)
    command = ["calibrate", "monitor", "--artifact", str(artifact), "--data", str(data), "--held-out", "1"]
    assert main([*command, "--behaviours", "expert,random_push", "--alpha", "0.2"]) == 0
    out = capsys.readouterr().out
    assert "8 episodes left out: the robot fell in them" in out
    assert "52 good episodes (expert, random_push)" in out


def test_where_a_part_would_leave_too_few_errors_stay_plain(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = write_episodes(tmp_path / "data", 16, steps=15)  # 12 good ones; two channels at .2 need 9
    command = ["calibrate", "monitor", "--artifact", str(artifact), "--data", str(data), "--held-out", "1"]
    assert main([*command, "--alpha", "0.2", "--surprise", "plain"]) == 0
    assert "whitened" not in capsys.readouterr().out
    assert main([*command, "--alpha", "0.2"]) == 0
    assert main([*command, "--alpha", "0.17"]) == 0  # these need 11
    first, second = capsys.readouterr().out.split("written to")[:2]
    assert "whitened by 3 of them, the other 9" in first
    assert "errors are plain" in second
    assert verify(artifact)["thresholds"]["whitening"] == []


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
    assert "is missing; shipped: hopper, push_cube" in capsys.readouterr().out
