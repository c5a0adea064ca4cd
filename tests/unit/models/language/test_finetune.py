"""Fine-tuning: a batch's trie gives each text its own logits, training learns, resumes, ships, and merges exactly."""

import dataclasses

import pytest
import torch

from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models.language import finetune
from worldpilot.models.language.finetune import (
    ADAPTER,
    Batch,
    Example,
    Finetune,
    FinetuneConfig,
    apply_adapter,
    write_adapter,
)
from worldpilot.models.language.transformer import Llama, LlamaConfig

CONFIG = LlamaConfig(
    vocab_size=40, hidden_size=32, layers=3, heads=4, kv_heads=2, head_dim=8, intermediate_size=48, context=64
)
SETTINGS = FinetuneConfig(
    rank=4, layers=2, epochs=60, batch_tokens=40, lr=1e-2, warmup=2, dropout=0.0, log_every=10, evaluate_every=50
)


def model() -> Llama:
    torch.manual_seed(0)
    made = Llama(CONFIG)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else None
    return made


def examples() -> list[Example]:
    """Say the instruction backwards, under one of two system messages."""
    found = []
    for i in range(30):
        said = (5 + i % 6, 5 + i // 6)
        found.append(Example((1, 2 + i % 2, 4, *said, 3), (*said[::-1], 0), group=str(i % 2)))
    return found


def test_a_trie_gives_each_text_the_logits_it_has_alone():
    net, texts = model(), examples()[::2]
    batch = Batch.of(texts)
    whole = sum(len(text.prompt) + len(text.answer) - 1 for text in texts)
    assert len(batch.tokens) < whole  # what is common is read once
    with torch.no_grad():
        together = net(batch.tokens, net.cache(64 * 8), batch.positions, batch.mask)[batch.sources]
        for owner, text in enumerate(texts):
            tokens = torch.tensor([*text.prompt, *text.answer[:-1]])
            alone = net(tokens, net.cache())[len(text.prompt) - 1 :]
            mine = batch.owners == owner
            torch.testing.assert_close(together[mine], alone, rtol=1e-4, atol=1e-4)
            assert batch.targets[mine].tolist() == list(text.answer)


@pytest.mark.parametrize("length", [1, 7, 40])
def test_runs_of_a_trie_attend_as_the_whole_trie_does(monkeypatch, length):
    mask = Batch.of(examples()).mask
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(len(mask), heads, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2))
    monkeypatch.setattr(finetune, "RUN", length)
    by_runs = finetune._attend_in(mask)(q, k, v)
    monkeypatch.setattr(finetune, "RUN", len(mask))
    torch.testing.assert_close(by_runs, finetune._attend_in(mask)(q, k, v), rtol=1e-9, atol=1e-9)


def test_it_learns_and_what_is_shipped_is_what_was_learned(tmp_path):
    texts = examples()
    training = Finetune(model(), texts, texts, SETTINGS, tmp_path / "work")
    before = training.evaluate()
    after = training.run()
    assert before["val_exact"] == 0
    assert after["val_exact"] == 1
    assert after["val_loss"] < 0.1 * before["val_loss"]
    write_adapter(tmp_path / "shipped", training.adapter(), {"seed": 0})
    merged = apply_adapter(model(), tmp_path / "shipped")
    with torch.no_grad():
        for text in texts:
            logits = merged(torch.tensor([*text.prompt, *text.answer[:-1]]), merged.cache())
            answers = training._columns  # the other tokens cannot occur
            said = answers[logits[len(text.prompt) - 1 :, answers].argmax(-1)]
            assert tuple(said.tolist()) == text.answer


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path):
    texts, settings = examples(), dataclasses.replace(SETTINGS, epochs=4, dropout=0.2)
    whole = Finetune(model(), texts, texts, settings, tmp_path / "whole")
    whole.run()
    parts = []
    for _ in range(3):  # a new process each time
        parts.append(Finetune(model(), texts, texts, settings, tmp_path / "part"))
        parts[-1].run(limit=-(-whole.steps // 3))
    assert parts[-1].step == whole.steps
    for name, tensor in whole.adapter().items():
        assert torch.equal(parts[-1].adapter()[name], tensor)


def test_it_goes_on_from_an_adapter_of_the_same_size(tmp_path):
    texts = examples()
    training = Finetune(model(), texts, texts, SETTINGS, tmp_path / "work")
    learned = training.run()
    write_adapter(tmp_path / "shipped", training.adapter(), {})
    again = Finetune(model(), texts, texts, SETTINGS, tmp_path / "again", tmp_path / "shipped").evaluate()
    assert again["val_exact"] == learned["val_exact"]
    assert again["val_loss"] == pytest.approx(learned["val_loss"], rel=0.05)  # the adapter is in half precision
    other = dataclasses.replace(SETTINGS, rank=2)
    with pytest.raises(InvalidInput, match="another rank"):
        Finetune(model(), texts, texts, other, tmp_path / "other", tmp_path / "shipped")


def test_it_ends_halfway_between_two_adapters_if_asked(tmp_path):
    texts = examples()
    first = Finetune(model(), texts, texts, SETTINGS, tmp_path / "first")
    first.run()
    write_adapter(tmp_path / "start", first.adapter(), {})
    second = Finetune(model(), texts, texts, SETTINGS, tmp_path / "second", tmp_path / "start")
    second.run(limit=3)
    before = second.adapter()
    measured = second.average_with(tmp_path / "start")
    assert measured == second.evaluate()
    halfway, start = second.adapter(), first.adapter()
    for name, tensor in halfway.items():
        torch.testing.assert_close(
            tensor.float(), (before[name].float() + start[name].float()) / 2, rtol=1e-3, atol=1e-6
        )
    assert any(not torch.equal(halfway[name], start[name]) for name in start)
    with pytest.raises(ArtifactError, match="missing"):
        second.average_with(tmp_path / "nowhere")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    texts = examples()
    Finetune(model(), texts, texts, SETTINGS, tmp_path).run(limit=1)
    with pytest.raises(InvalidInput, match="other data or settings"):
        Finetune(model(), texts[1:], texts, SETTINGS, tmp_path).run()


def test_an_adapter_that_was_tampered_with_or_is_of_another_model_is_refused(tmp_path):
    texts = examples()
    training = Finetune(model(), texts, texts, SETTINGS, tmp_path / "work")
    write_adapter(tmp_path, training.adapter(), {})
    other = Llama(dataclasses.replace(CONFIG, hidden_size=16))
    with pytest.raises(ArtifactError, match="shape"):
        apply_adapter(other, tmp_path)
    with pytest.raises(ArtifactError, match="does not fit"):
        apply_adapter(Llama(dataclasses.replace(CONFIG, layers=1)), tmp_path)
    (tmp_path / ADAPTER).write_bytes((tmp_path / ADAPTER).read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="sha256"):
        apply_adapter(model(), tmp_path)


@pytest.mark.parametrize("settings", [{"rank": 0}, {"lr": 0.0}, {"dropout": 1.0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(InvalidInput, match="finetune"):
        FinetuneConfig(**settings)
