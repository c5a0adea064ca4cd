"""Laws of the recipe for scarce data: searches, members side by side, what ensembles and data are worth."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worldpilot.models.dynamics.networks import DynamicsConfig
from worldpilot.models.recipe.ensemble import Hyper, Member, Sequences, Setting, asymptote, fit, identity, untrained
from worldpilot.models.recipe.scaling import efficiencies, efficiency, fit_law
from worldpilot.models.recipe.search import Point, neighbours, search

seeds = st.integers(0, 999)
AMOUNTS = 250 * 2.0 ** np.arange(6)


def bowl(seed: int) -> Callable[[Point], float]:
    """A loss with one minimum, in the settings' logarithms: they may depend on one another, and its edges are rough."""
    rng = np.random.default_rng(seed)
    centre, mixed = rng.uniform(-6, 6, 2), rng.normal(size=(2, 2))
    curvature = mixed @ mixed.T + 0.1 * np.eye(2)

    def loss(point: Point) -> float:
        x = np.log2([point["rate"], point["steps"]]) - centre
        return float(x @ curvature @ x + 0.3 * np.sin(3 * x).sum())

    return loss


@given(seeds)
def test_a_search_ends_where_every_neighbour_is_worse(seed: int) -> None:
    loss = bowl(seed)
    found = search(loss, {"rate": 1.0, "steps": 1.0})
    assert found.loss == loss(found.point)
    assert all(loss(point) >= found.loss for point in neighbours(found.point))
    assert len(found.tried) == len({tuple(point.values()) for point, _ in found.tried})  # none is tried twice
    assert found.at_limit == ()


@given(seeds)
def test_a_search_within_limits_says_where_it_could_go_no_further(seed: int) -> None:
    loss, limits = bowl(seed), {"rate": (0.5, 2.0)}
    found = search(loss, {"rate": 1.0, "steps": 1.0}, limits=limits)
    assert 0.5 <= found.point["rate"] <= 2
    assert all(loss(point) >= found.loss for point in neighbours(found.point, limits))
    assert ("rate" in found.at_limit) == (found.point["rate"] in (0.5, 2.0))


@given(seeds, st.integers(2, 7), st.integers(1, 5))
def test_the_loss_of_an_ensemble_is_bias_and_variance_over_k(seed: int, members: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.normal(size=outputs), rng.normal(size=(members, outputs)) * rng.uniform(0.1, 3)

    def loss(k: int) -> float:
        """Mean over all ensembles of k."""
        every = itertools.combinations(range(members), k)
        return float(np.mean([np.square(predicted[list(few)].mean(0) - truth).mean() for few in every]))

    losses = [loss(k) for k in range(1, members + 1)]
    bias, variance = identity(losses)
    np.testing.assert_allclose([bias + variance / k for k in range(1, members + 1)], losses, rtol=1e-9, atol=1e-12)
    assert variance == pytest.approx(predicted.var(0, ddof=1).mean(), rel=1e-6)
    assert asymptote(losses[0], losses[-1], members) == pytest.approx(bias, rel=1e-6, abs=1e-9)


def sequences(seed: int, frames: int, ahead: int) -> Sequences:
    """Noise: what is learned from it does not matter here."""
    generator = torch.Generator().manual_seed(seed)
    latents, actions = torch.randn(frames, 3, generator=generator), torch.rand(frames, 2, generator=generator) * 2 - 1
    return Sequences(latents, actions, np.arange(frames - ahead - 2), 1)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", ["step", "multi"])
@pytest.mark.parametrize("taught", [False, True])
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=seeds)
def test_members_trained_together_are_what_each_is_alone(kind: str, taught: bool, seed: int) -> None:
    """In double precision: where a gradient is 0 but for rounding, Adam makes a step of it."""
    config = DynamicsConfig(3, 2, kind, history=2, horizon=3, hidden=8, layers=1)
    data, lessons = sequences(seed, 40, 3), sequences(seed + 1, 60, 3)
    rng = np.random.default_rng(seed)
    members = [
        Member(seed + i, rng.choice(30, 12), rng.choice(50, 20) if taught else None, 0.5 if taught else 0.0)
        for i in range(3)
    ]
    scale, hyper, setting = torch.full((3, 3), 0.7), Hyper(3e-3, 0.3, 12), Setting(batch=8, rollout=3, short=0.5)
    teacher = lessons if taught else None
    together = fit(config, scale, data, members, hyper, setting, teacher=teacher)
    for i, member in enumerate(members):
        alone = fit(config, scale, data, [member], hyper, setting, teacher=teacher)
        before = untrained(config, scale, [member.seed])
        for name, weights in alone.named_parameters():
            assert (weights - before.get_parameter(name)).abs().max() > 1e-3, name
            assert torch.allclose(together.get_parameter(name)[i], weights[0], rtol=0, atol=1e-9), name


laws = st.tuples(st.floats(0.2, 20), st.floats(0.15, 1.5), st.floats(0, 0.5))


@given(laws)
def test_a_known_law_is_found_again(law: tuple[float, float, float]) -> None:
    at_least, b, c = law
    losses = at_least * (AMOUNTS / AMOUNTS[0]) ** -b + c
    fitted = fit_law(AMOUNTS, losses)
    np.testing.assert_allclose(fitted.loss(AMOUNTS), losses, rtol=1e-5)
    assert fitted.b == pytest.approx(b, rel=2e-2)
    assert fitted.c == pytest.approx(c, abs=2e-2 * at_least)


@given(laws, st.floats(0.6, 3.0))
def test_what_learns_as_if_it_had_more_data_is_worth_that_many_times_the_data(
    law: tuple[float, float, float], factor: float
) -> None:
    at_least, b, c = law

    def loss(amount: float) -> float:
        return float(at_least * (amount / AMOUNTS[0]) ** -b + c)

    fitted = fit_law(AMOUNTS, [loss(amount) for amount in AMOUNTS])
    for amount in AMOUNTS:
        value = efficiency(fitted, amount, loss(factor * amount))
        if AMOUNTS[0] * 1.01 < factor * amount < AMOUNTS[-1] * 0.99:
            assert value == pytest.approx(factor, rel=0.02)
        elif not AMOUNTS[0] * 0.99 < factor * amount < AMOUNTS[-1] * 1.01:
            assert value is None  # nothing is said outside what was fitted


def test_the_interval_of_an_efficiency_covers_it() -> None:
    """Over 30 experiments with 8 data seeds each, at 3 amounts: a 95 % interval of so few seeds covers less often."""
    covered = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        standard, method = (
            (4 * (factor * AMOUNTS) ** -0.6 + 0.02)[:, None] * np.exp(rng.normal(0, 0.05, (6, 8)))
            for factor in (1.0, 1.6)
        )
        for figure in efficiencies(AMOUNTS.tolist(), standard, method, resamples=60, seed=seed)[1:4]:
            low, high = figure["ci"]
            covered.append((low or 0) <= 1.6 <= (high or np.inf))
    assert np.mean(covered) > 0.8
