"""What a training refuses before it starts, and what its networks say in physical units."""

import numpy as np
import pytest
import torch

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter
from worldpilot.models.world_model.networks import WorldModelConfig
from worldpilot.models.world_model.train import TrainConfig, WorldModelNets, load, train
from worldpilot.types import ActionSpec

SPEC = ActionSpec(("x",), ("m/s",), (-1.0,), (1.0,), (9.0,), 0.1, block=1)
MODEL = WorldModelConfig(latent_dim=4, action_dim=1, signal_dim=1, image_size=16, channels=(8,), hidden=8)


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    with EpisodeWriter(tmp_path / "data", {}) as writer:
        for seed in range(3):
            images, controls = np.zeros((9, 16, 16, 3), np.uint8), np.zeros((8, 1), np.float32)
            writer.append(Episode(images, controls, {"x": np.arange(9, dtype=np.float32)}, _meta(seed)))
    return EpisodeStore(tmp_path / "data")


def _meta(seed: int) -> dict[str, object]:
    return {"seed": seed, "behaviour": "none"}


def test_frames_of_another_size_are_refused_with_both_sizes(store, tmp_path):
    with pytest.raises(InvalidInput, match=r"\(16, 16, 3\).*\(64, 64, 3\)"):
        train(store, SPEC, tmp_path / "out", WorldModelConfig(action_dim=1), TrainConfig(accelerator="cpu"))


def test_sizes_below_one_are_refused():
    with pytest.raises(InvalidInput):
        TrainConfig(devices=0)


def test_an_unknown_accelerator_is_refused_with_the_names():
    with pytest.raises(UnknownName, match="auto, cpu, cuda"):
        TrainConfig(accelerator="abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said_to_be_missing(store, tmp_path):
    with pytest.raises(InvalidInput, match="1 GPUs asked for, 0 found"):
        train(store, SPEC, tmp_path / "out", MODEL, TrainConfig(accelerator="cuda"))


def test_a_missing_checkpoint_names_the_command(tmp_path):
    with pytest.raises(InvalidInput, match="worldpilot train world-model"):
        load(tmp_path)


def test_standardised_signals_have_the_readouts_scale():
    nets = WorldModelNets(MODEL, ("x",))
    nets.signal_mean.fill_(3.0)
    nets.signal_std.fill_(2.0)
    assert nets.standardise(np.full((1, 1), 5, np.float32)) == pytest.approx(torch.ones(1, 1))
    latents = torch.randn(6, 4)
    assert torch.allclose(nets.read(latents), nets.readout(latents) * 2 + 3)


def test_the_readout_is_fitted_to_its_end_on_what_the_encoder_has_become(tmp_path):
    rng = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "data", {}) as writer:
        for seed in range(4):
            x = rng.uniform(0, 1, 17).astype(np.float32)
            images = np.broadcast_to((255 * x).astype(np.uint8)[:, None, None, None], (17, 16, 16, 3))
            writer.append(Episode(images.copy(), np.zeros((16, 1), np.float32), {"x": x}, _meta(seed)))
    store, error = EpisodeStore(tmp_path / "data"), {}
    for steps in (0, 300):
        config = TrainConfig(
            steps=3, readout_steps=steps, dynamics_steps=1, batch=4, readout_batch=32, dynamics_batch=4,
            dynamics_rollout=2, directions=8, accelerator="cpu",
        )  # fmt: skip
        nets = train(store, SPEC, tmp_path / str(steps), MODEL, config)
        episode = store[0]
        with torch.no_grad():
            read = nets.read(nets.encode(episode.observations))[:, 0].numpy()
        error[steps] = np.abs(read - episode.signals["x"]).mean()
    assert error[300] < 0.5 * error[0]
