"""Predictors of a state's future: three kinds behind one contract, and what is read from a state.

    latents (B, h, D), actions (B, h-1+H, A)[, noise (E, B, H, D)] -> (E, B, H, D)

Latents are normalised states, actions lie in [-1, 1]. What is predicted is the change since the last known state, in
units of what changes over as many model steps in the data. Predictions are causal: the i-th state depends on no
action after the i-th.

- `step`: E residual MLPs predict one model step, and are applied to their own predictions.
- `multi`: E transformers predict all H states in one pass.
- `diffusion`: one transformer denoises whole sequences of H states (D-MPC, 2410.05364); its E members are E samples.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models import samplers
from worldpilot.models.world_model.networks import MemberLinear
from worldpilot.models.world_model.open_loop import OpenLoop

LARGEST = 8.0  # change that is sampled, in standard deviations of the data's
SAMPLED = 64  # windows a training step samples


@dataclass(frozen=True)
class DynamicsConfig:
    """Sizes of a predictor. D latent_dim, A action_dim, h history, H horizon, E members."""

    latent_dim: int
    action_dim: int
    kind: str = "step"
    history: int = 4
    horizon: int = 16
    members: int = 2
    hidden: int = 256  # of the MLP; the transformers' width
    layers: int = 2
    heads: int = 4
    sampler: str = "flow"
    sampler_steps: int = 4

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownName("kind of dynamics", self.kind, KINDS)
        if min(self.latent_dim, self.action_dim, self.history, self.horizon, self.members, self.layers) < 1:
            raise InvalidInput("dynamics: every size must be at least 1")
        if self.kind != "step" and (self.hidden % self.heads or self.heads < 1):
            raise InvalidInput(f"dynamics: hidden ({self.hidden}) must be divisible by heads ({self.heads})")
        samplers.check(self.sampler, self.sampler_steps)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class StepDynamics(OpenLoop):
    """One model step of E ensemble members: residual MLPs on the history and its actions."""

    scale: Tensor

    def __init__(self, config: DynamicsConfig) -> None:
        e, h, d, a = config.members, config.history, config.latent_dim, config.action_dim
        super().__init__(h, e)
        self.register_buffer("scale", torch.ones(config.horizon, d))  # std of the change after 1 to H model steps
        self.input = MemberLinear(e, h * (d + a), config.hidden)
        self.blocks = nn.ModuleList(MemberLinear(e, config.hidden, config.hidden) for _ in range(config.layers))
        self.output = MemberLinear(e, config.hidden, d)

    def step(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Latents of shape (E, B, h, D) and actions of shape (E, B, h, A) to the next latent, (E, B, D)."""
        x = nn.functional.silu(self.input(torch.cat([latents.flatten(2), actions.flatten(2)], -1)))
        for block in self.blocks:
            x = x + nn.functional.silu(block(x))
        return latents[:, :, -1] + self.scale[0] * self.output(x)

    def loss(self, latents: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Open-loop error, see `errors`, and what was imagined (E, B, R, D).

        Args:
            latents: of shape (E, B, h+R, D), windows of their own for each member, R at most H.
            actions: of shape (E, B, h-1+R, A).
        """
        imagined = self.roll(latents[:, :, : self.history], actions)
        return errors(imagined, latents[:, :, self.history :], self.scale), imagined


class CausalTransformer(nn.Module):
    """E transformers side by side over T tokens of width W, none of which looks ahead: (E, B, T, W) to the same."""

    def __init__(self, members: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend = nn.ModuleList(MemberLinear(members, width, 3 * width) for _ in range(layers))
        self.merge = nn.ModuleList(MemberLinear(members, width, width) for _ in range(layers))
        self.widen = nn.ModuleList(MemberLinear(members, width, 4 * width) for _ in range(layers))
        self.narrow = nn.ModuleList(MemberLinear(members, 4 * width, width) for _ in range(layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)  # what follows it is linear

    def forward(self, x: Tensor) -> Tensor:
        e, _, t, w = x.shape
        x = x.flatten(1, 2)  # (E, B*T, W)
        for attend, merge, widen, narrow in zip(self.attend, self.merge, self.widen, self.narrow, strict=True):
            query, key, value = (
                part.reshape(-1, t, self.heads, w // self.heads).transpose(1, 2)
                for part in attend(self.norm(x)).chunk(3, -1)
            )
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + merge(mixed.transpose(1, 2).reshape(e, -1, w))
            x = x + narrow(nn.functional.silu(widen(self.norm(x))))
        return self.norm(x).unflatten(1, (-1, t))


class MultiDynamics(nn.Module):
    """All H states in one pass. A token holds one model step: its state, if it is known, and the action before it."""

    scale: Tensor

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        e, d, w = config.members, config.latent_dim, config.hidden
        self.history, self.horizon, self.members = config.history, config.horizon, e
        self.register_buffer("scale", torch.ones(config.horizon, d))
        self.state = MemberLinear(e, d, w)
        self.action = MemberLinear(e, config.action_dim, w)
        self.position = nn.Parameter(torch.randn(e, 1, config.history + config.horizon, w) * 0.02)
        self.transformer = CausalTransformer(e, w, config.layers, config.heads)
        self.output = MemberLinear(e, w, d)
        nn.init.zeros_(self.output.weight)  # to begin with nothing changes

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Latents of shape (B, h, D) and actions of shape (B, h-1+H, A) to predictions of shape (E, B, H, D)."""
        return self.imagine(
            latents.unsqueeze(0).expand(self.members, *latents.shape),
            actions.unsqueeze(0).expand(self.members, *actions.shape),
        )

    def imagine(self, latents: Tensor, actions: Tensor) -> Tensor:
        """`forward` with inputs of their own for each member: (E, B, h, D) and (E, B, h-1+H, A)."""
        known = nn.functional.pad(_each(self.state, latents), (0, 0, 0, self.horizon))
        tokens = known + _driven(self.action, actions) + self.position
        change = _each(self.output, self.transformer(tokens)[:, :, self.history :])
        return latents[:, :, -1:] + self.scale * change

    def loss(self, latents: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """As that of `StepDynamics`, with R = H."""
        imagined = self.imagine(latents[:, :, : self.history], actions)
        return errors(imagined, latents[:, :, self.history :], self.scale), imagined


class DiffusionDynamics(nn.Module):
    """A denoiser of sequences of H states. A token holds one model step: its state, known or noisy, the action before
    it, and the noise level."""

    scale: Tensor
    frequencies: Tensor

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        d, w = config.latent_dim, config.hidden
        self.history, self.horizon, self.members = config.history, config.horizon, config.members
        self.register_buffer("scale", torch.ones(config.horizon, d))
        self.register_buffer("frequencies", 2 ** torch.arange(6) * torch.pi, persistent=False)
        self.name, self.sampler = config.sampler, samplers.sampler(config.sampler, config.sampler_steps, LARGEST)
        self.state, self.noisy = MemberLinear(1, d, w), MemberLinear(1, d, w)
        self.action, self.time = MemberLinear(1, config.action_dim, w), MemberLinear(1, 12, w)
        self.position = nn.Parameter(torch.randn(1, 1, config.history + config.horizon, w) * 0.02)
        self.transformer = CausalTransformer(1, w, config.layers, config.heads)
        self.output = MemberLinear(1, w, d)

    def forward(self, latents: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        """Latents (B, h, D), actions (B, h-1+H, A) and noise (E, B, H, D) to samples of shape (E, B, H, D)."""
        e = self.members
        latents, actions = latents.repeat(e, 1, 1), actions.repeat(e, 1, 1)
        context = self._context(latents, actions)
        change = self.sampler(lambda noisy, times: self._denoise(noisy, times, context), noise.flatten(0, 1))
        return (latents[:, -1:] + self.scale * change).unflatten(0, (e, -1))

    def loss(self, latents: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The denoiser's error, and samples (1, B', H, D) for the first windows; arguments as of `MultiDynamics`."""
        past, future = latents.flatten(0, 1).split((self.history, self.horizon), 1)
        change = (future - past[:, -1:]) / self.scale
        noise, uniform = torch.randn_like(change), torch.rand(len(change), device=change.device)
        noisy, times, target = samplers.corrupt(self.name, change, noise, uniform)
        context = self._context(past, actions.flatten(0, 1))
        loss = (self._denoise(noisy, times, context) - target).square().mean()
        with torch.no_grad():
            few = slice(SAMPLED)
            drawn = self.sampler(lambda x, t: self._denoise(x, t, context[:, few]), noise[few])
        return loss, (past[few, -1:] + self.scale * drawn).unsqueeze(0)

    def _context(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Tokens of shape (1, B, h+H, W) without the noisy states."""
        known = nn.functional.pad(_each(self.state, latents.unsqueeze(0)), (0, 0, 0, self.horizon))
        return known + _driven(self.action, actions.unsqueeze(0)) + self.position

    def _denoise(self, noisy: Tensor, times: Tensor, context: Tensor) -> Tensor:
        waves = times[:, None] * self.frequencies
        time = self.time(torch.cat([waves.sin(), waves.cos()], -1).unsqueeze(0))
        states = nn.functional.pad(_each(self.noisy, noisy.unsqueeze(0)), (0, 0, self.history, 0))
        tokens = self.transformer(context + states + time.unsqueeze(2))
        return _each(self.output, tokens[:, :, self.history :]).squeeze(0)


def _each(layer: MemberLinear, tokens: Tensor) -> Tensor:
    """A layer applied to tokens of shape (E, B, T, in)."""
    return layer(tokens.flatten(1, 2)).unflatten(1, (-1, tokens.shape[2]))


def _driven(layer: MemberLinear, actions: Tensor) -> Tensor:
    """Actions (E, B, h-1+H, A) as tokens (E, B, h+H, W): each with the state that it leads to, none with the first."""
    return _each(layer, nn.functional.pad(actions, (0, 0, 1, 0)))


def errors(imagined: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """Mean squared error of states (..., R, D), relative to how much they change in the data (H, D)."""
    return ((imagined - truth) / scale[: imagined.shape[-2]]).square().mean()


Dynamics = StepDynamics | MultiDynamics | DiffusionDynamics

KINDS: Mapping[str, type[StepDynamics] | type[MultiDynamics] | type[DiffusionDynamics]] = {
    "step": StepDynamics,
    "multi": MultiDynamics,
    "diffusion": DiffusionDynamics,
}


SIZED: Mapping[str, DynamicsConfig] = {  # D and A are the data's
    "step": DynamicsConfig(1, 1, "step"),
    "multi": DynamicsConfig(1, 1, "multi", hidden=96),
    "diffusion": DynamicsConfig(1, 1, "diffusion", hidden=96),
}


def dynamics(config: DynamicsConfig) -> Dynamics:
    """The predictor of a kind."""
    return KINDS[config.kind](config)


class FallHead(nn.Module):
    """Latents of shape (..., D) to the logit of a fall soon, (...)."""

    log_weight: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 1)
        )
        self.register_buffer("log_weight", torch.zeros(()))  # falls count exp(log_weight) times in training

    def forward(self, latents: Tensor) -> Tensor:
        """As the weighted loss has it; the data's own odds are smaller by `log_weight`."""
        return self.layers(latents).squeeze(-1)

    def probability(self, latents: Tensor) -> Tensor:
        """Of a fall soon, in the data's own proportion, (...)."""
        return torch.sigmoid(self(latents) - self.log_weight)
