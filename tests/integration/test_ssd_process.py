"""SSD with the draft in a real process of its own: whatever happens to that process, the text stays the same."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from worldpilot.errors import NotReady
from worldpilot.models.language.base import Finish, Request
from worldpilot.models.language.decoders import Serial, Silent, SpeculativeDecoder
from worldpilot.models.language.draft_worker import Beside, DraftSource
from worldpilot.models.language.grammar import JsonGrammar
from worldpilot.models.language.loaders import load, load_model, load_tokenizer
from worldpilot.models.language.speculation import Draft, DraftConfig
from worldpilot.models.language.tokenizer import Tokenizer
from worldpilot.models.language.transformer import Llama

pytestmark = pytest.mark.slow  # processes that load torch
CONFIG = DraftConfig(lookahead=3, budget=8, scale=0.5, top=2)
CONTEXT = 512


@dataclass
class Stack:
    target: Llama
    tokenizer: Tokenizer
    beside: Beside
    ssd: SpeculativeDecoder
    ar: SpeculativeDecoder
    sd: SpeculativeDecoder


@pytest.fixture(scope="module")
def folders(tiny_language: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny_language.llama_pair(tmp_path_factory.mktemp("llamas"))


@pytest.fixture(scope="module")
def stack(folders: tuple[Path, Path]) -> Iterator[Stack]:
    target, tokenizer = load(folders[0], "float64")
    beside = Beside(DraftSource(str(folders[1]), CONFIG, CONTEXT, tokenizer, dtype="float64"), patience=0.3)
    ssd = SpeculativeDecoder(target, beside, CONTEXT)
    draft = Draft(load_model(folders[1], "float64"), CONFIG, CONTEXT)
    yield Stack(
        target,
        tokenizer,
        beside,
        ssd,
        SpeculativeDecoder(target, Silent(), CONTEXT),
        SpeculativeDecoder(target, Serial(draft), CONTEXT),
    )
    ssd.close()


def requests(count: int, temperature: float = 0.0, max_tokens: int = 60) -> list[Request]:
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(0, 256, rng.integers(1, 40)).tolist()) for _ in range(count)]
    return [Request(prompt, max_tokens, temperature, seed=i, end=frozenset({256})) for i, prompt in enumerate(prompts)]


def patient(stack: Stack) -> Stack:
    """The stack once its process serves, whatever a test before did to it."""
    deadline = time.monotonic() + 120
    while stack.ssd.generate(requests(1)[0]).stats.hits.count(None) > 2:
        assert time.monotonic() < deadline, "the process has not come back"
    return stack


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_it_says_what_sd_says_and_hits_and_misses(stack: Stack, temperature: float) -> None:
    patient(stack)
    hits: list[bool | None] = []
    for request in requests(10, temperature):
        ssd, sd = stack.ssd.generate(request), stack.sd.generate(request)
        assert ssd.tokens == sd.tokens
        assert ssd.finish == sd.finish
        hits += ssd.stats.hits
        if temperature == 0:
            assert ssd.tokens == stack.ar.generate(request).tokens
    assert {True, False} <= set(hits)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_both_processes_keep_to_one_grammar(stack: Stack, temperature: float) -> None:
    """It goes over the pipe without the tokenizer, which both have."""
    patient(stack)
    number = {"type": "integer", "minimum": 0, "maximum": 999}
    properties = {
        "push": {"enum": ["left", "right"]},
        "x": number,
        "y": {"type": "array", "items": number, "maxItems": 3},
    }
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    grammar = JsonGrammar(schema, stack.tokenizer)
    hits: list[bool | None] = []
    for request in requests(6, temperature):
        request = replace(request, grammar=grammar, max_tokens=80)
        ssd, sd = stack.ssd.generate(request), stack.sd.generate(request)
        assert ssd.tokens == sd.tokens
        assert ssd.finish is Finish.END
        said = json.loads(stack.tokenizer.decode(ssd.tokens[:-1]))
        assert set(said) == set(properties)
        hits += ssd.stats.hits
        if temperature == 0:
            assert ssd.tokens == stack.ar.generate(request).tokens
    assert True in hits


def test_a_process_that_stalls_again_and_again_changes_nothing(stack: Stack) -> None:
    """Stopped and continued at random times, for shorter and for longer than it is waited for."""
    patient(stack)
    rng = np.random.default_rng(1)
    pid, done = stack.beside.pid, threading.Event()
    assert pid is not None

    def stall() -> None:
        while not done.wait(float(rng.exponential(0.05))):
            os.kill(pid, signal.SIGSTOP)
            done.wait(float(rng.choice([0.01, 0.05, 0.5])))
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=stall)
    thread.start()
    try:
        notes: list[str] = []
        for request in requests(8):
            generation = stack.ssd.generate(request)
            notes += generation.stats.notes
            assert generation.tokens == stack.ar.generate(request).tokens
    finally:
        done.set()
        thread.join()
    assert any("not answered" in note for note in notes)
    assert stack.beside.pid == pid


def test_answers_to_questions_of_long_ago_are_not_taken(stack: Stack) -> None:
    """The process answers the last generation's question during this one."""
    patient(stack)
    first, second = requests(2)
    pid = stack.beside.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    late = stack.ssd.generate(first)
    threading.Timer(0.05, os.kill, (pid, signal.SIGCONT)).start()
    said = stack.ssd.generate(replace(second, max_tokens=400))
    assert late.tokens == stack.ar.generate(first).tokens
    assert said.tokens == stack.ar.generate(replace(second, max_tokens=400)).tokens
    assert True in said.stats.hits  # it is back


@pytest.mark.parametrize("after", [0, 1, 20])
def test_a_process_killed_in_mid_generation_is_replaced(stack: Stack, after: int) -> None:
    patient(stack)
    request = requests(1, max_tokens=120)[0]
    pid, said = stack.beside.pid, list[int]()
    assert pid is not None

    def kill(tokens: object) -> None:
        said.extend(tokens)  # pyright: ignore[reportArgumentType]
        if len(said) > after and stack.beside.pid == pid:
            os.kill(pid, signal.SIGKILL)

    generation = stack.ssd.generate(request, kill)
    assert generation.tokens == stack.ar.generate(request).tokens == tuple(said)
    assert any("died (exit code -9)" in note for note in generation.stats.notes)
    patient(stack)
    assert stack.beside.pid != pid
    again = stack.ssd.generate(request)
    assert again.tokens == generation.tokens
    assert sum(again.stats.speculated) > 0  # by the new process; whether in time for a hit is the scheduler's matter


def test_it_stops_when_told_to_and_starts_again(stack: Stack) -> None:
    patient(stack)
    request = requests(1, max_tokens=400)[0]
    whole = stack.ar.generate(request).tokens
    asked = iter(range(1000))
    cancelled = stack.ssd.generate(request, cancelled=lambda: next(asked) >= 5)
    assert cancelled.finish is Finish.CANCELLED
    assert 0 < len(cancelled.tokens) < len(whole)
    assert cancelled.tokens == whole[: len(cancelled.tokens)]
    late = stack.ssd.generate(replace(request, deadline=time.monotonic() + 0.05))
    assert late.finish is Finish.DEADLINE
    assert late.tokens == whole[: len(late.tokens)]
    assert stack.ssd.generate(request).tokens == whole


def test_a_draft_that_cannot_be_loaded_leaves_ar(stack: Stack, tmp_path: Path) -> None:
    beside = Beside(DraftSource(str(tmp_path), CONFIG, CONTEXT))
    with pytest.raises(NotReady, match="cannot be loaded"):
        beside.wait()
    decoder = SpeculativeDecoder(stack.target, beside, CONTEXT)
    assert decoder.generate(requests(1)[0]).tokens == stack.ar.generate(requests(1)[0]).tokens
    decoder.close()


def test_a_process_is_started_without_waiting_for_it() -> None:
    """One that is replaced within a text must not hold the text up while the other imports and loads."""
    begin = time.monotonic()
    beside = Beside(DraftSource("/not/there", CONFIG, CONTEXT, load_tokenizer("smollm2")))
    pickled = time.monotonic()
    beside._replace("was killed")
    replaced = time.monotonic()
    with pytest.raises(NotReady):
        beside.wait()
    loaded = time.monotonic()
    beside.close()
    assert replaced - pickled < 0.2 * (loaded - replaced), (pickled - begin, replaced - pickled, loaded - replaced)


def test_nothing_is_left_when_it_is_closed(folders: tuple[Path, Path]) -> None:
    beside = Beside(DraftSource(str(folders[1]), CONFIG, CONTEXT, dtype="float64"))
    beside.wait()
    pid = beside.pid
    assert pid is not None
    beside.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
