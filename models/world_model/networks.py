"""The networks of the latent world model: encoder, predictor (an ensemble), readout, inverse dynamics, decoder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models.world_model.open_loop import OpenLoop
from worldpilot.models.world_model.vit import VitConfig, VitEncoder, VitPredictor


@dataclass(frozen=True)
class WorldModelConfig:
    """Sizes of a world model. D latent_dim, h history, A action_dim, S signals, E members."""

    latent_dim: int = 64
    history: int = 2
    action_dim: int = 10
    signal_dim: int = 6
    members: int = 2
    image_size: int = 64
    channels: tuple[int, ...] = (24, 48, 64, 96)
    hidden: int = 384
    blocks: int = 2
    vit: VitConfig | None = None  # the paper's transformers instead of `channels`, `hidden` and `blocks`

    def __post_init__(self) -> None:
        halvings = 2 ** max(len(self.channels), Decoder.HALVINGS)
        if self.image_size % halvings:
            raise InvalidInput(f"image_size {self.image_size} must be divisible by {halvings}")
        if min(self.latent_dim, self.history, self.action_dim, self.members, self.hidden) < 1:
            raise InvalidInput("world model: every size must be at least 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as checkpoints keep them; without `vit` where there is none."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "WorldModelConfig":
        vit = values.get("vit")
        return WorldModelConfig(**{**values, "vit": VitConfig(**vit) if vit else None})


class Encoder(nn.Module):
    """Images of shape (B, 3, S, S) in [0, 1] to latents of shape (B, D)."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 3  # RGB
        for i, channels in enumerate(config.channels):
            size = 5 if i == 0 else 3
            layers += [
                nn.Conv2d(previous, channels, size, stride=2, padding=size // 2, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            previous = channels
        side = config.image_size // 2 ** len(config.channels)
        self.convolutions = nn.Sequential(*layers)
        self.projector = nn.Sequential(
            nn.Flatten(),
            nn.Linear(previous * side * side, 256, bias=False),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, config.latent_dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.projector(self.convolutions(images - 0.5))


class MemberLinear(nn.Module):
    """E linear layers side by side: (E, B, in) to (E, B, out)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Predictor(OpenLoop):
    """One model step of E ensemble members: a residual MLP on the history and its actions.

    Actions are normalised to [-1, 1].
    """

    def __init__(self, config: WorldModelConfig) -> None:
        h, d, a = config.history, config.latent_dim, config.action_dim
        super().__init__(h, config.members)
        self.input = MemberLinear(config.members, h * d + h * a, config.hidden)
        self.blocks = nn.ModuleList(
            MemberLinear(config.members, config.hidden, config.hidden) for _ in range(config.blocks)
        )
        self.output = MemberLinear(config.members, config.hidden, d)

    def step(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Latents of shape (E, B, h, D) and actions of shape (E, B, h, A) to the next latent, (E, B, D)."""
        x = nn.functional.silu(self.input(torch.cat([latents.flatten(2), actions.flatten(2)], -1)))
        for block in self.blocks:
            x = x + nn.functional.silu(block(x))
        return latents[:, :, -1] + self.output(x)


def encoder(config: WorldModelConfig) -> nn.Module:
    """Images of shape (B, 3, S, S) in [0, 1] to latents of shape (B, D)."""
    return VitEncoder(config.vit, config.image_size, config.latent_dim) if config.vit else Encoder(config)


def predictor(config: WorldModelConfig) -> OpenLoop:
    """Latents of shape (B, h, D) and actions of shape (B, h-1+H, A) to predictions of shape (E, B, H, D)."""
    if config.vit:
        return VitPredictor(config.vit, config.history, config.latent_dim, config.action_dim, config.members)
    return Predictor(config)


class NoSignals(nn.Module):
    """The readout of a model whose data had no signals: latents of shape (..., D) to (..., 0)."""

    def forward(self, latents: Tensor) -> Tensor:
        return latents[..., :0]


def readout(config: WorldModelConfig) -> nn.Module:
    """Latents of shape (..., D) to standardised signals of shape (..., S)."""
    if not config.signal_dim:
        return NoSignals()
    return nn.Sequential(
        nn.Linear(config.latent_dim, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, config.signal_dim)
    )


def inverse_dynamics(config: WorldModelConfig) -> nn.Module:
    """Two consecutive latents, side by side (..., 2D), to the normalised action between them (..., A)."""
    return nn.Sequential(nn.Linear(2 * config.latent_dim, 256), nn.SiLU(), nn.Linear(256, config.action_dim))


class Decoder(nn.Module):
    """Latents of shape (B, D) to images of shape (B, 3, S, S) in [0, 1]: for eyes only, never in the control path."""

    HALVINGS = 4

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.side = config.image_size // 2**self.HALVINGS
        self.input = nn.Linear(config.latent_dim, 96 * self.side**2)
        layers: list[nn.Module] = []
        for inputs, outputs in ((96, 64), (64, 48), (48, 32), (32, 3)):
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(inputs, outputs, 3, padding=1), nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, latents: Tensor) -> Tensor:
        x = nn.functional.silu(self.input(latents)).unflatten(1, (96, self.side, self.side))
        return torch.sigmoid(self.layers(x))


PRESETS = {
    "small": WorldModelConfig(),  # trains on a CPU
    "paper": WorldModelConfig(latent_dim=192, history=3, members=1, image_size=224, vit=VitConfig()),  # for GPUs
}


def preset(name: str, action_dim: int) -> WorldModelConfig:
    """The sizes called `name`, for actions of A = `action_dim` numbers.

    Raises:
        UnknownName: the message lists the presets.
    """
    if name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return replace(PRESETS[name], action_dim=action_dim)
