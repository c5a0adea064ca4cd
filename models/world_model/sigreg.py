"""SIGReg: pulls a batch of latents towards N(0, I) along random directions (LeWorldModel, arXiv 2603.19312)."""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

KNOTS = 17
KNOT_RANGE = 3.0


def sigreg(latents: Tensor, directions: int, generator: torch.Generator | None = None) -> Tensor:
    """Epps-Pulley statistic of `latents` against N(0, I), averaged over fresh random directions and time steps.

    With the factor N of the paper: the value under the null hypothesis is O(1), whatever the batch size.

    In data-parallel training the statistic is that of the global batch: rank 0's directions on every rank, empirical
    characteristic functions averaged over ranks. Every rank must call with the same shapes. Gradients come out such
    that their mean over ranks, which DistributedDataParallel takes, is the gradient of one process on the whole batch.

    Args:
        latents: of shape (T, N, D), this process's batch of N per time step.
        directions: M, unit-norm Gaussian directions drawn for this call.
        generator: for the directions.

    Returns:
        a scalar; 0 for a perfect match in the limit of N.
    """
    _, n, d = latents.shape
    axes = torch.randn(d, directions, generator=generator)
    axes = (axes / axes.norm(dim=0, keepdim=True)).to(latents)
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if ranks > 1:
        dist.broadcast(axes, src=0)
    t = torch.linspace(0, KNOT_RANGE, KNOTS, device=latents.device, dtype=latents.dtype)
    phi = torch.exp(-(t**2) / 2)
    weights = torch.full_like(t, KNOT_RANGE / (KNOTS - 1))
    weights[[0, -1]] /= 2
    projected = (latents @ axes).unsqueeze(-1) * t  # (T, N, M, knots)
    cos, sin = projected.cos().mean(1), projected.sin().mean(1)  # (T, M, knots)
    if ranks > 1:
        cos, sin = _MeanOverRanks.apply(torch.stack([cos, sin]))
    error = (cos - phi) ** 2 + sin**2
    return (error @ (weights * phi)).mean() * (n * ranks)


class _MeanOverRanks(torch.autograd.Function):
    """The mean over all ranks, of a tensor on the way forward and of its gradient on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _mean_over_ranks(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _mean_over_ranks(gradients[0])


def _mean_over_ranks(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / dist.get_world_size()
