"""What a reward asks of a robot's motion, and whether an episode did it: measured on the world's own signals."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.planners.rewards.expression import compile_expression, parse_unit
from worldpilot.planners.rewards.registry import parse_spec
from worldpilot.types import FloatArray, RewardSpec

NOVEL = Path(__file__).with_name("novel_rewards.json")


@dataclass(frozen=True)
class Keep:
    """A bound on the mean of a quantity over the episodes: what must hold while something else is asked for."""

    quantity: str  # an expression over signals
    unit: str
    low: float | None
    high: float | None

    def holds(self, mean: float) -> bool:
        """Whether a mean lies within the bounds."""
        return (self.low is None or mean >= self.low) and (self.high is None or mean <= self.high)


@dataclass(frozen=True)
class Asked:
    """A reward, and the quantity by which it is judged: higher or lower than without the reward."""

    name: str
    why: str
    reward: RewardSpec
    quantity: str  # an expression over signals, averaged over the measured steps
    unit: str
    direction: Literal["higher", "lower"]
    keeps: tuple[Keep, ...] = ()

    @property
    def quantities(self) -> tuple[str, ...]:
        """Every expression that an episode must be measured by."""
        return tuple(dict.fromkeys((self.quantity, *(keep.quantity for keep in self.keeps))))

    def moved(self, low: float, high: float) -> bool:
        """Whether an interval of the difference to another policy lies on the asked side of 0."""
        return low > 0 if self.direction == "higher" else high < 0


@dataclass(frozen=True)
class Protocol:
    """Rewards of a task, and how long an episode is measured [control steps]."""

    task: str
    warm_up: int  # steps before, under the action prior and not measured
    steps: int
    rewards: tuple[Asked, ...]
    held: int = 0  # steps at most for which the robot is held at first, as while its graph starts; each seed's is drawn

    def select(self, names: tuple[str, ...]) -> tuple[Asked, ...]:
        """The rewards of these names.

        Raises:
            UnknownName: there is no such reward; the message lists those there are.
        """
        known = {asked.name: asked for asked in self.rewards}
        for name in names:
            if name not in known:
                raise UnknownName("reward", name, known)
        return tuple(known[name] for name in names)


def load(path: Path = NOVEL) -> Protocol:
    """The rewards of a file such as `novel_rewards.json`.

    Raises:
        InvalidInput: a field is missing, or a direction is neither higher nor lower.
        RewardError, UnknownName: a reward specification is refused.
    """
    data = json.loads(path.read_text())
    try:
        rewards = tuple(_asked(name, entry) for name, entry in data["rewards"].items())
        measured = data["measured"]
        held = int(measured.get("held_steps", 0))
        return Protocol(data["task"], int(measured["warm_up_steps"]), int(measured["steps"]), rewards, held)
    except KeyError as error:
        raise InvalidInput(f"{path}: the field {error} is missing; compare with {NOVEL.name}") from error


def _asked(name: str, entry: Mapping[str, Any]) -> Asked:
    asked = entry["asked"]
    if asked["direction"] not in ("higher", "lower"):
        raise InvalidInput(f"{name}: direction must be higher or lower, got {asked['direction']!r}")
    keeps = tuple(Keep(keep["quantity"], keep["unit"], keep["low"], keep["high"]) for keep in entry["keeps"])
    spec = parse_spec(entry["reward"])
    return Asked(name, entry["why"], spec, asked["quantity"], asked["unit"], asked["direction"], keeps)


def mean(quantity: str, signals: Mapping[str, FloatArray], units: Mapping[str, str]) -> float:
    """The mean of an expression over signals of shape (T,) each.

    Raises:
        RewardError, UnknownName: it is no expression over these signals.
    """
    compiled = compile_expression(quantity, {name: parse_unit(units[name]) for name in signals})
    return float(np.mean(compiled.function({name: values.astype(np.float64) for name, values in signals.items()})))
