"""How many bonus tokens to prepare for each outcome of a verification (Kumar, Dao, May 2026, Theorem 12)."""

from collections.abc import Sequence

import numpy as np

from worldpilot.models.language.sampling import FloatArray


def outcome_probabilities(acceptance: Sequence[float], ends: bool = False) -> FloatArray:
    """How likely k = 0..L drafted tokens are accepted, of shape (L + 1,): a geometric law, capped at L.

    Args:
        acceptance: of each drafted token, given that those before it were accepted; 1 for tokens a grammar forces.
        ends: the last drafted token ends the text: nothing follows its acceptance, so that outcome counts 0.
    """
    reached = np.cumprod([1.0, *acceptance])
    return np.append(reached[:-1] * (1.0 - np.asarray(acceptance)), 0.0 if ends else reached[-1])


def fan_out(outcomes: FloatArray, exponent: float, budget: int, available: Sequence[int]) -> list[int]:
    """How many bonus tokens F_k to prepare for each outcome, at most `budget` together.

    The best shares under a miss rate of F^-r are F_k ~ P_k^(1/(1+r)): with P_k = a^k (1 - a) and P_K = a^K these are
    the theorem's F_0 a^(k/(1+r)) and F_0 (a^K/(1 - a))^(1/(1+r)). Shares are rounded down; the largest remainders get
    what is left.

    Args:
        outcomes: P_k, of shape (L + 1,); 0 where nothing need be prepared.
        exponent: r > 0.
        budget: B, the branches a tree may have.
        available: how many bonus tokens there are to choose from, one an outcome.
    """
    weights = outcomes ** (1.0 / (1.0 + exponent))
    limits = np.where(weights > 0, np.asarray(available, np.int64), 0)
    sizes = np.zeros(len(weights), np.int64)
    open_ = limits > 0
    while open_.any() and (left := budget - int(sizes[~open_].sum())) > 0:
        share = np.where(open_, left * weights / weights[open_].sum(), 0.0)
        full = open_ & (share >= limits)  # these take all they can, the others share the rest
        if not full.any():
            sizes[open_] = share[open_].astype(np.int64)
            for k in np.argsort(sizes - share, kind="stable")[: budget - int(sizes.sum())]:
                sizes[k] += open_[k]
            break
        sizes[full] = limits[full]
        open_ &= ~full
    return sizes.tolist()


RANKS = 32  # from 1 on, told apart; the rest is one cell
EXPONENTS = np.geomspace(0.2, 4.0, 61)
_EDGES = np.append(np.arange(1.0, RANKS + 2)[None] ** -EXPONENTS[:, None], np.zeros((len(EXPONENTS), 1)), axis=1)
_CELLS = -np.diff(_EDGES, axis=1)  # P(rank), of shape (61, RANKS + 1)
_LOG_CELLS = np.log(_CELLS)


class Outcomes:
    """Online estimates of the acceptance a and of the exponent r, each with a prior worth 20 observations.

    The law P(rank of the bonus > F) = F^-r calls F = 1 a sure miss: it is meant for the tail. So r is the likeliest
    exponent of P(rank > F) = (F + 1)^-r, among `EXPONENTS`.

    Args:
        acceptance: expected before anything is observed.
        exponent: likewise.
    """

    def __init__(self, acceptance: float = 0.8, exponent: float = 1.0) -> None:
        self._accepted, self._rejected = 20.0 * acceptance, 20.0 * (1.0 - acceptance)
        self._ranks = 20.0 * _CELLS[np.abs(EXPONENTS - exponent).argmin()]

    def observe(self, accepted: int, rejected: bool, rank: int | None) -> None:
        """Learn from a verification.

        Args:
            accepted: drafted tokens accepted, forced ones aside.
            rejected: whether one was rejected after them.
            rank: of the bonus among those that the draft held possible, from 1; None where it had no say.
        """
        self._accepted += accepted
        self._rejected += rejected
        if rank is not None:
            self._ranks[min(rank, RANKS + 1) - 1] += 1

    @property
    def acceptance(self) -> float:
        """a, within [0.05, 0.98]."""
        return float(np.clip(self._accepted / (self._accepted + self._rejected), 0.05, 0.98))

    @property
    def exponent(self) -> float:
        """r, within [0.2, 4]."""
        return float(EXPONENTS[(_LOG_CELLS @ self._ranks).argmax()])

    def hit_rate(self, outcomes: FloatArray, sizes: Sequence[int]) -> float:
        """The share of outcomes for which the bonus is expected among the `sizes` prepared ones."""
        return float((outcomes * (1.0 - (1.0 + np.asarray(sizes)) ** -self.exponent)).sum() / outcomes.sum())
