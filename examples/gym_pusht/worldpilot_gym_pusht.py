"""gym-pusht as a task of worldpilot: an environment of others, from data to planning.

A pixel is taken for a millimetre, so that lengths are metres like everywhere else: the workspace is 0.512 m wide.
The environment wants absolute targets of the agent. Controls here are targets relative to where the agent is: then
zero means "stay", which is what a planner's history begins with and what a held robot is given.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from worldpilot.sim.geometry import to_block, to_world
from worldpilot.sim.gym_world import GymWorld
from worldpilot.sim.tasks import Behaviour, GoalTest, Task
from worldpilot.types import ActionSpec

Array = npt.NDArray[np.float64]

ACTION = ActionSpec(
    names=("dx", "dy"),
    units=("m", "m"),
    low=(-0.06, -0.06),
    high=(0.06, 0.06),
    max_rate=(1.2, 1.2),
    control_dt=0.1,
    block=5,
)
MM = 1000.0  # pixels in a metre
BOXES = ((0.0, 15.0, 60.0, 15.0), (0.0, 75.0, 15.0, 45.0))  # the T in its own frame: centre and half sides [px]
CENTRE = np.array([0.0, 45.0])  # of the T, in its own frame [px]
AGENT_RADIUS, RING = 15.0, 105.0  # [px]; on a ring around the T's centre the agent touches nothing
LOW, HIGH = 25.0, 487.0  # where the agent is sent [px]


class RelativeTargets(gymnasium.ActionWrapper[Any, Any, Any]):
    """Actions are targets relative to the agent [m], kept inside the walls."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = gymnasium.spaces.Box(*np.asarray((ACTION.low, ACTION.high), np.float32), dtype=np.float32)

    def action(self, action: Any) -> Array:
        agent = np.asarray(self.unwrapped.agent.position)  # type: ignore[attr-defined]
        return np.clip(agent + np.asarray(action, float) * MM, 0, 512)


def make_world(*, randomise: bool = True, image_size: int = 64, render_images: bool = True) -> GymWorld:
    """The environment; there is nothing to randomise but the start, and that follows the seed."""
    del randomise
    look: dict[str, Any] = {"obs_type": "pixels", "observation_width": 512, "observation_height": 512}
    options: dict[str, Any] = look if render_images else {"obs_type": "state"}
    env = gymnasium.make("gym_pusht:gym_pusht/PushT-v0", max_episode_steps=-1, **options)
    return GymWorld(RelativeTargets(env), ACTION, signals=signals, size=image_size, looks=render_images)


def signals(observation: Any, info: Mapping[str, Any]) -> dict[str, float]:
    """Where agent and block are [m], and the block's angle [rad], in the image's frame: x to the right, y down."""
    x, y, yaw = info["block_pose"]
    agent_x, agent_y = info["pos_agent"] / MM
    yaw = (yaw + np.pi) % (2 * np.pi) - np.pi
    return {"pusher_x": agent_x, "pusher_y": agent_y, "block_x": x / MM, "block_y": y / MM, "block_yaw": yaw}


def pushes(world: GymWorld, rng: np.random.Generator) -> Iterator[Array]:
    """Contact-rich behaviour: one random push after another, for ever, each begun where the T can be touched."""
    while True:
        agent, block = _state(world)
        start, direction = _contact(block, rng)
        away = to_world(CENTRE, block) - 256
        if np.abs(start - 256).max() > 231 or (np.abs(away).max() > 130 and away @ direction > 0):
            continue  # out of reach, or would push the T further into a corner
        speed = rng.uniform(0.2, 1.0) * MM * ACTION.high[0]
        for waypoint in _way_around(agent, start, block):
            yield from _go(world, waypoint, max(speed, 35.0), rng)
        for _ in range(rng.integers(1, 4)):
            for _ in range(rng.integers(2, 9)):
                yield (direction * speed + rng.normal(0, 2.0, 2)) / MM
            turn = rng.normal(0, 0.5)
            direction = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ direction
        if rng.random() < 0.1:
            yield from itertools.repeat(np.zeros(2), int(rng.integers(1, 5)))


def _state(world: GymWorld) -> tuple[Array, Array]:
    """Agent of shape (2,) [px] and block (3,) [px, px, rad]."""
    now = world.signals()
    agent = np.array([now["pusher_x"], now["pusher_y"]]) * MM
    return agent, np.array([now["block_x"] * MM, now["block_y"] * MM, now["block_yaw"]])


def _contact(block: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Where a random push begins, a little off one of the T's sides, and its direction."""
    cx, cy, hx, hy = BOXES[rng.integers(2)]
    normal = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)][rng.integers(4)], float)
    along = normal[::-1] * rng.uniform(-0.95, 0.95) * [hx, hy]
    gap = AGENT_RADIUS + rng.uniform(3, 12)
    start = to_world(np.array([cx, cy]) + normal * [hx, hy] + along + normal * gap, block)
    angle = np.arctan2(-normal[1], -normal[0]) + block[2] + rng.uniform(-0.7, 0.7)
    return start, np.array([np.cos(angle), np.sin(angle)])


def _way_around(agent: Array, goal: Array, block: Array) -> list[Array]:
    """Waypoints that lead to `goal` without touching the T: straight, or along the ring around it."""
    if all(_clearance(agent + (goal - agent) * t, block) > 2 for t in np.linspace(0, 1, 24)):
        return [goal]
    centre = to_world(CENTRE, block)
    first, last = (np.arctan2(*(p - centre)[::-1]) for p in (agent, goal))
    turn = (last - first + np.pi) % (2 * np.pi) - np.pi
    angles = first + np.linspace(0, turn, 2 + int(abs(turn) / 0.5))
    ring = [np.clip(centre + RING * np.array([np.cos(a), np.sin(a)]), LOW, HIGH) for a in angles]
    return [*ring, goal]


def _clearance(point: Array, block: Array) -> float:
    """Distance of the agent's rim from the T [px]; negative inside."""
    local = to_block(point, block)
    gaps = [np.hypot(max(abs(local[0] - x) - hx, 0), max(abs(local[1] - y) - hy, 0)) for x, y, hx, hy in BOXES]
    return float(min(gaps)) - AGENT_RADIUS


def _go(world: GymWorld, waypoint: Array, speed: float, rng: np.random.Generator) -> Iterator[Array]:
    """Controls that lead the agent to a waypoint."""
    for _ in range(20):
        offset = waypoint - _state(world)[0]
        distance = float(np.linalg.norm(offset))
        if distance < 8:
            return
        yield (offset * min(1.0, speed / distance) + rng.normal(0, 1.5, 2)) / MM


TASK = Task(
    action=ACTION,
    world=make_world,
    behaviours={"pushes": Behaviour(lambda: pushes, 100)},
    goal=GoalTest(  # as in the papers that plan in it: 20 px for agent and block together, and 20 degrees
        position=("pusher_x", "pusher_y", "block_x", "block_y"),
        tolerance=0.02,
        yaw="block_yaw",
        yaw_tolerance=float(np.pi / 9),
        object=("block_x", "block_y"),
    ),
)
