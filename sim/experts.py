"""Where behaviour data comes from: pushes on the T, chosen at random or by looking ahead in a second simulator."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worldpilot.sim import geometry
from worldpilot.sim.geometry import Pose
from worldpilot.sim.push_t import ACTION, BLOCK_RANGE, PUSHER_RADIUS, WORKSPACE, PushT, clearance

Array = npt.NDArray[np.float64]
_DT, _MAX_SPEED = ACTION.control_dt, ACTION.high[0]
_CIRCLE = 0.135  # [m], a way around the block at this distance from its centre touches nothing


@dataclass(frozen=True)
class Push:
    """A straight push: stand at `start`, move with `velocity` for `steps` control steps."""

    start: Array  # (2,) [m], world frame
    velocity: Array  # (2,) [m/s]
    steps: int


def sample_push(block: Pose, rng: np.random.Generator) -> Push | None:
    """A random push that touches the block; None if its start is out of reach."""
    cx, cy, hx, hy = geometry.BOXES[rng.integers(2)]
    side, along = rng.integers(4), rng.uniform(-0.95, 0.95)
    normal = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)][side], float)
    contact = np.array([cx, cy]) + normal * [hx, hy] + np.array([normal[1], normal[0]]) * along * [hx, hy]
    gap = PUSHER_RADIUS + rng.uniform(0.006, 0.015)
    start = geometry.to_world(contact + normal * gap, block)
    turn = rng.uniform(-0.7, 0.7)
    angle = np.arctan2(-normal[1], -normal[0]) + block[2] + turn
    velocity = rng.uniform(0.06, _MAX_SPEED * 0.98) * np.array([np.cos(angle), np.sin(angle)])
    if not _can_stand(start, block):
        return None
    distance = gap + rng.uniform(0.01, 0.13)
    return Push(start, velocity, max(2, round(distance / (np.linalg.norm(velocity) * _DT))))


def perturb(push: Push, block: Pose, scale: float, rng: np.random.Generator) -> Push | None:
    """A push near `push`; None if its start is out of reach."""
    start = push.start + rng.normal(0, 0.02 * scale, 2)
    velocity = _turned(push.velocity, rng.normal(0, 0.3 * scale)) * np.exp(rng.normal(0, 0.3 * scale))
    velocity *= min(1.0, _MAX_SPEED * 0.98 / float(np.abs(velocity).max()))
    return Push(start, velocity, push.steps + 2) if _can_stand(start, block) else None


def approach(pusher: Array, goal: Array, block: Pose) -> list[Array]:
    """Waypoints that lead the pusher to `goal` without touching the block, the goal last."""

    def free(a: Array, b: Array) -> bool:
        return all(clearance(a + (b - a) * t, block) > 0.004 for t in np.linspace(0, 1, 24))

    if free(pusher, goal):
        return [goal]
    centre = block[:2]
    a0, a1 = (float(np.arctan2(*(p - centre)[::-1])) for p in (pusher, goal))
    turn = float(geometry.wrap(a1 - a0))

    def ring(total: float) -> list[Array]:
        angles = a0 + np.linspace(0, total, max(2, int(abs(total) / 0.4) + 1))
        return [np.clip(centre + _CIRCLE * np.array([np.cos(t), np.sin(t)]), -WORKSPACE, WORKSPACE) for t in angles]

    routes = [ring(turn), ring(turn - np.copysign(2 * np.pi, turn))]
    blocked = [sum(not free(a, b) for a, b in itertools.pairwise([*route, goal])) for route in routes]
    return [*routes[int(np.argmin(blocked))], goal]


def follow(world: PushT, waypoints: list[Array], speed: float) -> Iterator[Array]:
    """Controls that lead the pusher through the waypoints at `speed` [m/s], from where it is when asked."""
    for waypoint in waypoints:
        for _ in range(40):
            offset = waypoint - world.pusher()
            distance = float(np.linalg.norm(offset))
            if distance < 0.004:
                break
            yield offset / distance * min(speed, distance / _DT)


def random_pushes(world: PushT, rng: np.random.Generator) -> Iterator[Array]:
    """Contact-rich behaviour: one random push after another, for ever, the block kept in reach."""
    while True:
        block = world.block()
        drawn = [p for p in (sample_push(block, rng) for _ in range(rng.choice([1, 4, 8]))) if p is not None]
        if not drawn:
            continue
        push = min(drawn, key=lambda p: float(np.linalg.norm(p.start - world.pusher())))
        end = block[:2] + push.velocity * _DT * push.steps
        outside = np.abs(end).max() > BLOCK_RANGE + 0.02
        if outside and np.linalg.norm(end) > np.linalg.norm(block[:2]):
            continue
        jitter = rng.uniform(0, 0.03)
        for control in follow(world, approach(world.pusher(), push.start, block), rng.uniform(0.15, _MAX_SPEED)):
            yield control + rng.normal(0, jitter, 2)
        velocity = push.velocity + rng.normal(0, 0.03, 2)
        for _ in range(rng.integers(1, 4)):  # keeps contact and turns, up to three times
            for _ in range(push.steps):
                yield velocity + rng.normal(0, jitter, 2)
                if np.abs(world.block()[:2]).max() > BLOCK_RANGE + 0.03:
                    break
            velocity = _turned(velocity, rng.normal(0, 0.5))
        if rng.random() < 0.1:
            for _ in range(rng.integers(1, 5)):
                yield np.zeros(2)


def gentle(world: PushT, rng: np.random.Generator) -> Iterator[Array]:
    """What is done near a goal, for ever: close to the block the pusher waits, wanders or nudges it by millimetres."""
    while True:
        drawn = [p for p in (sample_push(world.block(), rng) for _ in range(rng.choice([1, 8, 16]))) if p is not None]
        if not drawn:
            continue
        push = min(drawn, key=lambda p: float(np.linalg.norm(p.start - world.pusher())))
        away = push.start - push.velocity / np.linalg.norm(push.velocity) * rng.uniform(0, 0.04)
        start = away if _can_stand(away, world.block()) else push.start
        yield from follow(world, approach(world.pusher(), start, world.block()), rng.uniform(0.08, _MAX_SPEED))
        for _ in range(rng.integers(1, 6)):
            kinds = (_wait, _wander, _nudge, _nudge)
            yield from kinds[rng.integers(len(kinds))](world, push.velocity, rng)


def _wait(world: PushT, velocity: Array, rng: np.random.Generator) -> Iterator[Array]:
    yield from itertools.repeat(np.zeros(2), int(rng.integers(1, 21)))


def _wander(world: PushT, velocity: Array, rng: np.random.Generator) -> Iterator[Array]:
    drift, size = np.zeros(2), rng.uniform(0.01, 0.04)
    for _ in range(rng.integers(5, 21)):
        drift = 0.8 * drift + rng.normal(0, size, 2)
        yield drift


def _nudge(world: PushT, velocity: Array, rng: np.random.Generator) -> Iterator[Array]:
    """Millimetres in about the direction of `velocity`, and perhaps back."""
    slow = _turned(velocity, rng.normal(0, 0.3)) * rng.uniform(0.02, 0.12) / np.linalg.norm(velocity)
    distance = max(clearance(world.pusher(), world.block()), 0.0) + rng.uniform(0.002, 0.025)
    steps = max(1, round(distance / (np.linalg.norm(slow) * _DT)))
    yield from itertools.repeat(slow, min(steps, 30))
    yield from itertools.repeat(-slow, int(rng.integers(0, 6)))


class Expert:
    """Greedy one-push search on a second copy of the simulator, by the distance of the T's corners to the goal's.

    Args:
        candidates: random pushes tried first.
        refinements: then so many perturbations of the best, twice.
        noise: standard deviation added to the controls [m/s] (the noisy expert).
        randomness: chance that a push is random instead of the best (the noisy expert).
    """

    def __init__(self, *, candidates: int = 48, refinements: int = 24, noise: float = 0.0, randomness: float = 0.0):
        self._candidates, self._refinements = candidates, refinements
        self._noise, self._randomness = noise, randomness
        self._copy = PushT(randomise=False, render_images=False)

    def controls(self, world: PushT, rng: np.random.Generator) -> Iterator[Array]:
        """Controls for `world`, for ever; at the goal, zero."""
        self._copy.reset(options={"friction": 0.5})
        while True:
            best = self._search(world, rng)
            if best is None or world.overlap() > 0.97:
                yield np.zeros(2)
                continue
            waypoints = approach(world.pusher(), best.start, world.block())
            for control in follow(world, waypoints, 0.24):
                yield control + rng.normal(0, self._noise, 2)
            for _ in range(best.steps):
                yield best.velocity + rng.normal(0, self._noise, 2)

    def _search(self, world: PushT, rng: np.random.Generator) -> Push | None:
        block, goal = world.block(), world.goal
        pushes = [p for p in (sample_push(block, rng) for _ in range(self._candidates)) if p is not None]
        if pushes and rng.random() < self._randomness:
            return pushes[0]
        best, best_cost = None, geometry.keypoint_distance(block, goal)
        for scale in (1.0, 0.5, 0.25):
            for push in pushes:
                steps, cost = self._try(push, block, goal)
                if cost < best_cost:
                    best, best_cost = Push(push.start, push.velocity, steps), cost
            if best is None:
                return None
            near = (perturb(best, block, scale, rng) for _ in range(self._refinements))
            pushes = [p for p in near if p is not None]
        return best

    def _try(self, push: Push, block: Pose, goal: Pose) -> tuple[int, float]:
        """After how many of the push's steps the block is nearest to the goal, and how near [m]."""
        self._copy.place_pusher(push.start)
        self._copy.place_block(block)
        best_steps, best_cost = 0, np.inf
        for step in range(1, push.steps + 1):
            self._copy.drive(push.velocity)
            cost = geometry.keypoint_distance(self._copy.block(), goal)
            if cost < best_cost - 1e-5:
                best_steps, best_cost = step, cost
            elif cost > best_cost + 0.01:
                break
        return best_steps, best_cost


def until_settled(expert: Expert) -> Callable[[PushT, np.random.Generator], Iterator[Array]]:
    """The expert's controls, ended when the block has been at the goal (overlap above 95 %) for 4 control steps."""

    def controls(world: PushT, rng: np.random.Generator) -> Iterator[Array]:
        settled = 0
        for control in expert.controls(world, rng):
            yield control
            settled = settled + 1 if world.overlap() > 0.95 else 0
            if settled > 3:
                return

    return controls


def _can_stand(start: Array, block: Pose) -> bool:
    """Whether the pusher can begin a push at `start`: within its workspace, and clear of the block."""
    return bool(np.abs(start).max() <= WORKSPACE - 0.002 and clearance(start, block) >= 0.003)


def _turned(vector: Array, angle: float) -> Array:
    """A vector of shape (2,) turned by `angle` [rad]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]]) @ vector
