"""Scenes: bodies from signals, whose left it is, units, and the line that the model reads."""

import pytest

from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.planners.rewards import registry
from worldpilot.reasoning.scene import PICTURE_VIEW, ROBOT_VIEW, Scene, Signal, settled


def scene(*signals: Signal) -> Scene:
    return Scene("a task", signals, frozenset())


def test_bodies_are_what_positions_have_in_common():
    found = scene(
        Signal("red_mug_x", "m"),
        Signal("red_mug_y", "m"),
        Signal("red_mug_yaw", "rad"),
        Signal("red_mug_yaw_sin", "1"),
        Signal("hand_x", "m"),
        Signal("hand_y", "m"),
        Signal("hand_z", "m"),
        Signal("speed_x", "m/s"),
    )
    assert {body.name: (body.axes, body.robot) for body in found.bodies.values()} == {
        "red_mug": (("x", "y", "yaw"), False),
        "hand": (("x", "y", "z"), True),
    }
    assert found.others == ("speed_x",)
    assert found.describe() == "object red_mug x y yaw; robot hand x y z; signal speed_x"


def test_left_is_the_viewers():
    assert ROBOT_VIEW.ways["left"] == ("y", 1)  # REP-103
    assert ROBOT_VIEW.ways["near"] == ("x", -1)
    assert PICTURE_VIEW.ways["left"] == ("x", -1)
    assert PICTURE_VIEW.ways["far"] == ("y", 1)


@pytest.mark.parametrize(
    ("unit", "said", "worth"),
    [
        ("m", "cm", 0.01),
        ("rad", "deg", 0.0174533),
        ("m/s", "mm/s", 0.001),
        ("rad/s", "deg/s", 0.0174533),
        ("1", "1", 1.0),
    ],
)
def test_units_are_worth_what_they_are(unit, said, worth):
    signal = Signal("a", unit)
    assert scene(signal).units(signal)[said] == pytest.approx(worth, rel=1e-5)


def test_readings_are_settled_by_their_mean():
    assert settled([]) == {}
    assert settled([{"height": 0.2, "pitch": 0.1}, {"height": 0.3, "pitch": -0.1}]) == pytest.approx(
        {"height": 0.25, "pitch": 0.0}
    )


@pytest.mark.parametrize(("task", "robot", "lifts"), [("push_t", "pusher", False), ("push_cube", "gripper", True)])
def test_the_zoos_scenes(task, robot, lifts):
    spec = Artifact.load(zoo_path(task)).spec
    found = Scene.of(spec, {spec.signals[0].name: 0.1}, registry.available())
    assert found.robot is not None
    assert found.robot.name == robot
    assert ("z" in found.robot.axes) == lifts
    assert found.others == ()
    assert found.max_speed == pytest.approx(0.25 * spec.action.control_dim**0.5)
    assert found.signals[0].value == 0.1
    assert all(found.by_name[f"{body}_{axis}"].bounded for body in found.bodies for axis in "xy")
