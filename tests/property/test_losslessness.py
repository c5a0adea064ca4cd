"""Speculation never changes what is said: the law of the text is the target's own, whatever is drafted, and when."""

from collections import defaultdict
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from worldpilot.models.language.base import Finish, Request
from worldpilot.models.language.decoders import Serial, Silent, SpeculativeDecoder
from worldpilot.models.language.sampling import Law
from worldpilot.models.language.speculation import Draft, DraftConfig, Speculation

REQUEST = Request(prompt=(0, 1), max_tokens=3, temperature=0.8)
ALL = 99  # steps: the whole tree
Texts = dict[tuple[int, ...], float]


def enumerate_law(tiny: ModuleType, target: Any, draft: Any, config: DraftConfig, steps: int, request: Request) -> Any:
    """The law of the text over every path of the randomness, and the kinds of rounds there were."""
    law: Texts = defaultdict(float)
    rounds: set[bool | None] = set()

    def run(noise: Any) -> tuple[int, ...]:
        def shared(seed: int, length: int) -> Any:
            return noise

        speculator = tiny.EagerTree(Draft(draft, config, 64), steps, shared)
        generation = SpeculativeDecoder(target, speculator, noise=shared).generate(request)
        rounds.update(generation.stats.hits)
        return generation.tokens

    for text, probability in tiny.paths(run):
        law[text] += probability
    return law, rounds


def distance(law: Texts, expected: Texts) -> float:
    """The largest difference of a text's probability."""
    return max(abs(law.get(text, 0.0) - expected.get(text, 0.0)) for text in {*law, *expected})


@pytest.mark.parametrize(
    ("steps", "config", "kinds"),
    [
        pytest.param(0, DraftConfig(2, 0), {None}, id="SD"),
        pytest.param(0, DraftConfig(2, 0, scale=0.3, top=1), {None}, id="SD, C < 1"),
        pytest.param(ALL, DraftConfig(2, 2), {None, True, False}, id="SSD"),
        pytest.param(ALL, DraftConfig(2, 2, scale=0.3, top=1), {None, True, False}, id="SSD, C < 1"),
        pytest.param(ALL, DraftConfig(1, 2, scale=0.0, top=2), {None, True, False}, id="SSD, C = 0"),
        pytest.param(1, DraftConfig(2, 3, scale=0.5, top=1), {None, False}, id="SSD, tree left before its first step"),
        pytest.param(2, DraftConfig(2, 3, scale=0.5, top=1), {None, True, False}, id="SSD, tree left half built"),
    ],
)
def test_the_law_of_the_text_is_the_targets(
    tiny_language: ModuleType, steps: int, config: DraftConfig, kinds: set[bool | None]
) -> None:
    target, draft = tiny_language.table_pair(3, seed=0)
    law, rounds = enumerate_law(tiny_language, target, draft, config, steps, REQUEST)
    assert rounds == kinds
    assert distance(law, tiny_language.exact_law(target, REQUEST)) < 1e-12


def test_an_end_token_inside_a_draft_ends_the_text(tiny_language: ModuleType) -> None:
    target, draft = tiny_language.table_pair(3, seed=1)
    request = replace(REQUEST, max_tokens=4, end=frozenset({2}))
    config = DraftConfig(2, 2, scale=0.3, top=1)
    law, rounds = enumerate_law(tiny_language, target, draft, config, ALL, request)
    assert rounds == {None, True, False}
    assert {len(text) for text in law} == {1, 2, 3, 4}
    assert distance(law, tiny_language.exact_law(target, request)) < 1e-12


@pytest.mark.parametrize("steps", [0, 2, ALL])
def test_a_grammar_masks_target_and_draft(tiny_language: ModuleType, steps: int) -> None:
    """After 0 comes 1 or 2, after 1 comes 3 (forced), after 2 the text may end with 4."""
    allowed = {-1: (0, 1, 2), 0: (1, 2), 1: (3,), 2: (0, 3, 4)}
    target, draft = tiny_language.table_pair(5, seed=2)
    grammar = tiny_language.TinyGrammar(5, allowed)
    request = replace(REQUEST, max_tokens=4, end=frozenset({4}), grammar=grammar)
    config = DraftConfig(1, 2, scale=0.4, top=1)
    law, _ = enumerate_law(tiny_language, target, draft, config, steps, request)
    expected = tiny_language.exact_law(target, request)
    assert distance(law, expected) < 1e-12
    assert all(text[i + 1] == 3 for text in expected for i in range(len(text) - 1) if text[i] == 1)


@pytest.mark.parametrize("steps", [0, ALL])
@pytest.mark.parametrize("known", [(0, 1, 2, 3, 4), (3, 2, 0)], ids=["all", "a part of the vocabulary"])
def test_what_a_grammar_adds_to_logits_is_part_of_the_law(
    tiny_language: ModuleType, steps: int, known: tuple[int, ...]
) -> None:
    allowed = {-1: (0, 1, 2), 0: (1, 2), 1: (3,), 2: (0, 3, 4)}
    target, draft = tiny_language.table_pair(5, seed=2)
    draft = tiny_language.TableModel(draft.logits[..., list(known)], head_tokens=known)
    plain = replace(REQUEST, max_tokens=4, end=frozenset({4}), grammar=tiny_language.TinyGrammar(5, allowed))
    biased = tiny_language.TinyGrammar(5, allowed, {-1: {0: -2.0, 1: 0.5}, 2: {0: 1.5, 4: -1.0}})
    request = replace(plain, grammar=biased)
    config = DraftConfig(2, 2, scale=0.4, top=1)
    law, _ = enumerate_law(tiny_language, target, draft, config, steps, request)
    expected = tiny_language.exact_law(target, request)
    assert distance(law, expected) < 1e-12
    assert distance(expected, tiny_language.exact_law(target, plain)) > 0.1


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_text_comes_with_its_probability(tiny_language: ModuleType, temperature: float) -> None:
    """As the target has it at temperature 1 under the grammar, whoever drafts, at whatever temperature it is drawn."""
    allowed = {-1: (0, 1, 2), 0: (1, 2), 1: (3,), 2: (0, 3, 4)}
    target, draft = tiny_language.table_pair(5, seed=2)
    grammar = tiny_language.TinyGrammar(5, allowed, {-1: {0: -2.0, 1: 0.5}, 2: {0: 1.5, 4: -1.0}})
    request = replace(REQUEST, max_tokens=6, end=frozenset({4}), grammar=grammar, temperature=temperature)
    law = tiny_language.exact_law(target, replace(request, temperature=1.0))
    config = DraftConfig(2, 2, scale=0.4, top=1)
    speculators = [Silent(), Serial(Draft(draft, config, 64)), tiny_language.EagerTree(Draft(draft, config, 64), ALL)]
    said: set[tuple[int, ...]] = set()
    for speculator in speculators:
        decoder = SpeculativeDecoder(target, speculator, 64)
        for seed in range(20):
            generation = decoder.generate(replace(request, seed=seed))
            said.add(generation.tokens)
            assert np.exp(generation.log_probability) == pytest.approx(law[generation.tokens], rel=1e-5)
    assert len(said) == 1 if temperature == 0 else len(said) > 5


def test_a_draft_may_know_a_part_of_the_vocabulary(tiny_language: ModuleType) -> None:
    """Tokens 0 and 3 alone; where the grammar allows neither, it has nothing to say."""
    target, draft = tiny_language.table_pair(4, seed=3)
    narrow = tiny_language.TableModel(draft.logits[..., [3, 0]], head_tokens=(3, 0))
    grammar = tiny_language.TinyGrammar(4, {3: (1, 2)})
    request = replace(REQUEST, max_tokens=3, grammar=grammar)
    law, rounds = enumerate_law(tiny_language, target, narrow, DraftConfig(2, 2, scale=0.5, top=1), ALL, request)
    assert True in rounds
    assert distance(law, tiny_language.exact_law(target, request)) < 1e-12


class Liar(Serial):
    """Says that its tokens were drawn from the draft's own distribution, where Saguaro sampling drew them from q'."""

    def __init__(self, draft: Draft, scale: float, top: int, **noise: Any) -> None:
        super().__init__(draft, **noise)
        self._scale, self._top = scale, top

    def take(self, deadline: float | None) -> Speculation:
        speculation = super().take(deadline)
        laws: list[Law] = []
        for law in speculation.laws:
            assert law is not None
            weights = law.probabilities.copy()
            weights[: self._top] /= self._scale
            laws.append(Law(law.tokens, weights / weights.sum()))
        return replace(speculation, laws=tuple(laws))


def test_the_residual_of_another_law_than_was_sampled_from_is_found_out(tiny_language: ModuleType) -> None:
    """The control: what the tests above measure is not blind."""
    target, draft = tiny_language.table_pair(3, seed=0)
    config = DraftConfig(2, 0, scale=0.3, top=1)
    law: Texts = defaultdict(float)

    def run(noise: Any) -> tuple[int, ...]:
        liar = Liar(Draft(draft, config, 64), 0.3, 1, noise=lambda seed, length: noise)
        return SpeculativeDecoder(target, liar, noise=lambda seed, length: noise).generate(REQUEST).tokens

    for text, probability in tiny_language.paths(run):
        law[text] += probability
    assert distance(law, tiny_language.exact_law(target, REQUEST)) > 0.01


def transition_p_value(target: Any, texts: list[tuple[int, ...]], temperature: float) -> float:
    """Chi-square of the counts of (two tokens, the next) against the target's table."""
    v = len(target.logits)
    counts = np.zeros((v, v, v))
    for text in texts:
        np.add.at(counts, (text[:-2], text[1:-1], text[2:]), 1)
    expected = (target.logits / temperature).softmax(-1).numpy() * counts.sum(-1, keepdims=True)
    cells = expected > 5
    statistic = ((counts - expected)[cells] ** 2 / expected[cells]).sum()
    return float(stats.chi2.sf(statistic, cells.sum() - v * v))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "texts", "honest"), [("SSD", 510, True), ("a residual with q instead of q'", 100, False)]
)
def test_a_hundred_thousand_tokens_have_the_targets_law(
    tiny_language: ModuleType, way: str, texts: int, honest: bool
) -> None:
    target, draft = tiny_language.table_pair(3, seed=4, distance=0.15)
    config = DraftConfig(12, 1, scale=0.5, top=1)
    rng = np.random.default_rng(0)
    model = Draft(draft, config, 4096)
    tree = tiny_language.EagerTree(model, lambda: int(rng.choice([0, 1, 6, ALL])))
    decoder = SpeculativeDecoder(target, tree if way == "SSD" else Liar(model, config.scale, config.top))
    request = Request((0, 1), max_tokens=200, temperature=1.0)
    said = [decoder.generate(replace(request, seed=seed)).tokens for seed in range(texts)]
    p_value = transition_p_value(target, said, request.temperature)
    assert p_value > 1e-3 if honest else p_value < 1e-9


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocabulary=st.integers(2, 6),
    lookahead=st.integers(1, 5),
    budget=st.integers(0, 8),
    temperature=st.sampled_from([0.0, 0.7]),
    scale=st.sampled_from([0.0, 0.4, 1.0]),
    end=st.booleans(),
    constrained=st.booleans(),
)
def test_hits_misses_and_abandoned_trees_leave_the_sample_as_it_is(
    tiny_language: ModuleType,
    seed: int,
    vocabulary: int,
    lookahead: int,
    budget: int,
    temperature: float,
    scale: float,
    end: bool,
    constrained: bool,
) -> None:
    """SSD says what SD says, token for token and at any temperature, as the randomness is keyed by position."""
    rng = np.random.default_rng(seed)
    target, draft = tiny_language.table_pair(vocabulary, seed=seed, distance=float(rng.uniform(0, 1.5)))
    choices = [tuple(np.flatnonzero(rng.random(vocabulary) < 0.5).tolist()) for _ in range(vocabulary)]
    allowed = {token: row for token, row in enumerate(choices) if row}
    request = Request(
        prompt=tuple(rng.integers(0, vocabulary, rng.integers(1, 5)).tolist()),
        max_tokens=int(rng.integers(1, 30)),
        temperature=temperature,
        seed=seed,
        end=frozenset({vocabulary - 1}) if end else frozenset(),
        grammar=tiny_language.TinyGrammar(vocabulary, allowed) if constrained else None,
    )
    config = DraftConfig(lookahead, budget, scale=scale, top=1)
    said: list[int] = []
    serial = SpeculativeDecoder(target, Serial(Draft(draft, config, 4096))).generate(request, said.extend)
    tree = tiny_language.EagerTree(Draft(draft, config, 4096), lambda: int(rng.integers(2 * lookahead + 3)))
    beside = SpeculativeDecoder(target, tree).generate(request)
    assert serial.tokens == beside.tokens == tuple(said)
    assert serial.finish == beside.finish
    assert serial.finish == (Finish.END if serial.tokens[-1] in request.end else Finish.LENGTH)
    if temperature == 0:
        assert SpeculativeDecoder(target, Silent()).generate(request).tokens == serial.tokens
