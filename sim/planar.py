"""The planar worlds: a biped (`walker`) and a one-legged `hopper`, with a torso, thighs, shanks and feet.

They move in the xz plane by joints of their models: two slides and a hinge carry the torso. A joint's angle grows as it
flexes: hip forward, knee back, ankle toes up; with hip, knee and ankle at 0 the leg is straight and the foot level.
"""

from pathlib import Path

from worldpilot.sim.bullet import Client
from worldpilot.sim.legged import CONTROL_DT, LeggedWorld, Robot
from worldpilot.system import System
from worldpilot.types import ActionSpec

_MODELS = Path(__file__).parent / "robots"
_LEG = ("hip", "knee", "ankle")
_SIDES = ("left", "right")


def _action(names: tuple[str, ...]) -> ActionSpec:
    """Joint targets of `names`, legs of three joints."""
    legs = len(names) // 3
    return ActionSpec(
        names=names,
        units=("rad",) * 3 * legs,
        low=(-0.8, -0.6, -0.8) * legs,
        high=(0.9, 1.2, 0.8) * legs,
        max_rate=(25.0,) * 3 * legs,
        control_dt=CONTROL_DT,
        block=2,
    )


def _load(client: Client, model: str, hip_height: float) -> int:
    """The model with its hips at a height [m]; PyBullet's damping, which stands for nothing here, is switched off."""
    body = client.loadURDF(str(_MODELS / model), [0, 0, hip_height], useFixedBase=True)
    for link in range(-1, client.getNumJoints(body)):
        client.changeDynamics(body, link, linearDamping=0, angularDamping=0, jointDamping=0)
    return body


WALKER = Robot(
    name="walker",
    action=_action(tuple(f"{side}_{joint}" for side in _SIDES for joint in _LEG)),
    load=lambda client: _load(client, "walker.urdf", 0.85),
    joints=tuple(f"{joint}_{side}" for side in _SIDES for joint in _LEG),
    feet={side: f"foot_{side}" for side in _SIDES},
    stance=(0.15, 0.4, 0.25) * 2,
    kp=(300.0, 300.0, 200.0) * 2,
    kd=(10.0, 10.0, 3.0) * 2,
    torque=(80.0, 80.0, 40.0) * 2,
    fallen_height=0.7,
    fallen_tilt=0.8,
    trunk="torso",
    planar=True,
    settle=0.2,
)

HOPPER = Robot(
    name="hopper",
    action=_action(_LEG),
    load=lambda client: _load(client, "hopper.urdf", 0.6),
    joints=_LEG,
    feet={"foot": "foot"},
    stance=(0.45, 1.0, 0.55),
    kp=(300.0, 300.0, 200.0),
    kd=(8.0, 8.0, 3.0),
    torque=(80.0, 100.0, 60.0),
    fallen_height=0.5,
    fallen_tilt=0.8,
    trunk="torso",
    planar=True,
    settle=0.2,
)


class Walker(LeggedWorld):
    """The biped on a line.

    Args:
        randomise: draw friction and the joints' angles at each reset.
        system: what was measured of the robot that is simulated.
    """

    def __init__(self, *, randomise: bool = True, system: System | None = None) -> None:
        super().__init__(WALKER, randomise=randomise, system=system)


class Hopper(LeggedWorld):
    """The one-legged robot on a line.

    Args:
        randomise: draw friction and the joints' angles at each reset.
        system: what was measured of the robot that is simulated.
    """

    def __init__(self, *, randomise: bool = True, system: System | None = None) -> None:
        super().__init__(HOPPER, randomise=randomise, system=system)
