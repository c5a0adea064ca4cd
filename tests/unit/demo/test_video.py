from pathlib import Path
from typing import Any

import cv2
import numpy as np

from worldpilot.demo.outcome import Event
from worldpilot.demo.recording import Recording
from worldpilot.demo.video import draw_goal, write_video
from worldpilot.sim.push_t import PushT


def extent(mask: Any) -> np.ndarray:
    """First and last row and column of a mask."""
    rows, columns = np.nonzero(mask)
    return np.array([rows.min(), rows.max(), columns.min(), columns.max()])


def test_the_goal_is_drawn_where_the_camera_sees_a_block_at_that_pose() -> None:
    pose, colour = np.array([0.06, -0.04, 0.7]), (255, 0, 255)
    world = PushT(randomise=False)
    image, _ = world.reset(options={"block": pose, "pusher": np.array([-0.2, 0.2])})
    world.close()
    seen = np.asarray(cv2.resize(image, (320, 320), interpolation=cv2.INTER_CUBIC), int)
    block = seen[..., 2] - seen[..., 0] > 30  # blue, where all else is grey or red
    outline = (draw_goal(np.zeros((320, 320, 3), np.uint8), pose.tolist(), colour) > 100).any(-1)
    assert np.abs(extent(block) - extent(outline)).max() <= 6  # one pixel of the camera is 5 here


def test_the_video_has_a_frame_for_each_image(recording_file: Path, events: list[Event], tmp_path: Path) -> None:
    path = tmp_path / "video.webm"
    assert write_video(path, Recording.load(recording_file), events) == 40
    assert path.read_bytes()[:4] == b"\x1a\x45\xdf\xa3"  # EBML, as WebM begins
    video, frames = cv2.VideoCapture(str(path)), 0
    while video.read()[0]:
        frames += 1
    assert frames == 40
