"""Confidence intervals."""

import math

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion; z = 1.96 for 95 %.

    Raises:
        InvalidInput: not 0 <= successes <= n, or n < 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise InvalidInput(f"wilson: needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    p, z2 = successes / n, z * z / n
    centre, half = p + z2 / 2, z * math.sqrt(p * (1 - p) / n + z2 / (4 * n))
    return max(0.0, (centre - half) / (1 + z2)), min(1.0, (centre + half) / (1 + z2))


def bootstrap_mean(
    values: npt.ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979). Of paired differences: resample the pairs.

    Args:
        values: of shape (n,), independent of one another; for two policies on the same starts, their differences.
        level: coverage of the interval.

    Raises:
        InvalidInput: fewer than 2 values, a value that is not finite, or a level outside (0, 1).
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise InvalidInput(f"bootstrap: needs at least 2 finite values in one dimension, got shape {sample.shape}")
    if not 0 < level < 1:
        raise InvalidInput(f"bootstrap: level must be in (0, 1), got {level}")
    rng = np.random.default_rng(seed)
    means = sample[rng.integers(len(sample), size=(resamples, len(sample)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
