"""Worlds that stand in for a robot: PyBullet behind gymnasium's API, one file a task."""

from typing import Any


def make(task: str, **options: Any) -> Any:
    """The world of a task. PyBullet is imported only here."""
    from worldpilot.sim import tasks

    return tasks.task(task).world(**options)
