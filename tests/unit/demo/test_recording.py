from pathlib import Path

import pytest

from worldpilot.demo.recording import Recording, at
from worldpilot.errors import InvalidInput


def test_every_topic_is_counted_and_the_shown_ones_are_read(recording_file: Path) -> None:
    recording = Recording.load(recording_file)
    assert recording.counts["image"] == len(recording.images) == 40
    assert recording.images[3][1].shape == (64, 64, 3)
    assert (recording.images[3][1] == 12).all()
    assert recording.truth[0][1]["block_yaw"] == pytest.approx(-0.7854, abs=1e-4)
    assert [level for _, level, _ in recording.alerts] == [0] * 20 + [2] * 10 + [0] * 10
    assert recording.surprise[25] == (pytest.approx(1_700_000_002.5, abs=1e-6), 90.0)
    assert recording.status[0][1].solve_ms == 10.0
    assert not recording.imagined


def test_what_is_no_recording_is_refused(recording_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"no recording")
    unfinished = tmp_path / "unfinished.mcap"
    unfinished.write_bytes(recording_file.read_bytes()[:-2000])
    for path in (tmp_path / "missing.mcap", broken, unfinished):
        with pytest.raises(InvalidInput, match=path.name):
            Recording.load(path)


def test_the_newest_entry_is_what_was_known_then() -> None:
    series = [(1.0, "a"), (2.0, "b"), (3.0, "c")]
    assert at(series, 0.9) is None
    assert at(series, 2.0) == (2.0, "b")
    assert at(series, 2.9) == (2.0, "b")
    assert at(series, 9.0) == (3.0, "c")
    assert at(series, 9.0, within=5.0) is None
