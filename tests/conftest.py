"""Fixtures that several test folders share."""

from pathlib import Path
from types import ModuleType

import pytest

from tests.support.scripts import load


def support(name: str) -> ModuleType:
    """The module tests/support/<name>.py."""
    return load(Path(__file__).parent / "support" / f"{name}.py")


@pytest.fixture(scope="session")
def tiny_artifact_builder() -> ModuleType:
    """The module tests/support/tiny_artifact.py: `build(folder, seed=0)` and the graphs one by one."""
    return support("tiny_artifact")


@pytest.fixture(scope="session")
def tiny_artifact(tiny_artifact_builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole, real, untrained artifact of the Push-T shape, thresholds included. Copy it before changing it."""
    return tiny_artifact_builder.build(tmp_path_factory.mktemp("zoo") / "push_t")


@pytest.fixture(scope="session")
def tiny_legged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole, real, untrained artifact of the quadruped's shape, without thresholds."""
    return support("tiny_legged").build(tmp_path_factory.mktemp("zoo") / "quadruped")


@pytest.fixture(scope="session")
def tiny_language() -> ModuleType:
    """The module tests/support/tiny_language.py: models and a grammar small enough to enumerate."""
    return support("tiny_language")


@pytest.fixture(scope="session")
def language_models() -> ModuleType:
    """The module tests/support/language_models.py: `babbler(folder)` and `parrot(folder, lessons, system)`."""
    return support("language_models")


@pytest.fixture(scope="session")
def babbler(language_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a language model with random weights, of 2048 tokens of context."""
    return language_models.babbler(tmp_path_factory.mktemp("babbler"))
