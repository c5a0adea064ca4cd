"""Text as it is generated: nothing is given out that the next token could still change."""

from collections.abc import Sequence
from typing import Protocol

_CONTEXT = 4  # tokens; some tokenizers write a token differently at the beginning of a text
_INCOMPLETE = "\ufffd"  # what a decoder writes for bytes that are no character (yet)


class Decodes(Protocol):
    """What a stream needs of a tokenizer."""

    def decode(self, tokens: Sequence[int], /) -> str: ...


class TextStream:
    """Tokens in, final text out.

    Args:
        tokenizer: writes tokens as text, special ones as nothing.
        stop: texts that end the stream; neither they nor what follows is given out.
    """

    def __init__(self, tokenizer: Decodes, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._before: list[int] = []  # the last tokens that were given out
        self._pending: list[int] = []  # tokens whose last character is not complete
        self._held = ""  # may be the beginning of a stop text
        self.stopped = False

    def push(self, tokens: Sequence[int]) -> str:
        """The text that has become final with `tokens`."""
        self._pending.extend(tokens)
        text = self._decoded()
        return "" if text.endswith(_INCOMPLETE) else self._give(text)

    def close(self) -> str:
        """No token follows: the text that was held back."""
        rest = self._give(self._decoded())
        return rest if self.stopped else rest + self._held

    def _decoded(self) -> str:
        written = len(self._tokenizer.decode(self._before))
        return self._tokenizer.decode([*self._before, *self._pending])[written:]

    def _give(self, text: str) -> str:
        if self.stopped:
            return ""
        self._before, self._pending = [*self._before, *self._pending][-_CONTEXT:], []
        text = self._held + text
        found = [text.index(stop) for stop in self._stop if stop in text]
        if found:
            self.stopped = True
            return text[: min(found)]
        held = max((n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]
