"""What tells a robot's mass and friction: how it is driven, how a recording is cut, how each piece is played again.

A segment begins with a recorded state, from which the simulator can begin; then only its controls count. Everything
takes and gives arrays by name, as episodes have them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput
from worldpilot.sim import gaits, geometry, legged, push_t
from worldpilot.sim.experts import approach, follow, sample_push
from worldpilot.sim.push_t import BLOCK_RANGE, PushT, clearance
from worldpilot.sim.quadruped import ACTION, FOOT, Quadruped
from worldpilot.system import System

Array = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[np.floating]]  # name -> (T+1,)

_STILL = 1e-3  # [m] a control step, below which nothing moves
_CLEAR = 2e-3  # [m] between pusher and block at the start of a segment
_PAUSE = 5  # control steps between hits; more than a delay
_AIRBORNE = 10.0  # [rad/s], of all joints together, than which a foot off the ground is no better
_JOINTS = 3e-4  # [m], to which joints tell how high a foot is
_PRESSED = 1e-4  # [m], into the ground at the start: above it a foot bears nothing, in it it is pushed out slowly
_SENSORS = 3e-3  # [m], [rad], to which the trunk's height, roll and pitch are measured
_LIES = 5  # control steps after a hit in which it is measured where the block has come to lie


@dataclass(frozen=True)
class Sought:
    """A parameter: where the search for it begins and stays, and what its usual size is."""

    start: float
    low: float
    high: float
    scale: float
    unit: str


@dataclass(frozen=True)
class Segment:
    """A piece of a recording."""

    state: Mapping[str, Array]  # what it begins with
    controls: Array  # (T, U)
    measured: Array  # (T or more, C), after each control, then while nothing changes any more; NaN: unknown


class Replay(Protocol):
    """Plays segments again with other parameters."""

    sought: Mapping[str, Sought]

    def cut(self, controls: Array, signals: Columns, observations: Array | None) -> tuple[list[Segment], list[str]]:
        """The segments of a recording of T controls, and the names of what they measure.

        Raises:
            InvalidInput: the recording lacks something that is needed.
        """
        ...

    def play(
        self, parameters: Mapping[str, float], segments: Sequence[Segment], channels: Sequence[str]
    ) -> list[Array]:
        """What is measured in each segment, (T, C), with these parameters."""
        ...

    def close(self) -> None: ...


def hits(world: PushT, rng: np.random.Generator) -> Iterator[Array]:
    """The block is hit at all speeds and let go: from rest, it is accelerated, pushed, and slides on by itself."""
    while True:
        block = world.block()
        push = sample_push(block, rng)
        if push is None:
            continue
        end = block[:2] + push.velocity * 0.5
        if np.abs(end).max() > BLOCK_RANGE + 0.02 and np.linalg.norm(end) > np.linalg.norm(block[:2]):
            continue
        yield from follow(world, approach(world.pusher(), push.start, block), 0.24)
        yield from [np.zeros(2)] * _PAUSE
        speed = rng.uniform(0.1, 0.24)
        direction = push.velocity / np.abs(push.velocity).max()
        for _ in range(rng.integers(2, 6)):
            yield speed * direction
        yield from [np.zeros(2)] * _PAUSE


class PushTReplay:
    """Push-T: the block's mass and its friction, from its pose and the pusher's force.

    The pusher's path is forced, so without its force the mass shows only in how far the block slides when it is let
    go, and there it cancels: friction is all that poses tell. Force and pose tell both.
    """

    sought: Mapping[str, Sought] = {
        "mass": Sought(push_t.PARAMETERS["mass"], 0.02, 2.0, push_t.PARAMETERS["mass"], "kg"),
        "friction": Sought(push_t.PARAMETERS["friction"], 0.05, 2.0, push_t.PARAMETERS["friction"], "1"),
    }
    _pose, _forces = ("block_x", "block_y", "block_yaw"), ("force_x", "force_y")

    def __init__(self, system: System | None = None) -> None:
        self._system = system or System()
        self._world = PushT(randomise=False, render_images=False, system=self._system.immediate)

    def cut(self, controls: Array, signals: Columns, observations: Array | None) -> tuple[list[Segment], list[str]]:
        if missing := {"pusher_x", "pusher_y", *self._pose} - signals.keys():
            raise InvalidInput(f"push_t: the recording lacks {', '.join(sorted(missing))}")
        names = [*self._pose, *(name for name in self._forces if name in signals)]
        table = {name: np.asarray(values, float) for name, values in signals.items()}
        table["block_yaw"] = np.unwrap(table["block_yaw"])
        pusher, block, measured = (
            np.stack([table[name] for name in wanted], -1) for wanted in (("pusher_x", "pusher_y"), self._pose, names)
        )
        steps = np.linalg.norm(np.diff(block[:, :2], axis=0), axis=-1)
        moves = steps > np.clip(3 * np.median(steps), _STILL, 2 * _STILL)  # mostly it lies still, but for noise
        stands = (
            (np.linalg.norm(np.diff(pusher, axis=0), axis=-1) < _STILL) & (np.abs(controls).max(-1) < 1e-6) & ~moves
        )
        rests = (np.flatnonzero(stands[:-1] & stands[1:]) + 2).tolist()  # before these all has stood for two steps
        pushes = [(begin, end) for begin, end in pairwise(rests) if moves[begin:end].any()]  # between them it lies
        lies_from = [rests[0], *(end for _, end in pushes)] if rests else []
        lies_until = [*(begin for begin, _ in pushes[1:]), *rests[-1:]]
        segments = []
        for (begin, end), since, until in zip(pushes, lies_from, lies_until, strict=False):
            # Pressed against the block, the pusher would hold it by a force that positions do not tell.
            if end - begin <= 40 and clearance(pusher[begin], block[begin]) > _CLEAR:
                stood = next(i for i in range(begin, -1, -1) if i - 1 not in rests)
                state = {"pusher": pusher[stood - 2 : begin + 1].mean(0), "block": block[since - 2 : begin + 1].mean(0)}
                lies = measured[end + 1 : min(until, end + _LIES) + 1].copy()
                lies[:, len(self._pose) :] = np.nan  # the pusher may go on to press against it, or leave
                segments.append(
                    Segment(state, controls[begin:end], np.concatenate([measured[begin + 1 : end + 1], lies]))
                )
        return segments, names

    def play(
        self, parameters: Mapping[str, float], segments: Sequence[Segment], channels: Sequence[str]
    ) -> list[Array]:
        world = self._world
        world.assume(parameters)
        world.senses = "force_x" in channels
        shown = []
        for segment in segments:
            world.reset(options=dict(segment.state))
            world.inject("delay", seconds=self._system.control_delay)
            rows, yaw = [], float(segment.state["block"][2])
            for control in segment.controls:
                world.drive(control)
                values = world.signals() | (world.sensors() if world.senses else {})
                yaw += float(geometry.wrap(values["block_yaw"] - yaw))
                rows.append([yaw if name == "block_yaw" else values[name] for name in channels])
            rows += rows[-1:] * (len(segment.measured) - len(rows))
            shown.append(np.array(rows))
        return shown

    def close(self) -> None:
        self._world.close()


def stances(world: Quadruped, rng: np.random.Generator) -> Iterator[Array]:
    """Standing, the feet are drawn apart and together, each its own way, until they slip; the trunk goes up, down."""
    largest = np.asarray(ACTION.max_rate) * ACTION.control_dt
    control = np.zeros(ACTION.control_dim)
    while True:
        shift = rng.uniform(-0.03, 0.03, 2)
        x, y = (rng.uniform(-reach, reach, 4) + to for reach, to in zip((0.07, 0.05), shift, strict=True))
        goal = gaits.joints(x, y, gaits.HEIGHT + rng.uniform(-0.05, 0.03) + rng.uniform(-0.01, 0.01, 4))
        rate = largest * rng.uniform(0.1, 0.6)
        for _ in range(rng.integers(5, 20)):
            control = control + np.clip(goal - control, -rate, rate)
            yield control


class QuadrupedReplay:
    """The quadruped: what it carries, the friction of its feet, and how late its controls are, from its state.

    The load shows in how far the joints give way, friction in when feet slip: a gait that never slips does not tell.
    """

    sought: Mapping[str, Sought] = {
        "payload": Sought(1.0, 0.0, 12.0, 4.7, "kg"),  # the A1's trunk weighs 4.7 kg
        "friction": Sought(legged.PARAMETERS["friction"], 0.1, 2.0, legged.PARAMETERS["friction"], "1"),
        "control_delay": Sought(0.01, 0.0, 0.1, 0.02, "s"),
    }
    _length, _before = 12, 6  # control steps of a segment, and of what was sent before it
    _wait = 6  # control steps in which it begins where the robot is quietest: there a state's noise matters least
    _trunk = ("height", "roll", "pitch")

    def __init__(self, system: System | None = None) -> None:
        self._system = system or System()
        self._world = Quadruped(randomise=False, system=self._system.immediate)
        self._names = self._world.state_names

    def cut(self, controls: Array, signals: Columns, observations: Array | None) -> tuple[list[Segment], list[str]]:
        if observations is None or observations.shape[1:] != (len(self._names),):
            raise InvalidInput(f"quadruped: the recording needs states of {len(self._names)} numbers")
        names = [name for name in self._names if not name.startswith(("contact_", "control_"))]
        wanted = [self._names.index(name) for name in names]
        low = observations[:, self._names.index("height")] < self._world.robot.fallen_height
        end = int(np.argmax(low)) if low.any() else len(controls)
        turning, touching = (
            [i for i, name in enumerate(self._names) if name.startswith(part)] for part in ("dq_", "contact_")
        )
        unrest = np.linalg.norm(observations[:, turning], axis=1)
        unrest += _AIRBORNE * (1 - observations[:, touching]).sum(1)
        segments, first = [], self._before
        while first + self._length <= end:
            first += int(np.argmin(unrest[first : min(first + self._wait, end - self._length) + 1]))
            last = first + self._length
            segments.append(
                Segment(
                    {
                        "observed": self._grounded(observations[first].astype(float)),
                        "sent": controls[first - self._before : first],
                    },
                    controls[first:last],
                    observations[first + 1 : last + 1, wanted].astype(float),
                )
            )
            first = last
        return segments, names

    def _grounded(self, observed: Array) -> Array:
        """A state (S,) whose feet, where they touch the ground, press on it.

        Joints tell that more exactly than the trunk's sensors; a foot that begins in the ground is thrown out of it.
        """
        world = self._world
        world.place(observed)
        feet = world.feet()[[observed[self._names.index(f"contact_{foot}")] > 0.5 for foot in world.robot.feet]]
        by_trunk = np.column_stack([np.ones(len(feet)), feet[:, 1], -feet[:, 0]]) / _JOINTS
        information = by_trunk.T @ by_trunk + np.eye(3) / _SENSORS**2
        grounded = observed.copy()
        grounded[[self._names.index(name) for name in self._trunk]] += np.linalg.solve(
            information, by_trunk.T @ (FOOT - _PRESSED - feet[:, 2]) / _JOINTS
        )
        return grounded

    def play(
        self, parameters: Mapping[str, float], segments: Sequence[Segment], channels: Sequence[str]
    ) -> list[Array]:
        world, delay = self._world, parameters.get("control_delay", self._system.control_delay)
        world.assume({name: value for name, value in parameters.items() if name != "control_delay"})
        world.reset()
        world.inject("delay", seconds=delay)
        line, wanted = world.faults.controls, [self._names.index(name) for name in channels]
        shown = []
        for segment in segments:
            world.place(segment.state["observed"])
            line.queued = tuple(segment.state["sent"][-len(line.queued) :])
            rows = []
            for control in segment.controls:
                world.drive(control)
                rows.append(world.observe().data[wanted])
            shown.append(np.array(rows, float))
        return shown

    def close(self) -> None:
        self._world.close()
