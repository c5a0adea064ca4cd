"""Worlds that stand in for a robot: PyBullet behind gymnasium's API, one file a task."""

from typing import Any

from worldpilot.errors import UnknownName


def make(task: str, **options: Any) -> Any:
    """The world of a task. PyBullet is imported only here."""
    if task == "push_t":
        from worldpilot.sim.push_t import PushT

        return PushT(**options)
    raise UnknownName("task", task, ["push_t"])
