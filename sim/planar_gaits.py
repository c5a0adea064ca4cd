"""Where the planar robots' behaviour data comes from: the walker walks and the hopper hops, at one speed or many.

Both are state machines whose poses are balanced by feedback. The walker's is SIMBICON (Yin, Loken and van de Panne,
2007): the stance hip holds the torso upright, the swing foot is placed by where the body is and how fast it goes. The
hopper's is Raibert's (Legged Robots That Balance, 1986): the foot is placed in flight, the hip holds the torso in
stance, the leg is stretched by a fixed thrust. Their constants were found by cross-entropy search.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from worldpilot.sim.legged import AFTER_FALL, CONTROL_DT, LeggedWorld, Robot
from worldpilot.sim.planar import HOPPER, WALKER

Array = npt.NDArray[np.float64]
State = Mapping[str, float]  # by the names of the world's state


class Controller(Protocol):
    """A controller of one episode."""

    def control(self, now: State) -> Array:
        """The control of shape (U,) [rad] that follows the state `now`."""
        ...


class Gait(Protocol):
    """What a controller is made from at the start of an episode."""

    def start(self, rng: np.random.Generator) -> Controller: ...


@dataclass(frozen=True)
class Torso:
    """How the torque of a stance hip keeps the torso at an attitude."""

    lean: float  # [rad], nose down
    gain: float  # [N m/rad]
    damping: float  # [N m s/rad]

    def hip(self, robot: Robot, now: State, joint: int) -> float:
        """The target angle [rad] of the hip `joint` at which its PD control gives that torque."""
        name = robot.action.names[joint]
        torque = self.gain * (self.lean - now["pitch"]) - self.damping * now["pitch_rate"]
        return now[f"q_{name}"] + (torque + robot.kd[joint] * now[f"dq_{name}"]) / robot.kp[joint]


@dataclass(frozen=True)
class Walk:
    """A walk of single steps, each a lift for a fixed time and then a landing until the foot touches the ground.

    Thigh angles are from the vertical, forward positive.
    """

    torso: Torso
    lifting: float  # [s]
    lift_thigh: float  # [rad], of the swing leg, as are the next three
    lift_knee: float
    land_thigh: float
    land_knee: float
    toes: float  # [rad], of the swing foot over the horizontal
    knee: float  # [rad], of the stance leg
    ankle: float  # [rad], of the stance leg while the other is lifted
    push: float  # [rad], added to it while the other lands
    place: float  # [rad/m], swing thigh for each metre that the hip is before the stance ankle
    brake: float  # [rad s/m], swing thigh for each m/s above the nominal speed
    speed: float  # [m/s], nominal

    def start(self, rng: np.random.Generator) -> Controller:
        return _Walking(self)


class _Walking:
    def __init__(self, gait: Walk) -> None:
        self.gait, self._swing, self._time = gait, 1, 0.0

    def control(self, now: State) -> Array:
        g = self.gait
        self._time += CONTROL_DT
        landing = self._time > g.lifting
        if landing and (now[_FEET[self._swing]] or self._time > 2 * g.lifting + 0.1):
            self._swing, self._time, landing = 1 - self._swing, CONTROL_DT, False
        swing, stance = 3 * self._swing, 3 * (1 - self._swing)
        thigh, shank = _segments(now, stance)
        ahead = -0.4 * (np.sin(thigh) + np.sin(shank))  # of the stance ankle [m]; thigh and shank measure 0.4
        target = np.empty(6)
        target[stance] = g.torso.hip(WALKER, now, stance)
        target[stance + 1] = g.knee
        target[stance + 2] = g.ankle + g.push * landing
        thigh = g.land_thigh if landing else g.lift_thigh
        thigh += g.place * ahead + g.brake * (now["forward_velocity"] - g.speed)
        target[swing : swing + 3] = leg(thigh, g.land_knee if landing else g.lift_knee, g.toes, now["pitch"])
        return target - WALKER.stance


@dataclass(frozen=True)
class Halting:
    """The stance and a gait in turns, each for a random time: a robot that is held and let go."""

    gait: Walk
    held: tuple[float, float]  # [s], shortest and longest
    going: tuple[float, float]  # [s]

    def start(self, rng: np.random.Generator) -> Controller:
        return _Halting(self, rng)


class _Halting:
    def __init__(self, halting: Halting, rng: np.random.Generator) -> None:
        self._halting, self._rng, self._left = halting, rng, rng.uniform(*halting.held)
        self._controller: Controller | None = None  # None: held

    def control(self, now: State) -> Array:
        if self._left <= 0:
            going = self._controller is None
            self._controller = self._halting.gait.start(self._rng) if going else None
            self._left = self._rng.uniform(*(self._halting.going if going else self._halting.held))
        self._left -= CONTROL_DT
        return np.zeros(6) if self._controller is None else self._controller.control(now)


@dataclass(frozen=True)
class Hop:
    """Hops on one leg: it gives way for a fixed time, thrusts, and is set for the next landing in flight."""

    torso: Torso
    yielding: float  # [s]
    yield_knee: float  # [rad]
    yield_ankle: float  # [rad]
    thrusting: float  # [s] at most
    thrust_knee: float  # [rad]
    thrust_ankle: float  # [rad]
    flight_knee: float  # [rad]
    toes: float  # [rad], of the foot over the horizontal in flight
    ahead: float  # [m], of the ankle before the hip at landing, standing still
    travel: float  # [s], by how much more for each m/s
    brake: float  # [s], by how much more for each m/s above the nominal speed
    speed: float  # [m/s], nominal

    def start(self, rng: np.random.Generator) -> Controller:
        return _Hopping(self)


class _Hopping:
    def __init__(self, gait: Hop) -> None:
        self.gait, self._flies, self._time = gait, False, 0.0

    def control(self, now: State) -> Array:
        g, touches, speed = self.gait, now["contact_foot"] > 0, now["forward_velocity"]
        self._time += CONTROL_DT
        if self._flies and touches and self._time > 0.06:
            self._flies, self._time = False, CONTROL_DT
        elif not self._flies and self._time > g.yielding + (g.thrusting if touches else 0):
            self._flies, self._time = True, CONTROL_DT
        if self._flies:
            ahead = g.ahead + g.travel * speed + g.brake * (speed - g.speed)
            line = np.arcsin(np.clip(ahead / (0.6 * np.cos(g.flight_knee / 2)), -0.7, 0.7))  # hip to ankle
            return leg(line + g.flight_knee / 2, g.flight_knee, g.toes, now["pitch"]) - HOPPER.stance
        knee, ankle = (g.thrust_knee, g.thrust_ankle) if self._time > g.yielding else (g.yield_knee, g.yield_ankle)
        return np.array([g.torso.hip(HOPPER, now, 0), knee, ankle]) - HOPPER.stance


@dataclass(frozen=True)
class Stand:
    """The walker on both feet: its hips hold the torso, its ankles keep the hips above themselves."""

    torso: Torso
    knee: float  # [rad]
    ahead: float  # [m], of the hips before the ankles
    place: float  # [rad/m], toes down for each metre that they are more ahead
    brake: float  # [rad s/m], toes down for each m/s forwards
    slow: float  # [m/s]: who goes slower is caught

    def catches(self, now: State) -> bool:
        """Whether a stand may begin: both feet on the ground, and slow enough."""
        return all(now[foot] for foot in _FEET) and abs(now["forward_velocity"]) < self.slow

    def control(self, now: State) -> Array:
        """The control of shape (6,) [rad] that follows the state `now`."""
        legs = (0, 3)
        thighs, shanks = np.array([_segments(now, hip) for hip in legs]).T
        hips = -0.4 * float(np.mean(np.sin(thighs) + np.sin(shanks)))  # before the ankles [m]
        toes = -self.place * (hips - self.ahead) - self.brake * now["forward_velocity"]
        target = [
            (self.torso.hip(WALKER, now, hip), self.knee, toes - shank) for hip, shank in zip(legs, shanks, strict=True)
        ]
        return np.concatenate(target) - WALKER.stance


@dataclass(frozen=True)
class Pacing:
    """A gait that goes faster and slower, leans to and fro and stops to stand, at random."""

    slow: Walk | Hop
    fast: Walk | Hop  # of the same kind
    shares: tuple[float, float]  # of the way from slow to fast, lowest and highest
    leans: tuple[float, float]  # [rad], added to theirs
    kept: tuple[float, float]  # [s], each for so long, shortest and longest
    change: float  # [s], from one to the next, in a straight line
    stand: Stand | None = None
    stops: float = 0.0  # share of the changes that are to a stand

    def start(self, rng: np.random.Generator) -> Controller:
        return _Pacing(self, rng)

    def gait(self, share: float, lean: float) -> Walk | Hop:
        """All numbers of a gait on the straight line through the slow and the fast one."""

        def between(slow: Any, fast: Any) -> Any:
            if isinstance(slow, float):
                return slow + share * (fast - slow)
            of = {field.name: between(getattr(slow, field.name), getattr(fast, field.name)) for field in fields(slow)}
            return type(slow)(**of)

        gait = between(self.slow, self.fast)
        return replace(gait, torso=replace(gait.torso, lean=gait.torso.lean + lean))


class _Pacing:
    def __init__(self, pacing: Pacing, rng: np.random.Generator) -> None:
        self._pacing, self._rng, self._stops, self._stands = pacing, rng, False, False
        self._gait: Any = pacing.fast.start(rng)  # a controller, of which the gait is changed
        self._old = self._new = self._drawn()
        self._time, self._until = 0.0, rng.uniform(*pacing.kept)

    def control(self, now: State) -> Array:
        pacing = self._pacing
        if self._time >= self._until:
            self._stops = self._rng.random() < pacing.stops
            self._old, self._new = self._new, np.zeros(2) if self._stops else self._drawn()
            if self._stands and not self._stops:
                self._stands, self._old, self._gait = False, self._new, pacing.fast.start(self._rng)
            self._time, self._until = 0.0, pacing.change + self._rng.uniform(*pacing.kept)
        self._time += CONTROL_DT
        if self._stops and pacing.stand is not None:
            self._stands = self._stands or pacing.stand.catches(now)
            if self._stands:
                return pacing.stand.control(now)
        share, lean = self._old + min(self._time / pacing.change, 1.0) * (self._new - self._old)
        self._gait.gait = pacing.gait(share, lean)
        return self._gait.control(now)

    def _drawn(self) -> Array:
        """A share and a lean [rad]."""
        return np.array([self._rng.uniform(*self._pacing.shares), self._rng.uniform(*self._pacing.leans)])


def _segments(now: State, hip: int) -> tuple[float, float]:
    """Angles [rad] from the vertical of thigh and shank, forward positive; `hip` is the number of their leg's hip."""
    names = WALKER.action.names
    thigh = now[f"q_{names[hip]}"] - now["pitch"]
    return thigh, thigh - now[f"q_{names[hip + 1]}"]


def leg(thigh: float, knee: float, toes: float, pitch: float) -> Array:
    """Angles (3,) of the joints of a leg whose thigh and foot have these in the world [rad], the torso at `pitch`."""
    return np.array([thigh + pitch, knee, toes - thigh + knee])


def behave(gait: Gait, noise: float) -> Callable[[LeggedWorld, np.random.Generator], Iterator[Array]]:
    """The gait with exploration noise, changing no faster than a control may, until shortly after a fall.

    The noise is white: nothing that came before tells of it, so that what is learnt to be done in a state is on average
    what the gait does in it (as in DART, Laskey et al. 2017).

    Args:
        gait: what is explored around.
        noise: largest standard deviation of an episode's noise [rad]; that of each is drawn uniformly from 0 on.
    """

    def controls(world: LeggedWorld, rng: np.random.Generator) -> Iterator[Array]:
        controller, action, strength = gait.start(rng), world.action, rng.uniform(0, noise)
        low, high = np.asarray(action.low), np.asarray(action.high)
        step = np.asarray(action.max_rate) * CONTROL_DT
        control, fallen = np.zeros(action.control_dim), 0
        while fallen < AFTER_FALL:
            fallen += world.ended
            now = dict(zip(world.state_names, world.observe().data.tolist(), strict=True))
            target = controller.control(now) + rng.normal(0, strength, action.control_dim)
            control = np.clip(np.clip(target, control - step, control + step), low, high)
            yield control

    return controls


_FEET = ("contact_left", "contact_right")

# With noise up to 0.08 rad, 600 episodes (seeds 0-599): 95.2 % survive [93.1, 96.6], 0.85 m/s.
WALK = Walk(
    torso=Torso(lean=0.0386, gain=144.403, damping=41.3951),
    lifting=0.197,
    lift_thigh=0.5128,
    lift_knee=0.7186,
    land_thigh=0.2845,
    land_knee=0.4556,
    toes=0.1946,
    knee=0.4589,
    ankle=0.3384,
    push=0.0072,
    place=-0.0779,
    brake=0.2293,
    speed=0.9,
)
HALTING = Halting(WALK, held=(0.2, 1.5), going=(0.3, 3.0))
MARCH = replace(  # on the spot
    WALK,
    torso=replace(WALK.torso, lean=0.0088),
    lifting=0.1585,
    lift_thigh=0.5418,
    lift_knee=0.8253,
    land_thigh=0.1672,
    land_knee=0.4009,
    knee=0.576,
    ankle=0.4049,
    place=-0.2471,
    brake=0.2753,
    speed=0.0,
)
STAND = Stand(
    torso=Torso(lean=-0.011, gain=220.0, damping=5.1), knee=0.509, ahead=-0.008, place=7.0, brake=0.845, slow=0.3
)
# With noise up to 0.03 rad, 800 episodes (seeds 0-799): 89.9 % survive [87.6, 91.8].
WALK_PACING = Pacing(
    MARCH, WALK, shares=(0.0, 1.2), leans=(-0.05, 0.05), kept=(0.3, 1.5), change=0.8, stand=STAND, stops=0.3
)
# With noise up to 0.035 rad, 200 episodes (seeds 0-199): 97.5 % survive [94.3, 98.9], 0.32 m/s; up to 0.05, 89.5 %.
HOP = Hop(
    torso=Torso(lean=0.0194, gain=272.4169, damping=8.6417),
    yielding=0.1218,
    yield_knee=0.7557,
    yield_ankle=0.3066,
    thrusting=0.0988,
    thrust_knee=0.7379,
    thrust_ankle=0.0667,
    flight_knee=0.9085,
    toes=0.0404,
    ahead=-0.0245,
    travel=0.0412,
    brake=0.1372,
    speed=0.7,
)
# With noise up to 0.035 rad, 600 episodes (seeds 0-599): 94.8 % survive [92.8, 96.3].
HOP_PACING = Pacing(
    replace(HOP, speed=0.2),
    replace(HOP, speed=0.9),
    shares=(0.2, 1.15),
    leans=(-0.06, 0.04),
    kept=(0.3, 2.0),
    change=0.7,
)
