"""Files of poses: read, joined with views, refused with the reason."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from worldpilot.calibration.intrinsics import Intrinsics
from worldpilot.calibration.robot_poses import COLUMNS, pair, read_poses
from worldpilot.calibration.targets import Charuco
from worldpilot.calibration.views import View
from worldpilot.errors import InvalidInput
from worldpilot.sim.lens import Lens

HEAD = ",".join(COLUMNS)


def test_csv_and_yaml_say_the_same(tmp_path: Path) -> None:
    turn = Rotation.from_rotvec([0.3, -0.2, 0.5])
    values = [0.1, -0.2, 0.3, *turn.as_quat()]
    (tmp_path / "poses.csv").write_text(f"{HEAD}\na.png,{','.join(map(str, values))}\n")
    row = dict(zip(COLUMNS, ["a.png", *map(float, values)], strict=True))
    (tmp_path / "poses.yaml").write_text(yaml.safe_dump([row]))
    for name in ("poses.csv", "poses.yaml"):
        (found,) = read_poses(tmp_path / name).items()
        assert found[0] == "a.png"
        np.testing.assert_allclose(found[1][:3, :3], turn.as_matrix(), atol=1e-12)
        np.testing.assert_allclose(found[1][:3, 3], values[:3])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds none"),
        (f"{HEAD}\n", "holds none"),
        ("name,x,y,z\na,1,2,3\n", "lacks qx, qy, qz, qw"),
        (f"{HEAD}\na,1,2,3,0,0,0\n", "lacks qw"),
        (f"{HEAD}\na,1,2,3,0,0,0,2\n", "length 1, this one 2.000"),
        (f"{HEAD}\na,1,2,nan,0,0,0,1\n", "not finite"),
        (f"{HEAD}\na,1,2,x,0,0,0,1\n", "could not convert"),
        (f"{HEAD}\na,300,2,1,0,0,0,1\n", "lengths are metres"),
        (f"{HEAD}\na,1,2,3,0,0,0,1\na,1,2,3,0,0,0,1\n", "'a' twice"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "poses.csv"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=words):
        read_poses(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_poses(tmp_path / "none.csv")


def test_images_and_poses_are_joined_by_name(make_views: Callable[..., list[View]], lens: Lens) -> None:
    board = Charuco()
    camera = Intrinsics(lens.size, lens.model, (lens.fx, lens.fy, lens.cx, lens.cy, *lens.distortion))
    views = make_views(board, lens, 6)
    moved = views[4].detection.corners + 8 * np.sin(views[4].detection.corners / 40)
    views[4] = replace(views[4], detection=replace(views[4].detection, corners=moved))
    poses = {"view_00.png": np.eye(4), "view_01": 2 * np.eye(4), "view_04.png": np.eye(4), "lost.png": np.eye(4)}
    pairs = pair(poses, views, board, camera)
    assert pairs.names == ("view_00.png", "view_01")
    assert pairs.dropped["lost.png"] == "there is no such image"
    assert pairs.dropped["view_02.png"] == "it has no pose"
    assert "reprojection error" in pairs.dropped["view_04.png"] or "not seen" in pairs.dropped["view_04.png"]
    np.testing.assert_array_equal(pairs.gripper[1], 2 * np.eye(4))
    again = camera.project(
        board.points, np.r_[Rotation.from_matrix(pairs.seen[0][:3, :3]).as_rotvec(), pairs.seen[0][:3, 3]]
    )
    assert np.abs(again[views[0].detection.ids] - views[0].detection.corners).max() < 0.2
    with pytest.raises(InvalidInput, match="no pose has an image"):
        pair({"lost.png": np.eye(4)}, views, board, camera)
    with pytest.raises(InvalidInput, match="the intrinsics are for 640 x 480"):
        pair(poses, views, board, replace(camera, size=(640, 480)))
