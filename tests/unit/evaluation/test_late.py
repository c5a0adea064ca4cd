"""Evaluation in a world that is late and heavy, as a system file says."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from worldpilot.cli.main import main
from worldpilot.evaluation import policies
from worldpilot.evaluation.cases import make_cases
from worldpilot.evaluation.run import evaluate
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.sim.push_t import PushT
from worldpilot.system import System

SYSTEM = System("push_t", 0.06, 0.05, {"friction": 0.4})


def test_the_planner_is_told_of_the_systems_delay_unless_another_is_given(tmp_path: Path) -> None:
    SYSTEM.save(tmp_path / "system.yaml")
    figures = tmp_path / "figures.json"
    command = ["evaluate", "push_t", "--protocol", "goal-image", "--episodes", "1", "--policies", "mpc"]
    command += ["--system", str(tmp_path / "system.yaml"), "--json", str(figures)]

    def planner(*more: str) -> float:
        assert main([*command, *more]) == 0
        result = json.loads(figures.read_text())
        assert result["system"] == {
            "delays": {"control": 0.06, "camera": 0.05},
            "parameters": {"friction": 0.4},
        }
        return result["planner"]["delay"]

    assert planner() == pytest.approx(0.11)
    assert planner("--delay", "0") == 0


def test_a_file_for_another_task_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    System("push_cube").save(tmp_path / "system.yaml")
    assert main(["evaluate", "push_t", "--system", str(tmp_path / "system.yaml"), "--episodes", "1"]) == 2
    assert "push_cube" in capsys.readouterr().err


def test_goals_are_taken_where_nothing_is_late() -> None:
    late, prompt = (make_cases("push_t", "goal-image", "novel", 1, 0, s) for s in (SYSTEM, SYSTEM.immediate))
    for a, b in zip(late, prompt, strict=True):
        assert a.goal_signals == b.goal_signals
        assert (a.goal_image == b.goal_image).all()


def test_delays_begin_with_the_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []

    class Probe(policies.Scripted):
        def __init__(self, setting: policies.Setting) -> None:
            assert isinstance(setting.world, PushT)
            lines.append((setting.world.faults, setting.case.prefix))
            super().__init__(policies._noop(setting))

    monkeypatch.setitem(policies.POLICIES, "probe", Probe)
    evaluate(Artifact.load(zoo_path("push_t")), ["probe"], 1, 0, protocol="goal-image", system=SYSTEM)
    faults, prefix = lines[0]
    assert prefix is not None
    assert faults.controls._share == pytest.approx(0.6)
    assert faults.observations._moment == 6


@pytest.mark.parametrize("delay", [0.05, 0.1])
def test_what_is_planned_for_a_late_robot_comes_true_only_if_the_planner_is_told(delay: float) -> None:
    """Of the shipped model on Push-T: where the pusher will be a model step after each plan."""
    artifact = Artifact.load(zoo_path("push_t"))
    cases = make_cases("push_t", "goal-image", "novel", 2, 7)

    def error(told: float) -> float:
        errors = []
        with closing(PushT()) as world:
            for case in cases:
                case.reset(world)
                world.inject("delay", seconds=delay)
                setting = policies.Setting(artifact, world, case, np.random.default_rng(0), 5, True, {}, told)
                planner, expected = policies.Planner(setting, "ssr"), np.zeros(2)
                for step in range(21):
                    if step % 5 == 0 and step > 5:
                        errors.append(np.linalg.norm(expected - world.pusher()))
                    world.drive(planner.act(world.observe().data))
                    if step % 5 == 0:
                        plan = planner.plan
                        assert plan is not None
                        expected = np.array([plan.imagined.signals[f"pusher_{axis}"][0, 0] for axis in "xy"])
        return float(np.mean(errors))

    assert error(delay) < 0.7 * error(0.0)
