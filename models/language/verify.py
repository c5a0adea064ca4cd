"""Which drafted tokens become final, and the one that follows them (Leviathan et al. 2023, Chen et al. 2023)."""

from collections.abc import Collection

from torch import Tensor

from worldpilot.models.language.base import GrammarState
from worldpilot.models.language.sampling import Noise, residual, target_law
from worldpilot.models.language.speculation import Speculation


def verify(
    logits: Tensor,
    speculation: Speculation,
    *,
    temperature: float,
    noise: Noise,
    position: int,
    end: Collection[int],
    state: GrammarState | None,
) -> list[int]:
    """The tokens that become final, distributed as if the target had drawn each of them, whatever q' is.

    Args:
        logits: the target's, before the first drafted token and after each, of shape (L + 1, V).
        speculation: L drafted tokens, each with the distribution q' it was drawn from.
        temperature: of the target; 0 is greedy.
        noise: the generation's randomness.
        position: of the first drafted token in the output.
        end: tokens that end the text.
        state: where the grammar stands; it goes past the tokens returned, but no end token.

    Returns:
        The accepted tokens and the bonus token. No bonus follows an end token.
    """
    final: list[int] = []

    def settle(token: int) -> bool:
        """Whether the text goes on behind this token."""
        final.append(token)
        if token in end:
            return False
        if state is not None:
            state.advance([token])
        return True

    for row, token, q in zip(logits, speculation.tokens, speculation.laws, strict=False):
        p = target_law(row, temperature, state)
        if isinstance(p, int):  # p is certain, so the residual is p itself
            accepted, bonus = token == p, p
        else:  # p >= q': always accepted; the residual gives a rejection's loss back where p > q'
            accepted = noise.accept(position + len(final), float(p[token]) / (1.0 if q is None else q.of(token)))
            bonus = token if accepted else noise.target(position + len(final), residual(p, token, q))
        if not settle(bonus) or not accepted:
            return final
    p = target_law(logits[len(final)], temperature, state)
    settle(p if isinstance(p, int) else noise.target(position + len(final), p))
    return final
