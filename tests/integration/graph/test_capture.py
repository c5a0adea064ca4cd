"""`worldpilot calibrate capture --topic`: frames of a camera's driver, over DDS."""

import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from sensor_msgs.msg import Image
from worldpilot_nodes import qos
from worldpilot_nodes.frames import frames

from worldpilot.calibration.targets import Charuco
from worldpilot.cli.main import main
from worldpilot.demo import host
from worldpilot.errors import InvalidInput, NotReady

BOARD = Charuco(7, 5, 0.03, 0.022, "DICT_5X5_50")


def frame() -> np.ndarray:
    """The board before a grey wall, (480, 640, 3)."""
    image = np.full((480, 640), 120, np.uint8)
    drawn, _ = BOARD.draw(0.0005, 0.01)
    image[60 : 60 + drawn.shape[0], 90 : 90 + drawn.shape[1]] = drawn
    return np.repeat(image[..., None], 3, axis=2)


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A driver that publishes at 20 Hz; what it returns holds the encoding, which may be changed."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(host.free_domain()))
    context, wanted, over, image = Context(), {"encoding": "rgb8"}, threading.Event(), frame()
    rclpy.init(context=context)
    node = rclpy.create_node("camera", context=context)
    publisher = node.create_publisher(Image, "camera/image", qos.PUBLISHERS["sensor"])

    def publish() -> None:
        while not over.wait(0.05):
            grey = wanted["encoding"] == "mono8"
            data = image[..., 0] if grey else image
            message = Image(encoding=wanted["encoding"], height=480, width=640, step=640 * (1 if grey else 3))
            message.data = array("B", np.ascontiguousarray(data).tobytes())
            publisher.publish(message)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    yield wanted
    over.set()
    thread.join()
    node.destroy_node()
    context.try_shutdown()


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_frames_come_as_they_were_sent(camera: dict[str, str], encoding: str) -> None:
    camera["encoding"] = encoding
    source = frames("camera/image")
    for _ in range(3):
        np.testing.assert_array_equal(next(source), frame())
    source.close()  # type: ignore[attr-defined]


def test_what_can_not_be_shown_is_refused(camera: dict[str, str]) -> None:
    with pytest.raises(NotReady, match="nothing came on /nothing"):
        next(frames("/nothing", timeout=0.5))
    camera["encoding"] = "yuv422"
    with pytest.raises(InvalidInput, match="encoding must be rgb8"):
        next(frames("camera/image"))


@pytest.mark.usefixtures("camera")
def test_capture_keeps_a_frame_and_says_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    board = tmp_path / "board.yaml"
    board.write_text(str(BOARD.to_dict()))
    command = [
        "calibrate",
        "capture",
        "--topic",
        "camera/image",
        "--target",
        str(board),
        "--out",
        str(tmp_path / "kept"),
    ]
    assert main([*command, "--seconds", "4"]) == 0
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["view_000.png"]
    assert "1 views" in capsys.readouterr().out
