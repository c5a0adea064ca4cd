"""`worldpilot rewards`, as a user types it."""

import json
from pathlib import Path

import jsonschema
import pytest

from worldpilot.cli.main import main

GOOD = {"terms": [{"plugin": "goal_pose", "params": {"x": 0.0, "y": 0.1}}]}


def test_lists_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("goal_pose ") and "pose" in line[12:] for line in lines)


def test_prints_a_schema_that_a_good_specification_meets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards", "--schema"]) == 0
    jsonschema.validate(GOOD, json.loads(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("name", "text"),
    [("reward.json", json.dumps(GOOD)), ("reward.yaml", "terms: [{plugin: goal_pose, params: {x: 0, y: 0.1}}]")],
)
def test_checks_json_and_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert main(["rewards", "--check", str(tmp_path / name)]) == 0
    assert "accepted: goal_pose" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("reward.json", "{", "not JSON"),
        ("reward.yaml", "terms: [", "reward.yaml"),
        ("reward.yaml", "- 1", "mapping"),
        ("reward.json", '{"terms": [{"plugin": "nope"}]}', "valid names: "),
        ("missing.json", None, "missing.json"),
    ],
)
def test_refuses_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["rewards", "--check", str(tmp_path / name)]) == 2
    assert says in capsys.readouterr().err
