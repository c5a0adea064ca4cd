"""What an instruction may be about: the running graph's signals and rewards, and the words for its directions."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from worldpilot.types import Alert, ModelSpec, RewardSpec

ROBOT_PARTS = frozenset({"pusher", "gripper", "tip", "hand", "tool", "finger", "effector", "arm", "foot", "base"})
LENGTHS = {"mm": 0.001, "cm": 0.01, "m": 1.0, "inch": 0.0254}  # in metres
ANGLES = {"deg": float(np.pi / 180), "rad": 1.0}  # in radians
SPEEDS = {"mm/s": 0.001, "cm/s": 0.01, "m/s": 1.0}  # in metres per second
TURN_RATES = {"deg/s": float(np.pi / 180), "rad/s": 1.0}  # in radians per second
STRIDE = 0.5  # [s], over which what a robot on legs reads is averaged: any one reading is of some moment of its gait
_POSE = re.compile(r"(?P<body>[A-Za-z]\w*?)_(?P<axis>x|y|z|yaw)")


def settled(readings: Collection[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each signal over readings of all signals; empty if there are none."""
    return {name: sum(reading[name] for reading in readings) / len(readings) for name in next(iter(readings), ())}


@dataclass(frozen=True)
class View:
    """Whose left it is: each direction in the plane as an axis and its sign."""

    left: tuple[str, int]
    far: tuple[str, int]  # away from the viewer; on a picture from above, its top

    @property
    def ways(self) -> dict[str, tuple[str, int]]:
        """All six directions; up and down are along z in any view."""
        (left, s), (far, t) = self.left, self.far
        return {
            "left": (left, s),
            "right": (left, -s),
            "far": (far, t),
            "near": (far, -t),
            "up": ("z", 1),
            "down": ("z", -1),
        }


ROBOT_VIEW = View(left=("y", 1), far=("x", 1))  # REP-103: x forward, y left
PICTURE_VIEW = View(left=("x", -1), far=("y", 1))  # a map: x right, y up


@dataclass(frozen=True)
class Layout:
    """How people speak of a task's space, and the signals' ranges: where its objects and its robot belong."""

    view: View
    ranges: Mapping[str, tuple[float, float]]  # signal -> lowest and highest [its unit]; the same: it is fixed
    worth: Mapping[str, float] = field(default_factory=dict)  # signal -> how many times as much it counts; else 1


_LEGS = {
    "lateral_velocity": (-0.5, 0.5),
    "yaw_rate": (-1.2, 1.2),
    "roll": (-0.4, 0.4),
    "pitch": (-0.4, 0.4),
}
LAYOUTS: Mapping[str, Layout] = {
    "push_t": Layout(
        PICTURE_VIEW,
        {"block_x": (-0.13, 0.13), "block_y": (-0.13, 0.13), "pusher_x": (-0.22, 0.22), "pusher_y": (-0.22, 0.22)},
    ),
    "push_cube": Layout(
        ROBOT_VIEW,
        {
            "cube_x": (-0.1, 0.1),
            "cube_y": (-0.14, 0.14),
            "gripper_x": (-0.15, 0.15),
            "gripper_y": (-0.19, 0.19),
            "gripper_z": (0.015, 0.14),
        },
    ),
    "quadruped": Layout(ROBOT_VIEW, {"height": (0.18, 0.34), "forward_velocity": (-0.6, 1.2), **_LEGS}),
    # What the gaits of their data hold. Nothing they can plan changes their height; to be told to makes them fall. The
    # hopper's trunk swings with each hop: at full weight it falls for being told to keep it still.
    "walker": Layout(ROBOT_VIEW, {"height": (1.04, 1.04), "forward_velocity": (0.0, 1.2), "pitch": (-0.1, 0.25)}),
    "hopper": Layout(
        ROBOT_VIEW, {"height": (0.79, 0.79), "forward_velocity": (-0.3, 0.8), "pitch": (0.0, 0.25)}, {"pitch": 0.3}
    ),
}


@dataclass(frozen=True)
class Signal:
    """A physical quantity that the running model reads from its latents."""

    name: str
    unit: str
    value: float | None = None  # now [unit]; None: not heard yet
    low: float | None = None  # [unit]; a goal lies between these; None: no bound is known
    high: float | None = None
    worth: float = 1.0  # how many times as much as others it counts

    @property
    def bounded(self) -> bool:
        return self.low is not None and self.high is not None

    @property
    def fixed(self) -> bool:
        """Whether this robot cannot change it."""
        return self.bounded and self.low == self.high

    @property
    def signed(self) -> bool:
        """Whether its sign is a direction: forward or backward, to the left or to the right."""
        return self.unit in ("m/s", "rad/s", "rad")


@dataclass(frozen=True)
class Body:
    """Something with a position: a name that signals <name>_x, <name>_y, <name>_z or <name>_yaw have in common."""

    name: str
    axes: tuple[str, ...]
    robot: bool  # a part of the robot rather than an object

    @property
    def planar(self) -> bool:
        return "x" in self.axes and "y" in self.axes


@dataclass(frozen=True)
class Scene:
    """The running graph, as far as instructions are concerned."""

    task: str
    signals: tuple[Signal, ...]
    plugins: frozenset[str]  # reward plugins that the planner has
    view: View = ROBOT_VIEW
    max_speed: float | None = None  # largest length of the control vector [m/s]; None: controls are not velocities
    has_goal: bool = False  # a goal image was set
    reward: RewardSpec | None = None  # in force
    before_stop: RewardSpec | None = None  # in force before an instruction stopped the robot: what "go on" means
    alert: Alert | None = None  # the last that was not nominal
    alert_age: float = 0.0  # how long ago it ended [s]; 0: it is in force
    hold: str = ""  # why the planner keeps the robot still; empty: it does not
    model: ModelSpec | None = field(default=None, repr=False)  # if known, rewards are tried on it

    @staticmethod
    def of(
        spec: ModelSpec,
        values: Mapping[str, float],
        plugins: Collection[str],
        *,
        has_goal: bool = False,
        reward: RewardSpec | None = None,
        before_stop: RewardSpec | None = None,
        alert: Alert | None = None,
        alert_age: float = 0.0,
        hold: str = "",
    ) -> "Scene":
        """The scene of a model.

        Args:
            spec: of the model in the graph.
            values: its signals now, name -> value; may lack some.
            plugins: names of the planner's reward plugins.
        """
        layout = LAYOUTS.get(spec.task, Layout(ROBOT_VIEW, {}))
        signals = []
        for signal in spec.signals:
            low, high = layout.ranges.get(signal.name, (None, None))
            worth = layout.worth.get(signal.name, 1.0)
            signals.append(Signal(signal.name, signal.unit, values.get(signal.name), low, high, worth))
        moves = set(spec.action.units) == {"m/s"}
        fastest = np.hypot.reduce(np.maximum(np.abs(spec.action.low), np.abs(spec.action.high)))
        return Scene(
            task=spec.task,
            signals=tuple(signals),
            plugins=frozenset(plugins),
            view=layout.view,
            max_speed=float(fastest) if moves else None,
            has_goal=has_goal,
            reward=reward,
            before_stop=before_stop,
            alert=alert,
            alert_age=alert_age,
            hold=hold,
            model=spec,
        )

    @cached_property
    def by_name(self) -> Mapping[str, Signal]:
        return {signal.name: signal for signal in self.signals}

    @cached_property
    def bodies(self) -> Mapping[str, Body]:
        """What has a position, by name."""
        axes: dict[str, list[str]] = {}
        for signal in self.signals:
            if (match := _POSE.fullmatch(signal.name)) and signal.unit == ("rad" if match["axis"] == "yaw" else "m"):
                axes.setdefault(match["body"], []).append(match["axis"])
        return {name: Body(name, tuple(found), name in ROBOT_PARTS) for name, found in axes.items()}

    @cached_property
    def others(self) -> tuple[str, ...]:
        """Names of the signals that are no body's, sines and cosines of its angle included."""
        posed = {f"{body.name}_{axis}" for body in self.bodies.values() for axis in body.axes}
        helpers = {f"{body}_yaw_{part}" for body in self.bodies for part in ("sin", "cos")}
        return tuple(name for name in self.by_name if name not in posed | helpers)

    @property
    def robot(self) -> Body | None:
        """The part of the robot that pushes, if one is known."""
        return next((body for body in self.bodies.values() if body.robot and body.planar), None)

    @property
    def gaited(self) -> bool:
        """Whether it is a robot on legs whose postures are its gait's: one that cannot even change its height."""
        height = self.by_name.get("height")
        return self.walks and height is not None and height.fixed

    @property
    def walks(self) -> bool:
        """Whether it is a robot that moves as a whole, with nothing beside it."""
        return "forward_velocity" in self.by_name and self.max_speed is None and not self.bodies

    def units(self, signal: Signal) -> Mapping[str, float]:
        """Units an instruction may use for a signal, and their worth in the signal's own."""
        for family in (LENGTHS, ANGLES, SPEEDS, TURN_RATES):
            if signal.unit in family:
                return {name: worth / family[signal.unit] for name, worth in family.items()}
        return {signal.unit: 1.0}

    def describe(self) -> str:
        """The scene in a line, for the model: what there is and what of it is known, not where it is."""
        bodies = [
            f"{'robot' if body.robot else 'object'} {body.name} {' '.join(body.axes)}" for body in self.bodies.values()
        ]
        others = [f"signal {name}" for name in self.others]
        return "; ".join([*bodies, *others, *(["goal image"] if self.has_goal else [])])
