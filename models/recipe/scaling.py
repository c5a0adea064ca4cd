"""What a method is worth in data: how much more data the standard recipe needs for the same loss.

The standard recipe's loss over the amount of data D is described by L = A / D^B + C. A method that reaches the loss L
from D has the data efficiency D(L) / D with D(L) = (A / (L - C))^(1/B). Nothing is said where D(L) lies outside the
amounts that the law was fitted to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput

STEEPNESS = (0.02, 4.0)  # of the exponents B that are considered
GRID, ROUNDS = 40, 7  # of them, closer and closer around the best

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Law:
    """L = a / D^b + c, fitted to amounts of data from `least` to `most`."""

    a: float
    b: float
    c: float
    least: float
    most: float

    def loss(self, data: npt.ArrayLike) -> Array:
        """Loss at the amounts of data (...)."""
        return self.a / np.asarray(data, float) ** self.b + self.c

    def data(self, loss: float) -> float:
        """Amount of data with this loss, infinite where no amount is enough; see `within`."""
        return (self.a / (loss - self.c)) ** (1 / self.b) if loss > self.c and self.a > 0 else math.inf

    def within(self, data: float) -> bool:
        """Whether an amount of data lies in what was fitted."""
        return self.least * (1 - 1e-9) <= data <= self.most * (1 + 1e-9)


def fit_law(data: npt.ArrayLike, loss: npt.ArrayLike) -> Law:
    """Least squares of the relative errors, A and C not negative.

    Args:
        data: amounts, of shape (n,), n >= 4.
        loss: of shape (n,), positive.

    Raises:
        InvalidInput: fewer points, or values that are not positive.
    """
    x, y = np.asarray(data, float), np.asarray(loss, float)
    if x.shape != y.shape or x.ndim != 1 or len(np.unique(x)) < 4 or not (np.isfinite([x, y]).all()):
        raise InvalidInput(f"scaling: needs losses at 4 amounts of data or more, got shapes {x.shape} and {y.shape}")
    if min(x.min(), y.min()) <= 0:
        raise InvalidInput("scaling: amounts of data and losses must be positive")
    a, b, c = _fit(x, y[None])
    return Law(float(a[0]), float(b[0]), float(c[0]), float(x.min()), float(x.max()))


def _fit(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """A, B and C of many laws at once, (R,) each, from losses of shape (R, n) at the amounts (n,)."""
    unit, rows = x.min(), np.arange(len(y))
    grid = np.broadcast_to(np.geomspace(*STEEPNESS, GRID), (len(y), GRID))
    for _ in range(ROUNDS):
        best = _linear(x / unit, y, grid)[2].argmin(1)
        low, high = grid[rows, np.maximum(best - 1, 0)], grid[rows, np.minimum(best + 1, GRID - 1)]
        grid = np.linspace(low, high, GRID, axis=1)
    b = grid[:, GRID // 2]
    a, c, _ = (value[:, 0] for value in _linear(x / unit, y, b[:, None]))
    return a * unit**b, b, c


def _linear(x: Array, y: Array, b: Array) -> tuple[Array, Array, Array]:
    """The best A, C >= 0 for exponents b (R, G), and the sum of squared relative errors, all of shape (R, G)."""
    u, v = x ** -b[..., None] / y[:, None], 1 / y[:, None]
    uu, uv, vv, u1, v1 = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1), u.sum(-1), v.sum(-1)
    determinant = uu * vv - uv**2
    with np.errstate(divide="ignore", invalid="ignore"):
        a, c = (vv * u1 - uv * v1) / determinant, (uu * v1 - uv * u1) / determinant
    both = (a >= 0) & (c >= 0)  # otherwise one of them is 0
    only_a = ~both & (u1**2 / uu >= v1**2 / vv)
    a = np.where(both, a, np.where(only_a, u1 / uu, 0.0))
    c = np.where(both, c, np.where(only_a, 0.0, v1 / vv))
    return a, c, np.square(a[..., None] * u + c[..., None] * v - 1).sum(-1)


def efficiency(law: Law, data: float, loss: float) -> float | None:
    """D(L) / D of a method with this loss; None where D(L) lies outside what the law was fitted to."""
    needed = law.data(loss)
    return needed / data if law.within(needed) else None


def efficiencies(
    data: Sequence[float], standard: npt.ArrayLike, method: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> list[dict[str, Any]]:
    """Data efficiency of a method at every amount of data, with a 95 % bootstrap interval over the data's seeds.

    Args:
        data: amounts, of shape (n,).
        standard: losses of the standard recipe, of shape (n, S) over S data seeds.
        method: losses of the method, of shape (n, S), on the same data.
        resamples: of the data seeds, the same for all amounts.
        seed: of the resampling.

    Returns:
        For every amount "data", "value" and "ci": [low, high], each None where it lies outside the fitted amounts, and
        "inside": the share of the resamples that lie within.
    """
    law, needed = _resampled(data, standard, method, resamples, seed)
    losses, low, high = np.asarray(method, float).mean(1), *np.quantile(needed, [0.025, 0.975], 0, method="nearest")
    inside = (needed >= law.least * (1 - 1e-9)) & (needed <= law.most * (1 + 1e-9))
    return [
        {
            "data": float(amount),
            "value": efficiency(law, amount, float(losses[i])),
            "ci": [float(end / amount) if law.within(float(end)) else None for end in (low[i], high[i])],
            "inside": float(inside[:, i].mean()),
        }
        for i, amount in enumerate(data)
    ]


def mean_efficiency(
    data: Sequence[float], standard: npt.ArrayLike, method: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any] | None:
    """Geometric mean of a method's data efficiencies over the amounts that have one, with a 95 % bootstrap interval.

    Where a resample leaves the fitted amounts it counts as their nearest end: of what lies beyond nothing is known.

    Returns:
        "value", "ci", and the amounts "over" which the mean goes; None if there is no such amount.
    """
    law, needed = _resampled(data, standard, method, resamples, seed)
    values = [efficiency(law, x, float(y)) for x, y in zip(data, np.asarray(method, float).mean(1), strict=True)]
    over = [i for i, value in enumerate(values) if value is not None]
    if not over:
        return None
    amounts = np.asarray(data, float)[over]
    means = np.exp(np.log(np.clip(needed[:, over], law.least, law.most) / amounts).mean(1))
    value = float(np.exp(np.mean([np.log(value) for value in values if value is not None])))
    return {"value": value, "ci": np.quantile(means, [0.025, 0.975]).tolist(), "over": amounts.tolist()}


def _resampled(
    data: Sequence[float], standard: npt.ArrayLike, method: npt.ArrayLike, resamples: int, seed: int
) -> tuple[Law, Array]:
    """The standard recipe's law, and how much data it needs for the method's losses, (resamples, n)."""
    x, base, losses = (np.asarray(values, float) for values in (data, standard, method))
    if base.shape != losses.shape or base.ndim != 2 or len(base) != len(x) or base.shape[1] < 2:
        raise InvalidInput(f"scaling: losses must be of shape ({len(x)}, S >= 2), got {base.shape} and {losses.shape}")
    law, count = fit_law(x, base.mean(1)), base.shape[1]
    seeds = np.random.default_rng(seed).integers(count, size=(resamples, count))
    a, b, c = (value[:, None] for value in _fit(x, base[:, seeds].mean(2).T))
    above = losses[:, seeds].mean(2).T - c
    with np.errstate(divide="ignore", invalid="ignore"):
        return law, np.where((above > 0) & (a > 0), (a / above) ** (1 / b), np.inf)
