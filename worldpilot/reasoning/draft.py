"""The reasoning service's draft: distilled on instructions as the reasoner puts them, and on people's questions."""

import itertools
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from worldpilot.errors import InvalidInput
from worldpilot.models.language import loaders
from worldpilot.models.language.base import Request
from worldpilot.models.language.distil import DraftConfig, export_draft, generate_all, train_draft
from worldpilot.models.language.grammar import JsonGrammar
from worldpilot.models.language.tokenizer import Tokenizer
from worldpilot.reasoning.instructions import pairs
from worldpilot.reasoning.reasoner import MAX_TOKENS, check_instruction, instruction_grammar, messages
from worldpilot.reasoning.schema import intent_schema

FREE_TOKENS = 128  # of an answer without a grammar

_FORMS = (
    "What is {}?",
    "Explain {} to a beginner.",
    "Give me three tips about {}.",
    "Write a short story about {}.",
    "Why does {} matter?",
    "Write a Python function that has to do with {}.",
)
_TOPICS = (
    "a robot arm",
    "the weather",
    "cooking rice",
    "gravity",
    "a neural network",
    "learning to swim",
    "the history of Rome",
    "a camera",
    "prime numbers",
    "electric motors",
    "a good night's sleep",
    "the moon",
    "sorting a list",
    "planting trees",
    "writing an email",
    "a control loop",
    "the human heart",
    "saving money",
    "a warehouse",
    "friction",
)
_HELD_TOPICS = ("a gearbox", "volcanoes", "reading books", "binary search")


def make_draft(
    target: str,
    config: DraftConfig,
    work: Path,
    out: Path,
    *,
    instructions: int,
    questions: int,
    command: str,
    device: str = "cpu",
) -> dict[str, Any]:
    """Distil a draft from a target and write it; run again to resume. Returns its manifest.

    Args:
        target: how `loaders.load` finds it.
        config: the draft's sizes, and how it is trained.
        work: folder of the target's texts, the checkpoint and the log.
        out: folder of the draft.
        instructions: to train on; a tenth as many, of other templates, are held out.
        questions: to train on, answered without a grammar.
        command: what this is done by, for the manifest.
        device: does it.
    """
    model, tokenizer = loaders.load(target, "bfloat16", device, pack=not config.target_layers)
    prompts, held, guesses = _prompts(tokenizer, instructions, questions, config.seed)
    draft, about = train_draft(model, tokenizer, prompts, held, config, work, guesses)
    about = {"command": command, "seed": config.seed} | about
    about["data"] |= {"instructions": instructions, "questions": min(questions, len(_FORMS) * len(_TOPICS))}
    about["libraries"] = {"python": platform.python_version(), "torch": version("torch")}
    return export_draft(draft, target, tokenizer, about, out)


def make_texts(
    target: str,
    work: Path,
    *,
    instructions: int,
    questions: int,
    seed: int,
    part: tuple[int, int],
    device: str = "cpu",
) -> Path:
    """One part of the target's texts, for several processes to make them; run again to resume.

    Args:
        target, work, instructions, questions, seed, device: as for `make_draft`, which goes on from `texts.jsonl`
            in the same folder: all parts, one behind the other.
        part: (i, n), the i-th of n parts, from 1.

    Returns:
        The file of this part.
    """
    index, parts = part
    if not 1 <= index <= parts:
        raise InvalidInput(f"draft: part {index} of {parts}: parts are counted from 1 to their number")
    model, tokenizer = loaders.load(target, "bfloat16", device)
    prompts, held, guesses = _prompts(tokenizer, instructions, questions, seed)
    requests = [*prompts, *held]
    bounds = [round(len(requests) * i / parts) for i in (index - 1, index)]
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"texts-{index:03d}-of-{parts:03d}.jsonl"
    generate_all(model, requests[bounds[0] : bounds[1]], path, guesses)
    return path


def _prompts(
    tokenizer: Tokenizer, instructions: int, questions: int, seed: int
) -> tuple[list[Request], list[Request], dict[tuple[int, ...], list[int]]]:
    """What the target answers, to train on and held out, and by prompt what it may answer."""
    asked = _instructions(tokenizer, instructions, seed)
    held = _instructions(tokenizer, max(1, instructions // 10), seed, validation=True)
    return (
        [request for request, _ in asked] + free_requests(tokenizer, questions),
        [request for request, _ in held] + free_requests(tokenizer, questions // 5, validation=True),
        {request.prompt: meant for request, meant in asked + held},
    )


def instruction_requests(tokenizer: Tokenizer, count: int, seed: int, validation: bool = False) -> list[Request]:
    """Instructions in scenes, each with its scene's grammar; ordered so that neighbours begin alike.

    Args:
        tokenizer: the target's.
        count: how many.
        seed: of scenes and instructions.
        validation: of the templates that are kept from training.
    """
    return [request for request, _ in _instructions(tokenizer, count, seed, validation)]


def _instructions(
    tokenizer: Tokenizer, count: int, seed: int, validation: bool = False
) -> list[tuple[Request, list[int]]]:
    """As `instruction_requests`, each with what the instruction means, in tokens."""
    grammars: dict[str, JsonGrammar] = {}
    found: dict[tuple[int, ...], tuple[Request, list[int]]] = {}
    for pair in pairs(seed, validation):
        prompt = tuple(tokenizer.chat(messages(check_instruction(pair.instruction), pair.scene)))
        key = json.dumps(intent_schema(pair.scene))
        if key not in grammars:
            grammars[key] = instruction_grammar(pair.scene, tokenizer)
        request = Request(prompt, MAX_TOKENS, end=tokenizer.end, grammar=grammars[key])
        found[prompt] = request, tokenizer.encode(pair.answer)
        if len(found) == count:
            break
    return [found[prompt] for prompt in sorted(found)]


def free_requests(tokenizer: Tokenizer, count: int, validation: bool = False) -> list[Request]:
    """Questions without a grammar, on topics of one side or the other, at most as many as there are."""
    topics: Sequence[str] = _HELD_TOPICS if validation else _TOPICS
    questions = (form.format(topic) for form, topic in itertools.product(_FORMS, topics))
    prompts = (tuple(tokenizer.chat([{"role": "user", "content": question}])) for question in questions)
    return [Request(prompt, FREE_TOKENS, end=tokenizer.end) for prompt in itertools.islice(prompts, count)]
