"""Search by factors of two: each setting is doubled or halved while that helps, until every neighbour is worse.

So found "Pre-training under infinite compute" (Kim et al., 2509.14786) what weight decay, epochs and learning rate suit
data that are few. What is minimised is any function of settings; what was tried is kept in a journal, and a search that
was stopped goes on from there.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from worldpilot.errors import InvalidInput

Point = dict[str, float]


@dataclass(frozen=True)
class Found:
    """Where a search ended."""

    point: Point
    loss: float
    tried: tuple[tuple[Point, float], ...]  # all points with their losses, in the order they were tried
    at_limit: tuple[str, ...]  # settings that may go no further in a direction: there the optimum need not be interior


def search(
    objective: Callable[[Point], float],
    start: Mapping[str, float],
    *,
    limits: Mapping[str, tuple[float, float]] | None = None,
    gain: float = 0.0,
    journal: Path | None = None,
    about: str = "",
) -> Found:
    """The point at which each setting, doubled or halved alone, makes the loss no smaller.

    Args:
        objective: the loss of a point, the same whenever it is asked for; not finite counts as the worst.
        start: where the search begins, all settings positive.
        limits: least and largest value of a setting; none: it is free.
        gain: share of a loss by which the next must be smaller, where less is but the noise of seeds.
        journal: file (JSON lines) that is read before and written to after each trial.
        about: what the objective is, on what data; a journal about something else is refused.

    Raises:
        InvalidInput: a start that is not positive or outside its limits, a journal about something else, or no point
            near the start whose loss is finite.
    """
    limits = dict(limits or {})
    for name, value in start.items():
        low, high = limits.get(name, (0.0, math.inf))
        if not (value > 0 and math.isfinite(value) and low <= value <= high):
            raise InvalidInput(f"search: {name} starts at {value}; it must be positive and in [{low}, {high}]")
    tried = _read(journal, about, tuple(start))

    def loss(point: Point) -> float:
        key = tuple(point.values())
        if key not in tried:
            value = float(objective(dict(point)))
            tried[key] = value if math.isfinite(value) else math.inf
            if journal:
                _append(journal, {"point": point, "loss": tried[key] if math.isfinite(value) else None})
        return tried[key]

    best = {name: float(value) for name, value in start.items()}
    moved = True
    while moved:
        moved = False
        for name in best:
            for factor in (2.0, 0.5):
                while (step := _step(best, name, factor, limits)) and loss(step) < (1 - gain) * loss(best):
                    best, moved = step, True
    if not math.isfinite(loss(best)):
        raise InvalidInput(f"search: no finite loss at {best} nor beside it; begin elsewhere")
    stuck = tuple(name for name in best if any(_step(best, name, factor, limits) is None for factor in (2.0, 0.5)))
    return Found(best, loss(best), tuple((dict(zip(best, key, strict=True)), tried[key]) for key in tried), stuck)


def neighbours(point: Mapping[str, float], limits: Mapping[str, tuple[float, float]] | None = None) -> list[Point]:
    """The points that differ in one setting by a factor of two."""
    steps = [_step(dict(point), name, factor, limits or {}) for name in point for factor in (2.0, 0.5)]
    return [step for step in steps if step is not None]


def _step(point: Point, name: str, factor: float, limits: Mapping[str, tuple[float, float]]) -> Point | None:
    """The point with one setting multiplied; None: that is outside the limits."""
    low, high = limits.get(name, (0.0, math.inf))
    value = point[name] * factor
    return {**point, name: value} if low <= value <= high else None


def _read(journal: Path | None, about: str, names: tuple[str, ...]) -> dict[tuple[float, ...], float]:
    if journal is None:
        return {}
    if not journal.is_file():
        journal.parent.mkdir(parents=True, exist_ok=True)
        _append(journal, {"about": about, "settings": list(names)})
    lines = journal.read_text().splitlines()
    try:
        head, *trials = [json.loads(line) for line in lines]
        found = head["about"], tuple(head["settings"])
        tried = {
            tuple(float(trial["point"][name]) for name in names): math.inf if trial["loss"] is None else trial["loss"]
            for trial in trials
        }
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{journal} is no journal of a search ({error!r}); remove it") from error
    if found != (about, names):
        raise InvalidInput(
            f"{journal} is of {found}, this search of {(about, names)}; choose another file or remove it"
        )
    return tried


def _append(journal: Path, line: Mapping[str, object]) -> None:
    with journal.open("a") as file:
        file.write(json.dumps(line) + "\n")
