"""The run as a video for browsers: what the camera saw, beside what the model had imagined for that moment."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from worldpilot.demo.outcome import REACHED, Event
from worldpilot.demo.plots import overlaps
from worldpilot.demo.recording import Recording, at
from worldpilot.errors import WorldpilotError
from worldpilot.sim import geometry
from worldpilot.types import ImageArray

FPS = 10.0  # the control rate: real time
FIELD = 0.52  # [m], the camera of push_t covers a square of this side on the table
_SIDE, _GAP, _TITLE, _STRIP = 320, 8, 24, 80  # [px]
_INK, _GREEN, _RED, _GREY = (30, 30, 30), (40, 150, 70), (200, 40, 40), (120, 120, 120)
_LEVELS = ("nominal", "caution", "hold")

Canvas = npt.NDArray[np.uint8]


def write_video(path: Path, recording: Recording, events: Sequence[Event]) -> int:
    """Write a WebM (VP8) file; returns its number of frames.

    Raises:
        WorldpilotError: OpenCV can't write WebM here.
    """
    width, height = 2 * _SIDE + 3 * _GAP, _TITLE + _SIDE + _GAP + _STRIP
    writer = _open(path, (width, height))
    covered = overlaps(recording, events)
    shown = [(stamp, image) for stamp, image in recording.images if stamp >= events[0].stamp - 1.0]
    for stamp, image in shown:
        canvas = np.full((height, width, 3), 245, np.uint8)
        goal = at([(event.stamp, event.goal) for event in events if event.goal], stamp)
        left = draw_goal(_enlarged(image), goal[1]) if goal else _enlarged(image)
        right, title = _right(recording, stamp)
        rows, second = slice(_TITLE, _TITLE + _SIDE), 2 * _GAP + _SIDE
        canvas[rows, _GAP : _GAP + _SIDE], canvas[rows, second : second + _SIDE] = left, right
        _text(canvas, (_GAP, 16), "camera, and the goal in force", _INK)
        _text(canvas, (second, 16), title, _INK)
        _caption(canvas, recording, events, covered, stamp)
        writer.write(cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))
    writer.release()
    return len(shown)


def draw_goal(panel: Canvas, pose: Sequence[float], colour: tuple[int, int, int] = _GREEN) -> Canvas:
    """Draw the outline of a T at `pose` (x [m], y [m], yaw [rad]) into a square panel of shape (S, S, 3)."""
    for cx, cy, hx, hy in geometry.BOXES:
        corners = np.array([[cx - hx, cy - hy], [cx + hx, cy - hy], [cx + hx, cy + hy], [cx - hx, cy + hy]])
        points = _pixels(geometry.to_world(corners, np.asarray(pose)), panel.shape[0])
        cv2.polylines(panel, [points], True, colour, 1, cv2.LINE_AA)
    return panel


def _open(path: Path, size: tuple[int, int]) -> cv2.VideoWriter:
    """A WebM writer, without OpenCV's complaint on stderr that WebM has no FourCC for the VP8 that it then writes."""
    with open(os.devnull, "w") as nowhere:
        stderr = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"VP80"), FPS, size)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    if not writer.isOpened():
        raise WorldpilotError(f"OpenCV {cv2.__version__} has no VP8 encoder for {path}: install opencv-python-headless")
    return writer


def _right(recording: Recording, stamp: float) -> tuple[Canvas, str]:
    """What was imagined for this moment; without a decoder, what was read from the latent. With its title."""
    if recording.imagined:
        imagined = at(recording.imagined, stamp + 1e-3, within=0.05)
        if imagined is None:
            return np.full((_SIDE, _SIDE, 3), 200, np.uint8), "nothing was imagined for this moment"
        return _enlarged(imagined[1]), "imagined for this moment, 0.5 s before"
    panel = np.full((_SIDE, _SIDE, 3), 225, np.uint8)
    if entry := at(recording.read, stamp + 1e-3, within=0.3):
        read = entry[1]
        draw_goal(panel, (read["block_x"], read["block_y"], read["block_yaw"]), (60, 80, 130))
        centre = _pixels(np.array([[read["pusher_x"], read["pusher_y"]]]), _SIDE)[0]
        cv2.circle(panel, (int(centre[0]), int(centre[1])), round(0.014 / FIELD * _SIDE), _RED, 2, cv2.LINE_AA)
    return panel, "read from the latent"


def _caption(
    canvas: Canvas,
    recording: Recording,
    events: Sequence[Event],
    covered: Sequence[tuple[float, float]],
    stamp: float,
) -> None:
    """Below the pictures: time, what happens, overlap, planner and monitor."""
    top = _TITLE + _SIDE
    event = at([(event.stamp, event.text) for event in events], stamp)
    overlap, alert, status = at(covered, stamp), at(recording.alerts, stamp), at(recording.status, stamp)
    level = alert[1] if alert else 0
    _text(canvas, (_GAP, top + 22), f"{stamp - events[0].stamp:5.1f} s   {event[1] if event else ''}", _INK)
    if overlap:
        _text(canvas, (_GAP, top + 46), f"overlap {overlap[1]:.2f}", _GREEN if overlap[1] > REACHED else _INK)
    if status:
        _text(canvas, (_GAP + 140, top + 46), f"score {status[1].score:.5f}   solve {status[1].solve_ms:.0f} ms", _GREY)
    colour = (_GREEN, (190, 130, 20), _RED)[level]
    _text(canvas, (_GAP, top + 70), f"monitor: {_LEVELS[level]}", colour)
    if status and status[1].reason:
        _text(canvas, (_GAP + 140, top + 70), f"planner: {status[1].reason}"[:70], _RED)


def _enlarged(image: ImageArray) -> Canvas:
    return np.asarray(cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)


def _text(canvas: Canvas, origin: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    plain = text.replace("°", " deg").encode("ascii", "replace").decode()  # OpenCV's fonts end at ASCII
    cv2.putText(canvas, plain, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def _pixels(points: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.int32]:
    """World points of shape (K, 2) [m] to pixels; image up is +y."""
    scale = size / FIELD
    return np.round(np.stack([size / 2 + points[:, 0] * scale, size / 2 - points[:, 1] * scale], -1)).astype(np.int32)
