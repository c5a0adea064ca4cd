"""Language models small enough to enumerate: tables over a handful of tokens, in float64, and a grammar for them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, pre_tokenizers
from torch import Tensor

from worldpilot.models.language.base import Request
from worldpilot.models.language.decoders import Serial
from worldpilot.models.language.loaders import save
from worldpilot.models.language.sampling import invert
from worldpilot.models.language.speculation import Draft, Speculation
from worldpilot.models.language.tokenizer import Tokenizer
from worldpilot.models.language.transformer import Llama, LlamaConfig


@dataclass(frozen=True)
class TableConfig:
    vocab_size: int
    context: int = 4096


class TableCache:
    """Slots that hold tokens and positions instead of keys and values."""

    def __init__(self) -> None:
        self.slots: list[tuple[int, int]] = []

    @property
    def length(self) -> int:
        return len(self.slots)

    @length.setter
    def length(self, value: int) -> None:
        self.truncate(value)

    def truncate(self, length: int) -> None:
        assert 0 <= length <= len(self.slots)
        del self.slots[length:]

    def gather(self, slots: Sequence[int]) -> None:
        self.slots = [self.slots[slot] for slot in slots]


class TableModel:
    """The next token depends on the last two alone, by a table of logits (V, V, V'); the first sees itself twice.

    Whatever a token sees by its mask has to be one whole text, at positions 0, 1, 2 …
    """

    device = torch.device("cpu")

    def __init__(self, logits: Tensor, head_tokens: Sequence[int] | None = None, context: int = 4096) -> None:
        self.logits = logits
        self.head_tokens = None if head_tokens is None else torch.tensor(head_tokens)
        self.config = TableConfig(len(logits), context)

    def cache(self, capacity: int | None = None) -> TableCache:
        return TableCache()

    def forward(
        self,
        tokens: Tensor,
        cache: Any,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        last: int | None = None,
    ) -> Tensor:
        start, count = cache.length, len(tokens)
        places = list(range(start, start + count)) if positions is None else positions.tolist()
        cache.slots += zip(tokens.tolist(), places, strict=True)
        sees = None if mask is None else mask.numpy()
        index: list[tuple[int, int]] = []
        for row in range(count - (count if last is None else last), count):
            seen = range(start + row + 1) if sees is None else np.flatnonzero(sees[row])
            text = [cache.slots[slot] for slot in seen[-3:]]
            assert [place for _, place in text] == list(range(len(seen)))[-3:], "a gap or a stranger in what is seen"
            index.append((text[-2:][0][0], text[-1][0]))
        if not index:
            return self.logits.new_empty(0, self.logits.shape[-1])
        first, second = zip(*index, strict=True)
        return self.logits[list(first), list(second)]


def table_pair(vocabulary: int, seed: int, distance: float = 1.0) -> tuple[TableModel, TableModel]:
    """A target and a draft that is so far from it."""
    rng = torch.Generator().manual_seed(seed)
    shape = (vocabulary,) * 3
    target = 1.5 * torch.randn(shape, generator=rng, dtype=torch.float64)
    return TableModel(target), TableModel(target + distance * torch.randn(shape, generator=rng, dtype=torch.float64))


class TinyGrammar:
    """After token t only `allowed[t]` may come; a single one is forced. Before the text, `allowed[-1]` holds.

    `biases[t]` is what is added to logits after token t.
    """

    def __init__(
        self, vocabulary: int, allowed: dict[int, tuple[int, ...]], biases: dict[int, dict[int, float]] | None = None
    ) -> None:
        self.vocabulary, self.allowed, self.biases = vocabulary, allowed, biases or {}

    def start(self) -> "TinyState":
        return TinyState(self, [-1])


class TinyState:
    def __init__(self, grammar: TinyGrammar, tokens: list[int]) -> None:
        self.grammar, self.tokens = grammar, tokens

    def following(self) -> tuple[int, ...]:
        return self.grammar.allowed.get(self.tokens[-1], tuple(range(self.grammar.vocabulary)))

    def mask(self) -> np.ndarray:
        mask = np.zeros(self.grammar.vocabulary, np.bool_)
        mask[list(self.following())] = True
        return mask

    def bias(self) -> dict[int, float]:
        added = self.grammar.biases.get(self.tokens[-1], {})
        return {token: value for token, value in added.items() if token in self.following()}

    def accepts(self, tokens: Sequence[int]) -> int:
        ahead = self.fork()
        for count, token in enumerate(tokens):
            if token not in ahead.following():
                return count
            ahead.tokens.append(token)
        return len(tokens)

    def advance(self, tokens: Sequence[int]) -> None:
        assert self.accepts(tokens) == len(tokens)
        self.tokens += tokens

    def rollback(self, count: int) -> None:
        del self.tokens[len(self.tokens) - count :]

    def forced(self) -> list[int]:
        ahead = self.fork()
        while len(ahead.following()) == 1 and len(ahead.tokens) - len(self.tokens) < 8:
            ahead.tokens += ahead.following()
        return ahead.tokens[len(self.tokens) :]

    def fork(self) -> Self:
        return type(self)(self.grammar, list(self.tokens))

    @property
    def finished(self) -> bool:
        return False


class EagerTree(Serial):
    """SSD in one process: after each speculation so many steps of the tree are built, as if beside the verification."""

    def __init__(self, draft: Draft, steps: Callable[[], int] | int, noise: Any = None) -> None:
        super().__init__(draft, *([] if noise is None else [noise]))
        self._steps = steps

    def take(self, deadline: float | None) -> Speculation:
        speculation = super().take(deadline)
        steps = self._steps if isinstance(self._steps, int) else self._steps()
        if steps:
            for step, _ in enumerate(self._draft.build()):
                if step + 1 >= steps:
                    break
        return speculation


class PathNoise:
    """One path of the randomness. Each uniform number is known by the interval that its uses so far leave it.

    A use that tells parts of the interval apart is a fork; `script` says which part to take at each, and `forks` counts
    the parts there were. The path's probability is the product of the intervals' lengths.
    """

    def __init__(self, script: Sequence[int]) -> None:
        self.script, self.taken, self.forks = script, list[int](), list[int]()
        self.intervals: dict[tuple[int, str], tuple[float, float]] = {}

    @property
    def probability(self) -> float:
        return float(np.prod([high - low for low, high in self.intervals.values()]))

    def _settle(self, key: tuple[int, str], cuts: Sequence[float]) -> float:
        """A number within the part of the interval that the script takes, after cutting it."""
        low, high = self.intervals.get(key, (0.0, 1.0))
        edges = [low, *sorted({float(cut) for cut in cuts if low < cut < high}), high]
        part = 0
        if len(edges) > 2:
            part = self.script[len(self.taken)] if len(self.taken) < len(self.script) else 0
            self.taken.append(part)
            self.forks.append(len(edges) - 1)
        self.intervals[key] = (edges[part], edges[part + 1])
        return (edges[part] + edges[part + 1]) / 2

    def draft(self, position: int, probabilities: Any) -> int:
        return self._draw((position, "draft"), probabilities)

    def target(self, position: int, weights: Any) -> int:
        return self._draw((position, "target"), weights)

    def accept(self, position: int, probability: float) -> bool:
        return self._settle((position, "accept"), [probability]) < probability

    def _draw(self, key: tuple[int, str], weights: Any) -> int:
        total = np.cumsum(weights, dtype=np.float64)
        return invert(weights, self._settle(key, total / total[-1]))


def paths(run: Callable[[PathNoise], tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], float]]:
    """What a function of the randomness gives on each of its paths, and how likely the path is."""
    script: list[int] = []
    while True:
        noise = PathNoise(script)
        yield run(noise), noise.probability
        script, forks = noise.taken, noise.forks
        while script and script[-1] + 1 == forks[len(script) - 1]:
            script = script[:-1]
        if not script:
            return
        script = [*script[:-1], script[-1] + 1]


def exact_law(target: TableModel, request: Request) -> dict[tuple[int, ...], float]:
    """The distribution of the text when each token is drawn from the target's (renormalised) distribution."""
    law: dict[tuple[int, ...], float] = {}

    def extend(text: tuple[int, ...], probability: float) -> None:
        if len(text) == request.max_tokens or (text and text[-1] in request.end):
            law[text] = law.get(text, 0.0) + probability
            return
        *_, first, second = (*request.prompt[-1:], *request.prompt, *text)
        z = target.logits[first, second].numpy() / request.temperature
        allowed = np.ones(len(z), np.bool_)
        if request.grammar is not None:
            state = request.grammar.start()
            state.advance(text)
            allowed = state.mask()
            for token, value in state.bias().items():
                z[token] += value / request.temperature
        weights = allowed * np.exp(z - z.max())
        for token in np.flatnonzero(weights):
            extend((*text, int(token)), probability * float(weights[token] / weights.sum()))

    extend((), 1.0)
    return law


def llama_pair(folder: Path, distance: float = 0.05, vocab_size: int = 257) -> tuple[Path, Path]:
    """A random Llama and a draft that is so far from it, saved in float64 with a tokenizer of bytes: their folders."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    backend.add_special_tokens(["<end>"])
    tokenizer = Tokenizer(backend, vocab_size, {256})
    config = LlamaConfig(vocab_size, 32, 2, 4, 2, 8, 48, context=1024)
    torch.manual_seed(0)
    target, draft = (Llama(config, torch.float64) for _ in range(2))
    with torch.no_grad():
        for name, weights in target.named_parameters():
            if weights.ndim > 1:
                weights.normal_(std=0.3)
            draft.get_parameter(name).copy_(
                weights + distance * weights.std(unbiased=False) * torch.randn_like(weights)
            )
    for name, model in (("target", target), ("draft", draft)):
        save(model, tokenizer, folder / name)
    return folder / "target", folder / "draft"
