"""What the tests of legged evaluation share."""

from collections.abc import Iterator

import pytest

from tests.support.tiny_legged import build
from worldpilot.models.artifact import Artifact
from worldpilot.sim.quadruped import Quadruped


@pytest.fixture(scope="session")
def legged(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artifact of the quadruped that has learned nothing."""
    return Artifact.load(build(tmp_path_factory.mktemp("zoo") / "quadruped"))


@pytest.fixture
def quadruped() -> Iterator[Quadruped]:
    world = Quadruped()
    yield world
    world.close()
