"""Where tokens come from: the target's distribution p, the draft's q', and the randomness of both.

The randomness is keyed by output position, three uniform numbers each: one draws the drafted token, one decides whether
it is accepted, one draws the target's own token. A token that was drafted behind a rejected one is thrown away before
anything that depends on its number becomes final; its number is as good as new. So all branches of a tree and a draft
made just in time use the same numbers: the sample depends on the seed and the lookahead, not on what the speculation
cache held. Only a round for which nothing could be drafted, as the draft's process was late or dead, makes it another
sample, of the same law.
"""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worldpilot.models.language.base import GrammarState

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Law(NamedTuple):
    """A distribution over some of the vocabulary, likeliest tokens of the model first."""

    tokens: IntArray  # (m,)
    probabilities: FloatArray  # (m,)

    def of(self, token: int) -> float:
        """The probability of a token."""
        return float(self.probabilities[self.tokens == token].sum())


class Noise(Protocol):
    """The randomness of one generation. Positions count output tokens from 0."""

    def draft(self, position: int, probabilities: FloatArray) -> int:
        """An index drawn by the draft."""
        ...

    def accept(self, position: int, probability: float) -> bool:
        """True with this probability; a probability of 1 or more is certain."""
        ...

    def target(self, position: int, weights: npt.NDArray[np.floating]) -> int:
        """An index drawn for the target; the weights need not sum to 1."""
        ...


class Uniforms:
    """Noise from a seed. The first tokens' numbers do not depend on how many there are."""

    def __init__(self, seed: int, length: int) -> None:
        self._draft, self._accept, self._target = np.random.default_rng(seed).random((length, 3)).T

    def draft(self, position: int, probabilities: FloatArray) -> int:
        return invert(probabilities, self._draft[position])

    def accept(self, position: int, probability: float) -> bool:
        return bool(self._accept[position] < probability)

    def target(self, position: int, weights: npt.NDArray[np.floating]) -> int:
        return invert(weights, self._target[position])


def invert(weights: npt.NDArray[np.floating], u: float) -> int:
    """The inverse of the distribution function at u in [0, 1); an index of weight 0 is never drawn."""
    total = np.cumsum(weights, dtype=np.float64)
    return int(np.searchsorted(total, u * total[-1], side="right"))


class Options(NamedTuple):
    """What may come next, and the target's logits of it, of the m tokens that the grammar allows."""

    tokens: IntArray | None  # (m,), rising; None: the whole vocabulary
    logits: Tensor  # (m,)
    vocab_size: int  # V

    def log_probability(self, token: int) -> float:
        """Of one of them, at temperature 1."""
        if len(self.logits) == 1:
            return 0.0
        index = token if self.tokens is None else int(np.searchsorted(self.tokens, token))
        logits = self.logits.float()
        return float(logits[index] - logits.logsumexp(-1))


def options(logits: Tensor, state: GrammarState | None) -> Options:
    """What the grammar leaves of the target's logits.

    Args:
        logits: (V,).
        state: where the grammar stands, or None.
    """
    if state is None:
        return Options(None, logits, len(logits))
    if forced := state.forced():
        return Options(np.array(forced[:1]), logits[forced[0] : forced[0] + 1], len(logits))
    tokens = np.flatnonzero(state.mask())
    allowed = logits[torch.from_numpy(tokens).to(logits.device)]
    for token, value in state.bias().items():
        allowed[np.searchsorted(tokens, token)] += value
    return Options(tokens, allowed, len(logits))


def target_law(among: Options, temperature: float) -> int | npt.NDArray[np.float32] | FloatArray:
    """p, the target's distribution of the next token.

    Args:
        among: what may come next.
        temperature: 0 is greedy.

    Returns:
        The token if there is only one (forced by the grammar, or greedy), otherwise probabilities of shape (V,) in
        float32, in float64 if the logits are.
    """
    tokens, logits, vocab_size = among
    if tokens is not None and len(tokens) == 1:
        return int(tokens[0])
    if temperature == 0:
        index = int(logits.argmax())
        return index if tokens is None else int(tokens[index])
    if logits.dtype != torch.float64:
        logits = logits.float()
    law = torch.softmax((logits - logits.max()) / temperature, dim=-1).cpu().numpy()
    if tokens is None:
        return law
    p = np.zeros(vocab_size, law.dtype)
    p[tokens] = law
    return p


def saguaro(weights: FloatArray, scale: float, top: int) -> FloatArray:
    """q' of Saguaro sampling: the draft's `top` likeliest tokens count `scale` (C) times, then normalised.

    Less is drafted of what is cached as a bonus, so that the residual max(p - q', 0) falls on cached tokens. Where it
    would leave nothing, the draft's own distribution stays.

    Args:
        weights: (m,), falling.
        scale: C in [0, 1]; 1 leaves the draft as it is.
        top: F.
    """
    scaled = weights.copy()
    scaled[:top] *= scale
    total = scaled.sum()
    return scaled / total if total > 0 else weights / weights.sum()


def residual(p: npt.NDArray[np.floating], token: int, q: Law | None) -> FloatArray:
    """What is left of p where q' has been rejected: max(p - q', 0) of shape (V,), not normalised.

    `q` None is the distribution that is certain of `token`. Where rounding leaves nothing, p and q' are equal and p is
    what remains.
    """
    rest = p.astype(np.float64)
    if q is None:
        rest[token] = 0.0
    else:
        rest[q.tokens] = np.maximum(rest[q.tokens] - q.probabilities, 0.0)
    return rest if rest.any() else p.astype(np.float64)
