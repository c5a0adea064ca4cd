"""What the tests of legged evaluation share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from worldpilot.models.artifact import Artifact
from worldpilot.sim.quadruped import Quadruped


@pytest.fixture(scope="session")
def legged(tiny_legged: Path) -> Artifact:
    """An artifact of the quadruped that has learned nothing."""
    return Artifact.load(tiny_legged)


@pytest.fixture
def quadruped() -> Iterator[Quadruped]:
    world = Quadruped()
    yield world
    world.close()
