"""The denoiser of the action prior: a residual MLP over whole action sequences."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PriorConfig:
    """Sizes: h history, D latent_dim, H horizon, A action_dim."""

    latent_dim: int = 64
    history: int = 2
    horizon: int = 5
    action_dim: int = 10
    hidden: int = 512
    blocks: int = 3
    sampler_steps: int = 6

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Denoiser(nn.Module):
    """The velocity of a rectified flow from noise to action sequences, given the history's latents."""

    frequencies: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("frequencies", 2 ** torch.arange(6) * torch.pi)
        inputs = config.horizon * config.action_dim + config.history * config.latent_dim + 12
        self.input = nn.Linear(inputs, config.hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(config.hidden), nn.Linear(config.hidden, config.hidden), nn.SiLU())
            for _ in range(config.blocks)
        )
        self.output = nn.Linear(config.hidden, config.horizon * config.action_dim)

    def forward(self, noisy: Tensor, sigma: Tensor, latents: Tensor) -> Tensor:
        """Noisy actions (B, H, A) at noise levels sigma (B,) in [0, 1], latents (B, h, D) to velocities (B, H, A)."""
        waves = sigma[:, None] * self.frequencies
        x = self.input(torch.cat([noisy.flatten(1), latents.flatten(1), waves.sin(), waves.cos()], -1))
        for block in self.blocks:
            x = x + block(x)
        return self.output(x).view_as(noisy)
