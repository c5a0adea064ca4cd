"""The draft's work: chains, trees, what is prepared, and what it costs."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from worldpilot.errors import InvalidInput
from worldpilot.models.language.base import Request
from worldpilot.models.language.sampling import Uniforms
from worldpilot.models.language.speculation import FORCED, Draft, DraftConfig

REQUEST = Request(prompt=(0, 1, 2), max_tokens=40)


@pytest.fixture
def model(tiny_language: ModuleType) -> Any:
    """A draft that counts its forwards."""

    class Counting(tiny_language.TableModel):
        forwards = 0

        def forward(self, *args: Any, **options: Any) -> Any:
            self.forwards += 1
            return super().forward(*args, **options)

    return Counting(tiny_language.table_pair(5, seed=0)[0].logits)


def begin(draft: Draft, request: Request = REQUEST) -> Any:
    return draft.start(request, Uniforms(request.seed, request.max_tokens))


def greedy(model: Any, text: list[int], count: int) -> tuple[int, ...]:
    """The likeliest tokens that follow."""
    said: list[int] = []
    for _ in range(count):
        said.append(int(model.logits[(*text, *said)[-2], (*text, *said)[-1]].argmax()))
    return tuple(said)


@pytest.mark.parametrize(
    "wrong", [{"lookahead": 0}, {"budget": -1}, {"scale": 1.1}, {"scale": -0.1}, {"top": -1}, {"scale": float("nan")}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="speculation"):
        DraftConfig(**wrong)  # pyright: ignore[reportArgumentType]


def test_a_chain_is_what_the_draft_would_say(model: Any) -> None:
    speculation = begin(Draft(model, DraftConfig(lookahead=4, budget=0), 64))
    assert speculation.tokens == greedy(model, [0, 1, 2], 4)
    assert speculation.laws == (None,) * 4
    assert speculation.hit is None
    assert model.forwards == 4


def test_every_likely_outcome_is_prepared_and_found_without_a_forward(model: Any) -> None:
    """The likeliest bonus of each count of accepted tokens, which is never the token that was rejected."""
    draft = Draft(model, DraftConfig(lookahead=3, budget=8), 64)
    drafted = begin(draft).tokens
    forwards = sum(1 for _ in draft.build())
    assert forwards == 1 + 3
    prepared = sorted(draft._prepared)
    assert len(prepared) == 8
    assert {k for k, _ in prepared} == {0, 1, 2, 3}
    assert all(k == 3 or bonus != drafted[k] for k, bonus in prepared)
    for accepted, bonus in prepared:
        fresh = Draft(model, DraftConfig(lookahead=3, budget=8), 64)
        begin(fresh)
        assert sum(1 for _ in fresh.build()) == 4
        model.forwards = 0
        final = [*drafted[:accepted], bonus]
        speculation = fresh.advance(final)
        assert speculation.hit is True
        assert speculation.tokens == greedy(model, [0, 1, 2, *final], 3)
        assert model.forwards == 0


def test_branches_go_where_the_draft_is_in_doubt(model: Any) -> None:
    """It is sure of the first token and tossing a coin for the second: the first is not prepared against."""
    first, second = greedy(model, [0, 1, 2], 2)
    model.logits[1, 2, first] += 50.0
    model.logits[2, first] = 0.0
    model.logits[2, first, second] = 0.1
    draft = Draft(model, DraftConfig(lookahead=2, budget=4), 64)
    assert begin(draft).tokens == (first, second)
    for _ in draft.build():
        pass
    assert {k for k, _ in draft._prepared} == {1, 2}


def test_an_outcome_that_was_not_prepared_is_drafted_just_in_time(model: Any) -> None:
    draft = Draft(model, DraftConfig(lookahead=3, budget=2), 64)
    drafted = begin(draft).tokens
    for _ in draft.build():
        pass
    bonus = next(t for t in range(5) if (0, t) not in draft._prepared and t != drafted[0])
    speculation = draft.advance([bonus])
    assert speculation.hit is False
    assert speculation.tokens == greedy(model, [0, 1, 2, bonus], 3)


@pytest.mark.parametrize("steps", [2, 3])
def test_a_branch_of_a_tree_that_was_left_is_completed_alone(model: Any, steps: int) -> None:
    draft = Draft(model, DraftConfig(lookahead=3, budget=6), 64)
    drafted = begin(draft).tokens
    tree: Iterator[None] = draft.build()
    for _ in range(steps):
        next(tree)
    model.forwards = 0
    (accepted, bonus) = next(iter(draft._prepared))
    speculation = draft.advance([*drafted[:accepted], bonus])
    assert speculation.hit is True
    assert speculation.tokens == greedy(model, [0, 1, 2, *drafted[:accepted], bonus], 3)
    assert model.forwards == 3 - (steps - 1)


def test_tokens_of_another_verification_are_no_outcome(model: Any) -> None:
    """The target went on without this speculation: the same numbers mean something else."""
    draft = Draft(model, DraftConfig(lookahead=3, budget=6), 64)
    drafted = begin(draft).tokens
    for _ in draft.build():
        pass
    accepted, bonus = next(key for key in draft._prepared if key[0] == 1)
    other = [(drafted[0] + 1) % 5, bonus]
    assert accepted == 1
    speculation = draft.advance(other, verified=False)
    assert speculation.hit is False
    assert speculation.tokens == greedy(model, [0, 1, 2, *other], 3)


def test_it_goes_on_behind_an_output(model: Any) -> None:
    """A process that was started anew."""
    draft = Draft(model, DraftConfig(lookahead=3, budget=0), 64)
    speculation = draft.start(REQUEST, Uniforms(0, 40), (3, 4, 0))
    assert speculation.tokens == greedy(model, [0, 1, 2, 3, 4, 0], 3)


def test_forced_tokens_cost_no_forward_and_are_no_outcome(tiny_language: ModuleType, model: Any) -> None:
    """After 0 come 1, 2 and 3; the draft chooses what follows 3, and nothing else may begin the text than 0."""
    grammar = tiny_language.TinyGrammar(5, {-1: (0,), 0: (1,), 1: (2,), 2: (3,), 3: (0, 4), 4: (0,)})
    draft = Draft(model, DraftConfig(lookahead=2, budget=8), 64)
    speculation = begin(draft, Request((0, 1, 2), 40, grammar=grammar))
    assert model.forwards == 2
    chosen = [i for i, ranking in enumerate(draft._current.rankings) if len(ranking)]
    assert speculation.tokens[:4] == (0, 1, 2, 3)
    assert len(chosen) == 2
    assert all(speculation.tokens[i] in (0, 4) and speculation.tokens[i - 1] == 3 for i in chosen)
    for _ in draft.build():
        pass
    outcomes = {k for k, _ in draft._prepared}
    assert outcomes == {*chosen, len(speculation.tokens)} - (
        {len(speculation.tokens)} if speculation.tokens[-1] != 3 else set()
    )


def test_endless_forced_tokens_are_bounded(tiny_language: ModuleType, model: Any) -> None:
    grammar = tiny_language.TinyGrammar(5, {t: ((t + 1) % 5,) for t in range(-1, 5)})
    draft = Draft(model, DraftConfig(lookahead=2, budget=8), 512)
    speculation = begin(draft, Request((0, 1, 2), 400, grammar=grammar))
    assert speculation.tokens == tuple(i % 5 for i in range(FORCED))
    assert model.forwards == 0


def test_nothing_is_drafted_behind_an_end_token(model: Any) -> None:
    chain = greedy(model, [0, 1, 2], 4)
    end = chain[1]
    draft = Draft(model, DraftConfig(lookahead=4, budget=8), 64)
    speculation = begin(draft, Request((0, 1, 2), 40, end=frozenset({end})))
    assert speculation.tokens == chain[: chain.index(end) + 1]
    for _ in draft.build():
        pass
    assert all(bonus != end and k < len(speculation.tokens) for k, bonus in draft._prepared)


def test_times_are_measured_in_use(model: Any) -> None:
    step, tree_step = Draft(model, DraftConfig(lookahead=4, budget=8), 256).measure(2)
    assert 0 < step < 1
    assert 0 < tree_step < 1


def test_the_cache_has_room_for_the_largest_tree(tiny_language: ModuleType) -> None:
    """Texts up to the context's last token, with trees, in a cache of the size that the settings ask for."""
    target, _ = tiny_language.table_pair(5, seed=1)
    lengths: list[int] = []

    class Bounded(tiny_language.TableModel):
        def forward(self, tokens: Any, cache: Any, *args: Any, **options: Any) -> Any:
            logits = super().forward(tokens, cache, *args, **options)
            lengths.append(cache.length)
            return logits

    config, context = DraftConfig(lookahead=4, budget=10), 32
    allowed = {t: tuple(np.delete(np.arange(5), t).tolist()) if t % 2 else ((t + 1) % 5,) for t in range(5)}
    grammar = tiny_language.TinyGrammar(5, allowed)
    draft = Draft(Bounded(target.logits), config, context)
    begin(draft, Request((0, 1, 2), context - 3, grammar=grammar))
    trees = 0
    while list(draft.build()) and draft._prepared:
        trees += 1
        accepted, bonus = min(draft._prepared)
        draft.advance([*draft._current.tokens[:accepted], bonus])
    assert trees > 5
    assert context < max(lengths) <= config.slots(context)
