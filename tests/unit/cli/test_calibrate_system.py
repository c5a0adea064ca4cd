"""From a recording to a file of delays and parameters, and to a simulator that is like it."""

import json
from pathlib import Path

import pytest

from worldpilot.cli.main import main
from worldpilot.cli.up import late
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.system import System

TRUE = System("push_t", 0.052, 0.05, {"mass": 0.3, "friction": 0.4})


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("excited")
    TRUE.save(folder / "true.yaml")
    command = ["collect", "push_t", "--excite", "1", "--steps", "300", "--workers", "1", "--out", str(folder / "data")]
    assert main([*command, "--system", str(folder / "true.yaml")]) == 0
    return folder / "data"


def test_delays_then_friction_come_into_one_file(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, figures = tmp_path / "system.yaml", tmp_path / "figures.json"
    assert {"force_x", "force_y"} <= EpisodeStore(recording)[0].signals.keys()
    both = ["--system", str(file), "--json", str(figures), "--plot"]
    assert main(["calibrate", "latency", "--data", str(recording), *both, str(tmp_path / "latency.png")]) == 0
    found = System.load(file, "push_t")
    assert found.control_delay == pytest.approx(TRUE.control_delay, abs=2e-3)
    assert found.camera_delay == pytest.approx(TRUE.camera_delay, abs=5e-3)  # half a minute is little for the camera
    assert json.loads(figures.read_text())["times"]["camera"]["std"] < 5e-3
    assert "control delay: 52" in capsys.readouterr().out

    command = ["calibrate", "system", "--data", str(recording), "--parameters", "friction"]
    assert main([*command, *both, str(tmp_path / "system.png")]) == 0
    again = System.load(file, "push_t")
    assert again.delay == found.delay
    assert set(again.measured) == {"latency", "system"}
    assert json.loads(figures.read_text())["segments"] >= 6
    assert (tmp_path / "latency.png").stat().st_size > 10_000
    assert (tmp_path / "system.png").stat().st_size > 10_000


def test_the_graph_is_told_by_the_file(tmp_path: Path) -> None:
    TRUE.save(tmp_path / "system.yaml")
    settings = late(TRUE, tmp_path / "system.yaml")
    assert settings["sim"] == {"system": str(tmp_path / "system.yaml")}
    assert {settings[node]["delay"] for node in ("mpc", "world_model", "action_prior")} == {TRUE.delay}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["latency"], "--data or --bag"),
        (["latency", "--data", "DATA", "--sources", "radar"], "camera, encoder"),
        (["latency", "--data", "DATA", "--position", "pusher_x,elbow"], "elbow"),
        (["latency", "--data", "DATA", "--sources", "encoder", "--segment", "15"], "at least 8"),
        (["system", "--data", "DATA", "--parameters", "colour"], "friction, mass"),
        (["system", "--data", "DATA/none"], "no data set"),
    ],
)
def test_what_cannot_be_done_is_refused(
    recording: Path, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("DATA", str(recording)) for argument in arguments]
    assert main(["calibrate", *given]) == 2
    assert why in capsys.readouterr().err


def test_a_task_that_nothing_excites_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "walker", "--excite", "1", "--out", str(tmp_path)]) == 2
    assert "nothing that tells" in capsys.readouterr().err
