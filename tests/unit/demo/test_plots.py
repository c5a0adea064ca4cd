from pathlib import Path

import cv2
import pytest

from worldpilot.demo.outcome import Event
from worldpilot.demo.plots import alarms, overlaps, plot_overlap, plot_surprise
from worldpilot.demo.recording import Recording


def test_overlap_is_with_the_goal_in_force_at_the_time(recording_file: Path, events: list[Event]) -> None:
    series = overlaps(Recording.load(recording_file), events)
    assert len(series) == 40
    assert all(overlap == 1.0 for stamp, overlap in series if stamp < events[1].stamp - 0.01)
    assert all(overlap < 0.7 for stamp, overlap in series if stamp > events[1].stamp + 0.01)


def test_alarms_are_spans_of_hold(recording_file: Path) -> None:
    ((begin, end),) = alarms(Recording.load(recording_file))
    assert end - begin == pytest.approx(1.0, abs=1e-3)


def test_an_alarm_that_never_ends_lasts_to_the_end() -> None:
    assert alarms(Recording(alerts=[(1.0, 0, ""), (2.0, 2, ""), (3.0, 2, "")])) == [(2.0, 3.0)]


def test_plots_are_pictures(recording_file: Path, events: list[Event], tmp_path: Path) -> None:
    recording = Recording.load(recording_file)
    plot_surprise(tmp_path / "surprise.png", recording, 50.0, events)
    plot_overlap(tmp_path / "overlap.png", recording, events)
    for name in ("surprise", "overlap"):
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5
