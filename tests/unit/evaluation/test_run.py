"""The evaluation as a whole, with the shipped model on few episodes."""

import json

import numpy as np
import pytest

from worldpilot.cli.main import main
from worldpilot.models.data.episodes import EpisodeStore


def test_figures_and_recorded_episodes(tmp_path):
    figures = tmp_path / "figures.json"
    command = ["evaluate", "push_t", "--protocol", "goal-image", "--episodes", "3", "--seed", "11"]
    command += ["--policies", "noop,mpc", "--json", str(figures), "--record", str(tmp_path / "kept")]
    assert main(command) == 0
    result = json.loads(figures.read_text())
    assert result["protocol"] == "goal-image"
    assert result["planner"] == {
        "replan": 5,
        "shrink": True,
        "solver": {},
        "proposals": 32,
        "correction": 0.0,
        "escape": None,
    }
    noop, mpc = result["policies"]["noop"], result["policies"]["mpc"]
    assert (noop["success"], noop["n"]) == (0.0, 3)
    assert mpc["n"] == 3
    assert mpc["solve_ms"]["p50"] > 0
    low, high = mpc["ci"]
    assert low <= mpc["success"] <= high
    store = EpisodeStore(tmp_path / "kept")
    assert [meta["behaviour"] for meta in store.metas] == ["mpc"] * 3 + ["noop"] * 3
    assert all((store[i].controls == 0).all() for i in range(3, 6))
    assert np.abs(store[0].controls).max() > 0
    assert store.meta["action"]["names"] == ["vx", "vy"]
    acted, idle = store.metas[0], store.metas[3]
    assert acted["model_id"] == result["model_id"]
    assert acted["reward_family"] == "goal_latent"
    assert "block_x" in acted["target"]
    assert not {"model_id", "reward_family"} & set(idle)


@pytest.mark.parametrize("policies", ["magic", "mpc,magic"])
def test_an_unknown_policy_is_named(policies, capsys):
    assert main(["evaluate", "push_t", "--policies", policies, "--episodes", "1"]) == 2
    assert "magic" in capsys.readouterr().err


def test_the_papers_planner_wants_a_goal_image(capsys):
    assert main(["evaluate", "push_t", "--policies", "paper_cem", "--episodes", "1"]) == 2
    assert "goal-image" in capsys.readouterr().err
