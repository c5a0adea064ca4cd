"""How well a score tells faulty episodes from good ones: what is reported of a detector."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.calibration.intervals import wilson
from worldpilot.errors import InvalidInput

Scores = npt.NDArray[np.floating[Any]]


def threshold(good: Scores, alpha: float) -> float:
    """The score that a new good episode exceeds with probability at most alpha, if it is exchangeable with `good` (n,).

    The order statistic of rank ceil((n + 1)(1 - alpha)): split conformal prediction.

    Raises:
        InvalidInput: fewer episodes than 1/alpha - 1.
    """
    n = len(good)
    rank = math.ceil(round((n + 1) * (1.0 - alpha), 9))
    if not 0.0 < alpha < 1.0 or rank > n:
        raise InvalidInput(f"threshold: {n} good episodes are too few for alpha {alpha}, 0 < alpha < 1; collect more")
    return float(np.sort(good)[rank - 1])


def auroc(good: Scores, faulty: Scores) -> float:
    """Probability that a faulty episode scores above a good one, ties counting half; from (n,) and (m,) scores."""
    if len(good) == 0 or len(faulty) == 0:
        raise InvalidInput(f"auroc: needs scores of both kinds, got {len(good)} good and {len(faulty)} faulty ones")
    if np.isnan(good).any() or np.isnan(faulty).any():
        raise InvalidInput("auroc: scores must not be NaN; leave those episodes out")
    ascending = np.sort(good)
    below = np.searchsorted(ascending, faulty, "left") + np.searchsorted(ascending, faulty, "right")
    return float(below.mean() / (2 * len(good)))


def auroc_interval(
    good: Scores, faulty: Scores, rng: np.random.Generator, *, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap of the AUROC of paired episodes: (n,) scores without, and (n,) of the same with the fault.

    Pairs are drawn, so that what good and faulty runs of one episode share stays shared. Where the scores do not
    overlap every resample gives 1: read the interval of the recall instead.
    """
    if good.shape != faulty.shape:
        raise InvalidInput(f"auroc_interval: needs pairs, got {good.shape} and {faulty.shape}")
    draws = rng.integers(len(good), size=(resamples, len(good)))
    values = [auroc(good[draw], faulty[draw]) for draw in draws]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share(hits: npt.ArrayLike) -> dict[str, Any]:
    """A proportion with Wilson's 95 % interval, as results are written: value, n, ci."""
    n, count = np.size(hits), int(np.sum(hits))
    return {"value": count / n, "n": n, "ci": list(wilson(count, n))}
