from pathlib import Path

import cv2
import numpy as np
import pytest

from worldpilot.demo.gait_plots import plot_gaits, plot_motion, smooth
from worldpilot.demo.gait_video import RobotView, diagram, write_video
from worldpilot.demo.outcome import Event
from worldpilot.demo.recording import Recording
from worldpilot.sim.quadruped import ROBOT, Quadruped

START, STEPS = 1_700_000_000.0, 200  # [s]; 0.02 s each


@pytest.fixture(scope="module")
def standing() -> dict[str, float]:
    """The state of a robot that stands."""
    world = Quadruped(randomise=False)
    state = dict(zip(ROBOT.state, world.observe().data.tolist(), strict=True))
    world.close()
    return state


@pytest.fixture(scope="module")
def recording(standing: dict[str, float]) -> Recording:
    """Diagonal pairs of feet change every 0.2 s."""
    recording = Recording()
    for step in range(STEPS):
        first = step // 10 % 2
        pairs = {"contact_fl": first, "contact_rr": first, "contact_fr": 1 - first, "contact_rl": 1 - first}
        state = {**standing, **{foot: float(down) for foot, down in pairs.items()}, "forward_velocity": 1.0}
        recording.states.append((START + 0.02 * step, state))
        recording.truth.append((START + 0.02 * step, {name: state.get(name, 0.0) for name in ROBOT.signals}))
    return recording


EVENTS = [
    Event(START, "goal", "run", "run forward"),
    Event(START + 2.0, "swap", "swap: slow", "live swap: slow"),
    Event(START + 4.0, "end", "end", "the story is told"),
]


def test_the_video_plays_at_the_speed_of_the_robot(recording: Recording, tmp_path: Path) -> None:
    assert write_video(tmp_path / "video.webm", recording, EVENTS) == STEPS // 2
    video, frames = cv2.VideoCapture(str(tmp_path / "video.webm")), 0
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(25.0)
    while video.read()[0]:
        frames += 1
    assert frames == STEPS // 2


def test_the_robot_is_drawn_in_the_posture_of_its_state(standing: dict[str, float]) -> None:
    view = RobotView(ROBOT)
    view.move(standing)
    stands = np.asarray(view.draw(), int)
    world = Quadruped(randomise=False)
    seen = np.asarray(world.render(320), int)
    world.close()
    view.move({**standing, "q_fl_knee": standing["q_fl_knee"] + 0.8})
    lifted = np.asarray(view.draw(), int)
    view.close()
    assert (np.abs(seen - stands).max(-1) > 60).mean() < 0.01  # but for the marks at the feet
    assert (np.abs(lifted - stands).max(-1) > 60).mean() > 0.001


def test_the_diagram_has_a_bar_where_a_foot_stands(recording: Recording) -> None:
    past = [state for _, state in recording.states[:100]]
    bars = (diagram(past) == (60, 90, 140)).all(-1)
    front_left, front_right = bars[14, 34:], bars[40, 34:]
    assert front_left.mean() == pytest.approx(0.5, abs=0.05)
    assert not (front_left & front_right).any()


def test_plots_are_pictures(recording: Recording, tmp_path: Path) -> None:
    plot_gaits(tmp_path / "gait.png", recording, EVENTS)
    plot_motion(tmp_path / "motion.png", recording, EVENTS)
    for name in ("gait", "motion"):
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5


def test_the_running_mean_looks_back_only() -> None:
    np.testing.assert_allclose(smooth(np.array([0.0, 0.0, 3.0, 3.0, 3.0]), 3), [0.0, 0.0, 1.0, 2.0, 3.0])
