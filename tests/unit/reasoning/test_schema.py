"""The language of answers follows the running graph: what it lacks cannot be said."""

from dataclasses import replace

import jsonschema
import pytest

from worldpilot.reasoning.scene import Signal
from worldpilot.reasoning.schema import available_paces, intent_schema

SAYINGS = [
    ({"goals": [{"place": "block", "at": "left edge"}]}, "goal_pose"),
    ({"goals": [{"shift": "gripper", "way": "left", "by": "1 cm"}]}, "goal_pose"),
    ({"goals": [{"turn": "block", "way": "left", "by": "some"}]}, "goal_pose"),
    ({"goals": [{"keep": "block", "in": "middle"}]}, "tolerance"),
    ({"goals": [{"avoid": "block", "of": "left edge"}]}, "tolerance"),
    ({"goals": [{"avoid": "gripper", "of": "block"}]}, "expression"),
    ({"goals": [{"set": "gripper_z", "to": "low"}]}, "expression"),
    ({"goals": [{"limit": "speed", "to": "1 cm/s"}]}, "expression"),
    ({"goals": ["stop"]}, "expression"),
    ({"goals": ["current"], "pace": "gentle"}, "smoothness"),
]


def says(scene, intent) -> bool:
    return jsonschema.Draft202012Validator(intent_schema(scene)).is_valid(intent)


@pytest.mark.parametrize(("intent", "plugin"), SAYINGS)
def test_a_goal_needs_its_plugin(scene, intent, plugin):
    assert says(scene, intent)
    assert not says(replace(scene, plugins=scene.plugins - {plugin}), intent)


@pytest.mark.parametrize(
    "intent",
    [
        {"goals": [{"place": "cup", "at": "left edge"}]},
        {"goals": [{"set": "temperature", "to": "low"}]},
        {"goals": [{"turn": "gripper", "way": "left", "by": "some"}]},  # it has no yaw
        {"goals": [{"shift": "block", "way": "up", "by": "some"}]},  # it has no z
        {"goals": [{"set": "pitch", "to": "3 cm"}]},  # another unit
        {"goals": ["goal image"]},  # none was set
        {"goals": []},
        {"goals": ["stop"], "reward": "anything else"},
        {"refuse": "because"},
    ],
)
def test_what_is_not_there_cannot_be_said(scene, intent):
    assert not says(scene, intent)


def test_the_goal_image_once_there_is_one(scene):
    assert says(replace(scene, has_goal=True), {"goals": ["goal image"]})


def test_edges_are_only_those_of_known_spaces(scene):
    endless = replace(scene, signals=tuple(replace(signal, low=None, high=None) for signal in scene.signals))
    assert not says(endless, {"goals": [{"place": "block", "at": "left edge"}]})
    assert says(endless, {"goals": [{"place": "block", "at": "1 2 cm"}]})
    assert not says(endless, {"goals": [{"keep": "block", "in": "left half"}]})


def test_without_signals_there_are_only_words_refusals_and_answers(scene):
    bare = replace(scene, signals=(), plugins=frozenset(), reward=None, max_speed=None)
    assert available_paces(bare) == []
    assert not says(bare, {"goals": ["stop"]})
    assert says(bare, {"refuse": "ability"})
    assert says(bare, {"answer": "stop"})


@pytest.mark.parametrize(
    ("signal", "to", "sayable"),
    [
        ("pitch", "nose up", True),
        ("pitch", "nose up 10 deg", True),
        ("pitch", "-10 deg", True),
        ("pitch", "negative", False),
        ("pitch", "left", False),
        ("pitch", "nose up -10 deg", False),
        ("flow", "nose up", False),
        ("flow", "positive", False),  # its sign is no direction
        ("slide_velocity", "negative", True),
        ("slide_velocity", "negative 2 cm/s", True),
    ],
)
def test_the_directions_of_a_signal_have_words_of_its_own(scene, signal, to, sayable):
    scene = replace(scene, signals=(*scene.signals, Signal("slide_velocity", "m/s")))
    assert says(scene, {"goals": [{"set": signal, "to": to}]}) == sayable
