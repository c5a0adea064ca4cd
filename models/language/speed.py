"""How fast AR, SD and SSD should be, from measured times, the acceptance and the hit rate (PAPERS: 2603.03251, §4).

Rates are tokens a second. a is the chance that a drafted token is accepted, K the lookahead, E(a, K) the tokens a
verification is expected to make final.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worldpilot.models.language.fan_out import Outcomes, fan_out, outcome_probabilities


@dataclass(frozen=True)
class Times:
    """What the parts of a round take on this machine [s]."""

    verify: Mapping[int, float]  # by the number of tokens verified beside the target's own
    step: float  # one token drafted in a chain
    tree_step: float  # one token drafted in every branch of a tree

    def verification(self, lookahead: float) -> float:
        """The time for K drafted tokens, linear between the measured ones."""
        known = sorted(self.verify)
        if lookahead >= known[-1]:
            return self.verify[known[-1]] * (1 + lookahead) / (1 + known[-1])
        above = next(k for k in known if k >= lookahead)
        below = max((k for k in known if k <= lookahead), default=above)
        share = (lookahead - below) / (above - below) if above > below else 0.0
        return self.verify[below] + share * (self.verify[above] - self.verify[below])

    def build(self, lookahead: int) -> float:
        """The time for a tree: what was drafted is read, then K tokens are drafted in every branch."""
        return self.step + lookahead * self.tree_step


def expected_tokens(acceptance: float, lookahead: int) -> float:
    """E(a, K) = (1 - a^(K+1)) / (1 - a): the accepted tokens and the target's own."""
    return sum(acceptance**k for k in range(lookahead + 1))


def hit_rate(lookahead: int, budget: int, estimates: Outcomes) -> float:
    """The share of outcomes that a tree of so many branches is expected to prepare."""
    outcomes = outcome_probabilities([estimates.acceptance] * lookahead)
    sizes = fan_out(outcomes, estimates.exponent, budget, [budget] * (lookahead + 1))
    return estimates.hit_rate(outcomes, sizes)


def ar_rate(times: Times) -> float:
    return 1.0 / times.verification(0)


def sd_rate(times: Times, acceptance: float, lookahead: int) -> float:
    """Drafting and verification take turns."""
    return expected_tokens(acceptance, lookahead) / (times.verification(lookahead) + lookahead * times.step)


def ssd_rate(times: Times, acceptance: float, lookahead: int, hits: float) -> float:
    """A hit takes the longer of verification and build, a miss a verification and a draft made just in time."""
    verify, chain = times.verification(lookahead), lookahead * times.step
    each = hits * max(verify, times.build(lookahead)) + (1.0 - hits) * (verify + chain)
    return expected_tokens(acceptance, lookahead) / each


def longest_hidden(times: Times, candidates: Sequence[int]) -> int:
    """K* = T_verify / T_tree_step, rounded down: the longest lookahead whose tree is built within a verification."""
    hidden = [k for k in candidates if k * times.tree_step <= times.verification(k)]
    return max(hidden, default=min(candidates))
