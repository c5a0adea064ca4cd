"""The run as a video for browsers: two pictures side by side, and what happens below.

For tasks with a camera: what it saw, beside what the model had imagined for that moment.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from worldpilot.demo.outcome import REACHED, Event
from worldpilot.demo.plots import overlaps
from worldpilot.demo.recording import Recording, at
from worldpilot.errors import WorldpilotError
from worldpilot.sim import geometry
from worldpilot.types import ImageArray

FIELD = 0.52  # [m], the camera of push_t covers a square of this side on the table
SIDE = 320  # [px], of a picture
INK, GREEN, RED, GREY = (30, 30, 30), (40, 150, 70), (200, 40, 40), (120, 120, 120)
_FPS = 10.0  # push_t's control rate: real time
_GAP, _TITLE, _STRIP = 8, 24, 80  # [px]
_LEVELS = ("nominal", "caution", "hold")

Canvas = npt.NDArray[np.uint8]


def write_video(path: Path, recording: Recording, events: Sequence[Event]) -> int:
    """Write a WebM (VP8) file; returns its number of frames.

    Raises:
        WorldpilotError: OpenCV can't write WebM here.
    """
    covered = overlaps(recording, events)
    shown = [(stamp, image) for stamp, image in recording.images if stamp >= events[0].stamp - 1.0]
    with Film(path, _FPS, recording, events) as film:
        for stamp, image in shown:
            goal = at([(event.stamp, event.goal) for event in events if event.goal], stamp)
            left = draw_goal(_enlarged(image), goal[1]) if goal else _enlarged(image)
            overlap = at(covered, stamp)
            fact = f"overlap {overlap[1]:.2f}" if overlap else ""
            colour = GREEN if overlap and overlap[1] > REACHED else INK
            film.show(stamp, (left, "camera, and the goal in force"), _right(recording, stamp), (fact, colour))
    return len(shown)


class Film:
    """A WebM file of two pictures, each with its title, over what happens: the story, planner and monitor.

    Raises:
        WorldpilotError: OpenCV can't write WebM here.
    """

    def __init__(self, path: Path, fps: float, recording: Recording, events: Sequence[Event]) -> None:
        self._recording, self._events = recording, events
        self._size = 2 * SIDE + 3 * _GAP, _TITLE + SIDE + _GAP + _STRIP
        self._writer = _open(path, fps, self._size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.release()

    def show(
        self,
        stamp: float,
        left: tuple[Canvas, str],
        right: tuple[Canvas, str],
        fact: tuple[str, tuple[int, int, int]],
    ) -> None:
        """One frame: pictures of shape (320, 320, 3) with titles, and a fact in its colour."""
        width, height = self._size
        canvas = np.full((height, width, 3), 245, np.uint8)
        for x, (picture, title) in zip((_GAP, 2 * _GAP + SIDE), (left, right), strict=True):
            canvas[_TITLE : _TITLE + SIDE, x : x + SIDE] = picture
            write_text(canvas, (x, 16), title, INK)
        self._caption(canvas, stamp, fact)
        self._writer.write(cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))

    def _caption(self, canvas: Canvas, stamp: float, fact: tuple[str, tuple[int, int, int]]) -> None:
        """Below the pictures: time, what happens, the fact, planner and monitor."""
        top = _TITLE + SIDE
        event = at([(event.stamp, event.text) for event in self._events], stamp)
        alert, status = at(self._recording.alerts, stamp), at(self._recording.status, stamp)
        level = alert[1] if alert else 0
        time = f"{stamp - self._events[0].stamp:5.1f} s   {event[1] if event else ''}"
        write_text(canvas, (_GAP, top + 22), time, INK)
        write_text(canvas, (_GAP, top + 46), *fact)
        if status:
            numbers = f"score {status[1].score:.5f}   solve {status[1].solve_ms:.0f} ms"
            write_text(canvas, (_GAP + (140 if len(fact[0]) < 16 else 330), top + 46), numbers, GREY)
        colour = (GREEN, (190, 130, 20), RED)[level]
        write_text(canvas, (_GAP, top + 70), f"monitor: {_LEVELS[level]}", colour)
        if status and status[1].reason:
            write_text(canvas, (_GAP + 140, top + 70), f"planner: {status[1].reason}"[:70], RED)


def draw_goal(panel: Canvas, pose: Sequence[float], colour: tuple[int, int, int] = GREEN) -> Canvas:
    """Draw the outline of a T at `pose` (x [m], y [m], yaw [rad]) into a square panel of shape (S, S, 3)."""
    for cx, cy, hx, hy in geometry.BOXES:
        corners = np.array([[cx - hx, cy - hy], [cx + hx, cy - hy], [cx + hx, cy + hy], [cx - hx, cy + hy]])
        points = _pixels(geometry.to_world(corners, np.asarray(pose)), panel.shape[0])
        cv2.polylines(panel, [points], True, colour, 1, cv2.LINE_AA)
    return panel


def _open(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """A WebM writer, without OpenCV's complaint on stderr that WebM has no FourCC for the VP8 that it then writes."""
    with open(os.devnull, "w") as nowhere:
        stderr = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"VP80"), fps, size)
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
            return np.full((SIDE, SIDE, 3), 200, np.uint8), "nothing was imagined for this moment"
        return _enlarged(imagined[1]), "imagined for this moment, 0.5 s before"
    panel = np.full((SIDE, SIDE, 3), 225, np.uint8)
    if entry := at(recording.read, stamp + 1e-3, within=0.3):
        read = entry[1]
        draw_goal(panel, (read["block_x"], read["block_y"], read["block_yaw"]), (60, 80, 130))
        centre = _pixels(np.array([[read["pusher_x"], read["pusher_y"]]]), SIDE)[0]
        cv2.circle(panel, (int(centre[0]), int(centre[1])), round(0.014 / FIELD * SIDE), RED, 2, cv2.LINE_AA)
    return panel, "read from the latent"


def _enlarged(image: ImageArray) -> Canvas:
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)


def write_text(canvas: Canvas, origin: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    """Text into a picture, its base line at `origin` (x, y) [px]."""
    plain = text.replace("°", " deg").encode("ascii", "replace").decode()  # OpenCV's fonts end at ASCII
    cv2.putText(canvas, plain, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def _pixels(points: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.int32]:
    """World points of shape (K, 2) [m] to pixels; image up is +y."""
    scale = size / FIELD
    return np.round(np.stack([size / 2 + points[:, 0] * scale, size / 2 - points[:, 1] * scale], -1)).astype(np.int32)
