"""The quadruped: Unitree's A1, as PyBullet ships it. Twelve joints; legs fl, fr, rl, rr, joints hip, thigh, knee."""

from collections.abc import Iterable

import pybullet_data

from worldpilot.sim.bullet import Client
from worldpilot.sim.legged import CONTROL_DT, OUT_OF_PLANE, LeggedWorld, Robot
from worldpilot.system import System
from worldpilot.types import ActionSpec, Symmetry

LEGS = ("fl", "fr", "rl", "rr")
HIP, THIGH, SHANK = 0.08505, 0.2, 0.2  # [m], the leg's plane from the hip's axis; knee and foot from the joint above
STANCE = (0.0, 0.9, -1.8)  # [rad], hip, thigh, knee
HEIGHT = 0.27  # [m], of the trunk in the stance
FOOT = 0.02  # [m], radius of a foot

ACTION = ActionSpec(
    names=tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("hip", "thigh", "knee")),
    units=("rad",) * 12,
    low=(-0.5, -0.9, -0.8) * 4,
    high=(0.5, 0.9, 0.85) * 4,
    max_rate=(25.0,) * 12,
    control_dt=CONTROL_DT,
    block=2,
)


def load(client: Client) -> int:
    """The A1 at its stance height."""
    return client.loadURDF(f"{pybullet_data.getDataPath()}/a1/a1.urdf", [0, 0, HEIGHT])


_OTHER_SIDE = {"fl": "fr", "fr": "fl", "rl": "rr", "rr": "rl"}


def _mirrored(name: str) -> dict[str, float]:
    """What a number of the state, or a control, is in a mirror."""
    if name in OUT_OF_PLANE:
        return {name: -1.0}
    parts = [_OTHER_SIDE.get(part, part) for part in name.split("_")]
    return {"_".join(parts): -1.0 if parts[-1] == "hip" else 1.0}


ROBOT = Robot(
    name="quadruped",
    action=ACTION,
    load=load,
    joints=tuple(f"{leg.upper()}_{joint}_joint" for leg in LEGS for joint in ("hip", "upper", "lower")),
    feet={leg: f"{leg.upper()}_toe" for leg in LEGS},
    stance=STANCE * 4,
    kp=(80.0, 80.0, 80.0) * 4,
    kd=(1.0, 2.0, 2.0) * 4,
    torque=(33.5,) * 12,  # Unitree's data sheet
    fallen_height=0.13,
    fallen_tilt=0.8,
)


def _symmetry(mirrored: bool) -> Symmetry:
    def seen(names: Iterable[str]) -> dict[str, dict[str, float]]:
        return {name: _mirrored(name) for name in names} if mirrored else {}

    controls = Symmetry(0, mirrored, (), seen(ACTION.names)).matrix(ACTION.names)
    return Symmetry(0, mirrored, tuple(map(tuple, controls.tolist())), seen(ROBOT.state))


SYMMETRIES = (_symmetry(False), _symmetry(True))


class Quadruped(LeggedWorld):
    """The A1 on a plane.

    Args:
        randomise: draw friction and the joints' angles at each reset.
        system: what was measured of the robot that is simulated.
    """

    def __init__(self, *, randomise: bool = True, system: System | None = None) -> None:
        super().__init__(ROBOT, randomise=randomise, system=system)
