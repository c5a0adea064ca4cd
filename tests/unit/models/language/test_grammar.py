"""The grammar: what may follow, what must, taking back, copies, the end token, pickling."""

import json
import pickle
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from worldpilot.errors import InvalidInput
from worldpilot.models.language.grammar import JsonGrammar, JsonState

SCHEMA = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "place": {"enum": ["block", "pusher"]},
                "at": {"type": "string", "pattern": "^-?[0-9]{1,3} (mm|cm|m)$"},
            },
            "required": ["place", "at"],
            "additionalProperties": False,
        },
        {"const": "stop"},
    ]
}
TEXTS = ['{"place":"block","at":"10 cm"}', '{"place":"pusher","at":"-3 m"}', '"stop"']


@dataclass(frozen=True)
class Bytes:
    """A byte-level tokenizer with a few merges, a model of more columns than tokens, and an end token."""

    vocab_size: int = 300

    @cached_property
    def tokenizer(self) -> Tokenizer:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        merges = [("l", "o"), ("lo", "c"), ("c", "m"), ('"', ":"), ('":', '"'), ("s", "t")]
        names = [*alphabet, *(a + b for a, b in merges)]
        tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore[assignment]
        tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        tokenizer.add_special_tokens(["<end>"])
        return tokenizer

    @property
    def end(self) -> int:
        return self.tokenizer.get_vocab_size() - 1

    @cached_property
    def guide(self) -> LLTokenizer:
        return LLTokenizer(self.tokenizer.to_str(), eos_token=self.end)

    def llguidance(self) -> LLTokenizer:
        return self.guide

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.vocab_size,)


@pytest.fixture(scope="module")
def words() -> Bytes:
    return Bytes()


@pytest.fixture(scope="module")
def grammar(words: Bytes) -> JsonGrammar:
    return JsonGrammar(SCHEMA, words)


@pytest.mark.parametrize("text", TEXTS)
def test_every_token_of_a_valid_text_is_allowed_and_only_the_end_after_it(words, grammar, text):
    state = grammar.start()
    for token in words.encode(text):
        assert not state.finished
        assert state.mask().shape == (300,)
        assert state.mask()[token]
        state.advance([token])
    assert state.finished
    assert np.flatnonzero(state.mask()).tolist() == [words.end]
    assert state.forced() == []


def test_what_is_not_of_the_schema_may_not_follow(words, grammar):
    state = grammar.start()
    tokens = words.encode('{"place":"cup"')
    assert words.tokenizer.decode(tokens[: state.accepts(tokens)]) == '{"place":"'
    with pytest.raises(InvalidInput, match="may not follow"):
        state.advance(tokens)
    assert state.accepts(words.encode(TEXTS[0])) == len(words.encode(TEXTS[0]))  # the state has not moved
    assert not state.mask()[words.end]


def test_forced_tokens_are_those_without_a_choice(words, grammar):
    state = grammar.start()
    state.advance(words.encode("{"))
    forced = state.forced()
    assert '"place":"'.startswith(words.tokenizer.decode(forced))
    assert forced
    assert state.accepts(forced) == len(forced)


def test_an_end_token_ends_a_complete_text_once(words, grammar):
    tokens, state = words.encode('"stop"'), grammar.start()
    assert state.accepts([words.end]) == 0
    assert state.accepts([*tokens, words.end, words.end]) == len(tokens) + 1
    assert state.accepts([*tokens[:-1], words.end]) == len(tokens) - 1
    state.advance([*tokens, words.end])
    assert state.finished
    assert state.accepts([words.end]) == 0
    state.rollback(2)
    assert not state.finished
    assert state.accepts([tokens[-1], words.end]) == 2


def test_only_what_was_taken_is_taken_back(words, grammar):
    state = grammar.start()
    state.advance(words.encode('"st'))
    with pytest.raises(InvalidInput, match="cannot take back 9 tokens of 2"):
        state.rollback(9)


@settings(max_examples=40, deadline=None)
@given(text=st.sampled_from(TEXTS), data=st.data())
def test_taking_back_and_copies_return_to_where_they_were(words, grammar, text, data):
    tokens = [*words.encode(text), words.end]
    there = data.draw(st.integers(0, len(tokens)))
    beyond = data.draw(st.integers(there, len(tokens)))
    state: JsonState = grammar.start()
    state.advance(tokens[:there])
    before, copy = state.mask(), state.fork()
    state.advance(tokens[there:beyond])
    assert (copy.mask() == before).all()
    state.rollback(beyond - there)
    assert (state.mask() == before).all()
    assert state.forced() == copy.forced()
    assert state.finished == copy.finished


def test_a_pickled_grammar_is_the_same(words, grammar):
    other = pickle.loads(pickle.dumps(grammar))
    for prefix in ("", "{", '{"place":"p', '"s'):
        one, two = grammar.start(), other.start()
        one.advance(words.encode(prefix))
        two.advance(words.encode(prefix))
        assert (one.mask() == two.mask()).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_beginning_is_biased_once_whatever_tokens_it_is_made_of(words, seed):
    bias = {'{"place":"b': 2.0, '{"place":"pusher","at":"-': -0.5, '"s': 0.25}
    rng = np.random.default_rng(seed)
    state = pickle.loads(pickle.dumps(JsonGrammar(SCHEMA, words, bias))).start()
    added, tokens = 0.0, []
    while not state.finished:
        assert state.fork().bias() == state.bias()
        tokens.append(int(rng.choice(np.flatnonzero(state.mask()))))
        added += state.bias().get(tokens[-1], 0.0)
        state.advance(tokens[-1:])
    text = words.tokenizer.decode([token for token in tokens if token != words.end])
    assert added == sum(value for start, value in bias.items() if text.startswith(start))
    state.rollback(len(tokens))
    assert not state.bias()  # of " nothing is known yet
    state.advance(words.encode('"'))
    assert state.bias() == {words.encode("st")[0]: 0.25}


def test_a_schema_that_cannot_be_compiled_is_refused(words):
    with pytest.raises(InvalidInput, match="cannot be compiled"):
        JsonGrammar({"type": "no such type"}, words)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_walk_along_the_mask_is_valid_json_of_the_schema(words, grammar, seed):
    rng, state, tokens = np.random.default_rng(seed), grammar.start(), []
    while not state.finished:
        tokens.append(int(rng.choice(np.flatnonzero(state.mask()))))
        state.advance(tokens[-1:])
    value = json.loads(words.tokenizer.decode([token for token in tokens if token != words.end]))
    assert value == "stop" or value["place"] in ("block", "pusher")
