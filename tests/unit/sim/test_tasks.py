"""Tasks of other packages are found beside our own; a broken one is left out."""

import importlib.metadata
import logging
from collections.abc import Iterator

import pytest

from worldpilot.cli.main import main
from worldpilot.errors import UnknownName
from worldpilot.sim import tasks

OTHER = tasks.task("push_t")
GOAL = OTHER.goal or pytest.fail("push_t has goals")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with a task, and one whose module is missing, and one that names something else."""
    entries = [
        importlib.metadata.EntryPoint("other", f"{__name__}:OTHER", tasks.GROUP),
        importlib.metadata.EntryPoint("missing", "worldpilot.no_such_module:TASK", tasks.GROUP),
        importlib.metadata.EntryPoint("wrong", "worldpilot.errors:UnknownName", tasks.GROUP),
    ]
    monkeypatch.setattr(tasks, "entry_points", lambda group: entries)
    tasks.available.cache_clear()
    yield
    tasks.available.cache_clear()


@pytest.mark.usefixtures("installed")
def test_tasks_of_other_packages_are_found(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert list(tasks.available()) == [*tasks.TASKS, "other"]
    assert tasks.task("other") is OTHER
    assert "task missing (worldpilot.no_such_module:TASK) left out" in caplog.text
    assert "task wrong (worldpilot.errors:UnknownName) left out: not a worldpilot.sim.tasks.Task" in caplog.text


def test_an_unknown_task_is_refused_with_the_names() -> None:
    with pytest.raises(UnknownName, match="unknown task 'push_x'; valid names: hopper, push_cube, push_t"):
        tasks.task("push_x")


def test_collect_asks_for_behaviours_the_task_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "push_t", "--out", "unused"]) == 2
    assert "for some of expert, noisy_expert, random_push" in capsys.readouterr().err


ZERO: dict[str, float] = dict.fromkeys(("pusher_x", "pusher_y", "block_x", "block_y", "block_yaw"), 0.0)


@pytest.mark.parametrize(
    ("now", "goal", "reached"),
    [
        pytest.param({}, {}, True, id="there"),
        pytest.param({"block_x": 0.021}, {}, False, id="too far"),
        pytest.param({"block_x": 0.015, "pusher_y": 0.015}, {}, False, id="too far together"),
        pytest.param({"block_yaw": 0.36}, {}, False, id="turned"),
        pytest.param({"block_yaw": 3.1}, {"block_yaw": -3.1}, True, id="angles wrap"),
    ],
)
def test_when_a_goal_counts_as_reached(now: dict[str, float], goal: dict[str, float], reached: bool) -> None:
    assert GOAL.reached(ZERO | now, ZERO | goal) is reached


def test_the_object_must_be_moved_or_not() -> None:
    assert not GOAL.moved(ZERO, ZERO | {"pusher_x": 0.1})
    assert GOAL.moved(ZERO, ZERO | {"block_x": 0.03})
    assert GOAL.moved(ZERO, ZERO | {"block_yaw": 0.5})
