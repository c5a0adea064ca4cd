"""The file of what was measured: written, read, refused."""

from pathlib import Path

import pytest

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.system import System


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    system = System("push_t", 0.0523, 0.025, {"friction": 0.47}, {"delays": {"std": [0.001, 0.002]}})
    system.save(tmp_path / "new" / "system.yaml")
    assert System.load(tmp_path / "new" / "system.yaml", "push_t") == system
    assert system.delay == pytest.approx(0.0773)
    assert system.immediate == System("push_t", 0.0, 0.0, system.parameters, system.measured)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1, 2]", "must be a mapping"),
        ("a: b: c", "no readable system file"),
        ("task: push_t\ndelays: {control: -0.1}", "control delay must be"),
        ("task: push_t\ndelays: {control: soon}", "control delay must be"),
        ("task: push_t\ndelays: {camera: .nan}", "camera delay must be"),
        ("task: push_t\ndelays: 0.1", "delays must be a mapping"),
        ("task: push_t\nparameters: {mass: heavy}", "mass must be a finite number"),
        ("task: push_cube", "measure that one"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "system.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=why):
        System.load(tmp_path / "system.yaml", "push_t")


def test_unknown_entries_are_refused_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "system.yaml").write_text("task: push_t\ndelays: {network: 0.1}")
    with pytest.raises(UnknownName, match="camera, control"):
        System.load(tmp_path / "system.yaml")
    with pytest.raises(InvalidInput, match="no readable"):
        System.load(tmp_path / "none.yaml")


def test_parameters_are_checked_against_the_worlds() -> None:
    own = {"mass": 0.2, "friction": 0.5}
    assert System("push_t", parameters={"mass": 0.3}).checked(own) == {"mass": 0.3, "friction": 0.5}
    with pytest.raises(UnknownName, match="friction, mass"):
        System("push_t", parameters={"weight": 0.3}).checked(own)
    with pytest.raises(InvalidInput, match="at least 0"):
        System("push_t", parameters={"mass": -0.3}).checked(own)
