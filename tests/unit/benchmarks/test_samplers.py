"""The comparison of samplers: its distance is 0 for the data itself, and grows with what is wrong."""

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.scripts import benchmark


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return benchmark("samplers")


def test_every_sampler_of_a_prior_is_compared(bench: ModuleType, joint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "STEPS", (1, 4))
    result = bench.compare(joint.store, joint.models["step"], [joint.prior])
    json.dumps(result)
    assert {(row["sampler"], row["steps"]) for row in result["rows"]} >= {("flow", 1), ("flow", 4)}
    assert all(row["energy_distance"] > result["floor"] and row["ms"] > 0 for row in result["rows"])
    assert bench.table(result).count("\n| flow |") == 2


def test_the_distance_is_0_for_one_distribution_and_grows_with_a_shift(bench: ModuleType) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1500, 3))
    same, near, far = (bench.energy_distance(a, b + shift) for shift in (0.0, 0.3, 1.0))
    assert abs(same) < 0.005
    assert 0.02 < near < far
