"""The networks of the paper (LeWorldModel, arXiv 2603.19312; sizes from its repository's configuration).

A ViT-tiny reads frames; a causal transformer, conditioned on actions by AdaLN-zero, predicts the next latent. Both end
in a projector with BatchNorm. They keep the contracts of `networks.Encoder` and `networks.Predictor`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldpilot.errors import InvalidInput
from worldpilot.models.world_model.open_loop import OpenLoop


@dataclass(frozen=True)
class VitConfig:
    """Sizes of the two transformers; the defaults are the paper's."""

    patch: int = 14  # [px], side of a square patch
    width: int = 192
    depth: int = 12
    heads: int = 3
    projector: int = 2048  # hidden units of the two projectors
    predictor_depth: int = 6
    predictor_heads: int = 16
    predictor_head_dim: int = 64  # 16 heads of 64: attention is wider than the latent
    predictor_mlp: int = 2048
    dropout: float = 0.1  # of the predictor

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InvalidInput(f"ViT: width {self.width} must be divisible by heads {self.heads}")
        if not 0 <= self.dropout < 1:
            raise InvalidInput(f"ViT: dropout must be in [0, 1), got {self.dropout}")


class Attention(nn.Module):
    """Multi-head self-attention on tokens of shape (B, T, width)."""

    def __init__(self, width: int, heads: int, head_dim: int, dropout: float = 0.0, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.qkv = nn.Linear(width, 3 * heads * head_dim)
        self.output = nn.Linear(heads * head_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, T, head_dim)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=self.causal)
        return functional.dropout(self.output(mixed.transpose(1, 2).flatten(2)), self.dropout, self.training)


def mlp(width: int, hidden: int, dropout: float = 0.0) -> nn.Module:
    """The position-wise network of a transformer block: (..., width) to (..., width)."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
    )


def projector(inputs: int, hidden: int, outputs: int) -> nn.Module:
    """From tokens of shape (B, inputs), whose LayerNorm would keep SIGReg from its optimum, to (B, outputs)."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, outputs))


class EncoderBlock(nn.Module):
    """A pre-norm transformer block on tokens of shape (B, T, width)."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.attention = Attention(config.width, config.heads, config.width // config.heads)
        self.mlp_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = mlp(config.width, 4 * config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class VitEncoder(nn.Module):
    """Images of shape (B, 3, S, S) in [0, 1] to latents of shape (B, D): the class token, projected."""

    def __init__(self, config: VitConfig, image_size: int, latent_dim: int) -> None:
        super().__init__()
        if image_size % config.patch:
            raise InvalidInput(f"ViT: image_size {image_size} must be divisible by the patch size {config.patch}")
        patches = (image_size // config.patch) ** 2
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.positions = nn.Parameter(torch.empty(1, 1 + patches, config.width))
        self.blocks = nn.Sequential(*(EncoderBlock(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.projector = projector(config.width, config.projector, latent_dim)
        for parameter in (self.class_token, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(2 * images - 1).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], 1) + self.positions
        return self.projector(self.norm(self.blocks(tokens))[:, 0])


class PredictorBlock(nn.Module):
    """A causal transformer block whose norms and gates come from a condition: AdaLN-zero, the identity at first."""

    def __init__(self, config: VitConfig, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(
            width, config.predictor_heads, config.predictor_head_dim, config.dropout, causal=True
        )
        self.mlp = mlp(width, config.predictor_mlp, config.dropout)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens and their conditions, both of shape (B, T, width)."""
        modulation = self.modulation(functional.silu(condition))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, -1)
        x = x + gate_a * self.attention(self.norm(x) * (1 + scale_a) + shift_a)
        return x + gate_m * self.mlp(self.norm(x) * (1 + scale_m) + shift_m)


class PredictorMember(nn.Module):
    """One ensemble member: latents (B, h, D) and the actions after them (B, h, A) to the next latent (B, D)."""

    def __init__(self, config: VitConfig, history: int, latent_dim: int, action_dim: int) -> None:
        super().__init__()
        self.actions = nn.Sequential(
            nn.Linear(action_dim, 4 * latent_dim), nn.SiLU(), nn.Linear(4 * latent_dim, latent_dim)
        )
        self.positions = nn.Parameter(torch.empty(1, history, latent_dim))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.ModuleList(PredictorBlock(config, latent_dim) for _ in range(config.predictor_depth))
        self.norm = nn.LayerNorm(latent_dim, eps=1e-6)
        self.projector = projector(latent_dim, config.projector, latent_dim)

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        condition = self.actions(actions)
        tokens = latents + self.positions
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.projector(self.norm(tokens[:, -1]))


class VitPredictor(OpenLoop):
    """One model step of E ensemble members. Actions are normalised to [-1, 1]."""

    def __init__(self, config: VitConfig, history: int, latent_dim: int, action_dim: int, members: int) -> None:
        super().__init__(history, members)
        self.ensemble = nn.ModuleList(PredictorMember(config, history, latent_dim, action_dim) for _ in range(members))

    def step(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Latents of shape (E, B, h, D) and actions of shape (E, B, h, A) to the next latent, (E, B, D)."""
        return torch.stack([member(latents[e], actions[e]) for e, member in enumerate(self.ensemble)])
