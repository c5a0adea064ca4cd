"""The values that flow through the stack: frozen, with shapes and units.

Symbols: N candidate plans, H model steps of horizon, h model steps of history, D latent size, U control dimensions,
k control steps in a model step (the action block), A = k*U, E ensemble members.
Arrays are float32 and in physical units (latents: dimensionless) unless a field says otherwise.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput

FloatArray = npt.NDArray[np.float32]
ImageArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SignalSpec:
    """A physical quantity that can be read from a latent."""

    name: str
    unit: str  # "m", "rad", "m/s", "1" for dimensionless
    r2: float  # on held-out episodes
    description: str = ""


@dataclass(frozen=True)
class ActionSpec:
    """The control of a robot: U named numbers, each with a unit and bounds."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    max_rate: tuple[float, ...]  # largest change of a control per second [unit/s]
    control_dt: float  # [s]
    block: int  # k, control steps in a model step

    def __post_init__(self) -> None:
        lengths = {len(self.names), len(self.units), len(self.low), len(self.high), len(self.max_rate)}
        if len(lengths) != 1 or 0 in lengths:
            raise InvalidInput(
                f"action spec: names, units, low, high, max_rate must have one length >= 1, got {lengths}"
            )
        if not all(lo < hi for lo, hi in zip(self.low, self.high, strict=True)):
            raise InvalidInput(f"action spec: every low must be below its high, got {self.low} and {self.high}")
        if self.control_dt <= 0 or self.block < 1 or min(self.max_rate) <= 0:
            raise InvalidInput("action spec: control_dt, block and max_rate must be positive")

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "ActionSpec":
        """From JSON values, as `to_dict` gives them."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return ActionSpec(**fields)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @property
    def control_dim(self) -> int:
        """U."""
        return len(self.names)

    @property
    def dim(self) -> int:
        """A = k*U, the size of one model-step action."""
        return self.block * len(self.names)

    def controls(self, actions: FloatArray) -> FloatArray:
        """Model-step actions of shape (..., H, A) as controls of shape (..., H*k, U)."""
        return actions.reshape(*actions.shape[:-2], actions.shape[-2] * self.block, self.control_dim)

    def actions(self, controls: FloatArray) -> FloatArray:
        """Controls of shape (..., H*k, U) as model-step actions of shape (..., H, A)."""
        return controls.reshape(*controls.shape[:-2], controls.shape[-2] // self.block, self.dim)

    @property
    def action_low(self) -> FloatArray:
        """Lower bounds of a model-step action, of shape (A,)."""
        return np.tile(np.asarray(self.low, np.float32), self.block)

    @property
    def action_high(self) -> FloatArray:
        """Upper bounds of a model-step action, of shape (A,)."""
        return np.tile(np.asarray(self.high, np.float32), self.block)


@dataclass(frozen=True)
class Symmetry:
    """A change of view that the world does not notice: an episode seen so is another episode it might have given.

    Args:
        quarter_turns: of the picture, counter-clockwise.
        mirrored: whether it is mirrored after that, left to right.
        controls: what becomes of a control, a matrix (U, U).
        signals: what becomes of a signal: its name, to the names and factors it is then the sum of. Angles (*yaw) by
            their `_sin` and `_cos`. A signal that is not named stays as it is.
    """

    quarter_turns: int
    mirrored: bool
    controls: tuple[tuple[float, ...], ...]
    signals: Mapping[str, Mapping[str, float]]

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Symmetry":
        """From JSON values, as `to_dict` gives them."""
        controls = tuple(tuple(row) for row in values["controls"])
        return Symmetry(int(values["quarter_turns"]), bool(values["mirrored"]), controls, dict(values["signals"]))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "controls": [list(row) for row in self.controls]}

    def images(self, images: ImageArray) -> ImageArray:
        """Images of shape (..., S, S, 3), seen so."""
        turned = np.rot90(images, self.quarter_turns, axes=(-3, -2))
        return turned[..., ::-1, :] if self.mirrored else turned

    def matrix(self, names: tuple[str, ...]) -> FloatArray:
        """(S, S): the signals `names`, seen so, are `matrix @ signals`."""
        rows = [self.signals.get(name, {name: 1.0}) for name in names]
        return np.array([[row.get(name, 0.0) for name in names] for row in rows], np.float32)


@dataclass(frozen=True)
class ModelSpec:
    """What a planner or a node needs to know of a model without opening its graphs."""

    task: str
    model_id: str  # short hash of the manifest: two models never share it
    latent_dim: int  # D
    history: int  # h
    horizon: int  # H of the prior's proposals
    members: int  # E
    observation: str  # "image" or "state"
    observation_shape: tuple[int, ...]
    action: ActionSpec
    signals: tuple[SignalSpec, ...]
    observation_names: tuple[str, ...] = ()  # of a state's components, in order; images have none


@dataclass(frozen=True)
class Observation:
    """What the robot sensed at `stamp` [s]: image of shape (H, W, 3) uint8 RGB, or state of shape (S,)."""

    stamp: float
    data: npt.NDArray[Any]


@dataclass(frozen=True)
class History:
    """The last h latents, one model step apart, and the actions between them."""

    latents: FloatArray  # (h, D)
    actions: FloatArray  # (h-1, A)


@dataclass(frozen=True)
class Rollouts:
    """Where N candidate plans lead, as a model imagines it. Step i of H is the state *after* action i."""

    latents: FloatArray  # (N, H, D), mean over the ensemble
    actions: FloatArray  # (N, H, A)
    signals: Mapping[str, FloatArray]  # name -> (N, H), physical units
    disagreement: FloatArray  # (N, H), ensemble spread in normalised latent units
    action_spec: ActionSpec
    previous_control: FloatArray  # (U,), the control in force now
    current_signals: Mapping[str, float] = field(default_factory=dict)  # at the present, before any action

    def __len__(self) -> int:
        return int(self.actions.shape[0])

    @property
    def horizon(self) -> int:
        return int(self.actions.shape[1])


@dataclass(frozen=True)
class Plan:
    """The plan a solver chose, and what it expects of it."""

    actions: FloatArray  # (H, A)
    score: float  # the reward's score; higher is better
    imagined: Rollouts  # of length 1: the chosen plan
    scores: FloatArray  # (N,), of the last population
    terms: Mapping[str, float] = field(default_factory=dict)  # weighted contribution of each reward term
    solve_s: float = 0.0  # [s]


@dataclass(frozen=True)
class RewardTerm:
    """One line of a reward: a plugin, its weight, its parameters."""

    plugin: str
    weight: float = 1.0
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RewardSpec:
    """A reward as data, the weighted sum of its terms: {"name", "terms": [{"plugin", "weight", "params"}]} in JSON."""

    terms: tuple[RewardTerm, ...]
    name: str = ""


class AlertLevel(IntEnum):
    """How far the monitor trusts the model's predictions."""

    NOMINAL = 0
    CAUTION = 1  # the planner goes on, slower
    HOLD = 2  # the robot is held


@dataclass(frozen=True)
class PredictionError:
    """How wrong the model was about the present, in normalised latent units (1 = the median of good episodes)."""

    stamp: float  # [s]
    one_step: float  # surprise: squared error of the prediction made one model step ago
    h_step: float  # squared error of the prediction made H model steps ago; NaN until there is one
    disagreement: float  # ensemble spread of the one-step prediction
    spread: float = math.nan  # of the prior's proposals for the present; NaN where nobody looks at them


@dataclass(frozen=True)
class Alert:
    """A change in how far predictions can be trusted."""

    stamp: float  # [s]
    level: AlertLevel
    channel: str  # which score raised it
    score: float
    threshold: float
    since: float  # [s], when the score first crossed
    message: str
