"""Confidence intervals."""

import math

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
