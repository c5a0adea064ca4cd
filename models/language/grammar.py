"""Output constrained to a JSON schema, by llguidance: which tokens may follow, and which must."""

import json
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Self

import numpy as np
from llguidance import LLMatcher

from worldpilot.errors import InvalidInput
from worldpilot.models.language.base import BoolArray, Vocabulary


class JsonGrammar:
    """Every text of it is JSON that meets the schema, without white space, keys in the schema's order.

    Picklable if the tokenizer is; what llguidance compiled is made anew on the other side.

    Args:
        schema: JSON schema; llguidance supports most of draft 2020-12.
        tokenizer: of the model that generates.
        bias: beginnings of texts, and what is added to the logit of a token that makes a text begin so.

    Raises:
        InvalidInput: llguidance cannot compile the schema.
    """

    def __init__(
        self, schema: Mapping[str, Any], tokenizer: Vocabulary, bias: Mapping[str, float] | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._bias = {start.encode(): value for start, value in (bias or {}).items()}
        options: Any = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
        self._grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
        self._compile()

    def start(self) -> "JsonState":
        return JsonState(self._matcher.deep_copy(), self._tokenizer, self._bias)

    def _compile(self) -> None:
        self._matcher = LLMatcher(self._tokenizer.llguidance(), self._grammar)
        if self._matcher.is_error():
            raise InvalidInput(f"grammar: the schema cannot be compiled: {self._matcher.get_error()}")

    def __getstate__(self) -> dict[str, Any]:
        return {"_tokenizer": self._tokenizer, "_grammar": self._grammar, "_bias": self._bias}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._compile()


class JsonState:
    """Where a text stands in a `JsonGrammar`. An end token may follow a complete text, and nothing may follow it."""

    def __init__(self, matcher: LLMatcher, tokenizer: Vocabulary, bias: Mapping[bytes, float]) -> None:
        self._matcher, self._bias = matcher, bias
        self._guide, self._vocab_size = tokenizer.llguidance(), tokenizer.vocab_size
        self._end = frozenset(self._guide.eos_tokens)
        self._taken: list[int] = []
        self._ended = False  # by an end token, which the matcher has not seen

    def mask(self) -> BoolArray:
        if self._ended or self._matcher.is_stopped():
            allowed = np.zeros(self._vocab_size, np.bool_)
            allowed[list(self._end)] = True
            return allowed
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        # Zeros fill up: a model may have more columns than its tokenizer tokens.
        return np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)

    def bias(self) -> Mapping[int, float]:
        added: dict[int, float] = {}
        for start, value in self._bias.items():
            if len(self._taken) >= len(start):  # a token is a byte or more
                continue
            text = self._guide.decode_bytes(self._taken)
            if len(text) < len(start) and start.startswith(text):
                rest = start[len(text) :]
                for token in np.flatnonzero(self.mask()).tolist():
                    if self._guide.decode_bytes([token]).startswith(rest):
                        added[token] = added.get(token, 0.0) + value
        return added

    def accepts(self, tokens: Sequence[int]) -> int:
        text, ends = self._split(tokens)
        if self._ended or not text:
            return int(ends and not self._ended and self._matcher.is_accepting())
        if not ends:
            return self._matcher.validate_tokens(text)
        ahead = self._matcher.deep_copy()
        accepted = ahead.try_consume_tokens(text)
        return accepted + int(accepted == len(text) and ahead.is_accepting())

    def advance(self, tokens: Sequence[int]) -> None:
        """Go past tokens that were accepted.

        Raises:
            InvalidInput: one of them may not follow; the state has not moved.
        """
        accepted = self.accepts(tokens)
        if accepted < len(tokens):
            raise InvalidInput(f"grammar: the token {tokens[accepted]}, at {accepted} of {len(tokens)}, may not follow")
        text, ends = self._split(tokens)
        self._matcher.consume_tokens(text)
        self._taken += tokens
        self._ended |= ends

    def rollback(self, count: int) -> None:
        """Take back the last `count` tokens.

        Raises:
            InvalidInput: so many were not taken.
        """
        if not 0 <= count <= len(self._taken):
            raise InvalidInput(f"grammar: cannot take back {count} tokens of {len(self._taken)}")
        self._matcher.rollback(count - int(self._ended and count > 0))
        del self._taken[len(self._taken) - count :]
        self._ended &= count == 0

    def forced(self) -> list[int]:
        return [] if self._ended else self._matcher.compute_ff_tokens()

    def fork(self) -> Self:
        other = copy(self)
        other._matcher, other._taken = self._matcher.deep_copy(), list(self._taken)
        return other

    @property
    def finished(self) -> bool:
        return self._ended or self._matcher.is_stopped()

    def _split(self, tokens: Sequence[int]) -> tuple[list[int], bool]:
        """The tokens before the first end token, and whether there is one."""
        for index, token in enumerate(tokens):
            if token in self._end:
                return list(tokens[:index]), True
        return list(tokens), False
