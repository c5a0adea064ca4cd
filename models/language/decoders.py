"""Generation: the target verifies what a speculator drafted, round after round.

AR, SD and SSD are one loop. They differ in who speculates: nobody (`Silent`), the draft after each verification
(`Serial`), or the draft in a process of its own, during the verification (`draft_worker.Beside`).
"""

import math
import time
from collections.abc import Callable
from typing import Protocol

import torch

from worldpilot.errors import InvalidInput
from worldpilot.models.language.base import Cancelled, DecodeStats, Finish, Generation, GrammarState, OnTokens, Request
from worldpilot.models.language.context import PREFILL_CHUNK, Context, Model, common_prefix
from worldpilot.models.language.sampling import Noise, Uniforms
from worldpilot.models.language.speculation import Draft, Speculation
from worldpilot.models.language.verify import verify

MakeNoise = Callable[[int, int], Noise]  # from the request's seed and its number of tokens


class Speculator(Protocol):
    """Who drafts. What it drafts may be anything, at any time: it decides how fast the text comes, not which."""

    def start(self, request: Request) -> None:
        """Begin a text."""
        ...

    def advance(self, tokens: list[int]) -> None:
        """These tokens have become final: those accepted of the last speculation, and the target's own."""
        ...

    def take(self, deadline: float | None) -> Speculation:
        """What follows the final tokens; empty if nothing can be had by the deadline, `time.monotonic()` [s]."""
        ...

    def notes(self) -> list[str]:
        """What has been decided or has gone wrong since the last call, for people."""
        ...

    def close(self) -> None: ...


class Silent:
    """AR: nothing is drafted. (What the grammar forces is read together all the same.)"""

    def start(self, request: Request) -> None: ...

    def advance(self, tokens: list[int]) -> None: ...

    def take(self, deadline: float | None) -> Speculation:
        return Speculation((), ())

    def notes(self) -> list[str]:
        return []

    def close(self) -> None: ...


class Serial:
    """SD: a chain is drafted when the verification is over."""

    def __init__(self, draft: Draft, noise: MakeNoise = Uniforms) -> None:
        self._draft, self._noise = draft, noise

    def start(self, request: Request) -> None:
        self._request, self._tokens = request, list[int]()

    def advance(self, tokens: list[int]) -> None:
        self._tokens = tokens

    def take(self, deadline: float | None) -> Speculation:
        if self._tokens:
            return self._draft.advance(self._tokens)
        return self._draft.start(self._request, self._noise(self._request.seed, self._request.max_tokens))

    def notes(self) -> list[str]:
        return []

    def close(self) -> None: ...


class SpeculativeDecoder:
    """Text from the target, by whatever speculator: the same at temperature 0, from the same distribution above.

    The cache keeps the last text: a prompt that begins as it did is read from where they part. In bfloat16, logits
    depend in the last bit on how many tokens are read at once, so near-ties may fall differently with another prompt
    before, another lookahead or none.

    Args:
        target: the model.
        speculator: who drafts; closed with the decoder.
        context: the longest text, prompt and output together; the model's own limit by default.
        noise: the randomness of a generation.
    """

    def __init__(
        self, target: Model, speculator: Speculator, context: int | None = None, noise: MakeNoise = Uniforms
    ) -> None:
        self._length = min(context or target.config.context, target.config.context)
        self._context = Context(target, self._length)
        self._speculator, self._noise = speculator, noise

    @torch.inference_mode()
    def generate(
        self, request: Request, on_tokens: OnTokens | None = None, cancelled: Cancelled | None = None
    ) -> Generation:
        """See `Decoder`. Each round: speculate, verify, commit."""
        check(request, self._context.model.config.vocab_size, self._length)
        stats, tokens, log_probability = DecodeStats(), list[int](), 0.0
        noise = self._noise(request.seed, request.max_tokens)
        state = None if request.grammar is None else request.grammar.start()

        def interrupted() -> Finish | None:
            if cancelled is not None and cancelled():
                return Finish.CANCELLED
            late = request.deadline is not None and time.monotonic() >= request.deadline
            return Finish.DEADLINE if late else None

        self._speculator.start(request)
        finish = self._prefill(request.prompt, stats, interrupted)
        while finish is None:
            speculation = self._speculate(request, len(tokens), state, stats)
            start = time.perf_counter()
            last = tokens[-1] if tokens else request.prompt[-1]
            logits = self._context.read([last, *speculation.tokens])
            final, settled = verify(
                logits,
                speculation,
                temperature=request.temperature,
                noise=noise,
                position=len(tokens),
                end=request.end,
                state=state,
            )
            tokens += final
            log_probability += settled
            stats.verify.append(time.perf_counter() - start)
            stats.accepted.append(common_prefix(final, speculation.tokens))
            finish = Finish.END if tokens[-1] in request.end else None
            finish = finish or (Finish.LENGTH if len(tokens) == request.max_tokens else interrupted())
            if finish is None:
                self._speculator.advance(final)
            self._context.keep(len(request.prompt) + len(tokens) - 1)  # the last token has not been read
            if on_tokens is not None:
                on_tokens(final)
        stats.notes += self._speculator.notes()
        return Generation(tuple(tokens), finish, stats, log_probability)

    def close(self) -> None:
        self._speculator.close()

    def _prefill(
        self, prompt: tuple[int, ...], stats: DecodeStats, interrupted: Callable[[], Finish | None]
    ) -> Finish | None:
        """Read the prompt but for its last token, in chunks, unless something interrupts."""
        start = time.perf_counter()
        self._context.keep_common(prompt)
        finish = interrupted()
        while finish is None and (chunk := prompt[len(self._context.tokens) : -1][:PREFILL_CHUNK]):
            self._context.read(chunk, last=0)
            finish = interrupted()
        stats.prefill = time.perf_counter() - start
        return finish

    def _speculate(
        self, request: Request, position: int, state: GrammarState | None, stats: DecodeStats
    ) -> Speculation:
        """The next speculation: the speculator's, or what the grammar forces; it leaves room for a bonus."""
        start = time.perf_counter()
        speculation = self._speculator.take(request.deadline)
        stats.draft.append(time.perf_counter() - start)
        stats.hits.append(speculation.hit)
        if not math.isnan(speculation.build):
            stats.build.append(speculation.build)
        tokens, laws = speculation.tokens, speculation.laws
        if not tokens and state is not None:
            tokens = tuple(state.forced())
            laws = (None,) * len(tokens)
        room = request.max_tokens - position - 1
        stats.speculated.append(len(tokens[:room]))
        return Speculation(tokens[:room], laws[:room])


def check(request: Request, vocab_size: int, context: int) -> None:
    """Refuse a request that cannot be met.

    Raises:
        InvalidInput: see `Decoder.generate`.
    """
    if not request.prompt:
        raise InvalidInput("generation: the prompt must hold at least one token")
    if not all(0 <= token < vocab_size for token in request.prompt):
        wrong = next(token for token in request.prompt if not 0 <= token < vocab_size)
        raise InvalidInput(f"generation: token {wrong} of the prompt is not within the vocabulary of {vocab_size}")
    if request.max_tokens < 1:
        raise InvalidInput(f"generation: max_tokens must be at least 1, got {request.max_tokens}")
    if not (math.isfinite(request.temperature) and request.temperature >= 0):
        raise InvalidInput(f"generation: the temperature must be 0 (greedy) or positive, got {request.temperature}")
    if len(request.prompt) + request.max_tokens > context:
        raise InvalidInput(
            f"generation: a prompt of {len(request.prompt)} tokens and {request.max_tokens} more do not fit into the "
            f"context of {context}; shorten the prompt or lower max_tokens"
        )
