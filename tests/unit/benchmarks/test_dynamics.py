"""The comparison of dynamics: what has learned predicts better, and only the same held-out episodes are compared."""

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.scripts import benchmark
from worldpilot.types import ActionSpec


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return benchmark("dynamics")


def test_what_has_learned_predicts_better(bench: ModuleType, joint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "milliseconds", lambda *_: {"rollout_p50": 1.5})  # see the next test
    result = bench.compare(joint.store, [joint.models["step"], joint.models["multi"]], joint.prior)
    json.dumps(result)
    assert result["episodes"] == len(joint.store.split()[1])
    step, multi = (result["kinds"][name] for name in ("step", "multi"))
    assert step["horizons"] == [1, 4]
    for learned, raw, (low, high) in zip(step["nmse"], multi["nmse"], step["nmse_ci"], strict=True):
        assert learned < 0.3 * raw
        assert low <= learned <= high
    assert multi["nmse"] == pytest.approx(multi["nmse_copy"], rel=0.1)  # to begin with nothing changes
    (line,) = [line for line in bench.table(result).splitlines() if line.startswith("| step |")]
    assert f"{step['nmse'][0]:.3f} [{step['nmse_ci'][0][0]:.3f}, {step['nmse_ci'][0][1]:.3f}]" in line


def test_times_are_of_the_exported_artifact(bench: ModuleType, joint: Any) -> None:
    spec = ActionSpec.from_dict(joint.store.meta["action"])
    times = bench.milliseconds("joint", spec, joint.models["multi"], joint.prior)
    assert 0 < times["rollout_p50"] <= times["rollout_p99"]
    assert times["propose_p50"] > 0


def test_models_of_other_data_are_refused(bench: ModuleType, joint: Any) -> None:
    with pytest.raises(SystemExit, match="other data"):
        bench.compare(joint.store, [joint.models["elsewhere"]], joint.prior)


def test_intervals_resample_whole_episodes(bench: ModuleType) -> None:
    rng = np.random.default_rng(0)
    level = rng.normal(size=30)
    low, high = bench.interval(np.repeat(level, 100), np.repeat(np.arange(30), 100), seed=0)
    assert low < level.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * level.std() / np.sqrt(30), rel=0.15)
