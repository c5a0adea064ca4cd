"""Conditions of the simulated graph: what they have in common, and what sets them apart."""

from contextlib import closing

import pytest

from tests.support.scripts import benchmark
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.sim.tasks import task

late = benchmark("late_commands")


@pytest.fixture(scope="module")
def episode():
    artifact = Artifact.load(zoo_path("hopper"))
    with closing(task("hopper").world()) as world:
        yield lambda condition: late.run(artifact, world, 3, 20, condition)


def test_conditions_are_told_apart():
    described = [tuple(condition.describe().items()) for condition in late.CONDITIONS]
    assert len(set(described)) == len(described)


def test_an_episode_is_repeatable_and_counting_matters_only_where_ticks_are_missed(episode):
    in_time = episode(late.Condition("in time"))
    assert in_time == episode(late.Condition("in time"))
    assert in_time == episode(late.Condition("in time", counts=False))
    missed = episode(late.Condition("in time", missed=0.4))
    assert missed != in_time
    assert missed != episode(late.Condition("in time", missed=0.4, counts=False))
    assert missed["steps"] == 20
