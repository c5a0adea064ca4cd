"""The engine: what it refuses, what it chooses, and that it does what it says."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from worldpilot.errors import InvalidInput, NotReady, UnknownName
from worldpilot.models.artifact import zoo_path
from worldpilot.models.language.base import Request
from worldpilot.models.language.bench import bench, check_equality, describe
from worldpilot.models.language.engine import BUDGETS, Choice, Engine, EngineConfig, choose, draft_source
from worldpilot.models.language.fan_out import Outcomes
from worldpilot.models.language.loaders import load_model, load_tokenizer, tokenizer_fingerprint
from worldpilot.models.language.speed import Times

REQUESTS = [Request((5, 6, i), 24, end=frozenset({256})) for i in range(3)]


@pytest.fixture(scope="module")
def config(tiny_language: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> EngineConfig:
    target, draft = tiny_language.llama_pair(tmp_path_factory.mktemp("llamas"))
    return EngineConfig(
        target=str(target), draft=str(draft), dtype="float64", draft_dtype="float64", context=128, lookahead=2
    )


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"method": "fast"}, UnknownName, "valid names: ar, auto, sd, ssd"),
        ({"dtype": "int3"}, UnknownName, "bfloat16"),
        ({"method": "sd", "draft": None}, InvalidInput, "needs a draft"),
        ({"threads": 0}, InvalidInput, "threads"),
        ({"context": 1}, InvalidInput, "context"),
        ({"acceptance": 1.0}, InvalidInput, "acceptance"),
        ({"cores": (0, 1), "threads": 2}, InvalidInput, "one thread each"),
        ({"lookahead": 0}, InvalidInput, "lookahead"),
        ({"scale": 2.0}, InvalidInput, "scale"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EngineConfig(**wrong)


def test_models_of_two_tokenizers_are_refused(tiny_language: ModuleType, config: EngineConfig, tmp_path: Path) -> None:
    other, _ = tiny_language.llama_pair(tmp_path, vocab_size=300)
    with pytest.raises(InvalidInput, match=r"300 tokens .* 257; they need one tokenizer"):
        Engine(replace(config, draft=str(other), method="sd"))


def test_as_many_tokens_of_another_tokenizer_are_refused(config: EngineConfig, tmp_path: Path) -> None:
    """Two tokens have changed places: the models would run, and never agree."""
    other = tmp_path / "draft"
    shutil.copytree(config.draft or "", other)
    file = other / "tokenizer.json"
    described = json.loads(file.read_text())
    vocabulary = described["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(described))
    with pytest.raises(InvalidInput, match="take a draft of the target's own tokenizer"):
        Engine(replace(config, draft=str(other), method="sd"))


def test_a_draft_is_of_the_tokenizer_that_its_manifest_names(config: EngineConfig) -> None:
    with pytest.raises(InvalidInput, match=r"49152 tokens .* 257; they need one tokenizer"):
        Engine(replace(config, draft="draft", method="sd"))
    assert tokenizer_fingerprint("draft") == load_tokenizer("reasoning").fingerprint


def test_ar_and_sd_say_the_same(config: EngineConfig) -> None:
    with Engine(replace(config, method="ar")) as ar, Engine(replace(config, method="sd")) as sd:
        assert (ar.method, sd.method, ar.context) == ("ar", "sd", 128)
        assert sd.report.startswith("SD, 2 tokens drafted at a time")
        for request in REQUESTS:
            generation = sd.generate(request)
            assert generation.tokens == ar.generate(request).tokens
            assert sum(generation.stats.accepted) > 0


def test_of_a_draft_as_much_is_expected_as_its_manifest_says(config: EngineConfig) -> None:
    said = json.loads((zoo_path("language_draft") / "manifest.json").read_text())["metrics"]["held_out"]["constrained"]
    assert EngineConfig().estimates().acceptance == pytest.approx(said["agreement_choices"])
    assert EngineConfig(acceptance=0.5).estimates().acceptance == pytest.approx(0.5)
    assert config.estimates().acceptance == pytest.approx(0.8)  # no distilled draft
    assert EngineConfig(draft="/nowhere", method="ar").estimates().acceptance == pytest.approx(0.8)  # not opened


@pytest.mark.slow
def test_ssd_runs_on_the_cores_it_is_given(config: EngineConfig) -> None:
    before = os.sched_getaffinity(0)
    core, seen = min(before), set[frozenset[int]]()
    with Engine(replace(config, method="ssd", cores=(core, core))) as ssd, Engine(replace(config, method="ar")) as ar:
        for request in REQUESTS:
            generation = ssd.generate(request, lambda _: seen.add(frozenset(os.sched_getaffinity(0))))
            assert generation.tokens == ar.generate(request).tokens
            assert not generation.stats.notes
    assert seen == {frozenset({core})}
    assert os.sched_getaffinity(0) == before


@pytest.mark.slow
def test_a_process_that_does_not_start_leaves_sd_if_the_choice_was_free(
    config: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model is gone between the measurement and the start."""
    monkeypatch.setattr("worldpilot.models.language.engine.choose", lambda *_: ssd)
    monkeypatch.setattr(
        "worldpilot.models.language.engine.draft_source",
        lambda *args: replace(draft_source(*args), source="/nowhere"),
    )
    times = Times({0: 1.0, 8: 1.0}, 0.1, 0.1)
    ssd = Choice("ssd", {"ar": 0, "sd": 2, "ssd": 2}, 4, {"ar": 1.0, "sd": 2.0, "ssd": 3.0}, times, "")
    with Engine(config) as engine:
        assert engine.method == "sd"
        assert "SD, 2 tokens drafted at a time (the draft's process is not ready" in engine.report
        assert engine.generate(REQUESTS[0]).tokens
    with pytest.raises(NotReady, match=r"cannot be loaded .*/nowhere"):
        Engine(replace(config, method="ssd"))


class Priced:
    """A model whose forwards take a given time of a clock that the test turns: so much, and so much a token more."""

    def __init__(self, model: Any, clock: list[float], fixed: float, each: float) -> None:
        self._model, self._clock, self._fixed, self._each = model, clock, fixed, each
        self.config, self.device, self.head_tokens, self.cache = (
            model.config,
            model.device,
            model.head_tokens,
            model.cache,
        )

    def forward(self, tokens: Any, *args: Any, **options: Any) -> Any:
        self._clock[0] += self._fixed + self._each * len(tokens)
        return self._model.forward(tokens, *args, **options)


@pytest.mark.parametrize(
    ("draft_cost", "device", "expected", "why"),
    [
        ((1.0, 0.05), "cpu", "ssd", ""),
        ((1.0, 0.05), "cuda:0", "sd", "share cuda:0"),
        ((6.0, 4.0), "cpu", "sd", "SSD would not pay"),
        ((40.0, 1.0), "cpu", "ar", "SSD would not pay"),
    ],
)
def test_the_method_is_what_the_times_say(
    config: EngineConfig,
    monkeypatch: pytest.MonkeyPatch,
    draft_cost: tuple[float, float],
    device: str,
    expected: str,
    why: str,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    target = Priced(load_model(config.target, "float64"), clock, 25.0, 0.5)
    draft = Priced(load_model(config.draft or "", "float64"), clock, *draft_cost)
    asked = replace(config, lookahead=None, device=device, draft_device=device)
    choice = choose(asked, target, draft, 128, Outcomes(0.9))
    assert choice.method == expected
    assert why in choice.why
    assert bool(why) == bool(choice.why)
    assert choice.times.verification(4) == pytest.approx(27.5)
    assert choice.times.step == pytest.approx(sum(draft_cost))
    k = choice.lookaheads["ssd"]
    assert k == 1 or k * choice.times.tree_step <= choice.times.verification(k)  # the tree is hidden


@pytest.mark.parametrize(("each", "few"), [(0.0, False), (0.8, True)])
def test_the_tree_has_as_many_branches_as_pay(
    config: EngineConfig, monkeypatch: pytest.MonkeyPatch, each: float, few: bool
) -> None:
    """Branches that cost nothing are all taken; where each costs a token's time, a small tree with more steps wins."""
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    target = Priced(load_model(config.target, "float64"), clock, 25.0, 0.5)
    draft = Priced(load_model(config.draft or "", "float64"), clock, 2.0, each)
    free = choose(replace(config, lookahead=None), target, draft, 128, Outcomes(0.9))
    assert (free.budget < max(BUDGETS)) == few
    assert choose(replace(config, budget=2), target, draft, 128, Outcomes(0.9)).budget == 2


def test_one_core_is_not_enough_for_two(config: EngineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    models = (load_model(config.target, "float64"), load_model(config.draft or "", "float64"))
    choice = choose(config, *models, 128, Outcomes())
    assert choice.method != "ssd"
    assert "need 2 processor cores, there are 1" in choice.why


@pytest.mark.slow
def test_the_benchmark_measures_every_way_of_the_same_texts(config: EngineConfig) -> None:
    figures = bench(REQUESTS, config, rounds=1)
    ways = {"ar1", "ar2", "sd", "ssd", "hf", "hf_assisted", "hf_lookup"}
    assert all(figures[way] > 0 for way in ways)
    assert set(figures["ratios"]) >= {"sd/ar1", "ssd/sd", "ssd/ar1", "ssd/ar2"}
    assert figures["same_text"] == dict.fromkeys(ways, 1.0)
    assert 0 <= figures["hit_rate"] <= 1
    assert figures["rounds_of"]["sd"]["accepted"] > 0
    assert "SSD" in describe(figures)
    assert torch.get_num_threads() == 1


@pytest.mark.slow
def test_equality_is_checked_text_by_text(config: EngineConfig) -> None:
    figures = check_equality(REQUESTS, config)
    assert figures["texts"] == 3
    assert figures["tokens"] > 3
    assert figures["differ"] == {"sd": [], "ssd": []}
