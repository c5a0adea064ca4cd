"""Text to tokens and back, and the chat template. What a user writes can never become a role marker.

A model's special tokens (`<|im_start|>` and the like) tell it who speaks. Here they come from the chat template alone:
text is encoded by a tokenizer that does not know them, so that `<|im_end|>` in an instruction is those ten characters.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from worldpilot.errors import ArtifactError, InvalidInput

if TYPE_CHECKING:
    from llguidance import LLTokenizer

ROLES = ("system", "user", "assistant", "tool")
_CONTROL, _USER_DEFINED = 3, 4  # GGUF's kinds of tokens that no text is encoded to
_UNASSIGNED = range(0xF0000, 0x10FFFE)  # private-use characters: candidates for a mark that no message contains

_WORDS = (  # Llama 3's and Qwen2's pre-tokenizers: contractions, words, numbers, punctuation, line ends, space
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{numbers}|"
    r" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """A model's tokenizer."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        vocab_size: int,
        end: Iterable[int],
        template: str | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """A tokenizer from its parts.

        Args:
            backend: with the special tokens.
            vocab_size: of the model's output, at least the backend's.
            end: tokens that end a text.
            template: of chats, Jinja as `transformers` has it.
            names: what the template may call special tokens: bos_token, eos_token.
        """
        self.vocab_size, self.end = vocab_size, frozenset(end)
        self._backend, self._template, self._names = backend, template, dict(names or {})
        self._special = {str(token): i for i, token in backend.get_added_tokens_decoder().items()}
        known = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        if known > vocab_size or not all(0 <= token < vocab_size for token in self.end):
            raise ArtifactError(
                f"tokenizer: {known} tokens, end tokens {sorted(self.end)}, but the model's vocabulary has {vocab_size}"
            )
        self._plain = _without_special(backend, self._special)
        longest_first = sorted(self._special, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)")
        starts = sorted({token[0] for token in self._special})
        self._starts = re.compile(f"[{re.escape(''.join(starts))}]" if starts else "(?!)")

    def __reduce__(self) -> tuple[Any, ...]:  # it goes to the draft's process; templates do not pickle
        return type(self), (self._backend, self.vocab_size, self.end, self._template, self._names)

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any]) -> "Tokenizer":
        """From a GGUF file's metadata, by their keys.

        Raises:
            ArtifactError: a kind of tokenizer that is not supported.
        """
        kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
        if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
            raise ArtifactError(
                f"tokenizer {kind!r} with pre-tokenizer {pre!r} is not supported in GGUF files (supported: 'gpt2' with "
                f"{', '.join(_PRE_TOKENIZERS)}); give the model as a folder with tokenizer.json instead"
            )
        tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
        special = {i for i, kind in enumerate(kinds) if kind in (_CONTROL, _USER_DEFINED)}
        vocabulary = {token: i for i, token in enumerate(tokens)}
        merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]
        backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre == "llama-bpe"))
        if pre == "qwen2":
            backend.normalizer = normalizers.NFC()  # pyright: ignore[reportAttributeAccessIssue]
        backend.pre_tokenizer = _PRE_TOKENIZERS[pre]()  # pyright: ignore[reportAttributeAccessIssue]
        backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
        added = [AddedToken(tokens[i], special=kinds[i] == _CONTROL, normalized=False) for i in sorted(special)]
        backend.add_tokens(added)
        ids: dict[str, int] = {
            name: fields[key] for name in ("bos", "eos", "eot") if (key := f"tokenizer.ggml.{name}_token_id") in fields
        }
        names = {f"{name}_token": tokens[token] for name, token in ids.items()}
        end = [token for name, token in ids.items() if name != "bos"]
        return cls(backend, len(tokens), end, fields.get("tokenizer.chat_template"), names)

    @classmethod
    def from_folder(cls, folder: Path, vocab_size: int) -> "Tokenizer":
        """From `tokenizer.json` and what lies beside it of tokenizer_config.json, generation_config.json, config.json.

        Raises:
            ArtifactError: tokenizer.json is missing or damaged.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError(
                f"{path} is missing; a model's folder has config.json, *.safetensors and tokenizer.json"
            )
        try:
            backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing narrower
            raise ArtifactError(f"{path} is damaged ({error}); copy it again") from error
        backend.no_truncation()
        backend.no_padding()
        config = read_json(folder / "tokenizer_config.json")
        names = {name: _text(config[name]) for name in ("bos_token", "eos_token") if config.get(name)}
        end: set[int] = set()
        for file in ("generation_config.json", "config.json"):
            given = read_json(folder / file).get("eos_token_id")
            end |= set(given if isinstance(given, list) else [given] if given is not None else [])
            if end:
                break
        if "eos_token" in names and (token := backend.token_to_id(names["eos_token"])) is not None:
            end.add(token)
        template = config.get("chat_template")
        if isinstance(template, list):  # several, by name
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        if (file := folder / "chat_template.jinja").is_file():
            template = file.read_text(encoding="utf-8")
        return cls(backend, vocab_size, end, template, names)

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, as `from_folder` and `transformers` read them."""
        self._backend.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": self._template, **self._names}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))

    def encode(self, text: str) -> list[int]:
        """Plain text to tokens, never a special one."""
        try:
            return self._plain.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeError) as error:
            raise InvalidInput(f"text that is not valid Unicode cannot be encoded ({error})") from error

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens to text, without the special ones; bytes that are no UTF-8 (yet) become U+FFFD."""
        return self._backend.decode(list(tokens), skip_special_tokens=True)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """A conversation as the model was taught to read it, up to where its answer begins.

        The template sees the messages with a mark after every character that could begin a special token; only what it
        writes itself is then recognised as one. Without such characters the tokens are those of `transformers`.

        Args:
            messages: each with "role", one of `ROLES`, and "content".

        Raises:
            InvalidInput: no template, another role, content that is no text, or the template's own complaint.
        """
        for message in messages:
            if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
                raise InvalidInput(
                    f"a message has a role ({', '.join(ROLES)}) and a text as content, got {message!r:.200}"
                )
        mark = self._mark("".join(message["content"] for message in messages))
        marked = [
            {"role": message["role"], "content": self._starts.sub(lambda found: found[0] + mark, message["content"])}
            for message in messages
        ]
        try:
            text = self._compiled.render(
                messages=marked, add_generation_prompt=True, enable_thinking=False, **self._names
            )
        except TemplateError as error:
            raise InvalidInput(f"the model's chat template refuses these messages: {error}") from error
        tokens: list[int] = []
        for part in self._split.split(text):
            tokens += [self._special[part]] if part in self._special else self.encode(part.replace(mark, ""))
        return tokens

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of which token is which text: target and draft must share it."""
        vocabulary = sorted(self._backend.get_vocab(with_added_tokens=True).items())
        return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()

    def llguidance(self) -> "LLTokenizer":
        """As the grammar engine reads it; made once."""
        return self._llguidance

    @functools.cached_property
    def _llguidance(self) -> "LLTokenizer":
        from llguidance import LLTokenizer

        return LLTokenizer(self._backend.to_str(), n_vocab=self.vocab_size, eos_token=sorted(self.end))

    @functools.cached_property
    def _compiled(self) -> Any:
        """The template; of a file from elsewhere, hence the sandbox."""
        if self._template is None:
            raise InvalidInput(
                "this model has no chat template; give an instruction-tuned one, or encode a text yourself"
            )
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals["raise_exception"] = _complain
        return environment.from_string(self._template)

    def _mark(self, text: str) -> str:
        """A character that `text` does not contain."""
        used = set(text)
        for code in _UNASSIGNED:
            if chr(code) not in used:
                return chr(code)
        raise InvalidInput("the messages contain every private-use character there is")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty if there is none.

    Raises:
        ArtifactError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} must hold a JSON object, it holds a {type(content).__name__}")
    return content


def _without_special(backend: tokenizers.Tokenizer, special: Iterable[str]) -> tokenizers.Tokenizer:
    """The same tokenizer without knowledge of its special tokens."""
    content = json.loads(backend.to_str())
    content["added_tokens"], content["post_processor"] = [], None
    for token in special:
        content["model"]["vocab"].pop(token, None)
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def _byte_level(split: str | None) -> pre_tokenizers.PreTokenizer:
    if split is None:  # SmolLM: digits one by one, then GPT-2's words
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        words = pre_tokenizers.Split(Regex(split), behavior="isolated")
        steps = [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    return pre_tokenizers.Sequence(steps)


_PRE_TOKENIZERS = {
    "smollm": functools.partial(_byte_level, None),
    "qwen2": functools.partial(_byte_level, _WORDS.format(numbers="")),
    "llama-bpe": functools.partial(_byte_level, _WORDS.format(numbers="{1,3}")),
}


def _text(token: str | Mapping[str, Any]) -> str:
    """A special token as tokenizer_config.json has it: its text, or an object with it."""
    return token if isinstance(token, str) else token["content"]


def _complain(message: str) -> None:
    raise TemplateError(message)
