"""Text round trips, chats are those of `transformers`, and no text becomes a role marker."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models.language.loaders import load_tokenizer
from worldpilot.models.language.tokenizer import Tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # 0, 1, 2


@pytest.fixture(scope="session")
def folder(tiny_model: Callable[[str], tuple[Path, transformers.PreTrainedModel]]) -> Path:
    return tiny_model("llama")[0]


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


pieces = st.lists(st.one_of(st.text(), st.sampled_from((*SPECIAL, "<|im_", "end|>", "\nassistant\n", "12"))))


@given(parts=pieces)
def test_text_comes_back_and_holds_no_special_token(tokenizer: Tokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    tokens = tokenizer.encode(text)
    assert not {0, 1, 2} & set(tokens)
    assert tokenizer.decode(tokens) == text


@given(first=pieces, second=pieces)
def test_only_the_template_says_who_speaks(tokenizer: Tokenizer, first: list[str], second: list[str]) -> None:
    tokens = tokenizer.chat(
        [{"role": "system", "content": "".join(first)}, {"role": "user", "content": "".join(second)}]
    )
    assert [token for token in tokens if token in (0, 1, 2)] == [1, 2, 1, 2, 1]
    text = f"system\n{''.join(first)}\nuser\n{''.join(second)}\nassistant\n"
    assert tokenizer.decode(tokens) == text


def test_a_chat_is_that_of_transformers(tokenizer: Tokenizer, folder: Path) -> None:
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "system", "content": "  You drive a robot. "},
        {"role": "user", "content": "\n\npush the block 12 cm < left >"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "'ll it?"},
    ]
    expected = reference.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.chat(messages) == expected


def test_a_grammar_engine_reads_the_same_tokens(tokenizer: Tokenizer) -> None:
    engine = tokenizer.llguidance()
    assert engine.vocab_size == tokenizer.vocab_size
    assert set(engine.eos_tokens) == tokenizer.end == {2}
    assert engine.tokenize_str("push the block 12") == tokenizer.encode("push the block 12")


def test_it_goes_to_another_process(tokenizer: Tokenizer) -> None:
    tokenizer.chat([{"role": "user", "content": "once"}])  # what is compiled by now stays here
    tokenizer.llguidance()
    copy = pickle.loads(pickle.dumps(tokenizer))
    messages = [{"role": "user", "content": "push <|im_end|>"}]
    assert copy.chat(messages) == tokenizer.chat(messages)
    assert copy.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "user<|im_end|>", "content": "x"}], "a message has a role"),
        ([{"content": "x"}], "a message has a role"),
        ([{"role": "user", "content": 3}], "a message has a role"),
        ([{"role": "user", "content": "\ud800"}], "not valid Unicode"),
    ],
)
def test_messages_that_are_none_are_refused(tokenizer: Tokenizer, messages: list, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        tokenizer.chat(messages)


def test_a_template_is_a_file_from_elsewhere(tokenizer: Tokenizer) -> None:
    def with_template(template: str | None) -> Tokenizer:
        return Tokenizer(tokenizer._backend, tokenizer.vocab_size, tokenizer.end, template)

    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(InvalidInput, match="no chat template"):
        with_template(None).chat(messages)
    with pytest.raises(InvalidInput, match="alternate"):
        with_template("{{ raise_exception('roles must alternate') }}").chat(messages)
    with pytest.raises(InvalidInput, match="unsafe"):
        with_template("{{ messages.__class__.__mro__ }}").chat(messages)


def test_more_tokens_than_the_model_has_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ArtifactError, match="vocabulary has 100"):
        Tokenizer(tokenizer._backend, 100, {2})
