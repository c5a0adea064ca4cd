"""Where push-cube's behaviour data comes from: straight pushes at the height of the cube's middle.

Between two pushes the tip is lifted over the cube.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from worldpilot.sim.experts import Push
from worldpilot.sim.geometry import to_world, wrap
from worldpilot.sim.push_cube import ACTION, CUBE, CUBE_RANGE, HIGH, LOW, PEG_RADIUS, PushCube

Array = npt.NDArray[np.float64]
_DT, _MAX_SPEED = ACTION.control_dt, 0.98 * ACTION.high[0]
_PUSH_HEIGHT, _TRAVEL_HEIGHT = 0.02, CUBE + 0.015  # [m], of the tip
_FACES = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)], float)  # outward normals, cube's frame


def sample_push(cube: Array, rng: np.random.Generator) -> Push | None:
    """A random push on the cube with pose (3,) [m, m, rad]; None if its start is out of reach."""
    face = int(rng.integers(4))
    gap = PEG_RADIUS + rng.uniform(0.006, 0.012)
    start = _beside(cube, face, gap, rng.uniform(-0.8, 0.8) * CUBE / 2)
    angle = cube[2] + (face + 2) * np.pi / 2 + rng.uniform(-0.5, 0.5)
    speed = rng.uniform(0.08, _MAX_SPEED)
    steps = max(2, round((gap + rng.uniform(0.03, 0.14)) / (speed * _DT)))
    return Push(start, speed * np.array([np.cos(angle), np.sin(angle)]), steps) if _within(start) else None


def random_pushes(world: PushCube, rng: np.random.Generator) -> Iterator[Array]:
    """Contact-rich behaviour: one random push after another, for ever, the cube kept in reach."""
    while True:
        cube, jitter = world.block(), rng.uniform(0, 0.03)
        drawn = [p for p in (sample_push(cube, rng) for _ in range(64)) if p is not None]
        kept = [p for p in drawn if _kept(cube, p)][: rng.choice([1, 4, 8])]
        if not kept or rng.random() < 0.2:  # anywhere: a planner tries what no push would
            lowest = LOW[2] if kept and rng.random() < 0.5 else _TRAVEL_HEIGHT  # onto the cube, too
            for control in follow(world, [rng.uniform([*LOW[:2], lowest], HIGH)], _MAX_SPEED):
                yield control + rng.normal(0, jitter, 3)
            continue
        push = min(kept, key=lambda p: float(np.linalg.norm(p.start - world.tip()[:2])))
        for control in _approach(world, push.start, rng.uniform(0.18, _MAX_SPEED)):
            yield control + rng.normal(0, jitter, 3)
        velocity = np.append(push.velocity, 0)
        for _ in range(push.steps):
            if _strayed(world.block()):
                break
            yield velocity + rng.normal(0, jitter, 3)


def presses(world: PushCube, rng: np.random.Generator) -> Iterator[Array]:
    """What no push does and a planner tries: from over the cube or beside it anywhere, most often down.

    Pressed on the cube the arm stays where it is, slides off an edge, or pushes the cube by it: a model that has hardly
    seen it takes the cube's top for a way down. Ends when the cube is out of its range.
    """
    while True:
        cube = world.block()
        reach = CUBE / 2 + (0.0 if rng.random() < 0.5 else 0.03)  # over its top; or beside it as well
        over = to_world(rng.uniform(-reach, reach, 2), cube)
        yield from follow(world, _over(world, np.clip(over, LOW[:2], HIGH[:2])), rng.uniform(0.18, _MAX_SPEED))
        for _ in range(rng.integers(1, 5)):
            speed, angle = _MAX_SPEED * rng.uniform(0, 1), rng.uniform(-np.pi, np.pi)
            across = speed * np.array([np.cos(angle), np.sin(angle)]) * (rng.random() < 0.8)
            velocity = np.append(across, rng.uniform(-_MAX_SPEED, 0.4 * _MAX_SPEED))
            for _ in range(rng.integers(2, 9)):
                if _strayed(world.block()):
                    return
                yield velocity + rng.normal(0, 0.02, 3)


def expert(world: PushCube, rng: np.random.Generator) -> Iterator[Array]:
    """Controls that bring the cube to the goal: along the face whose normal lessens the error most, again and again.

    Ends when there has been nothing to win for 4 control steps: the cube is within 6 mm of the goal, or out of reach.
    """
    speed, settled = rng.uniform(0.08, 0.14), 0
    while settled < 4:
        face = _best_face(world.block(), world.goal)
        if face is None:
            settled += 1
            yield np.zeros(3)
            continue
        settled = 0
        yield from _approach(world, _beside(world.block(), face, PEG_RADIUS + 0.008, 0.0), _MAX_SPEED)
        yield from _push_along(world, face, speed)


def follow(world: PushCube, waypoints: list[Array], speed: float) -> Iterator[Array]:
    """Controls that lead the tip through the waypoints, each of shape (3,) [m], at `speed` [m/s]."""
    for waypoint in waypoints:
        for _ in range(20):
            offset = waypoint - world.tip()
            distance = float(np.linalg.norm(offset))
            if distance < 0.006:
                break
            yield offset / distance * min(speed, distance / _DT)


def _approach(world: PushCube, start: Array, speed: float) -> Iterator[Array]:
    """Up, over the cube, down to `start`; straight there if the cube is not between."""
    tip, cube = world.tip(), world.block()[:2]
    goal = np.append(start, _PUSH_HEIGHT)
    way = [tip[:2] + (start - tip[:2]) * t for t in np.linspace(0, 1, 12)]
    if min(float(np.linalg.norm(point - cube)) for point in way) > CUBE / np.sqrt(2) + PEG_RADIUS:
        return follow(world, [goal], speed)
    return follow(world, [*_over(world, start), goal], speed)


def _over(world: PushCube, point: Array) -> list[Array]:
    """Waypoints of shape (3,) [m]: up, then over `point` (2,)."""
    tip = world.tip()
    height = max(_TRAVEL_HEIGHT, float(tip[2]))
    return [np.append(tip[:2], height), np.append(point, height)]


def _best_face(cube: Array, goal: Array) -> int | None:
    """The face to push against, one whose push leaves the cube in its range before others; None: nothing to win."""
    error = goal - cube[:2]
    inward = -_normals(cube)
    gains = inward @ error
    faces = [f for f in range(4) if gains[f] > 0.003 and _within(_beside(cube, f, PEG_RADIUS + 0.008, 0.0))]
    if np.linalg.norm(error) < 0.006 or not faces:
        return None
    ends = cube[:2] + inward * gains[:, None]
    return max(faces, key=lambda f: (_outside(ends[f]) < 0.01, gains[f]))


def _push_along(world: PushCube, face: int, speed: float) -> Iterator[Array]:
    """Push against the middle of a face, until nothing is left to win or the cube has turned away."""
    yaw = world.block()[2]
    for _ in range(60):
        cube = world.block()
        inward = -_normals(cube)[face]
        left = float(inward @ (world.goal - cube[:2]))
        if left < 0.002 or abs(wrap(cube[2] - yaw)) > 0.3:
            return
        across = (cube[:2] - world.tip()[:2]) @ np.array([-inward[1], inward[0]])
        side = np.clip(3 * across, -0.05, 0.05) * np.array([-inward[1], inward[0]])
        yield np.append(inward * min(speed, 0.02 + 2 * left) + side, 0)


def _normals(cube: Array) -> Array:
    """Outward normals of the side faces, of shape (4, 2), world frame."""
    return to_world(_FACES, np.array([0, 0, cube[2]]))


def _beside(cube: Array, face: int, gap: float, along: float) -> Array:
    """The point `gap` [m] outside a face and `along` [m] from its middle, of shape (2,)."""
    normal = _FACES[face]
    return to_world(normal * (CUBE / 2 + gap) + np.array([-normal[1], normal[0]]) * along, cube)


def _within(start: Array) -> bool:
    return bool((np.abs(start) < HIGH[:2] - 0.002).all())


def _kept(cube: Array, push: Push) -> bool:
    """Whether the push leaves the cube in its range, or brings it nearer to it."""
    end = cube[:2] + push.velocity * _DT * push.steps
    return _outside(end) <= _outside(cube[:2]) + 0.01


def _strayed(cube: Array) -> bool:
    """Whether the cube with pose (3,) [m, m, rad] is well out of its range."""
    return bool(np.any(np.abs(cube[:2]) > CUBE_RANGE + 0.03))


def _outside(position: Array) -> float:
    """How far a cube at `position` (2,) lies outside its range [m]."""
    return float(np.maximum(np.abs(position) - CUBE_RANGE, 0).sum())
