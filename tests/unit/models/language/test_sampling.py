"""Distributions and the randomness that draws from them."""

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldpilot.models.language.sampling import Law, Uniforms, invert, options, residual, saguaro, target_law

weights = st.lists(st.floats(0, 10), min_size=1, max_size=8).filter(lambda w: sum(w) > 1e-3).map(np.array)


@given(w=weights, u=st.floats(0, 1, exclude_max=True))
def test_what_has_no_weight_is_never_drawn(w: np.ndarray, u: float) -> None:
    index = invert(w, u)
    assert w[index] > 0
    share = np.cumsum(w) / w.sum()
    assert share[index] >= u - 1e-12
    assert index == 0 or share[index - 1] <= u + 1e-12


def test_the_noise_of_a_position_depends_on_the_seed_alone() -> None:
    p = np.full(100, 0.01)

    def numbers(noise: Uniforms) -> list[tuple[int, int, bool]]:
        return [(noise.draft(i, p), noise.target(i, p), noise.accept(i, 0.5)) for i in range(5)]

    assert numbers(Uniforms(3, 5)) == numbers(Uniforms(3, 50)) != numbers(Uniforms(4, 50))
    assert Uniforms(3, 5).accept(0, 1.0)
    assert not Uniforms(3, 5).accept(0, 0.0)


@given(w=weights, scale=st.floats(0, 1), top=st.integers(0, 8))
def test_saguaro_sampling_scales_the_likeliest(w: np.ndarray, scale: float, top: int) -> None:
    w = -np.sort(-w)
    q = saguaro(w, scale, top)
    assert q.sum() == pytest.approx(1)
    scaled = np.where(np.arange(len(w)) < top, scale * w, w)
    assert q == pytest.approx(scaled / scaled.sum() if scaled.any() else w / w.sum())
    assert saguaro(w, 1.0, top) == pytest.approx(w / w.sum())


def test_less_is_drafted_of_what_is_cached_and_more_rejections_fall_on_it() -> None:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.3, 0.1])
    order = np.arange(3)

    def hits(scale: float) -> float:
        """The share of the residual that is on the draft's likeliest token."""
        rest = residual(p, 1, Law(order, saguaro(q, scale, 1)))
        return float(rest[0] / rest.sum())

    assert hits(1.0) == 0
    assert 0 < hits(0.6) < hits(0.2) < hits(0.0)


def test_the_residual_is_what_p_has_more_than_q() -> None:
    p = np.array([0.5, 0.3, 0.2])
    assert residual(p, 2, Law(np.array([2, 0]), np.array([0.7, 0.3]))) == pytest.approx([0.2, 0.3, 0.0])
    assert residual(p, 0, None) == pytest.approx([0.0, 0.3, 0.2])
    assert residual(p, 0, Law(np.arange(3), p)) == pytest.approx(p)  # rounding left nothing


def test_the_targets_law(tiny_language: ModuleType) -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, 0.0])
    state = tiny_language.TinyGrammar(4, {-1: (0, 2), 2: (3,)}).start()
    assert target_law(options(logits, None), 0.0) == 1
    assert target_law(options(logits, state), 0.0) == 2
    p = target_law(options(logits, state), 0.5)
    assert isinstance(p, np.ndarray)
    assert p.dtype == np.float32
    assert p == pytest.approx(np.exp([2.0, -np.inf, 4.0, -np.inf]) / np.exp([2.0, 4.0]).sum())
    state.advance([2])
    assert target_law(options(logits, state), 0.5) == 3  # forced
    cold = target_law(options(logits, None), 1e-30)
    assert not isinstance(cold, int)
    assert cold.tolist() == [0, 1, 0, 0]
    double = target_law(options(logits.double(), None), 1.0)
    assert not isinstance(double, int)
    assert double.dtype == np.float64
