"""The loop of speculation and verification: what it refuses, where it stops, and what its cache holds."""

import time
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from worldpilot.errors import InvalidInput
from worldpilot.models.language.base import Finish, Request
from worldpilot.models.language.context import PREFILL_CHUNK
from worldpilot.models.language.decoders import Serial, Silent, SpeculativeDecoder
from worldpilot.models.language.loaders import load_model
from worldpilot.models.language.speculation import Draft, DraftConfig
from worldpilot.models.language.transformer import KVCache, Llama

Pair = tuple[Llama, Llama]
CONFIG = DraftConfig(lookahead=3, budget=6)
REQUEST = Request(prompt=(0, 1, 2), max_tokens=20)


@pytest.fixture(scope="module")
def tables(tiny_language: ModuleType) -> Any:
    return tiny_language.table_pair(4, seed=0)


@pytest.fixture(scope="module")
def llamas(tiny_language: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    target, draft = tiny_language.llama_pair(tmp_path_factory.mktemp("llamas"))
    return load_model(target, "float64"), load_model(draft, "float64")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ()}, "at least one token"),
        ({"prompt": (1, 4)}, "token 4 .* vocabulary of 4"),
        ({"prompt": (-1,)}, "token -1"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"max_tokens": 62}, "do not fit into the context of 64"),
    ],
)
def test_what_cannot_be_met_is_refused(tables: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        SpeculativeDecoder(tables[0], Silent(), 64).generate(replace(REQUEST, **change))


def test_the_text_may_fill_the_context(tables: Any) -> None:
    for speculator in (Silent(), Serial(Draft(tables[1], CONFIG, 64))):
        decoder = SpeculativeDecoder(tables[0], speculator, 64)
        assert len(decoder.generate(replace(REQUEST, max_tokens=61)).tokens) == 61


def test_a_draft_with_a_shorter_context_falls_silent_beyond_it(tiny_language: ModuleType, tables: Any) -> None:
    short = tiny_language.TableModel(tables[1].logits, context=12)
    decoder = SpeculativeDecoder(tables[0], tiny_language.EagerTree(Draft(short, CONFIG, 64), 99), 64)
    generation = decoder.generate(replace(REQUEST, max_tokens=30))
    assert (
        generation.tokens
        == SpeculativeDecoder(tables[0], Silent(), 64).generate(replace(REQUEST, max_tokens=30)).tokens
    )
    assert generation.stats.speculated[0] == 3
    assert generation.stats.speculated[-1] == 0


@pytest.mark.parametrize("max_tokens", range(1, 9))
def test_the_last_token_is_the_targets_own(tables: Any, max_tokens: int) -> None:
    """A speculation leaves room for it, so that no drafted token is thrown away."""
    decoder = SpeculativeDecoder(tables[0], Serial(Draft(tables[0], CONFIG, 64)), 64)
    generation = decoder.generate(replace(REQUEST, max_tokens=max_tokens))
    assert len(generation.tokens) == max_tokens
    assert generation.finish is Finish.LENGTH
    assert generation.stats.accepted == generation.stats.speculated
    assert len(generation.stats.verify) == -(-max_tokens // 4)


def test_a_deadline_that_has_passed_and_a_cancellation_leave_no_token(tables: Any) -> None:
    decoder = SpeculativeDecoder(tables[0], Silent(), 64)
    late = decoder.generate(replace(REQUEST, deadline=time.monotonic()))
    assert (late.tokens, late.finish) == ((), Finish.DEADLINE)
    cancelled = decoder.generate(REQUEST, cancelled=lambda: True)
    assert (cancelled.tokens, cancelled.finish) == ((), Finish.CANCELLED)


def test_a_long_prompt_is_interrupted_between_chunks(tables: Any) -> None:
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(len(decoder._context.tokens))
        return len(asked) == 3

    decoder = SpeculativeDecoder(tables[0], Silent())
    prompt = tuple(np.random.default_rng(0).integers(0, 4, 3 * PREFILL_CHUNK).tolist())
    assert decoder.generate(replace(REQUEST, prompt=prompt), cancelled=cancelled).finish is Finish.CANCELLED
    assert asked == [0, PREFILL_CHUNK, 2 * PREFILL_CHUNK]
    assert decoder.generate(replace(REQUEST, prompt=prompt)).tokens  # goes on from there


def test_a_round_that_fails_in_the_listener_does_not_spoil_the_next_text(tables: Any) -> None:
    decoder = SpeculativeDecoder(tables[0], Serial(Draft(tables[1], CONFIG, 64)), 64)
    expected = decoder.generate(REQUEST).tokens

    def fail(tokens: object) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        decoder.generate(REQUEST, fail)
    assert decoder.generate(REQUEST).tokens == expected


def assert_fresh(cache: KVCache, model: Llama, tokens: list[int]) -> None:
    """The cache is what reading the tokens at once would leave."""
    fresh = model.cache(len(tokens))
    with torch.inference_mode():
        model.forward(torch.tensor(tokens), fresh)
    assert cache.length == len(tokens)
    for layer in range(model.config.layers):
        for kept, expected in zip(cache.slots(layer), fresh.slots(layer), strict=True):
            torch.testing.assert_close(kept, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_both_caches_are_those_of_a_fresh_prefill_after_every_commit(
    tiny_language: ModuleType, llamas: Pair, temperature: float
) -> None:
    """Hits, misses, trees left half-way: no slot of another branch remains. Texts share beginnings."""
    rng = np.random.default_rng(0)
    draft = Draft(llamas[1], CONFIG, 256)
    decoder = SpeculativeDecoder(llamas[0], tiny_language.EagerTree(draft, lambda: int(rng.integers(7))), 256)
    hits: list[bool | None] = []
    for seed in range(6):
        prompt = (5, 6, 7, *rng.integers(0, 256, 5).tolist())
        said: list[int] = []

        def committed(tokens: Any, prompt: tuple[int, ...] = prompt, said: list[int] = said) -> None:
            said.extend(tokens)
            text = [*prompt, *said]
            assert_fresh(decoder._context.cache, llamas[0], text[:-1])  # pyright: ignore[reportArgumentType]

        request = Request(prompt, 24, temperature, seed)
        hits += decoder.generate(request, committed).stats.hits
        assert (
            tuple(said)
            == SpeculativeDecoder(llamas[0], Serial(Draft(llamas[1], CONFIG, 256)), 256).generate(request).tokens
        )
    assert {True, False} <= set(hits)


def test_the_drafts_cache_is_that_of_a_fresh_prefill_before_every_speculation(
    tiny_language: ModuleType, llamas: Pair
) -> None:
    rng = np.random.default_rng(1)
    draft = Draft(llamas[1], CONFIG, 256)

    class Checked(tiny_language.EagerTree):
        def take(self, deadline: float | None) -> Any:
            steps, self._steps = self._steps, 0
            speculation = super().take(deadline)
            cache: Any = draft._context.cache
            assert_fresh(cache, llamas[1], draft._context.tokens)
            whole = [*draft._text, *speculation.tokens]
            assert draft._context.tokens == whole[: len(draft._context.tokens)]
            self._steps = steps
            for step, _ in enumerate(draft.build()):
                if step + 1 >= rng.integers(8):
                    break
            return speculation

    decoder = SpeculativeDecoder(llamas[0], Checked(draft, 0), 256)
    stats = decoder.generate(Request((5, 6, 7), 80)).stats
    assert {True, False} <= set(stats.hits)


def test_a_prompt_that_begins_as_the_last_text_is_read_from_where_they_part(tables: Any) -> None:
    class Counting(type(tables[0])):
        read = 0

        def forward(self, tokens: Any, *args: Any, **options: Any) -> Any:
            Counting.read += len(tokens)
            return super().forward(tokens, *args, **options)

    decoder = SpeculativeDecoder(Counting(tables[0].logits), Silent())
    system = tuple(np.random.default_rng(0).integers(0, 4, 100).tolist())
    first = decoder.generate(Request((*system, 0, 1), 5)).tokens
    assert Counting.read == 102 + 4
    Counting.read = 0
    assert decoder.generate(Request((*system, 0, 1), 5)).tokens == first
    assert Counting.read == 1 + 4
    Counting.read = 0
    decoder.generate(Request((*system, 2), 1))
    assert Counting.read == 1
