"""SIGReg does what it claims: zero for a standard normal, and it pulls other batches to one."""

import pytest
import torch

from worldpilot.models.world_model.sigreg import sigreg


def effective_rank(z: torch.Tensor) -> float:
    share = torch.linalg.svdvals(z - z.mean(0)).square()
    share = share / share.sum()
    return float(torch.exp(-(share * (share + 1e-12).log()).sum()))


def test_order_normal_below_anisotropic_below_collapsed():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, 512, 16, generator=g)
    normal = sigreg(z, 256, g)
    stretched = sigreg(z * torch.linspace(0.1, 3, 16), 256, g)
    collapsed = sigreg(z * 0 + 0.5, 256, g)
    assert normal < 1.5 < stretched < collapsed


def test_descent_restores_rank_and_scale_of_a_collapsed_batch():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, 256, 1, generator=g) @ torch.randn(1, 1, 8, generator=g) * 0.2
    z = (z + 0.02 * torch.randn(1, 256, 8, generator=g)).requires_grad_()
    before = effective_rank(z[0].detach())
    optimiser = torch.optim.Adam([z], 0.02)
    for _ in range(300):
        optimiser.zero_grad()
        sigreg(z, 64, g).backward()
        optimiser.step()
    assert before < 2
    assert effective_rank(z[0].detach()) > 7
    assert z.detach().std(1).mean() == pytest.approx(1, abs=0.15)


def test_gradient_agrees_with_finite_differences():
    z = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sigreg(x, 8, torch.Generator().manual_seed(1)), (z,))


def test_value_under_the_null_does_not_grow_with_the_batch():
    g = torch.Generator().manual_seed(0)
    small, large = (float(sigreg(torch.randn(8, n, 8, generator=g), 128, g)) for n in (64, 1024))
    assert large == pytest.approx(small, rel=0.5)
