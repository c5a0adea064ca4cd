"""One process of several that train together: run by tests/integration/test_data_parallel.py, once for each rank.

    python ranks.py sigreg FOLDER RANK WORLD     loss and gradients of this rank's part of a batch
    python ranks.py train FOLDER DEVICES         a miniature training; Fabric starts the other processes

Each process leaves what it found in FOLDER.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter
from worldpilot.models.world_model.networks import WorldModelConfig
from worldpilot.models.world_model.sigreg import sigreg
from worldpilot.models.world_model.train import TrainConfig, train
from worldpilot.types import ActionSpec

SPEC = ActionSpec(("x", "y"), ("m/s", "m/s"), (-1.0, -1.0), (1.0, 1.0), (9.0, 9.0), 0.1, block=1)


class Loss(nn.Module):
    """Prediction error plus SIGReg of an encoder, on inputs of shape (T, N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.encoder(x)
        return (z[1:] - z[:-1]).square().mean() + sigreg(z, 32)


def run_sigreg(folder: Path, rank: int, world: int) -> None:
    torch.manual_seed(0)
    loss_of, batch = Loss(), torch.randn(3, 16, 5, dtype=torch.float64)
    if world > 1:
        dist.init_process_group("gloo", f"file://{folder.resolve()}/rendezvous", rank=rank, world_size=world)
        torch.manual_seed(7 + rank)  # directions must agree although the ranks' generators don't
        loss_of = DistributedDataParallel(loss_of)
    else:
        torch.manual_seed(7)
    loss = loss_of(batch.chunk(world, 1)[rank])
    loss.backward()
    gradients = [p.grad for p in loss_of.parameters()]
    torch.save({"loss": loss.detach(), "gradients": gradients}, folder / f"{rank}-of-{world}.pt")
    if world > 1:
        dist.destroy_process_group()


def write_episodes(folder: Path) -> None:
    rng = np.random.default_rng(0)
    with EpisodeWriter(folder, {"task": "none"}) as writer:
        for seed in range(6):
            images = rng.integers(0, 256, (13, 16, 16, 3), dtype=np.uint8)
            controls = rng.uniform(-1, 1, (12, 2)).astype(np.float32)
            signals = {"x": rng.normal(size=13).astype(np.float32)}
            writer.append(Episode(images, controls, signals, {"seed": seed, "behaviour": "random"}))


def run_training(folder: Path, devices: int) -> None:
    out = folder / f"nets-{devices}"
    model = WorldModelConfig(latent_dim=8, action_dim=2, image_size=16, channels=(8, 8), hidden=16)
    config = TrainConfig(
        steps=4, readout_steps=4, dynamics_steps=4, batch=8, dynamics_batch=8, dynamics_rollout=3, evaluate_every=2,
        directions=16, devices=devices, accelerator="cpu",
    )  # fmt: skip
    nets = train(EpisodeStore(folder / "data"), SPEC, out, model, config)
    torch.save(nets.state_dict(), out / f"rank-{os.environ.get('LOCAL_RANK', '0')}.state")


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "sigreg":
        run_sigreg(where, int(sys.argv[3]), int(sys.argv[4]))
    else:
        run_training(where, int(sys.argv[3]))
    # All results are written. An interpreter that ends while a thread of gloo's still wants it can abort the process.
    sys.stdout.flush()
    os._exit(0)
