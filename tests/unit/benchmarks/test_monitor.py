"""The monitor's benchmark: pairs differ by the fault alone, scores are those of the robot, baselines what they say."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from worldpilot.calibration.detection import threshold
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode
from worldpilot.sim.tasks import task

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def monitor() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    return importlib.import_module("monitor")


@pytest.fixture(scope="module")
def runs(monitor: ModuleType) -> ModuleType:
    return sys.modules["monitor_runs"]


@pytest.fixture(scope="module")
def artifact(tiny_legged: Path) -> Artifact:
    return Artifact.load(tiny_legged)


def test_a_plan_runs_the_first_test_episodes_again_with_each_fault(runs: ModuleType) -> None:
    plan = runs.plan({"shape": 2, "calibration": 3, "test": 4}, {"push": {}, "delay": {}}, 2)
    assert [run.part for run in plan if not run.fault] == ["shape"] * 2 + ["calibration"] * 3 + ["test"] * 4
    again = [(run.fault, run.seed) for run in plan if run.fault]
    first = runs.PARTS["test"]
    assert again == [("push", first), ("push", first + 1), ("delay", first), ("delay", first + 1)]
    assert len({run.key for run in plan}) == len(plan)


def test_pairs_differ_by_the_fault_alone_and_what_is_there_is_not_run_again(
    runs: ModuleType, artifact: Artifact, tmp_path: Path
) -> None:
    plan = [runs.Run("test", 4_200_001), runs.Run("test", 4_200_001, "locked_joint")]
    assert not runs.record(artifact, plan, tmp_path, minutes=0.0)
    assert runs.record(artifact, plan, tmp_path, minutes=5.0)
    good, bad = sorted(runs.load(tmp_path, artifact), key=lambda e: e.meta["fault"])
    at = good.meta["at"]
    assert at == bad.meta["at"]
    assert 0 <= bad.meta["params"]["joint"] < 12
    np.testing.assert_array_equal(good.observations[: at + 1], bad.observations[: at + 1])
    assert np.abs(good.observations[at + 1 : len(bad) + 1] - bad.observations[at + 1 : len(good) + 1]).max() > 0
    before = sorted(file.name for file in tmp_path.iterdir())
    assert runs.record(artifact, plan, tmp_path, minutes=5.0)
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_every_task_has_room_for_a_fault_after_a_whole_history(runs: ModuleType, artifact: Artifact) -> None:
    spec, course = artifact.spec, runs.COURSES["quadruped"]
    assert (spec.history - 1 + spec.horizon) * spec.action.block <= course.steps - course.window
    assert all(policy in task("quadruped").behaviours for policy in course.policies)


def test_scores_of_whole_episodes_are_the_trackers(monitor: ModuleType, artifact: Artifact) -> None:
    spec, rng = artifact.spec, np.random.default_rng(0)
    steps = (spec.history + spec.horizon + 2) * spec.action.block
    latents = rng.normal(size=(steps + 1, spec.latent_dim)).astype(np.float32)
    controls = rng.uniform(-0.3, 0.3, (steps, spec.action.control_dim)).astype(np.float32)
    episode = Episode(latents, controls, {}, {"seed": 0, "behaviour": "run"})
    model = monitor.Model(artifact)
    model.check(episode)
    scored = monitor.Scored(model, episode)
    assert np.isnan(scored.steps["surprise"][: spec.history * spec.action.block]).all()
    assert scored.largest("surprise") == np.nanmax(scored.steps["surprise"])
    assert scored.largest("surprise", 0, 2) == -np.inf
    limit = float(np.sort(scored.steps["surprise"][~np.isnan(scored.steps["surprise"])])[-2])
    assert scored.first_above("surprise", limit, 3) == int(np.nanargmax(scored.steps["surprise"])) - 3
    assert scored.first_above("surprise", scored.largest("surprise")) is None


def test_cusum_is_the_largest_sum_of_any_stretch_that_ends_now(monitor: ModuleType) -> None:
    z = np.random.default_rng(1).normal(size=40)
    found = monitor.cusum(np.concatenate([[np.nan], z]), slack=0.5)
    assert np.isnan(found[0])
    for t in range(40):
        sums = [np.sum(z[j : t + 1] - 0.5) for j in range(t + 1)]
        assert found[t + 1] == pytest.approx(max(0.0, *sums))


def test_novelty_is_larger_where_nothing_was_seen(monitor: ModuleType) -> None:
    rng = np.random.default_rng(2)
    seen = rng.normal(size=(2000, 6)).astype(np.float32)
    novelty = monitor.distil(seen, seed=0, steps=150)
    near, far = novelty(rng.normal(size=(200, 6)).astype(np.float32)), novelty(seen[:200] + 6.0)
    assert np.median(far) > 10 * np.median(near)


def test_crepes_and_mapie_agree_with_the_threshold(monitor: ModuleType) -> None:
    maxima = np.random.default_rng(3).exponential(size=211)
    found = monitor.oracles(maxima)
    assert found["ours"] == threshold(maxima, monitor.ALPHA)
    assert found["crepes"] == pytest.approx(found["ours"])
    assert found["mapie"] == pytest.approx(found["ours"])
