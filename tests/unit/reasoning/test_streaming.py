"""Whatever the tokens' borders are, the pieces make up the text, and no piece holds what could still change."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldpilot.reasoning.streaming import TextStream


class Bytes:
    """A tokenizer whose tokens are bytes: every character that is not ASCII has several."""

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", errors="replace")


def chunks(data: bytes, sizes: list[int]) -> list[bytes]:
    """Consecutive pieces of these sizes, and what is left."""
    pieces, begin = [], 0
    for size in sizes:
        pieces.append(data[begin : begin + size])
        begin += size
    return [*pieces, data[begin:]]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(st.integers(0, 5)))
def test_the_pieces_make_up_the_text(text: str, sizes: list[int]) -> None:
    stream = TextStream(Bytes())
    pieces = [stream.push(chunk) for chunk in chunks(text.encode(), sizes)]
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text
    assert "".join(pieces) + stream.close() == text


@given(st.text("ab\u00e4"), st.lists(st.text("ab\u00e4", min_size=1), max_size=3), st.lists(st.integers(0, 5)))
def test_it_ends_before_the_first_stop_text(text: str, stops: list[str], sizes: list[int]) -> None:
    stream = TextStream(Bytes(), stops)
    given_out = ""
    for chunk in chunks(text.encode(), sizes):
        given_out += stream.push(chunk)
        if stream.stopped:
            break
    given_out += stream.close()
    ends = [text.index(stop) for stop in stops if stop in text]
    # A stop text is seen at the end of the push that completes it; of two in one push, the first in the text counts.
    assert stream.stopped == bool(ends)
    if len(stops) == 1 or not ends:
        assert given_out == text[: min(ends, default=len(text))]
    else:
        assert any(given_out == text[:end] for end in ends)


def test_the_beginning_of_a_stop_text_is_held_back() -> None:
    stream = TextStream(Bytes(), ["END"])
    assert stream.push(b"the E") == "the "
    assert stream.push(b"N") == ""
    assert stream.push(b"D of it") == ""
    assert stream.stopped
    assert stream.close() == ""
    again = TextStream(Bytes(), ["END"])
    assert again.push(b"the EN") == "the "
    assert again.push(b"T") == "ENT"


@pytest.mark.parametrize("broken", [b"\xff", b"ab\xe2\x82", b"\xe2\x82ab"])
def test_bytes_that_are_no_text_are_marked_as_such(broken: bytes) -> None:
    stream = TextStream(Bytes())
    assert stream.push(broken) + stream.close() == broken.decode(errors="replace")
