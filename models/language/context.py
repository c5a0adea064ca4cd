"""A model together with the tokens it has read."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

PREFILL_CHUNK = 256  # tokens of a prompt that are read at once: how long it takes to notice an interruption


class ModelConfig(Protocol):
    """What decoding has to know of a model."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int: ...


class Model(Protocol):
    """A causal language model over one sequence, or over a tree of sequences by its mask."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def head_tokens(self) -> Tensor | None:
        """The tokens that the columns of the logits stand for, of shape (V',); None: column i is token i."""
        ...

    def cache(self, capacity: int | None = None) -> "Cache":
        """An empty cache with so many slots."""
        ...

    def forward(
        self,
        tokens: Tensor,
        cache: Any,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        last: int | None = None,
    ) -> Tensor:
        """Read tokens of shape (T,), append T slots to the cache and give the logits after each, of shape (T, V').

        `positions` (T,) go on from the cache's length by default. `mask` (T, length + T), true where token t sees slot
        s, is causal by default. `last` limits the logits to those after so many last tokens.
        """
        ...


class Cache(Protocol):
    """The keys and values of the tokens a model has read, one slot a token."""

    length: int

    def truncate(self, length: int) -> None:
        """Keep the first `length` slots."""
        ...

    def gather(self, slots: Sequence[int]) -> None:
        """Keep these slots, in this order."""
        ...


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts share from the first on."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class Context:
    """A model and the text in its cache: slot i holds `tokens[i]` at position i.

    Args:
        model: any that obeys `Model`.
        capacity: slots of its cache; a tree needs some beyond the longest text.
    """

    def __init__(self, model: Model, capacity: int) -> None:
        self.model, self.cache = model, model.cache(capacity)
        self.tokens: list[int] = []

    def keep(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.cache.truncate(length)
        del self.tokens[length:]

    def keep_common(self, text: Sequence[int]) -> None:
        """Forget what does not begin `text`, and at least its last token: reading that gives the next one's logits."""
        self.keep(min(common_prefix(self.tokens, text), len(text) - 1))

    def read(self, tokens: Sequence[int], last: int | None = None) -> Tensor:
        """Go on with tokens; the logits after each, or after the `last` so many, of shape (len(tokens), V')."""
        logits = self.model.forward(torch.tensor(tokens, device=self.model.device), self.cache, last=last)
        self.tokens.extend(tokens)
        return logits
