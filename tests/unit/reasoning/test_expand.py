"""From intents to rewards: what each says, what is out of reach, what contradicts itself."""

import math
import re
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.planners.rewards import registry
from worldpilot.planners.rewards.expression import compile_expression, parse_unit
from worldpilot.planners.rewards.registry import parse_spec
from worldpilot.reasoning.expand import THIRDS, Inexpressible, expand, is_stop
from worldpilot.reasoning.scene import LAYOUTS, Scene, Signal
from worldpilot.reasoning.schema import LEVELS, directions, intent_schema
from worldpilot.types import RewardSpec


def terms(intent, scene) -> list[dict]:
    """The terms of an intent that the scene's schema allows."""
    jsonschema.validate(intent, intent_schema(scene))
    return registry.to_dict(expand(intent, scene)[0])["terms"]


def pose(intent, scene) -> dict:
    """The parameters of its only goal_pose."""
    (found,) = [term["params"] for term in terms(intent, scene) if term["plugin"] == "goal_pose"]
    return found


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        ({"place": "block", "at": "left edge"}, {"x": -0.2, "y": -0.04}),
        ({"place": "block", "at": "far edge"}, {"x": 0.02, "y": 0.1}),
        ({"place": "block", "at": "near right corner"}, {"x": 0.2, "y": -0.1}),
        ({"place": "block", "at": "centre"}, {"x": 0.0, "y": 0.0}),
        ({"place": "block", "at": "5 -2.5 cm"}, {"x": 0.05, "y": -0.025}),
        ({"place": "gripper", "at": "block"}, {"x": 0.02, "y": -0.04}),
        ({"shift": "block", "way": "left", "by": "10 cm"}, {"x": -0.08, "y": -0.04}),
        ({"shift": "block", "way": "far", "by": "2 inch"}, {"x": 0.02, "y": 0.0108}),
        ({"shift": "block", "way": "near", "by": "a lot"}, {"x": 0.02, "y": -0.1}),  # ends where the space does
        ({"turn": "block", "way": "left", "by": "90 deg"}, {"yaw": 0.5 + math.pi / 2}),
        ({"turn": "block", "way": "right", "by": "0.5 rad"}, {"yaw": 0.0}),
        ({"turn": "block", "way": "left", "by": "180 deg"}, {"yaw": 0.5 - math.pi}),  # within [-pi, pi)
        ({"set": "block_yaw", "to": "-45 deg"}, {"x": 0.02, "y": -0.04, "yaw": -math.pi / 4}),
        ({"set": "block_x", "to": "50 mm"}, {"x": 0.05, "y": -0.04}),
        ({"keep": "block", "in": "place"}, {"x": 0.02, "y": -0.04}),
    ],
)
def test_poses(scene, goal, expected):
    found = pose({"goals": [goal]}, scene)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    body = next(iter(goal.values())).split("_")[0]
    assert found["object"] == body
    assert ("pusher" in found) == (body == "block")  # the robot is kept at what it pushes


def test_two_goals_of_a_body_are_one_pose(scene):
    found = pose(
        {"goals": [{"place": "block", "at": "right edge"}, {"turn": "block", "way": "left", "by": "1 rad"}]}, scene
    )
    assert found["x"] == 0.2
    assert found["yaw"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        ({"set": "gripper_z", "to": "low"}, {"signal": "gripper_z", "upper": 0.05, "margin": 0.05}),
        ({"set": "gripper_z", "to": "high"}, {"signal": "gripper_z", "lower": 0.1, "margin": 0.05}),
        ({"keep": "block", "in": "left half"}, {"signal": "block_x", "upper": 0.0, "margin": 0.1}),
        ({"keep": "gripper", "in": "far half"}, {"signal": "gripper_y", "lower": 0.0, "margin": 0.1}),
        ({"avoid": "block", "of": "right edge"}, {"signal": "block_x", "upper": 0.1, "margin": 0.05}),
    ],
)
def test_regions(scene, goal, expected):
    (found,) = [term["params"] for term in terms({"goals": [goal]}, scene) if term["plugin"] == "tolerance"]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        ("stop", "-speed"),
        ({"set": "gripper_z", "to": "8 cm"}, "-(gripper_z - 0.08)**2"),
        ({"shift": "gripper", "way": "up", "by": "4 cm"}, "-(gripper_z - 0.09)**2"),
        ({"set": "pitch", "to": "-0.5 rad"}, "-angle_diff(pitch, -0.5)**2"),
        ({"set": "flow", "to": "0.7"}, "-(flow - 0.7)**2"),
        ({"set": "flow", "to": "high"}, "flow"),
        ({"avoid": "gripper", "of": "block"}, "-max(0.09 - hypot(gripper_x - block_x, gripper_y - block_y), 0)**2"),
        ({"limit": "speed", "to": "5 cm/s"}, "-max(speed - 0.05, 0)**2"),
    ],
)
def test_expressions(scene, goal, expected):
    assert expected in [term["params"].get("expression") for term in terms({"goals": [goal]}, scene)]


def test_paces_change_how_and_not_what(scene):
    plain, gentle, slow, fast = (
        terms({"goals": [{"place": "block", "at": "centre"}], **({"pace": pace} if pace else {})}, scene)
        for pace in ("", "gentle", "slow", "fast")
    )
    assert gentle[:1] == slow[:1] == plain
    assert [term["plugin"] for term in gentle[1:]] == ["smoothness", "expression"]
    assert [term["plugin"] for term in slow[1:]] == ["expression"]
    limits = [float(found[-1]["params"]["expression"].split(" - ")[1].split(",")[0]) for found in (gentle, slow)]
    assert 0 < limits[1] < limits[0] < 0.4
    assert fast[0]["params"]["discount"] < 0.9


def test_going_on_keeps_the_reward_in_force_but_not_its_pace(scene):
    found = terms({"goals": ["current", {"set": "gripper_z", "to": "low"}]}, scene)
    assert [term["plugin"] for term in found] == ["goal_pose", "tolerance"]
    assert found[0]["params"] == {"x": 0.0, "y": 0.0}


def test_going_on_after_a_stop_is_going_on_with_what_was_before(scene):
    stop = expand({"goals": ["stop"]}, scene)[0]
    assert is_stop(stop)
    stopped = replace(scene, reward=stop, before_stop=scene.reward)
    assert terms({"goals": ["current"]}, stopped)[0]["params"] == {"x": 0.0, "y": 0.0}
    with pytest.raises(Inexpressible, match="nothing to go on with"):
        expand({"goals": ["current"]}, replace(scene, reward=stop))


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        ([{"shift": "block", "way": "left", "by": "3 m"}], "block_x would be -2.98 m; it can be between -0.2 and 0.2"),
        ([{"place": "block", "at": "90 0 cm"}], "block_x would be 0.9 m"),
        ([{"set": "gripper_z", "to": "1 m"}], "gripper_z would be 1 m"),
        ([{"place": "block", "at": "left edge"}, {"place": "block", "at": "right edge"}], "two different places"),
    ],
)
def test_what_is_out_of_reach_or_contradicts_itself_is_refused(scene, goals, message):
    with pytest.raises(Inexpressible, match=message):
        expand({"goals": goals}, scene)


def test_what_is_relative_to_something_unseen_is_refused(scene):
    blind = replace(scene, signals=tuple(replace(signal, value=None) for signal in scene.signals))
    with pytest.raises(Inexpressible, match="block_x, which has not been heard yet"):
        expand({"goals": [{"shift": "block", "way": "left", "by": "some"}]}, blind)


def test_going_on_again_and_again_keeps_its_name(scene):
    spec, sentence = RewardSpec(()), ""
    for _ in range(5):
        spec, sentence = expand({"goals": ["current"], "pace": "slow"}, scene)
        scene = replace(scene, reward=spec)
    assert sentence == "Go on with: Centre it; slowly, at 8 cm/s at most."


@pytest.fixture
def quadruped() -> Scene:
    """A robot on legs, running at half a metre a second."""
    ranges = LAYOUTS["quadruped"].ranges
    units = {"height": "m", "forward_velocity": "m/s", "yaw_rate": "rad/s", "roll": "rad", "pitch": "rad"}
    values = {"height": 0.27, "forward_velocity": 0.5}
    signals = [Signal(name, unit, values.get(name, 0.0), *ranges[name]) for name, unit in units.items()]
    return Scene(
        "quadruped", (*signals, Signal("contact_fl", "1")), frozenset(registry.available()), reward=RewardSpec(())
    )


@pytest.mark.parametrize(
    ("goal", "inside", "outside"),
    [
        ({"set": "forward_velocity", "to": "low"}, 0.25, 0.6),
        ({"set": "forward_velocity", "to": "low"}, 0.25, -0.1),  # slow, not backwards
        ({"set": "forward_velocity", "to": "high"}, 0.9, 0.7),
        ({"set": "forward_velocity", "to": "forward"}, 0.5, 0.2),
        ({"set": "forward_velocity", "to": "middle"}, 0.6, 0.9),
        ({"set": "forward_velocity", "to": "backward"}, -0.3, 0.0),
        ({"set": "yaw_rate", "to": "left"}, 0.5, 0.0),
        ({"set": "yaw_rate", "to": "right"}, -0.5, 0.5),
        ({"set": "yaw_rate", "to": "low"}, 0.1, -0.5),
        ({"set": "pitch", "to": "nose up"}, -0.2, 0.2),
        ({"set": "pitch", "to": "nose down"}, 0.2, -0.2),
        ({"set": "roll", "to": "right"}, 0.2, -0.2),
        ({"set": "height", "to": "low"}, 0.2, 0.27),
        ({"set": "height", "to": "high"}, 0.31, 0.27),
        ({"set": "height", "to": "middle"}, 0.26, 0.24),
    ],
)
def test_levels_of_a_robot_on_legs(quadruped, goal, inside, outside):
    (term,) = terms({"goals": [goal]}, quadruped)  # nothing asks it to stand still besides
    assert term["plugin"] == "expression"
    name = goal["set"]
    best, worse = (
        compile_expression(term["params"]["expression"], {name: parse_unit("1")}).function({name: np.array([value])})
        for value in (inside, outside)
    )
    assert worse[0] < best[0] == 0


def test_a_trunk_is_level_upright_though_its_range_lies_forward(quadruped):
    pitch = Signal("pitch", "rad", 0.1, *LAYOUTS["walker"].ranges["pitch"])
    walker = replace(quadruped, signals=(*quadruped.signals[:2], pitch))
    assert terms({"goals": [{"set": "pitch", "to": "low"}]}, walker)[-1]["params"]["expression"] == "-abs(pitch)"


@pytest.mark.parametrize(
    ("goal", "expression"),
    [
        ({"set": "yaw_rate", "to": "-30 deg/s"}, "-abs(yaw_rate - -0.523599)"),
        ({"set": "yaw_rate", "to": "right 30 deg/s"}, "-abs(yaw_rate - -0.523599)"),
        ({"set": "yaw_rate", "to": "left 30 deg/s"}, "-abs(yaw_rate - 0.523599)"),
        ({"set": "forward_velocity", "to": "backward 0.4 m/s"}, "-abs(forward_velocity - -0.4)"),
        ({"set": "pitch", "to": "nose up 0.2 rad"}, "-abs(pitch - -0.2)"),
        ({"set": "roll", "to": "left 0.2 rad"}, "-abs(roll - -0.2)"),
        ({"change": "forward_velocity", "by": "-20 cm/s"}, "-abs(forward_velocity - 0.3)"),
        ({"change": "height", "by": "3 cm"}, "-abs(height - 0.3)"),
        ("stop", "-abs(forward_velocity)"),
    ],
)
def test_values_of_a_robot_on_legs(quadruped, goal, expression):
    (term,) = terms({"goals": [goal]}, quadruped)
    assert term["params"]["expression"] == expression


def test_a_goal_said_twice_counts_once_and_two_of_a_signal_are_refused(quadruped):
    high = {"set": "height", "to": "high"}
    assert expand({"goals": [high, dict(high)]}, quadruped) == expand({"goals": [high]}, quadruped)
    for other in ({"set": "height", "to": "low"}, {"change": "height", "by": "2 cm"}):
        with pytest.raises(Inexpressible, match="two different values of height at once"):
            expand({"goals": [high, other]}, quadruped)


def test_what_only_restrains_a_robot_on_legs_leaves_it_its_work(quadruped):
    """ "Don't turn" ends no run; but what the run says of turning gives way, and a robot that stands stays."""
    run = {"plugin": "expression", "params": {"expression": "min(forward_velocity, 1)"}}
    curve = {"plugin": "expression", "params": {"expression": "-abs(yaw_rate - 0.5)"}}
    at_work = replace(quadruped, reward=parse_spec({"name": "Run in a circle", "terms": [run, curve]}))
    straight = {"set": "yaw_rate", "to": "low"}
    spec, sentence = expand({"goals": [straight]}, at_work)
    said = [term.params["expression"] for term in spec.terms]
    assert said == ["min(forward_velocity, 1)", "-max(abs(yaw_rate) - 0.2, 0)"]
    assert sentence == "Go on with: Run in a circle; keep yaw_rate low."
    assert spec.name == "Run in a circle; keep yaw_rate low"
    (alone,) = terms({"goals": [straight]}, replace(quadruped, reward=expand({"goals": ["stop"]}, quadruped)[0]))
    assert alone["params"]["expression"] == "-max(abs(yaw_rate) - 0.2, 0)"
    assert len(terms({"goals": [straight, {"set": "height", "to": "low"}]}, at_work)) == 2  # crouching is other work


BEYOND_THEM = {  # of the shipped robots on legs: what their gaits cannot do
    "quadruped": {},
    "walker": {
        "height": "cannot change its height",
        "forward_velocity backward": "forward_velocity cannot be backward",
    },
    "hopper": {"height": "cannot change its height", "pitch nose up": "pitch cannot be nose up"},
}


@pytest.mark.parametrize("name", ["quadruped", "walker", "hopper"])
def test_all_that_can_be_asked_of_a_shipped_robot_on_legs_is_a_reward_that_its_planner_takes_or_refused(name):
    spec = Artifact.load(zoo_path(name)).spec
    values = {signal.name: 0.27 if signal.name == "height" else 0.0 for signal in spec.signals}
    scene = Scene.of(spec, values, registry.available(), has_goal=False, reward=RewardSpec(()))
    asked = [
        {"set": signal, "to": to}
        for signal in scene.others
        for to in (*LEVELS, *directions(scene.by_name[signal]), "0.2 m/s", "0.1 rad", "0.1 rad/s", "27 cm", "0.5")
    ]
    validator = jsonschema.Draft202012Validator(intent_schema(scene))
    sayable = [goal for goal in asked if validator.is_valid({"goals": [goal]})]
    assert {goal["set"] for goal in sayable} == set(scene.others)
    for goal in sayable:
        beyond = [why for what, why in BEYOND_THEM[name].items() if f"{goal['set']} {goal['to']}".startswith(what)]
        if beyond:
            with pytest.raises(Inexpressible, match=beyond[0]):
                expand({"goals": [goal]}, scene)
            continue
        (term,) = expand({"goals": [goal]}, scene)[0].terms  # checked against the model's signals and units
        # A third of a range is worth what the standing reward counts in, or the robot would not heed it.
        assert term.weight * THIRDS[scene.by_name[goal["set"]].unit] > 0.3


@pytest.mark.parametrize("name", ["walker", "hopper"])
def test_a_posture_that_is_a_gaits_leaves_its_motion_in_force(name):
    run = parse_spec({"terms": [{"plugin": "expression", "params": {"expression": "min(forward_velocity, 1)"}}]})
    spec = Artifact.load(zoo_path(name)).spec
    scene = Scene.of(spec, dict.fromkeys((s.name for s in spec.signals), 0.0), registry.available(), reward=run)
    lean, fast = {"set": "pitch", "to": "nose down"}, {"set": "forward_velocity", "to": "high"}

    def said(*goals: object, reward: RewardSpec = run) -> list[str]:
        found = terms({"goals": list(goals)}, replace(scene, reward=reward))
        return [re.findall(r"[a-z]\w+", term["params"]["expression"])[-1] for term in found]

    assert said(lean) == ["forward_velocity", "pitch"]
    assert said({"change": "pitch", "by": "0.1 rad"}) == ["forward_velocity", "pitch"]
    assert said(fast, lean) == ["forward_velocity", "pitch"]  # the speed that was told, not the one before
    assert expand({"goals": [fast, lean]}, scene)[0].terms[0] == expand({"goals": [fast]}, scene)[0].terms[0]
    stop = expand({"goals": ["stop"]}, scene)[0]
    assert expand({"goals": [lean]}, replace(scene, reward=stop))[0].terms[0] == stop.terms[0]


def test_a_height_counts_more_where_the_robot_is_not_to_go_anywhere(quadruped):
    tall, lean, on = {"set": "height", "to": "high"}, {"set": "roll", "to": "left"}, {"set": "height", "to": "30 cm"}
    running = replace(
        quadruped, reward=parse_spec({"terms": [{"plugin": "expression", "params": {"expression": "1"}}]})
    )

    def weights(*goals: object) -> list[float]:
        return [term["weight"] for term in terms({"goals": list(goals)}, running)]

    (alone,) = weights(tall)
    (level,) = weights(lean)
    assert weights(on) == weights(tall)
    assert weights(tall, lean) == [alone, level]
    assert weights("stop", tall)[1] == alone
    assert weights(tall, {"set": "forward_velocity", "to": "forward"})[0] == alone / 2
    assert weights("current", tall)[1] == alone / 2  # it runs on


def test_standing_is_a_stop(quadruped):
    assert is_stop(expand({"goals": ["stop"]}, quadruped)[0])


def test_a_change_that_leads_out_of_reach_is_refused(quadruped):
    with pytest.raises(Inexpressible, match=r"it can be between 0\.18 and 0\.34 m"):
        expand({"goals": [{"change": "height", "by": "-20 cm"}]}, quadruped)
