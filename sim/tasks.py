"""The simulated tasks by name: their worlds, their behaviour data, and when a goal counts as reached.

Another package adds its own by an entry point of the group "worldpilot.tasks" that names a `Task`.
Importing this module imports PyBullet.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from worldpilot.contracts import Environment
from worldpilot.errors import UnknownName
from worldpilot.sim import (
    cube_experts,
    experts,
    gaits,
    geometry,
    identify,
    planar,
    planar_gaits,
    push_cube,
    push_t,
    quadruped,
)
from worldpilot.system import System
from worldpilot.types import ActionSpec, Symmetry

GROUP = "worldpilot.tasks"

Controls = Iterator[npt.NDArray[np.floating[Any]]]


class World(Environment, Protocol):
    """A simulated environment: the same seed and controls lead to the same state, in any process."""

    action: ActionSpec
    budget: int  # control steps of an episode
    ended: bool  # the robot has fallen, or the environment says so: what comes after tells nothing

    def drive(self, control: npt.NDArray[np.floating[Any]]) -> None:
        """Advance by one control step without looking."""
        ...

    def render(self, size: int = 256) -> npt.NDArray[np.uint8]:
        """A picture for people, of shape (size, size, 3)."""
        ...

    def outcome(self) -> Mapping[str, Any]:
        """What an episode's record says of how it ended, JSON values."""
        ...


@dataclass(frozen=True)
class Behaviour:
    """A source of behaviour data."""

    make: Callable[[], Callable[[Any, np.random.Generator], Controls]]  # once a process; then once an episode
    steps: int  # of an episode, unless the controls end before
    goals: bool = True  # goal images are taken from fresh episodes of it


@dataclass(frozen=True)
class GoalTest:
    """When two states are the same for the goal-image protocol; lengths in metres, angles in radians."""

    position: tuple[str, ...]  # signals whose joint Euclidean distance counts
    tolerance: float
    yaw: str | None  # signal of an angle, if it counts
    yaw_tolerance: float
    object: tuple[str, ...]  # signals of `position` that belong to the object rather than the robot

    def reached(self, now: Mapping[str, float], goal: Mapping[str, float]) -> bool:
        """Whether the state `now` counts as the goal."""
        return self._near(self.position, now, goal)

    def distance(self, now: Mapping[str, float], goal: Mapping[str, float]) -> float:
        """Joint Euclidean distance of the positions that count [m]."""
        return _distance(self.position, now, goal)

    def moved(self, start: Mapping[str, float], goal: Mapping[str, float]) -> bool:
        """Whether the object must be moved to get from `start` to `goal`."""
        return not self._near(self.object, start, goal)

    def _near(self, position: tuple[str, ...], a: Mapping[str, float], b: Mapping[str, float]) -> bool:
        turn = 0.0 if self.yaw is None else abs(float(geometry.wrap(a[self.yaw] - b[self.yaw])))
        return _distance(position, a, b) <= self.tolerance and turn <= self.yaw_tolerance


def _distance(names: tuple[str, ...], a: Mapping[str, float], b: Mapping[str, float]) -> float:
    return float(np.sqrt(sum((a[name] - b[name]) ** 2 for name in names)))


@dataclass(frozen=True)
class Task:
    """A simulated task. Behaviours keep their order: it seeds them."""

    action: ActionSpec
    world: Callable[..., World]  # randomise: bool; of images also image_size: int, render_images: bool
    behaviours: Mapping[str, Behaviour]
    goal: GoalTest | None = None  # None: it has rewards, but no goals
    state: Mapping[str, str] = field(default_factory=dict)  # components observed, with their units; none: images
    signals: Mapping[str, str] = field(default_factory=dict)  # with their units, where they are declared
    symmetries: tuple[Symmetry, ...] = ()  # the first changes nothing; none: the world looks like itself only
    position: tuple[str, ...] = ()  # signals of which the controls are the velocities; none: they are no velocities
    servo_dt: float | None = None  # period of the servo that follows them [s]
    excitation: Behaviour | None = None  # what tells delays and parameters
    replay: Callable[[System | None], identify.Replay] | None = None  # how recordings are played again


def task(name: str) -> Task:
    """A task by its name.

    Raises:
        UnknownName: there is no such task; the message lists those there are.
    """
    if name not in available():
        raise UnknownName("task", name, available())
    return available()[name]


def store_meta(name: str) -> dict[str, Any]:
    """What a store of a task's episodes says of all of them."""
    entry = task(name)
    meta: dict[str, Any] = {"task": name, "action": entry.action.to_dict()}
    if entry.symmetries:
        meta["symmetries"] = [symmetry.to_dict() for symmetry in entry.symmetries]
    if entry.state:
        meta["state"] = {"names": list(entry.state), "units": list(entry.state.values())}
        meta["units"] = dict(entry.signals)
    return meta


@cache
def available() -> Mapping[str, Task]:
    """All tasks by name, those of installed packages too; one that can't be loaded is left out, with a warning."""
    found = dict(TASKS)
    for entry in entry_points(group=GROUP):
        try:
            loaded = entry.load()
            if not isinstance(loaded, Task):
                raise TypeError("not a worldpilot.sim.tasks.Task")
        except Exception as error:  # a stranger's package may fail in any way
            logging.getLogger(__name__).warning("task %s (%s) left out: %s", entry.name, entry.value, error)
        else:
            found[entry.name] = loaded
    return found


TASKS = {
    "push_t": Task(
        action=push_t.ACTION,
        world=push_t.PushT,
        behaviours={
            "expert": Behaviour(lambda: experts.until_settled(experts.Expert()), push_t.BUDGET, goals=False),
            "noisy_expert": Behaviour(
                lambda: experts.until_settled(experts.Expert(noise=0.03, randomness=0.3)), push_t.BUDGET
            ),
            "random_push": Behaviour(lambda: experts.random_pushes, 100),
            "gentle": Behaviour(lambda: experts.gentle, 100, goals=False),
        },
        # As gym-pusht's evaluation in the paper: 20 px of a 512 px wide workspace, here 0.52 m; and 20 degrees.
        goal=GoalTest(
            position=("pusher_x", "pusher_y", "block_x", "block_y"),
            tolerance=0.02,
            yaw="block_yaw",
            yaw_tolerance=float(np.pi / 9),
            object=("block_x", "block_y"),
        ),
        symmetries=geometry.square_symmetries([("pusher_x", "pusher_y"), ("block_x", "block_y")], ["block_yaw"]),
        position=("pusher_x", "pusher_y"),
        servo_dt=push_t.PHYSICS_DT,
        excitation=Behaviour(lambda: identify.hits, 300),
        replay=identify.PushTReplay,
    ),
    "push_cube": Task(
        action=push_cube.ACTION,
        world=push_cube.PushCube,
        behaviours={
            "expert": Behaviour(lambda: cube_experts.expert, push_cube.BUDGET, goals=False),
            "random_push": Behaviour(lambda: cube_experts.random_pushes, 100),
            "presses": Behaviour(lambda: cube_experts.presses, 100, goals=False),
        },
        # As OGBench's cube task, where it is 4 cm: the cube counts, the arm does not.
        goal=GoalTest(
            position=("cube_x", "cube_y"),
            tolerance=push_cube.REACHED,
            yaw=None,
            yaw_tolerance=float(np.pi),
            object=("cube_x", "cube_y"),
        ),
        position=("gripper_x", "gripper_y", "gripper_z"),
        servo_dt=push_cube.PHYSICS_DT,
        excitation=Behaviour(lambda: cube_experts.random_pushes, 300),
    ),
    "quadruped": Task(
        action=quadruped.ACTION,
        world=quadruped.Quadruped,
        behaviours={
            "run": Behaviour(lambda: gaits.behave(gaits.RUN), 200),
            "jump": Behaviour(lambda: gaits.behave(gaits.JUMP), 200),
        },
        state=quadruped.ROBOT.state,
        signals=quadruped.ROBOT.signals,
        symmetries=quadruped.SYMMETRIES,
        excitation=Behaviour(lambda: identify.stances, 200),
        replay=identify.QuadrupedReplay,
    ),
    "walker": Task(
        action=planar.WALKER.action,
        world=planar.Walker,
        behaviours={
            "walk": Behaviour(lambda: planar_gaits.behave(planar_gaits.WALK, 0.08), 250),
            "pace": Behaviour(lambda: planar_gaits.behave(planar_gaits.WALK_PACING, 0.03), 250),
            "halting": Behaviour(lambda: planar_gaits.behave(planar_gaits.HALTING, 0.02), 250),  # for the dynamics only
        },
        state=planar.WALKER.state,
        signals=planar.WALKER.signals,
    ),
    "hopper": Task(
        action=planar.HOPPER.action,
        world=planar.Hopper,
        behaviours={
            "hop": Behaviour(lambda: planar_gaits.behave(planar_gaits.HOP, 0.035), 250),
            "pace": Behaviour(lambda: planar_gaits.behave(planar_gaits.HOP_PACING, 0.035), 250),
        },
        state=planar.HOPPER.state,
        signals=planar.HOPPER.signals,
    ),
}
