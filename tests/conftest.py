"""Fixtures that several test folders share."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def support(name: str) -> ModuleType:
    """A module of tests/support."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "support" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_language() -> ModuleType:
    """The module tests/support/tiny_language.py: models and a grammar over a handful of tokens."""
    return support("tiny_language")


@pytest.fixture(scope="session")
def tiny_artifact_builder() -> ModuleType:
    """The module tests/support/tiny_artifact.py: `build(folder, seed=0)` and the graphs one by one."""
    return support("tiny_artifact")


@pytest.fixture(scope="session")
def tiny_artifact(tiny_artifact_builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole, real, untrained artifact of the Push-T shape, thresholds included. Copy it before changing it."""
    return tiny_artifact_builder.build(tmp_path_factory.mktemp("zoo") / "push_t")
