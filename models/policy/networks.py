"""The network of a reactive policy: an ensemble of small MLPs from the history's latents to one action."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from worldpilot.errors import InvalidInput
from worldpilot.models.world_model.networks import MemberLinear


@dataclass(frozen=True)
class PolicyConfig:
    """Sizes: D latent_dim, h history, A action_dim, E members."""

    latent_dim: int
    history: int
    action_dim: int
    members: int = 4
    hidden: int = 128
    blocks: int = 1  # hidden layers after the first, each with a residual connection

    def __post_init__(self) -> None:
        sizes = (self.latent_dim, self.history, self.action_dim, self.members, self.hidden)
        if min(sizes) < 1 or self.blocks < 0:
            raise InvalidInput("policy: every size must be at least 1, blocks at least 0")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Policy(nn.Module):
    """E members, each a residual MLP; the policy is their mean. Actions are normalised to [-1, 1]."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        members, hidden = config.members, config.hidden
        self.input = MemberLinear(members, config.history * config.latent_dim, hidden)
        self.blocks = nn.ModuleList(MemberLinear(members, hidden, hidden) for _ in range(config.blocks))
        self.output = MemberLinear(members, hidden, config.action_dim)

    def each(self, latents: Tensor) -> Tensor:
        """What each member does on latents of its own, of shape (E, B, h, D): actions (E, B, A)."""
        x = nn.functional.silu(self.input(latents.flatten(2)))
        for block in self.blocks:
            x = x + nn.functional.silu(block(x))
        return self.output(x)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents of shape (B, h, D) to actions of shape (B, A)."""
        spread = latents.unsqueeze(0).expand(self.config.members, *latents.shape)
        return self.each(spread).mean(0).clamp(-1, 1)


def standardise(actions: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Actions of shape (..., A) in physical units, normalised to [-1, 1]."""
    return (actions - low) / (high - low) * 2 - 1


class Physical(nn.Module):
    """A policy whose actions are in physical units: what is exported."""

    low: Tensor
    high: Tensor

    def __init__(self, policy: Policy, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.policy = policy
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents of shape (B, h, D) to actions of shape (B, A)."""
        return self.low + (self.policy(latents) + 1) / 2 * (self.high - self.low)
