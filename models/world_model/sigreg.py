"""SIGReg: pulls a batch of latents towards N(0, I) along random directions (LeWorldModel, arXiv 2603.19312)."""

import torch
from torch import Tensor

KNOTS = 17
KNOT_RANGE = 3.0


def sigreg(latents: Tensor, directions: int, generator: torch.Generator | None = None) -> Tensor:
    """Epps-Pulley statistic of `latents` against N(0, I), averaged over fresh random directions and time steps.

    With the factor N of the paper: the value under the null hypothesis is O(1), whatever the batch size.

    Args:
        latents: of shape (T, N, D), a batch of N per time step.
        directions: M, unit-norm Gaussian directions drawn for this call.
        generator: for the directions.

    Returns:
        a scalar; 0 for a perfect match in the limit of N.
    """
    _, n, d = latents.shape
    axes = torch.randn(d, directions, generator=generator)
    axes = (axes / axes.norm(dim=0, keepdim=True)).to(latents)
    t = torch.linspace(0, KNOT_RANGE, KNOTS, device=latents.device, dtype=latents.dtype)
    phi = torch.exp(-(t**2) / 2)
    weights = torch.full_like(t, KNOT_RANGE / (KNOTS - 1))
    weights[[0, -1]] /= 2
    projected = (latents @ axes).unsqueeze(-1) * t  # (T, N, M, knots)
    error = (projected.cos().mean(1) - phi) ** 2 + projected.sin().mean(1) ** 2  # (T, M, knots)
    return (error @ (weights * phi)).mean() * n
