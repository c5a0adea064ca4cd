"""What the story did and what was measured while it did."""

from dataclasses import dataclass, field
from typing import Any

REACHED = 0.9  # share of the goal T that must be covered
RUNS = 0.5  # [m/s], the mean forward velocity that counts as running

Pose = tuple[float, float, float]  # x [m], y [m], yaw [rad]


@dataclass(frozen=True)
class Event:
    """Something that the story did, to be marked in the plots."""

    stamp: float  # [s since the epoch]
    kind: str  # "goal", "swap", "refused", "fault", "repair", "end"
    label: str  # in two or three words
    text: str
    goal: Pose | None = None  # that is aimed at from then on


@dataclass
class Outcome:
    """What was measured; `report.json` is made from it."""

    goal: dict[str, Any] = field(default_factory=dict)
    swaps: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, Any] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
