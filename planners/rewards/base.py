"""What a reward plugin is: a frozen dataclass of parameters with one method that scores imagined futures.

A plugin in full::

    @dataclass(frozen=True)
    class StayLeft(RewardPlugin):
        '''Keep the block left of a line.'''

        x: float = param(0.0, low=-1, high=1, help="where the line is [m]")

        def needs(self) -> tuple[str, ...]:
            return ("block_x",)

        def score(self, rollouts: Rollouts) -> FloatArray:
            return np.minimum(self.x - rollouts.signals["block_x"], 0)
"""

import math
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache, lru_cache
from types import UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin

import jsonschema
import numpy as np
import numpy.typing as npt

from worldpilot.contracts import WorldModel
from worldpilot.errors import RewardError, UnknownName
from worldpilot.types import FloatArray, ModelSpec, Rollouts

LARGEST = 1e9  # no parameter is larger: products of a few of them stay finite in float32
When = Literal["best", "last", "mean"]


@dataclass(frozen=True)
class RewardContext:
    """What a plugin may check itself against, and take from, before it scores."""

    model_spec: ModelSpec
    goal_latent: FloatArray | None = None  # (D,), from a goal image
    goal_signals: Mapping[str, float] | None = None  # what the model reads from that latent

    @staticmethod
    def towards(model: WorldModel, latent: FloatArray) -> "RewardContext":
        """The context of rewards that shall reach a goal image's latent.

        Raises:
            RewardError: the latent is not finite, or not of shape (D,).
        """
        dim = model.spec.latent_dim
        if np.shape(latent) != (dim,) or not np.isfinite(latent).all():
            raise RewardError(f"goal: a latent must be finite, of shape ({dim},), got shape {np.shape(latent)}")
        goal = np.asarray(latent, np.float32)
        return RewardContext(model.spec, goal, {name: float(value) for name, value in model.signals(goal).items()})


def param(default: Any = MISSING, *, low: float = -LARGEST, high: float = LARGEST, help: str) -> Any:
    """A parameter of a plugin: required without a default, numbers within [low, high], strings up to `high` long."""
    return field(default=default, metadata={"low": low, "high": high, "help": help})


def bound() -> Any:
    """A field that `bind` fills from the context; a specification can't set it."""
    return field(default=None, repr=False, compare=False, metadata={"bound": True})


class RewardPlugin(ABC):
    """Base of reward plugins: subclasses are frozen dataclasses whose fields are made by `param`.

    Found by name through the entry-point group `worldpilot.rewards`. Field types: float, int, bool, str, Literal,
    and any of them `| None`. Parameters are checked when the object is made. A plugin that takes its goal from a goal
    image sets `uses_goal_image`.
    """

    uses_goal_image: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check types and ranges, and make numbers of float fields floats.

        Raises:
            RewardError: a parameter is of the wrong type, out of range, or not finite.
        """
        values = {name: getattr(self, name) for name in parameters(type(self))}
        check(values, validator(type(self)), type(self).__name__)
        for name, hint in parameters(type(self)).items():
            if float in (hint, *get_args(hint)) and values[name] is not None:
                object.__setattr__(self, name, float(values[name]))

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """The plugin with these parameters, as they come from a specification.

        Raises:
            RewardError: a parameter is missing, unknown, of the wrong type or out of range.
        """
        check(dict(params), validator(cls), cls.__name__)
        return cls(**params)

    def needs(self) -> tuple[str, ...]:
        """Names of the signals that `score` reads."""
        return ()

    def bind(self, context: RewardContext) -> Self:
        """This reward, ready to score on the context's model.

        Raises:
            UnknownName: the model has no such signal; the message lists those it has.
            RewardError: something else that the reward needs is missing from the context.
        """
        names = {signal.name for signal in context.model_spec.signals}
        for name in self.needs():
            if name not in names:
                raise UnknownName("signal", name, names)
        return self

    def target(self) -> Mapping[str, float]:
        """Signals that the reward wants to be at a value, if it is a goal: a hint for the action prior."""
        return {}

    @abstractmethod
    def score(self, rollouts: Rollouts) -> FloatArray:
        """Scores of shape (N,), or per model step (N, H), which are averaged over H; higher is better."""


def reduce(values: npt.NDArray[np.floating[Any]], when: When, discount: float) -> FloatArray:
    """Per-step values of shape (N, H) to scores of shape (N,) that prefer the good early to the good late.

    With v_t the value at step t ("last") or the best up to step t ("best"), the score is
    v_1 + Σ_{t>1} γ^{t-1} (v_t - v_{t-1}): improvements count less the later they come. At γ = 1 it telescopes
    to v_H, the plain last or best value. "mean" is the average with weights γ^t.
    """
    values = np.asarray(values, np.float32)
    weights, shares = _weights(values.shape[1], discount)
    if when == "mean":
        return np.asarray(values @ shares, np.float32)
    if when == "best":
        values = np.maximum.accumulate(values, axis=1)
    return np.asarray(values[:, 0] + np.diff(values, axis=1) @ weights[1:], np.float32)


@lru_cache(maxsize=64)
def _weights(steps: int, discount: float) -> tuple[FloatArray, FloatArray]:
    """γ^t of each step, and the same in shares of their sum."""
    weights = np.float32(discount) ** np.arange(steps, dtype=np.float32)
    return weights, weights / weights.sum()


def angle_diff(a: Any, b: Any) -> Any:
    """a - b on the circle, in [-pi, pi) [rad]."""
    return (a - b + np.pi) % (2 * np.pi) - np.pi


def difference(name: str, a: Any, b: Any) -> Any:
    """a - b of a signal's values, on the circle where the signal is an angle (its name ends with yaw)."""
    return angle_diff(a, b) if name.endswith("yaw") else np.subtract(a, b)


@cache
def parameters(plugin: type[RewardPlugin]) -> dict[str, Any]:
    """Names and types of the fields that a specification may set."""
    hints = typing.get_type_hints(plugin)
    return {f.name: hints[f.name] for f in fields(typing.cast(Any, plugin)) if "bound" not in f.metadata}


@cache
def params_schema(plugin: type[RewardPlugin]) -> dict[str, Any]:
    """JSON schema of a plugin's parameters, from its dataclass fields."""
    hints = parameters(plugin)
    specs = {f.name: f for f in fields(typing.cast(Any, plugin)) if f.name in hints}
    properties: dict[str, Any] = {}
    for name, spec in specs.items():
        properties[name] = _type_schema(hints[name], spec.metadata.get("low", -LARGEST), spec.metadata.get("high"))
        if "help" in spec.metadata:
            properties[name]["description"] = spec.metadata["help"]
        if spec.default is not MISSING:
            properties[name]["default"] = spec.default
    required = [name for name, spec in specs.items() if spec.default is MISSING]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@cache
def validator(plugin: type[RewardPlugin]) -> jsonschema.Draft202012Validator:
    """Checks a plugin's parameters."""
    return jsonschema.Draft202012Validator(params_schema(plugin))


def check(value: Any, validator: jsonschema.Draft202012Validator, what: str) -> None:
    """Refuse what does not meet a schema.

    Raises:
        RewardError: says where, what was found and what was expected, in one short line.
    """
    for error in validator.iter_errors(value):
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.absolute_path)
        message = error.message if len(error.message) <= 300 else error.message[:150] + " … " + error.message[-150:]
        raise RewardError(f"reward: {what}{where}: {message}")


def _type_schema(hint: Any, low: float, high: float | None) -> dict[str, Any]:
    """A field's type as JSON schema."""
    if get_origin(hint) in (Union, UnionType):
        (inner,) = [arg for arg in get_args(hint) if arg is not type(None)]
        schema = _type_schema(inner, low, high)
        return {**schema, "type": [schema["type"], "null"]}
    if get_origin(hint) is Literal:
        return {"type": "string", "enum": list(get_args(hint))}
    high = LARGEST if high is None or math.isinf(high) else high
    if hint is float:
        return {"type": "number", "minimum": low, "maximum": high}
    if hint is int:
        return {"type": "integer", "minimum": low, "maximum": high}
    if hint is bool:
        return {"type": "boolean"}
    if hint is str:
        return {"type": "string", "minLength": 1, "maxLength": int(min(high, 1024))}
    raise TypeError(f"reward parameters are float, int, bool, str, Literal, or one of these | None; got {hint}")
