"""The shipped walker: from standing it walks, and its dynamics can be adapted to a broken ankle."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.support.scripts import benchmark
from worldpilot.cli.main import main
from worldpilot.evaluation.asked import load
from worldpilot.evaluation.controllers import Planning
from worldpilot.evaluation.locomotion import plan_trials, run_trials
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.dynamics.adapt import AdaptConfig
from worldpilot.sim.planar import Walker

pytestmark = pytest.mark.slow
FORWARD = load(Path(__file__).parents[2] / "benchmarks" / "forward.json")


@pytest.fixture(scope="module")
def shipped() -> Artifact:
    return Artifact.load(zoo_path("walker"))


def test_the_planner_walks_from_standing(shipped: Artifact) -> None:
    trials = plan_trials(["mpc"], FORWARD.rewards, [77], "walker")
    (episode,) = run_trials(shipped, FORWARD, trials, Planning.of("walker"))
    assert not episode.meta["fallen"]
    assert np.mean(episode.signals["forward_velocity"][100:]) > 0.8
    assert episode.meta["distance"] > 3.5


def test_it_is_adapted_to_a_broken_ankle(shipped: Artifact, tmp_path: Path) -> None:
    with closing(Walker()) as world:
        lab = benchmark("adaptation").Lab("walker", world, tmp_path, tmp_path, AdaptConfig())
        lab.broken(4)
    command = ["adapt", "--task", "walker", "--data", str(tmp_path / "broken"), "--out", str(tmp_path / "adapted")]
    assert main([*command, "--steps", "60", "--rollout", "2"]) == 0
    adapted = Artifact.load(tmp_path / "adapted")
    metrics = adapted.manifest["metrics"]
    assert metrics["adapted_nmse_1_after"]["value"] < metrics["adapted_nmse_1_before"]["value"]
    assert adapted.spec.model_id != shipped.spec.model_id
    kept = {name: graph["sha256"] for name, graph in adapted.manifest["graphs"].items() if name != "predictor"}
    assert kept.items() <= {name: graph["sha256"] for name, graph in shipped.manifest["graphs"].items()}.items()
