import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from worldpilot.cli.demo import summary
from worldpilot.demo import report
from worldpilot.demo.outcome import Outcome

FACTS: dict[str, Any] = {
    "task": "push_t",
    "seed": 0,
    "model_id": "abc",
    "version": "0",
    "started": "2025-01-01T00:00:00",
    "duration_s": 4.0,
    "restarts": {"mpc": 1},
    "orphans": 0,
}


@pytest.fixture(scope="module")
def written(
    recording_file: Path, outcome: Outcome, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A run's folder and its report."""
    folder = tmp_path_factory.mktemp("written")
    shutil.copy(recording_file, folder / report.RECORDING)
    return folder, report.write(folder, outcome, FACTS, 50.0)


def test_the_report_holds_the_worst_of_what_was_measured(written: tuple[Path, dict[str, Any]]) -> None:
    folder, result = written
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(result))
    assert result["goal_reached"] is False
    assert result["swap"]["accepted"] is True
    assert (result["swap"]["latency_ms"], result["swap"]["missed_ticks"]) == (20.0, 2)
    alert = result["alert"]
    assert (alert["raised"], alert["delay_s"], alert["held"], alert["recovered"]) == (False, 0.4, False, False)
    assert alert["unprovoked"] == 0
    assert result["solve_ms"] == {"p50": 10.0, "p99": 10.0, "n": 30}
    assert (folder / result["recording"]).is_file()
    assert (folder / result["video"]).stat().st_size > 1000


def test_a_hold_before_the_first_fault_was_not_provoked(recording_file: Path, outcome: Outcome) -> None:
    recording = report.Recording.load(recording_file)
    quiet = [event for event in outcome.events if event.kind != "fault"]
    assert report.unprovoked(recording, quiet) == 1


def test_the_page_stands_alone_and_escapes_what_came_over_the_wire(written: tuple[Path, dict[str, Any]]) -> None:
    page = (written[0] / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert 'src="video.webm"' in page
    assert "http" not in page
    assert "<b>block_z" not in page
    assert "0.73" in page


def test_the_summary_says_plainly_what_did_not_work(written: tuple[Path, dict[str, Any]]) -> None:
    text = "\n".join(summary(written[1]))
    assert "GOAL NOT REACHED: best overlap 0.73" in text
    assert "NOT EVERY FAULT WAS NOTICED" in text
    assert "mpc 1x" in text
