"""The shipped walker and hopper: from standing it walks, they change their pace and stop when they are told to, and the
walker's dynamics can be adapted to a broken ankle."""

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
from worldpilot.reasoning.evaluation import LegStage, Question
from worldpilot.reasoning.expand import expand
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


@pytest.mark.parametrize("name", ["walker", "hopper"])
def test_told_to_they_stop_go_slowly_and_go_fast(name: str) -> None:
    speeds = {"stop": (-0.1, 0.1), "low": (0.05, 0.35), "high": (0.5, 1.3)}
    with closing(LegStage(name, 11)) as stage:
        for to, (lowest, highest) in speeds.items():
            goal = to if to == "stop" else {"set": "forward_velocity", "to": to}
            condition = {"mean": {"forward_velocity": [lowest, highest]}}
            question = Question(name, to, ({"goals": [goal]},), (condition,))
            reward, _ = expand({"goals": [goal]}, stage.scene(question))
            assert stage.judge(reward, question, reward), f"told: {to}"


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
