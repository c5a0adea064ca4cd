"""The benchmark of a tick times every step, of tasks that are seen and of tasks that are measured."""

import json
from types import ModuleType

import pytest

from tests.support.scripts import benchmark
from worldpilot.evaluation.controllers import Planning
from worldpilot.models.artifact import Artifact


@pytest.fixture(scope="module")
def solve() -> ModuleType:
    return benchmark("solve")


@pytest.mark.parametrize(("task", "artifact"), [("push_t", "tiny_artifact"), ("quadruped", "tiny_legged")])
def test_every_step_is_timed(solve: ModuleType, task: str, artifact: str, request: pytest.FixtureRequest) -> None:
    model = Artifact.load(request.getfixturevalue(artifact))
    result = solve.measure(task, 12, 0, model, proposals=8)
    json.dumps(result)
    assert result["proposals"] == 8
    assert result["ssr"] == dict(Planning.of(task).solver)
    steps = {"encode", "propose", *(f"solve_{name}" for name in solve.SOLVERS)}
    assert set(result["ms"]) == set(result["cpu_ms"]) == steps
    for figures in result["ms"].values():
        assert 0 < figures["p50"] <= figures["p99"]
