"""Requests drawn to choose by: seeded, expressible, and none that asks for two things of one signal."""

import jsonschema
import numpy as np
import pytest

from tests.support.scripts import benchmark
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.planners.rewards import registry
from worldpilot.reasoning.scene import Scene
from worldpilot.reasoning.schema import intent_schema

requests = benchmark("drawn_requests")
draw = requests.draw


@pytest.fixture(scope="module")
def drawn():
    return [draw(np.random.default_rng([1, i]), str(i)) for i in range(200)]


def test_all_of_them_can_be_said_of_the_quadruped(drawn):
    artifact = Artifact.load(zoo_path("quadruped"))
    readings = {signal.name: 0.0 for signal in artifact.spec.signals}
    scene = Scene.of(artifact.spec, readings, registry.available(), has_goal=False, reward=None)
    validator = jsonschema.Draft202012Validator(intent_schema(scene))
    for question in drawn:
        validator.validate(dict(question.intents[0]))


def test_each_goal_has_its_bounds(drawn):
    assert drawn[:20] == [draw(np.random.default_rng([1, i]), str(i)) for i in range(20)]
    for question in drawn:
        goals, means = question.intents[0]["goals"], question.judge[0]["mean"]
        signals = [goal["set"] for goal in goals if goal != "stop"]
        assert len(set(signals)) == len(signals)
        assert set(signals) <= set(means)
        assert all(low is None or high is None or low < high for low, high in means.values())
    assert {len(question.intents[0]["goals"]) for question in drawn} == {1, 2, 3}
    assert any("stop" in question.intents[0]["goals"] for question in drawn)
