"""A robot on legs that is asked for one thing after another."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldpilot.cli.main import main
from worldpilot.errors import InvalidInput
from worldpilot.evaluation import practice
from worldpilot.evaluation.controllers import Planner, Planning, Setting
from worldpilot.evaluation.practice import draw, practise
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.data.episodes import Episode, EpisodeStore
from worldpilot.planners.rewards import registry
from worldpilot.planners.rewards.registry import parse_spec
from worldpilot.reasoning.evaluation import RUN
from worldpilot.reasoning.expand import expand
from worldpilot.reasoning.scene import Scene
from worldpilot.sim.legged import LeggedWorld
from worldpilot.sim.quadruped import ROBOT, Quadruped

CHEAP = Planning(solver={"samples": 2, "refinements": 1}, replan=4)


def scene(name: str) -> Scene:
    """A shipped robot, at rest."""
    spec = Artifact.load(zoo_path(name)).spec
    values = dict.fromkeys((signal.name for signal in spec.signals), 0.0)
    return Scene.of(spec, values, registry.available(), has_goal=False, reward=RUN)


def episode(legged: Artifact, seed: int, steps: int = 12) -> Episode:
    with closing(Quadruped()) as world:
        return practise(legged, world, CHEAP, seed, steps)


def test_an_episode_is_its_seeds_and_tells_what_was_asked_for(legged: Artifact, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(practice, "REQUEST", 0.1)
    first, again, other = episode(legged, 3), episode(legged, 3), episode(legged, 4)
    np.testing.assert_array_equal(first.observations, again.observations)
    np.testing.assert_array_equal(first.controls, again.controls)
    assert first.meta["asked"] == again.meta["asked"]
    assert first.meta["asked"] != other.meta["asked"]
    assert len(first.meta["asked"]) == 3  # after 0, 5 and 10 control steps
    assert all(intent["goals"] for intent in first.meta["asked"])
    assert (first.meta["behaviour"], first.meta["model_id"]) == (practice.PRACTICE, legged.spec.model_id)
    assert len(first) == 12


def test_who_falls_is_told_apart(legged: Artifact):
    with closing(LeggedWorld(replace(ROBOT, fallen_height=1.0))) as world:  # [m]: it never stands so high
        found = practise(legged, world, CHEAP, 0, 50)
    assert found.meta["behaviour"] == practice.FALLS
    assert len(found) == 1 + practice.AFTER_FALL


@pytest.mark.parametrize("name", ["quadruped", "walker", "hopper"])
def test_everything_that_a_robot_can_change_is_asked_for_in_words_and_as_values(name: str):
    rng, now = np.random.default_rng(0), scene(name)
    drawn = [draw(now, rng) for _ in range(300)]
    goals = [goal for intent in drawn for goal in intent["goals"] if goal != "stop"]
    ranged = {signal.name for signal in now.signals if signal.bounded and not signal.fixed}
    assert {goal["set"] for goal in goals} == ranged
    assert {len(intent["goals"]) for intent in drawn} == set(range(1, min(len(ranged), 3) + 1))
    assert 0.4 < np.mean([goal["to"][-1] in "mds" and any(c.isdigit() for c in goal["to"]) for goal in goals]) < 0.6
    assert 0.05 < np.mean([intent["goals"][0] == "stop" for intent in drawn]) < 0.2
    refused = 0
    for intent in drawn:
        try:
            expand(intent, now)
        except Exception:
            refused += 1
    assert refused < 0.3 * len(drawn)  # "backward" of one that only goes forward


def test_a_planner_follows_another_reward_from_the_next_step_on(legged: Artifact):
    with closing(Quadruped()) as world:
        reward = parse_spec({"terms": [{"plugin": "expression", "params": {"expression": "-height"}}]})
        planner = Planner(Setting(legged, world, RUN, CHEAP, 0), "ssr")
        state, still = world.observe().data, np.zeros(12, np.float32)
        planner.act(state, still)
        before = planner.plan
        planner.swap(reward)
        planner.act(state, still)
        assert before is not None
        assert planner.plan is not None
        assert planner.plan.terms["expression"] < -0.1 < before.terms["expression"]


def test_from_the_command_line(legged: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = ["--out", str(tmp_path / "data")]
    more = ["--artifact", str(legged.path), "--episodes", "2", "--steps", "6", "--seed", "5", "--workers", "1"]
    assert main(["practise", "quadruped", *out, *more]) == 0
    store = EpisodeStore(tmp_path / "data")
    assert sorted(store[i].meta["seed"] for i in range(len(store))) == [5, 6]
    assert store.meta["symmetries"]
    capsys.readouterr()
    assert main(["practise", "push_t", *out]) == 2
    assert "no robot on legs" in capsys.readouterr().err
    assert main(["practise", "quadruped", *out, *more, "--solver", '{"sample": 2}']) == 2
    assert "samples" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "says"), [("5", "a JSON object like"), ("{samples: 2}", "not JSON")])
def test_settings_that_are_no_object_are_refused(text: str, says: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["practise", "quadruped", "--out", "data", "--solver", text])
    assert says in capsys.readouterr().err


def test_a_search_can_be_wider_and_more_careful_than_its_graphs():
    planning = Planning.of("quadruped")
    wider = planning.searching({"samples": 40}, {"hypot": 0.5, "disagreement": 2})
    assert dict(wider.solver) == {**planning.solver, "samples": 40}
    assert planning.standing is not None
    assert wider.standing is not None
    factors = {
        next((word for word in ("hypot", "disagreement") if word in str(before.params)), ""): after.weight
        / before.weight
        for before, after in zip(planning.standing.terms, wider.standing.terms, strict=True)
    }
    assert factors == {"": 1.0, "hypot": 0.5, "disagreement": 2.0}
    assert planning.searching({}, {}) == planning


@pytest.mark.parametrize("weights", [{"agreement with nobody": 2.0}, {"hypot": -1.0}, {"hypot": "much"}])
def test_a_search_is_not_weighed_by_what_there_is_not(weights: dict[str, float]):
    with pytest.raises(InvalidInput, match=r"standing reward|factor"):
        Planning.of("quadruped").searching({}, weights)
