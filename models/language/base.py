"""What the parts of language decoding say to each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from llguidance import LLTokenizer

BoolArray = npt.NDArray[np.bool_]


class GrammarState(Protocol):
    """Where a constrained output stands. V is the target's vocabulary, the end token included."""

    def mask(self) -> BoolArray:
        """The tokens that may come next, of shape (V,). Once `finished`, only end tokens may."""
        ...

    def bias(self) -> Mapping[int, float]:
        """What is added to the logits of some of these tokens: the text's law is the model's own but for that."""
        ...

    def accepts(self, tokens: Sequence[int]) -> int:
        """How many of `tokens`, from the first on, may follow one another; the state does not move."""
        ...

    def advance(self, tokens: Sequence[int]) -> None:
        """Go past tokens that were accepted."""
        ...

    def rollback(self, count: int) -> None:
        """Take back the last `count` tokens."""
        ...

    def forced(self) -> list[int]:
        """The tokens that must come next, as there is no choice; the state does not move."""
        ...

    def fork(self) -> Self:
        """An independent copy."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the text is complete as it stands and nothing but an end token can follow."""
        ...


class Vocabulary(Protocol):
    """What a grammar needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    def llguidance(self) -> "LLTokenizer": ...


class Grammar(Protocol):
    """A compiled grammar, shared by any number of generations. Picklable: the draft's process keeps one too."""

    def start(self) -> GrammarState: ...


@dataclass(frozen=True)
class Request:
    """One text to generate."""

    prompt: tuple[int, ...]  # tokens, at least one
    max_tokens: int = 256
    temperature: float = 0.0  # 0: greedy
    seed: int = 0  # used at temperature > 0
    end: frozenset[int] = frozenset()  # tokens that end the text; the one that did is part of `Generation.tokens`
    grammar: Grammar | None = None
    deadline: float | None = None  # time.monotonic() [s] after which generation stops


class Finish(Enum):
    """Why a generation ended."""

    END = "end"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


@dataclass
class DecodeStats:
    """What a generation cost and where the time went; times in seconds."""

    prefill: float = 0.0
    verify: list[float] = field(default_factory=list)  # one a round
    draft: list[float] = field(default_factory=list)  # speculation that verification waited for, one a round
    build: list[float] = field(default_factory=list)  # the draft's tree, beside verification, as it reports them
    accepted: list[int] = field(default_factory=list)  # drafted tokens accepted, one a round
    speculated: list[int] = field(default_factory=list)  # drafted tokens, one a round
    hits: list[bool | None] = field(default_factory=list)  # speculation was cached, one a round; None: not asked
    notes: list[str] = field(default_factory=list)  # what the engine decided on its own, e.g. a fall back to SD

    @property
    def hit_rate(self) -> float:
        """Share of the rounds that asked the speculation cache and found their outcome; nan if none did."""
        asked = [hit for hit in self.hits if hit is not None]
        return sum(asked) / len(asked) if asked else float("nan")


@dataclass(frozen=True)
class Generation:
    """A generated text."""

    tokens: tuple[int, ...]
    finish: Finish
    stats: DecodeStats
    log_probability: float  # of the tokens, as the target has it at temperature 1 under the grammar; natural logarithm


OnTokens = Callable[[Sequence[int]], None]  # tokens that are final, in order
Cancelled = Callable[[], bool]  # asked once a round


class Decoder(Protocol):
    """A way to generate text from the target model. All of them draw from the same distribution."""

    def generate(
        self, request: Request, on_tokens: OnTokens | None = None, cancelled: Cancelled | None = None
    ) -> Generation:
        """Generate until an end token, `max_tokens`, the deadline or cancellation.

        Raises:
            InvalidInput: an empty prompt, a token outside the vocabulary, prompt and output longer than the model's
                context, a negative temperature.
        """
        ...

    def close(self) -> None:
        """End what runs beside, such as the draft's process. The decoder cannot be used afterwards."""
        ...
