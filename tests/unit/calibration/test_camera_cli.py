"""`worldpilot calibrate target, practice, capture, camera, hand-eye`, from a printed target to a camera on a robot."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from worldpilot.cli.main import main

BOARD = "{target_type: charuco, columns: 7, rows: 5, square: 0.03, marker: 0.022, dictionary: 5x5_50}"
INFO = """image_width: 640
image_height: 480
camera_name: lens
camera_matrix: {rows: 3, cols: 3, data: [520.0, 0, 322, 0, 521, 238, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.25, 0.08, 0.0005, -0.0004, 0.0]}
"""


@pytest.fixture(scope="module")
def practice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("practice")
    (folder / "lens.yaml").write_text(INFO)
    command = ["calibrate", "practice", "--target", BOARD, "--out", str(folder), "--camera", str(folder / "lens.yaml")]
    assert main([*command, "--views", "18", "--poses", "14", "--seed", "3"]) == 0
    return folder


@pytest.fixture(scope="module")
def calibrated(practice: Path) -> Path:
    out = practice / "camera.yaml"
    command = ["calibrate", "camera", "--images", str(practice / "images"), "--target", BOARD, "--out", str(out)]
    report = ["--report", str(practice / "camera.html"), "--json", str(practice / "camera.json")]
    assert main([*command, *report, "--plots", str(practice / "plots")]) == 0
    return out


def test_a_camera_is_calibrated(practice: Path, calibrated: Path) -> None:
    figures, truth = (json.loads((practice / name).read_text()) for name in ("camera.json", "truth.json"))
    assert figures["model"] == "plumb_bob"
    assert figures["held_out_px"] < 0.06
    assert len(figures["views"]) >= 16
    errors = np.array(list(figures["parameters"].values())) - truth["camera"]
    assert np.abs(errors[:4]).max() < 0.6
    assert np.abs(errors[:4] / list(figures["std"].values())[:4]).max() < 5
    data = yaml.safe_load(calibrated.read_text())
    assert data["camera_matrix"]["data"][0] == figures["parameters"]["fx"]
    page = (practice / "camera.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "view_000.png" in page
    assert len(list((practice / "plots").glob("*.png"))) == 5


def test_the_hand_eye_pose_is_found(practice: Path, calibrated: Path, capsys: pytest.CaptureFixture) -> None:
    out = practice / "hand_eye.yaml"
    command = ["calibrate", "hand-eye", "--images", str(practice / "arm"), "--poses", str(practice / "poses.csv")]
    command += ["--target", BOARD, "--camera", str(calibrated), "--out", str(out)]
    assert main([*command, "--report", str(practice / "arm.html"), "--json", str(practice / "arm.json")]) == 0
    assert "static_transform_publisher --x" in capsys.readouterr().out
    found, truth = yaml.safe_load(out.read_text()), json.loads((practice / "truth.json").read_text())
    for name in ("camera", "target"):
        true, pose = np.array(truth[f"{name}_pose"]), found[name]
        off = np.array(pose["translation_m"]) - true[:3, 3]
        turn = Rotation.from_quat(pose["quaternion_xyzw"]).as_matrix().T @ true[:3, :3]
        assert np.linalg.norm(off) < 3e-4
        assert np.degrees(Rotation.from_matrix(turn).magnitude()) < 0.04
        assert np.abs(off / pose["std_translation_m"]).max() < 5
    assert (practice / "arm.html").read_text().count("data:image/png;base64,") == 2
    assert main([*command, "--setup", "eye-to-hand"]) == 2
    assert "it is eye-in-hand" in capsys.readouterr().err


def test_capture_says_what_a_folder_lacks(practice: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((practice / "images").iterdir())[:3]:
        shutil.copy(path, few)
    result = tmp_path / "covered.json"
    assert main(["calibrate", "capture", "--images", str(few), "--target", BOARD, "--json", str(result)]) == 0
    out = capsys.readouterr().out
    assert "3 views" in out
    assert "hold the target at" in out
    assert json.loads(result.read_text())["counts"]["views"] == 3


def test_capture_keeps_still_frames(practice: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    video, out = tmp_path / "waved.avi", tmp_path / "kept"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (640, 480))
    assert writer.isOpened()
    for path in sorted((practice / "images").iterdir())[:4]:
        for _ in range(3):
            writer.write(np.asarray(cv2.imread(str(path))))
    writer.release()
    assert main(["calibrate", "capture", "--device", str(video), "--target", BOARD, "--out", str(out)]) == 0
    assert len(list(out.glob("view_*.png"))) >= 3
    assert "hold still" in capsys.readouterr().out
    assert main(["calibrate", "capture", "--device", "no.avi", "--target", BOARD, "--out", str(out)]) == 2
    assert main(["calibrate", "capture", "--device", str(video), "--target", BOARD]) == 2


def test_bad_images_are_refused_with_the_reason(practice: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    images = sorted((practice / "images").iterdir())

    def refused(folder: Path, board: str = BOARD) -> str:
        command = ["calibrate", "camera", "--images", str(folder), "--target", board, "--out", str(tmp_path / "c.yaml")]
        assert main(command) == 2
        assert not (tmp_path / "c.yaml").exists()
        return capsys.readouterr().err

    def folder(name: str, paths: list[Path]) -> Path:
        made = tmp_path / name
        made.mkdir()
        for i, path in enumerate(paths):
            shutil.copy(path, made / f"{i:02d}.png")
        return made

    assert "is not a folder" in refused(tmp_path / "none")
    assert "there are none in" in refused(folder("empty", []))
    assert "6 are needed" in refused(folder("few", images[:3]))
    assert "shows the same as 00.png" in refused(folder("same", images[:1] * 8))
    mixed = folder("mixed", images[:6])
    cv2.imwrite(str(mixed / "odd.png"), np.zeros((100, 100), np.uint8))
    assert "sizes differ, 640 x 480 mostly, but 1 of 7 are not (100 x 100): odd.png" in refused(mixed)
    (mixed / "odd.png").write_text("no image")
    assert "odd.png is missing, or not an image" in refused(mixed)
    wall = folder("wall", [])
    for i in range(6):
        cv2.imwrite(str(wall / f"{i}.png"), np.full((480, 640), 100, np.uint8))
    assert "the target was seen in none of 6 images" in refused(wall)
    other = BOARD.replace("columns: 7", "columns: 6")
    assert "but not where ChArUco 6 x 5" in refused(folder("all", images[:8]), other)


def test_a_target_is_printed_with_its_description(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sheet = tmp_path / "grid.pdf"
    grid = ["aprilgrid", "--columns", "5", "--rows", "6", "--tag", "0.028"]
    assert main(["calibrate", "target", *grid, "--out", str(sheet)]) == 0
    assert sheet.read_bytes().startswith(b"%PDF-1.4")
    described = yaml.safe_load((tmp_path / "grid.yaml").read_text())
    assert described == {"target_type": "aprilgrid", "tagCols": 5, "tagRows": 6, "tagSize": 0.028, "tagSpacing": 0.3}
    assert main(["calibrate", "target", "charuco", "--tag", "0.03", "--out", str(sheet)]) == 2
    assert "a charuco has no --tag" in capsys.readouterr().err
    assert main(["calibrate", "target", "charuco", "--square", "0.06", "--out", str(sheet)]) == 2
    assert "too large for a4" in capsys.readouterr().err
