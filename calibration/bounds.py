"""Bounds on an expected loss from independent losses in [0, 1], each with its proof in a line.

For a predictor fixed before n independent losses are seen, with mean r and expectation R,
P(kl(r||R) >= c and r <= R) <= exp(-n c) (Chernoff, Hoeffding 1963: the losses need not be identically distributed, R is
then the mean of their expectations; nor binary, the binary case is the worst). For one of many predictors, each with a
share 2^-K of the failures: kl(r||R) <= (K ln 2 + ln 1/delta) / n for all of them at once, and so for the one that was
chosen after seeing the losses (Occam's bound; Lotfi et al., arXiv 2211.13609).
"""

import math

from worldpilot.errors import InvalidInput


def kl(r: float, q: float) -> float:
    """Kullback-Leibler divergence of two coins, the first with probability r, in nats; infinite where q excludes r."""
    terms = ((r, q), (1.0 - r, 1.0 - q))
    if any(q_ <= 0.0 < r_ for r_, q_ in terms):
        return math.inf
    return sum(r_ * math.log(r_ / q_) for r_, q_ in terms if r_ > 0.0)


def kl_inverse(r: float, budget: float) -> float:
    """The largest q with kl(r||q) <= budget, by bisection to the last bit, rounded up.

    Raises:
        InvalidInput: r outside [0, 1], or a budget that is negative or not a number.
    """
    if not 0.0 <= r <= 1.0 or not budget >= 0.0:
        raise InvalidInput(f"bound: needs a mean in [0, 1] and a budget >= 0, got {r} and {budget}")
    low, high = r, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if kl(r, middle) <= budget else (low, middle)
    return high


def held_out_bound(mean: float, n: int, delta: float) -> float:
    """What the expected loss exceeds with probability at most delta, from n losses the predictor was not chosen by."""
    return kl_inverse(mean, _budget(0.0, n, delta))


def compression_bound(mean: float, n: int, complexity: float, delta: float) -> float:
    """The same of a predictor chosen by these losses, that takes `complexity` bits, prefix-free, to say which."""
    return kl_inverse(mean, _budget(complexity, n, delta))


def compression_bound_sqrt(mean: float, n: int, complexity: float, delta: float) -> float:
    """The looser bound by Pinsker's inequality, r + sqrt((K ln 2 + ln 1/delta) / 2n): may exceed 1."""
    return mean + math.sqrt(_budget(complexity, n, delta) / 2.0)


def complexity(bits: int, searched: int = 1) -> float:
    """Bits that say which predictor, prefix-free, for a message of `bits` under one of `searched` codes.

    A message does not say where it ends: 2 log2 C bits more say how long it is (Lotfi et al.). Messages are whole
    bytes, so that Kraft's sum is below 1 (it is .03). Each code that was tried has an equal share of the failures.
    """
    if bits < 8 or bits % 8 or searched < 1:
        raise InvalidInput(f"bound: needs a message of whole bytes and at least 1 code, got {bits} bits, {searched}")
    return bits + 2.0 * math.log2(bits) + math.log2(searched)


def _budget(complexity: float, n: int, delta: float) -> float:
    if n < 1 or not 0.0 < delta < 1.0 or not complexity >= 0.0:
        raise InvalidInput(f"bound: needs n >= 1, 0 < delta < 1, bits >= 0, got {n}, {delta}, {complexity}")
    return (complexity * math.log(2.0) + math.log(1.0 / delta)) / n
