"""The denoiser of the action prior: a residual MLP over whole action sequences."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worldpilot.errors import InvalidInput
from worldpilot.models import samplers
from worldpilot.models.world_model import networks as world_model


@dataclass(frozen=True)
class PriorConfig:
    """Sizes: h history, D latent_dim, H horizon, A action_dim, S goal_dim (0: not conditioned on a goal)."""

    latent_dim: int = 64
    history: int = 2
    horizon: int = 5
    action_dim: int = 10
    hidden: int = 512
    blocks: int = 3
    sampler_steps: int = 6
    goal_dim: int = 0
    reads: bool = False  # the goal is also put relative to what is read from the present latent
    sampler: str = "flow"  # which also says what the denoiser predicts, see `worldpilot.models.samplers`

    def __post_init__(self) -> None:
        samplers.check(self.sampler, self.sampler_steps)
        if self.reads and not self.goal_dim:
            raise InvalidInput("prior: without goals there is nothing to be read for them; set reads to false")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as checkpoints keep them; without what they did not have once, where it is the default."""
        late = {"sampler": "flow", "reads": False}
        return {name: value for name, value in asdict(self).items() if late.get(name) != value}


class Denoiser(nn.Module):
    """What a sampler asks of noisy action sequences (flow: velocity; else: noise), given the history and a goal.

    A goal is a partial state: standardised signals, and a mask of those that are asked for. With `reads` it is also
    given as a difference to the present, coarse and fine: what is left to do near a goal is a small part of where the
    goal lies.
    """

    FINE = 10.0  # a tenth of a signal's standard deviation is a large difference

    frequencies: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("frequencies", 2 ** torch.arange(6) * torch.pi)
        self.readout = None
        if config.reads:  # a world model's, put in by the training and kept as it is
            sizes = world_model.WorldModelConfig(latent_dim=config.latent_dim, signal_dim=config.goal_dim)
            self.readout = world_model.readout(sizes).requires_grad_(False)
        of_goal = (5 if config.reads else 2) * config.goal_dim
        inputs = config.horizon * config.action_dim + config.history * config.latent_dim + of_goal + 12
        self.input = nn.Linear(inputs, config.hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(config.hidden), nn.Linear(config.hidden, config.hidden), nn.SiLU())
            for _ in range(config.blocks)
        )
        self.output = nn.Linear(config.hidden, config.horizon * config.action_dim)

    def forward(
        self, noisy: Tensor, sigma: Tensor, latents: Tensor, goal: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Velocities or noise of shape (B, H, A).

        Args:
            noisy: actions of shape (B, H, A).
            sigma: noise levels of shape (B,), in [0, 1].
            latents: of shape (B, h, D).
            goal: standardised signals of shape (B, S), if the prior is conditioned on goals.
            mask: of shape (B, S), 1 where the goal asks for something.
        """
        waves = sigma[:, None] * self.frequencies
        wanted = [] if goal is None or mask is None else [goal * mask, mask]
        if self.readout is not None and goal is not None and mask is not None:
            now = self.readout(latents[:, -1])
            left = (goal - now) * mask
            wanted += [now, left, (self.FINE * left).tanh()]
        x = self.input(torch.cat([noisy.flatten(1), latents.flatten(1), *wanted, waves.sin(), waves.cos()], -1))
        for block in self.blocks:
            x = x + block(x)
        return self.output(x).view_as(noisy)
