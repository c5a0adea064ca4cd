"""One instruction, one outcome: check, prompt, generate under the grammar, expand, validate."""

import json
import logging
import math
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import jsonschema

from worldpilot.errors import InvalidInput, WorldpilotError
from worldpilot.models.language.base import Cancelled, Finish, Generation, OnTokens, Request, Vocabulary
from worldpilot.reasoning import explain
from worldpilot.reasoning.expand import Inexpressible, expand
from worldpilot.reasoning.scene import Scene
from worldpilot.reasoning.schema import REFUSALS, intent_schema
from worldpilot.types import RewardSpec

if TYPE_CHECKING:
    from worldpilot.models.language.grammar import JsonGrammar

MAX_LENGTH = 2000  # characters of an instruction
STOP_WORDS = frozenset({"stop", "stop now", "halt", "freeze"})  # obeyed without asking the model
MAX_TOKENS = 160  # of an answer; three goals take less than 100
REFUSING = '{"r'  # how an answer begins that refuses
REFUSAL_BIAS = 0.5  # added to its logit there; chosen on validation, docs/results/refusals.json
SURE = 0.7  # the probability from which on a reward is not asked about; chosen on validation, docs/results/unsure.json

_LOG = logging.getLogger(__name__)


class Status(StrEnum):
    """What became of an instruction."""

    REWARD = "reward"  # `spec` does what was asked
    REFUSED = "refused"  # this scene cannot express it; `rationale` says why
    ANSWERED = "answered"  # it was a question; `rationale` is the answer
    INVALID = "invalid"  # it is no instruction, or no valid reward came of it
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


@dataclass(frozen=True)
class Outcome:
    """The end of an instruction."""

    status: Status
    rationale: str  # a sentence for the operator
    spec: RewardSpec | None = None  # validated; only of a reward
    text: str = ""  # what the model said
    generation: Generation | None = None  # None: the model was not asked

    @property
    def probability(self) -> float:
        """That the model says just this [1]; 1 where it was not asked."""
        return 1.0 if self.generation is None else math.exp(self.generation.log_probability)

    def is_sure(self, least: float = SURE) -> bool:
        """Whether to do it without asking: what stops the robot always is, the rest from this probability on."""
        return self.probability >= least or (self.spec is not None and "stop" in json.loads(self.text)["goals"])


class ChatTokenizer(Vocabulary, Protocol):
    """What the reasoner needs of a tokenizer."""

    @property
    def end(self) -> frozenset[int]: ...

    def chat(self, messages: list[dict[str, str]], /) -> list[int]: ...

    def decode(self, tokens: Any, /) -> str: ...


class LanguageEngine(Protocol):
    """A decoder with its tokenizer."""

    @property
    def tokenizer(self) -> ChatTokenizer: ...

    def generate(
        self, request: Request, on_tokens: OnTokens | None = None, cancelled: Cancelled | None = None
    ) -> Generation: ...


def messages(instruction: str, scene: Scene) -> list[dict[str, str]]:
    """What the model is told: the scene in a line, and the instruction as data of its own role. What is all in capitals
    is told in small letters: a small model knows fewer words in capitals."""
    said = instruction.lower() if instruction.isupper() else instruction
    return [{"role": "system", "content": scene.describe()}, {"role": "user", "content": said}]


def instruction_grammar(scene: Scene, tokenizer: Vocabulary, bias: float = REFUSAL_BIAS) -> "JsonGrammar":
    """What can be said of a scene.

    Args:
        scene: where it is said.
        tokenizer: of the model.
        bias: added to the logit of refusing where the answer decides for or against it. Below 0, refusing has to be
            likelier than anything else by a factor of exp(-bias).
    """
    from worldpilot.models.language.grammar import JsonGrammar  # of the extra `language`, which a robot may not have

    return JsonGrammar(intent_schema(scene), tokenizer, {REFUSING: bias})


def check_instruction(instruction: str | bytes) -> str:
    """An instruction that may be shown to the model, its white space joined.

    Raises:
        InvalidInput: not UTF-8, empty, too long, or with characters that are not text.
    """
    if len(instruction) > (MAX_LENGTH if isinstance(instruction, str) else 4 * MAX_LENGTH):
        raise InvalidInput(f"instruction: at most {MAX_LENGTH} characters, got {len(instruction)}; say it in short")
    if isinstance(instruction, bytes):
        try:
            return check_instruction(instruction.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidInput(f"instruction: not UTF-8: {error}; send plain text") from error
    for character in instruction:
        if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") and character not in "\n\r\t":
            raise InvalidInput(f"instruction: the character {character!a} is not text; send plain text")
    text = " ".join(instruction.split())
    if not text:
        raise InvalidInput("instruction: it is empty; say what the robot shall do")
    return text


def is_stop_word(text: str) -> bool:
    """Whether an instruction is nothing but a word to stop, which is obeyed without asking the model."""
    return text.lower().strip(" .!") in STOP_WORDS


class Reasoner:
    """Turns instructions into rewards and answers, with a language model that speaks `schema`.

    Args:
        engine: generates; its model is fine-tuned on `instructions`.
    """

    def __init__(self, engine: LanguageEngine) -> None:
        self._engine = engine

    def reason(
        self,
        instruction: str | bytes,
        scene: Scene,
        deadline: float | None = None,
        on_tokens: OnTokens | None = None,
        cancelled: Cancelled | None = None,
    ) -> Outcome:
        """What an instruction means in a scene. Never raises on what an instruction may contain.

        Args:
            deadline: `time.monotonic()` [s] by which to be done.
            on_tokens: hears the model's tokens as they become final.
            cancelled: asked once a round.
        """
        try:
            text = check_instruction(instruction)
        except InvalidInput as error:
            return Outcome(Status.INVALID, str(error))
        if is_stop_word(text) and "expression" in scene.plugins:
            said = json.dumps({"goals": ["stop"]})
            status, rationale, spec = interpret(said, scene)
            return Outcome(status, rationale, spec, said)
        tokenizer = self._engine.tokenizer
        request = Request(
            prompt=tuple(tokenizer.chat(messages(text, scene))),
            max_tokens=MAX_TOKENS,
            end=tokenizer.end,
            grammar=instruction_grammar(scene, tokenizer),
            deadline=deadline,
        )
        begin = time.monotonic()
        generation = self._engine.generate(request, on_tokens, cancelled)
        said = tokenizer.decode([token for token in generation.tokens if token not in tokenizer.end])
        _LOG.info("%r -> %s in %.2f s (%s)", text, said, time.monotonic() - begin, generation.finish.value)
        match generation.finish:
            case Finish.CANCELLED:
                return Outcome(Status.CANCELLED, "It was cancelled.", text=said, generation=generation)
            case Finish.DEADLINE:
                return Outcome(Status.DEADLINE, "The deadline passed.", text=said, generation=generation)
        status, rationale, spec = interpret(said, scene)
        return Outcome(status, rationale, spec, said, generation)


def interpret(said: str, scene: Scene) -> tuple[Status, str, RewardSpec | None]:
    """What the model's answer means in a scene."""
    try:
        intent: Mapping[str, Any] = json.loads(said)
        jsonschema.validate(intent, intent_schema(scene))
    except (ValueError, jsonschema.ValidationError):
        return Status.INVALID, "The model's answer broke off; say it in fewer words.", None
    if "refuse" in intent:
        return Status.REFUSED, f"Refused: {REFUSALS[intent['refuse']]}. {explain.abilities(scene)}", None
    if "answer" in intent:
        return Status.ANSWERED, explain.answer(intent["answer"], scene), None
    try:
        spec, sentence = expand(intent, scene)
    except Inexpressible as error:
        return Status.REFUSED, f"Refused: {error}.", None
    except WorldpilotError as error:
        return Status.INVALID, f"No valid reward came of it: {error}", None
    return Status.REWARD, sentence, spec
