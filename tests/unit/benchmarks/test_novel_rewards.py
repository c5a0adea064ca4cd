"""The table of novel rewards says what was measured."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.support.scripts import benchmark
from worldpilot.evaluation import asked, locomotion
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter
from worldpilot.sim.quadruped import ROBOT

STEPS = 150


@pytest.fixture(scope="module")
def novel_rewards() -> ModuleType:
    return benchmark("novel_rewards")


def trot(behaviour: str, reward: str, seed: int, speed: float, period: int = 20) -> Episode:
    """Diagonal feet together, half a period apart."""
    rng, time = np.random.default_rng([seed, period]), np.arange(STEPS + 1)
    signals = {name: np.zeros(STEPS + 1, np.float32) for name in ROBOT.signals}
    signals["forward_velocity"] += np.float32(speed + 0.02 * rng.normal())
    signals["height"] += np.float32(0.26 + 0.002 * rng.normal())
    down = ((time + rng.integers(period)) % period < period // 2).astype(np.float32)
    signals |= {"contact_fl": down, "contact_rr": down, "contact_fr": 1 - down, "contact_rl": 1 - down}
    meta = {"seed": seed, "behaviour": behaviour, "reward": reward, "solve_ms": [5.0], "fallen": False}
    states, controls = np.zeros((STEPS + 1, len(ROBOT.state)), np.float32), np.zeros((STEPS, 12), np.float32)
    return Episode(states, controls, signals, meta)


@pytest.fixture
def data(tmp_path: Path) -> EpisodeStore:
    with EpisodeWriter(tmp_path / "data", {}) as writer:
        for seed in range(12):
            writer.append(trot("run", "", seed, 0.7))
    return EpisodeStore(tmp_path / "data")


def test_the_table_and_the_novelty_of_a_slow_trot(
    novel_rewards: ModuleType, tiny_legged: Path, data: EpisodeStore, tmp_path: Path
) -> None:
    protocol, artifact = asked.load(), Artifact.load(tiny_legged)
    slow = protocol.select(("slow", "fast"))
    episodes = [trot("prior", "", seed, 0.7) for seed in range(4)]
    episodes += [trot("mpc", "slow", seed, 0.25) for seed in range(4)]
    episodes += [trot("mpc", "fast", seed, 0.7) for seed in range(4)]
    result = locomotion.summarise(episodes, artifact, protocol, slow)
    result["novelty"] = novel_rewards.novelty_of(episodes, data, protocol, slow)
    found = result["novelty"]["rewards"]["slow"]
    assert found["mpc"]["region"]["beyond"] == 1
    assert found["mpc"]["pattern"]["beyond"] == 0
    assert found["prior"]["region"]["beyond"] < 0.5
    json.dumps(result)
    text = novel_rewards.table(result, "command")
    assert "1 of 2 moved as asked, 1 achieved" in text.replace("**", "")
    (line,) = [line for line in text.splitlines() if line.startswith("| slow | forward_velocity")]
    assert "| -0.450 [-0.450, -0.450] | 0 of 4 | 0 of 4 |" in line
    assert line.endswith("| achieved |")
    novel_rewards.draw(episodes, data, protocol, tmp_path / "gaits.png")
    assert (tmp_path / "gaits.png").stat().st_size > 10_000


def test_runs_of_contacts(novel_rewards: ModuleType) -> None:
    touching = np.array([True, False, True, True, False, True])
    assert novel_rewards._runs(touching) == [(0, 1), (2, 2), (5, 1)]
