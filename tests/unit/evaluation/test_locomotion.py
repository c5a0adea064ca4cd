"""Trials of policies on the quadruped under rewards, and what is computed from them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldpilot import graph
from worldpilot.cli.main import main
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.evaluation import asked
from worldpilot.evaluation.controllers import Planner, Planning, Setting
from worldpilot.evaluation.locomotion import measured, plan_trials, run_trial, run_trials, score, summarise
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode, EpisodeStore
from worldpilot.planners.rewards.registry import parse_spec, to_dict
from worldpilot.planners.stall import EscapeConfig
from worldpilot.sim.quadruped import ROBOT, Quadruped
from worldpilot.system import System

SHORT = replace(asked.load(), warm_up=6, steps=8)
SIGNALS = ROBOT.signals
CHEAP = Planning(solver={"samples": 2, "refinements": 1}, replan=4)


def test_policies_of_a_seed_are_given_the_same_moving_robot(legged: Artifact) -> None:
    trials = plan_trials(["prior", "mpc", "cem"], SHORT.select(("slow", "stop")), range(2), "quadruped")
    assert [trial.key for trial in trials[:5]] == [
        ("prior", "", 0),
        ("mpc", "slow", 0),
        ("mpc", "stop", 0),
        ("cem", "slow", 0),
        ("cem", "stop", 0),
    ]
    episodes = run_trials(legged, SHORT, trials, CHEAP)
    for seed in range(2):
        of_seed = [e for e in episodes if e.meta["seed"] == seed]
        for episode in of_seed[1:]:
            np.testing.assert_array_equal(episode.observations[:7], of_seed[0].observations[:7])
        assert len({episode.controls[6:].tobytes() for episode in of_seed}) > 1
    assert (episodes[0].observations[0] != episodes[5].observations[0]).any()


def test_a_robot_that_is_held_at_first_stands_and_is_measured_afterwards(legged: Artifact) -> None:
    protocol = replace(SHORT, warm_up=0, held=10)
    trials = plan_trials(["prior", "mpc"], protocol.select(("slow",)), range(4), "quadruped")
    episodes = run_trials(legged, protocol, trials, CHEAP)
    waits = [episode.meta["held"] for episode in episodes]
    assert waits[::2] == waits[1::2]
    assert len(set(waits)) > 1
    for episode, held in zip(episodes, waits, strict=True):
        assert held <= 10
        assert not episode.controls[:held].any()
        assert episode.controls[held:].any()
        assert len(episode) == held + 8 == held + len(measured(episode, 0)["height"])


def test_planners_plan_as_the_graph_of_the_task_does() -> None:
    planning, mpc = Planning.of("quadruped"), graph.load().settings("quadruped", "mpc")
    assert planning.replan == mpc["replan_every"] != Planning().replan
    assert planning.proposals == mpc["propose"]
    assert planning.solver == json.loads(mpc["solver_settings"])
    assert planning.standing is not None
    assert to_dict(planning.standing) == to_dict(parse_spec(mpc["standing_reward"]))
    assert planning.escape is None
    assert Planning.of("a task without a graph") == Planning()
    pushes, mpc = Planning.of("push_t"), graph.load().settings("push_t", "mpc")
    assert pushes.correction == mpc["correction"]
    assert pushes.escape == EscapeConfig(mpc["escape_after"])
    assert pushes.proposals == graph.load().settings("push_t", "action_prior")["count"]


def test_trials_that_were_recorded_are_not_run_again(legged: Artifact, tmp_path: Path) -> None:
    trials = plan_trials(["prior", "mpc"], SHORT.select(("fast",)), range(2), "quadruped")
    first = run_trials(legged, SHORT, trials[:3], CHEAP, record=tmp_path)
    shards = set(tmp_path.glob("shard-*"))
    again = run_trials(legged, SHORT, trials, CHEAP, record=tmp_path)
    assert [e.sha256() for e in again[:3]] == [e.sha256() for e in first]
    assert shards < set(tmp_path.glob("shard-*"))
    with pytest.raises(InvalidInput, match="another planning"):
        run_trials(legged, SHORT, trials, Planning(), record=tmp_path)


def test_a_planner_on_the_true_dynamics_does_what_is_asked(legged: Artifact, quadruped: Quadruped) -> None:
    """The world as the model is the yardstick of every other: by its own plans it crouches."""
    protocol = replace(SHORT, steps=16)
    prior, crouch = plan_trials(["prior", "simulator"], protocol.select(("crouch_run",)), [3], "quadruped")
    planning = Planning(solver={"samples": 6, "refinements": 1, "noise": 0.5}, replan=4, standing=None)
    stands, crouches = (run_trial(legged, quadruped, protocol, trial, planning) for trial in (prior, crouch))
    assert crouches.signals["height"][-1] < stands.signals["height"][-1] - 0.01
    assert crouch.asked is not None
    assert score(crouch.asked.reward, crouches, legged, 6) > score(crouch.asked.reward, stands, legged, 6)


def episode(behaviour: str, reward: str, seed: int, speed: float, *, fallen: bool = False, steps: int = 20) -> Episode:
    """A run at a constant speed, with noise that depends on the seed."""
    rng, ones = np.random.default_rng(seed), np.ones(steps + 1, np.float32)
    signals = {name: 0 * ones for name in SIGNALS}
    signals["forward_velocity"] = (speed + 0.05 * rng.normal() * ones).astype(np.float32)
    signals["forward_velocity"][: SHORT.warm_up + 1] = 9.0  # before anything is measured
    meta = {"seed": seed, "behaviour": behaviour, "reward": reward, "solve_ms": [1.0], "fallen": fallen}
    return Episode(
        np.zeros((steps + 1, len(ROBOT.state)), np.float32), np.zeros((steps, 12), np.float32), signals, meta
    )


def test_a_reward_is_judged_against_the_prior_of_the_same_seeds(legged: Artifact) -> None:
    rewards = SHORT.select(("fast", "slow"))
    runs = [episode("prior", "", seed, 0.5) for seed in range(6)]
    runs += [episode("mpc", "fast", seed, 0.6) for seed in range(6)]
    runs += [episode("mpc", "slow", seed, 0.0, fallen=seed == 0) for seed in range(6)]
    result = summarise(runs, legged, SHORT, rewards)
    assert result["seeds"] == list(range(6))
    mpc = result["rewards"]["fast"]["policies"]["mpc"]
    assert mpc["difference"]["mean"] == pytest.approx(0.1, abs=1e-6)  # what the seeds share cancels
    assert mpc["difference"]["ci"] == pytest.approx([0.1, 0.1], abs=1e-6)
    assert (mpc["moved"], mpc["achieved"]) == (True, True)
    assert mpc["return"]["mean"] == pytest.approx(mpc["asked"]["mean"], abs=1e-5)
    mpc = result["rewards"]["slow"]["policies"]["mpc"]
    assert mpc["difference"]["ci"] == pytest.approx([-0.5, -0.5], abs=1e-6)
    assert (mpc["moved"], mpc["achieved"]) == (True, False)  # it stands rather than walks, and one of six fell
    assert mpc["falls"] == {"count": 1, "share": 1 / 6, "ci": pytest.approx([0.0301, 0.5635], abs=1e-3)}
    assert "difference" not in result["rewards"]["slow"]["policies"]["prior"]


def test_an_episode_that_ended_in_the_warm_up_is_measured_by_its_end() -> None:
    short = episode("mpc", "fast", 0, 0.5, steps=4)
    assert {len(values) for values in measured(short, SHORT.warm_up).values()} == {1}


def test_from_the_command_line(legged: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewards = json.loads(asked.NOVEL.read_text())
    rewards["measured"].update(warm_up_steps=3, steps=4)
    (tmp_path / "rewards.json").write_text(json.dumps(rewards))
    command = ["evaluate", "quadruped", "--protocol", "rewards", "--artifact", str(legged.path), "--episodes", "2"]
    command += ["--policies", "prior,mpc", "--rewards", "slow,fast", "--solver", '{"samples": 2, "refinements": 0}']
    command += ["--rewards-file", str(tmp_path / "rewards.json"), "--json", str(tmp_path / "figures.json")]
    assert main(command) == 0
    assert "fast: forward_velocity [m/s] higher" in capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["rewards"]["fast"]["policies"]["mpc"]["n"] == 2
    assert set(figures["rewards"]) == {"slow", "fast"}


def test_unknown_policies_are_named(legged: Artifact) -> None:
    with pytest.raises(UnknownName, match="reactive@FOLDER"):
        plan_trials(["prior", "magic"], (), [0], "quadruped")


def test_a_world_is_made_like_a_system_and_planners_reckon_with_its_delay(legged: Artifact, tmp_path: Path) -> None:
    system = System("quadruped", 0.04, 0.02, {"friction": 0.5})
    trials = plan_trials(["mpc"], SHORT.select(("fast",)), range(1), "quadruped")
    late = replace(CHEAP, delay=system.delay)
    (episode,) = run_trials(legged, SHORT, trials, late, record=tmp_path, system=system)
    store = EpisodeStore(tmp_path)
    assert store.meta["system"] == {"delays": {"control": 0.04, "camera": 0.02}, "parameters": {"friction": 0.5}}
    assert store.meta["planning"]["delay"] == pytest.approx(0.06)
    joints = [i for i, name in enumerate(ROBOT.state) if name.startswith("control_")]
    # what is seen is a step old, and its control was sent two steps before that
    np.testing.assert_allclose(episode.observations[4:, joints], episode.controls[:-3], atol=1e-6)


def test_what_a_planner_remembers_was_in_force_then(legged: Artifact, quadruped: Quadruped) -> None:
    late = replace(CHEAP, delay=0.05)
    planner = Planner(Setting(legged, quadruped, SHORT.rewards[0].reward, late, 0), "ssr")
    sent = [np.full(12, 0.01 * i, np.float32) for i in range(6)]
    for control in sent:
        planner.watch(quadruped.observe().data, control)
    # two and a half periods: half of the one sent two before, half of the one sent three before
    for buffer in (planner._buffer, planner._mpc._history):
        np.testing.assert_allclose(buffer._controls[-1], (sent[2] + sent[3]) / 2, atol=1e-6)
