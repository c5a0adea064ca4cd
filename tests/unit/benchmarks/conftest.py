"""A joint's data and the networks trained on it, small enough for the benchmarks of learned parts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from worldpilot.models.action_prior.train import PriorTrainConfig, train_prior
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter
from worldpilot.models.dynamics.train import DynamicsTrainConfig, train_dynamics
from worldpilot.types import ActionSpec

ACTION = ActionSpec(("joint",), ("rad",), (-1.0,), (1.0,), (50.0,), control_dt=0.02, block=2)
SIZES: dict[str, int] = {"history": 2, "horizon": 4, "hidden": 32, "layers": 1}


@dataclass(frozen=True)
class Trained:
    """A store, folders of dynamics by name, and the folder of a prior in the latents of `step`."""

    store: EpisodeStore
    models: dict[str, Path]
    prior: Path


@pytest.fixture(scope="session")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A damped joint under a PD controller: dynamics that learned it, dynamics that did not, a prior."""
    work = tmp_path_factory.mktemp("joint")
    store, elsewhere = _store(work / "data", 80), _store(work / "other", 10)
    learned = DynamicsTrainConfig(steps=300, batch=64, rollout=4, learning_rate=3e-3, evaluate_every=300)
    raw = DynamicsTrainConfig(steps=1, batch=8, evaluate_every=1)
    train_dynamics(store, ACTION, work / "step", learned, "step", None, **SIZES)
    train_dynamics(store, ACTION, work / "multi", raw, "multi", None, **SIZES)
    train_dynamics(elsewhere, ACTION, work / "elsewhere", raw, "step", None, **SIZES)
    prior = PriorTrainConfig(steps=20, batch=32, horizon=4, hidden=32, goal_ahead=0, sampler_steps=1, evaluate_every=20)
    train_prior(store, ACTION, work / "step", work / "prior", prior)
    return Trained(store, {name: work / name for name in ("step", "multi", "elsewhere")}, work / "prior")


def _store(folder: Path, episodes: int) -> EpisodeStore:
    meta = {"task": "joint", "action": ACTION.to_dict(), "state": {"names": ["q", "dq"], "units": ["rad", "rad/s"]}}
    with EpisodeWriter(folder, meta) as writer:
        for seed in range(episodes):
            rng = np.random.default_rng(seed)
            controls = np.repeat(rng.uniform(-1, 1, (10, 1)), 6, axis=0).astype(np.float32)
            q, dq, states = rng.uniform(-0.5, 0.5), 0.0, []
            for control in [*controls[:, 0], 0.0]:
                states.append((q, dq))
                dq += 0.02 * (60 * (control - q) - 6 * dq)
                q += 0.02 * dq
            signals = {"q": np.array([state[0] for state in states], np.float32)}
            episode_meta = {"seed": seed, "behaviour": "move"}
            writer.append(Episode(np.array(states, np.float32), controls, signals, episode_meta))
    return EpisodeStore(folder)
