"""The run of a legged robot as a video: the robot as its recorded states say, beside which feet stood when.

Nothing was filmed while it ran: states hold joints, height and tilt; where it is on the plane and which way it faces
are the sums of its velocities, for the eye only.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pybullet_data

from worldpilot.demo.gait_plots import SHOWN
from worldpilot.demo.outcome import Event
from worldpilot.demo.recording import Recording
from worldpilot.demo.video import GREY, INK, SIDE, Canvas, Film, write_text
from worldpilot.sim.bullet import Camera, Client
from worldpilot.sim.legged import CONTROL_DT, Robot
from worldpilot.sim.quadruped import ROBOT

_EVERY = 2  # states for a frame: 25 frames a second
_PAST = 100  # states that the diagram shows: 2 s
_LEFT = 34  # [px], for names
_ROW, _TRACE = 26, 62  # [px], heights of a foot's row and of a signal's
_RANGES = {"forward_velocity": (-1.0, 2.5), "height": (0.1, 0.5), "yaw_rate": (-2.0, 2.0)}  # that the traces span


def write_video(path: Path, recording: Recording, events: Sequence[Event]) -> int:
    """Write a WebM (VP8) file; returns its number of frames.

    Raises:
        WorldpilotError: OpenCV can't write WebM here.
    """
    shown = [(stamp, state) for stamp, state in recording.states if stamp >= events[0].stamp - 1.0]
    view, past, frames = RobotView(ROBOT), deque[Mapping[str, float]](maxlen=_PAST), 0
    with Film(path, 1 / (_EVERY * CONTROL_DT), recording, events) as film:
        for i, (stamp, state) in enumerate(shown):
            past.append(state)
            view.move(state)
            if i % _EVERY == 0:
                facts = f"{state['forward_velocity']:5.2f} m/s  {state['height']:.2f} m  {state['yaw_rate']:5.2f} rad/s"
                film.show(stamp, (view.draw(), "the robot"), (diagram(past), "feet on the ground, 2 s"), (facts, INK))
                frames += 1
    view.close()
    return frames


class RobotView:
    """Draws a robot in the posture that a recorded state describes."""

    def __init__(self, robot: Robot) -> None:
        self._client, self._robot = Client(), robot
        self._client.loadURDF(f"{pybullet_data.getDataPath()}/plane.urdf")
        self._body = robot.load(self._client)
        infos = [self._client.getJointInfo(self._body, link) for link in range(self._client.getNumJoints(self._body))]
        ids = {info[1].decode(): info[0] for info in infos}
        self._joints = [ids[name] for name in robot.joints]
        self._x = self._y = self._yaw = 0.0

    def move(self, state: Mapping[str, float]) -> None:
        """A control step has passed: take the posture, and go where the velocities lead."""
        forward, left = state["forward_velocity"] * CONTROL_DT, state["lateral_velocity"] * CONTROL_DT
        cos, sin = np.cos(self._yaw), np.sin(self._yaw)
        self._x, self._y = self._x + cos * forward - sin * left, self._y + sin * forward + cos * left
        self._yaw += state["yaw_rate"] * CONTROL_DT
        turned = self._client.getQuaternionFromEuler([state["roll"], state["pitch"], self._yaw])
        self._client.resetBasePositionAndOrientation(self._body, [self._x, self._y, state["height"]], turned)
        for joint, name in zip(self._joints, self._robot.action.names, strict=True):
            self._client.resetJointState(self._body, joint, state[f"q_{name}"])

    def draw(self) -> Canvas:
        """A picture of shape (320, 320, 3), from beside the robot."""
        eye = [self._x - 0.25, self._y - 1.1, 0.45]
        camera = Camera.looking(eye, [self._x, self._y, 0.2], [0, 0, 1], 50, 0.05, 30)
        return camera.photograph(self._client, SIDE, (0.4, -0.8, 1.0))

    def close(self) -> None:
        """Disconnect from the physics server."""
        self._client.disconnect()


def diagram(past: Sequence[Mapping[str, float]]) -> Canvas:
    """Which feet stood, and the signals' traces, of shape (320, 320, 3); the newest state is at the right."""
    canvas = np.full((SIDE, SIDE, 3), 255, np.uint8)
    feet = [name for name in past[-1] if name.startswith("contact_")]
    width = (SIDE - _LEFT) / _PAST
    xs = [round(SIDE - (len(past) - i) * width) for i in range(len(past) + 1)]
    for row, foot in enumerate(feet):
        top = 8 + row * _ROW
        write_text(canvas, (4, top + 15), foot.removeprefix("contact_"), INK)
        for i, state in enumerate(past):
            if state[foot] > 0:
                canvas[top : top + _ROW - 8, xs[i] : xs[i + 1]] = (60, 90, 140)
    for row, (name, label) in enumerate(SHOWN.items()):
        top = 16 + len(feet) * _ROW + row * _TRACE
        low, high = _RANGES[name]
        values = np.clip((np.array([state[name] for state in past]) - low) / (high - low), 0, 1)
        ys = top + (1 - values) * (_TRACE - 16)
        canvas[top + _TRACE - 12, _LEFT:] = 220
        points = np.stack([xs[1:], np.round(ys)], -1).astype(np.int32)
        cv2.polylines(canvas, [points], False, (200, 80, 40), 1, cv2.LINE_AA)
        write_text(canvas, (4, top + 10), f"{label} {past[-1][name]:.2f}", GREY)
    return canvas
