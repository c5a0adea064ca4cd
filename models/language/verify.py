"""Which drafted tokens become final, and the one that follows them (Leviathan et al. 2023, Chen et al. 2023)."""

from collections.abc import Collection
from typing import NamedTuple

from torch import Tensor

from worldpilot.models.language.base import GrammarState
from worldpilot.models.language.sampling import Noise, Options, options, residual, target_law
from worldpilot.models.language.speculation import Speculation


class Verified(NamedTuple):
    """Tokens that become final."""

    tokens: list[int]  # the accepted ones and the bonus token; no bonus follows an end token
    log_probability: float  # of them, as the target has it at temperature 1 under the grammar; forced ones are certain


def verify(
    logits: Tensor,
    speculation: Speculation,
    *,
    temperature: float,
    noise: Noise,
    position: int,
    end: Collection[int],
    state: GrammarState | None,
) -> Verified:
    """The tokens that become final, distributed as if the target had drawn each of them, whatever q' is.

    Args:
        logits: the target's, before the first drafted token and after each, of shape (L + 1, V).
        speculation: L drafted tokens, each with the distribution q' it was drawn from.
        temperature: of the target; 0 is greedy.
        noise: the generation's randomness.
        position: of the first drafted token in the output.
        end: tokens that end the text.
        state: where the grammar stands; it goes past the tokens returned, but no end token.
    """
    final: list[int] = []
    log_probability = 0.0

    def settle(token: int, among: Options) -> bool:
        """Whether the text goes on behind this token."""
        nonlocal log_probability
        final.append(token)
        log_probability += among.log_probability(token)
        if token in end:
            return False
        if state is not None:
            state.advance([token])
        return True

    for row, token, q in zip(logits, speculation.tokens, speculation.laws, strict=False):
        among = options(row, state)
        p = target_law(among, temperature)
        if isinstance(p, int):  # p is certain, so the residual is p itself
            accepted, bonus = token == p, p
        else:  # p >= q': always accepted; the residual gives a rejection's loss back where p > q'
            accepted = noise.accept(position + len(final), float(p[token]) / (1.0 if q is None else q.of(token)))
            bonus = token if accepted else noise.target(position + len(final), residual(p, token, q))
        if not settle(bonus, among) or not accepted:
            return Verified(final, log_probability)
    among = options(logits[len(final)], state)
    p = target_law(among, temperature)
    settle(p if isinstance(p, int) else noise.target(position + len(final), p), among)
    return Verified(final, log_probability)
