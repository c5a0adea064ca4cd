"""SIGReg does what it claims: its null value is known, its gradient right, and descent on it leads to N(0, I)."""

import pytest
import torch
from torch import Tensor

from worldpilot.models.world_model.sigreg import KNOT_RANGE, KNOTS, sigreg


def effective_rank(z: Tensor) -> float:
    """Exponential of the entropy of the covariance's spectrum of latents (N, D): D if isotropic, 1 if on a line."""
    share = torch.linalg.svdvals(z - z.mean(0)).square()
    share = share / share.sum()
    return float(torch.exp(-(share * (share + 1e-12).log()).sum()))


def slices(z: Tensor, count: int, seed: int) -> Tensor:
    """Epps-Pulley statistics of latents (N, D) along `count` directions that no descent has used, of shape (count,)."""
    g = torch.Generator().manual_seed(seed)
    axes = torch.nn.functional.normalize(torch.randn(z.shape[1], count, generator=g), dim=0)
    return torch.stack([sigreg(projected[None, :, None], 1, g) for projected in (z @ axes).T])


def null_value() -> float:
    """The statistic's expectation under N(0, I): N * (Var mean cos + Var mean sin) = 1 - exp(-t^2) at each knot."""
    t = torch.linspace(0, KNOT_RANGE, KNOTS, dtype=torch.float64)
    return float(torch.trapezoid(torch.exp(-(t**2) / 2) * (1 - torch.exp(-(t**2))), t))


def descend(z: Tensor, steps: int, g: torch.Generator) -> Tensor:
    z = z.clone().requires_grad_()
    optimiser = torch.optim.Adam([z], 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        sigreg(z[None], 64, g).backward()
        optimiser.step()
        schedule.step()
    return z.detach()


def collapsed(g: torch.Generator) -> Tensor:
    """On a line, off the origin, up to a little noise."""
    line = torch.randn(128, 1, generator=g) @ torch.randn(1, 8, generator=g)
    return 0.5 + 0.2 * line + 0.02 * torch.randn(128, 8, generator=g)


def anisotropic(g: torch.Generator) -> Tensor:
    """Full rank, with standard deviations from 0.1 to 2 along rotated axes."""
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=g)).Q
    return torch.randn(128, 8, generator=g) * torch.logspace(-1, 0.3, 8) @ rotation


@pytest.mark.parametrize("make", [collapsed, anisotropic])
def test_descent_leads_to_a_standard_normal(make):
    """Isotropic, of unit scale, centred; and along fresh directions the statistic is down at the null's level."""
    g = torch.Generator().manual_seed(0)
    start = make(g)
    end = descend(start, 300, g)
    assert effective_rank(start) < 4
    assert effective_rank(end) > 7.5
    assert torch.cov(end.T).diag().mean() == pytest.approx(1, abs=0.15)
    assert end.mean(0) == pytest.approx(torch.zeros(8), abs=0.1)
    before, after = slices(start, 32, seed=1), slices(end, 32, seed=1)
    null = slices(torch.randn(128, 8, generator=g), 32, seed=1)
    assert before.mean() > 5 * null_value()
    assert after.mean() < null_value()
    assert after.max() < null.max()


@pytest.mark.parametrize("n", [16, 128, 1024])
def test_the_null_value_is_known_and_independent_of_the_batch(n):
    """Without the factor N it would fall 64-fold from the smallest batch to the largest."""
    g = torch.Generator().manual_seed(n)
    values = [sigreg(torch.randn(32, n, 8, generator=g), 16, g) for _ in range(3)]
    assert torch.stack(values).mean() == pytest.approx(null_value(), rel=0.15)


def test_a_wrong_batch_costs_in_proportion_to_its_size():
    g = torch.Generator().manual_seed(0)
    small, large = (float(sigreg(torch.zeros(1, n, 8), 16, g)) for n in (64, 1024))
    assert large == pytest.approx(16 * small)


def test_gradient_agrees_with_finite_differences():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(2, 6, 3, dtype=torch.float64, generator=g, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sigreg(x, 8, torch.Generator().manual_seed(1)), (z,))


def test_a_rotation_of_the_latents_changes_nothing_but_the_draw_of_directions():
    g = torch.Generator().manual_seed(0)
    z = anisotropic(g)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=g)).Q
    plain, rotated = (float(sigreg(x[None], 4096, g)) for x in (z, z @ rotation))
    assert rotated == pytest.approx(plain, rel=0.05)
