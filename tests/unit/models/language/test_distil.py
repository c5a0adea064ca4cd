"""A draft of a random target learns it, comes back from where it stopped, and is read as it was written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from worldpilot.cli.main import main
from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models.language import distil
from worldpilot.models.language.base import Request
from worldpilot.models.language.context import Context
from worldpilot.models.language.distil import (
    Batch,
    Choice,
    DraftConfig,
    Text,
    choose_vocabulary,
    draft_log_probs,
    export_draft,
    generate,
    generate_all,
    measure,
    new_draft,
    part_of,
    train_draft,
)
from worldpilot.models.language.grammar import JsonGrammar
from worldpilot.models.language.loaders import load, load_model
from worldpilot.models.language.tokenizer import Tokenizer
from worldpilot.models.language.transformer import Llama
from worldpilot.models.language.weights import verify_weights
from worldpilot.models.world_model.train import save_checkpoint

CONFIG = DraftConfig(
    layers=1, hidden_size=32, heads=2, kv_heads=1, intermediate_size=32, rank=8, head_size=64, steps=60, batch=4
)
SCHEMA = {
    "type": "object",
    "properties": {"goal": {"enum": ["left", "right", "top", "stop"]}, "by": {"type": "integer", "maximum": 99}},
    "required": ["goal", "by"],
    "additionalProperties": False,
}
Model = tuple[Llama, Tokenizer, Path]


@pytest.fixture(scope="module")
def model(tiny_model: Callable[[str], tuple[Path, transformers.PreTrainedModel]]) -> Model:
    folder, _ = tiny_model("llama")
    return *load(folder), folder


@pytest.fixture(scope="module")
def requests(model: Model) -> list[Request]:
    _, tokenizer, _ = model
    grammar = JsonGrammar(SCHEMA, tokenizer)
    texts = [f"push the block {i} to the goal" for i in range(12)]
    prompts = [tuple(tokenizer.chat([{"role": "user", "content": text}])) for text in texts]
    free = [Request(prompt, max_tokens=12, end=tokenizer.end) for prompt in prompts[:4]]
    return free + [Request(prompt, max_tokens=40, end=tokenizer.end, grammar=grammar) for prompt in prompts[4:]]


def test_a_text_is_the_targets_greedy_answer_with_its_alternatives(model: Model, requests: list[Request]) -> None:
    target, tokenizer, _ = model
    for request in (requests[0], requests[-1]):
        text = generate(target, request, Context(target, 256))
        places = [choice.place for choice in text.choices]
        whole = torch.tensor([*text.prompt, *text.tokens])
        logits = target(whole, target.cache(256))[len(text.prompt) - 1 : -1]
        state = request.grammar.start() if request.grammar else None
        for place, token in enumerate(text.tokens):
            allowed = torch.from_numpy(state.mask()) if state else torch.ones(len(logits[0]), dtype=torch.bool)
            expected = logits[place].masked_fill(~allowed, -torch.inf).log_softmax(-1)
            if place in places:
                choice = text.choices[places.index(place)]
                assert token == choice.tokens[0] == int(expected.argmax())
                assert choice.log_probs == pytest.approx(expected[list(choice.tokens)].tolist(), abs=2e-3)
                assert choice.complete == (int(allowed.sum()) <= 64)
            if state and token not in tokenizer.end:
                state.advance([token])
        assert len(places) == len(text.tokens) if state is None else len(places) < len(text.tokens)
    answer = json.loads(tokenizer.decode(text.tokens))
    assert answer["goal"] in SCHEMA["properties"]["goal"]["enum"]


def test_a_guess_changes_no_text(model: Model, requests: list[Request]) -> None:
    target, _, _ = model
    context = Context(target, 256)
    for request in (requests[0], requests[-1]):
        text = generate(target, request, context)
        right = list(text.tokens)
        wrong = [*right[:3], (right[3] + 1) % target.config.vocab_size, *right[4:]]
        for guess in (right, right[:5], wrong, [*right, 1, 2, 3], [7]):
            guessed = generate(target, request, context, guess)
            assert (guessed.tokens, guessed.prompt) == (text.tokens, text.prompt)
            assert [c.tokens[:3] for c in guessed.choices] == [c.tokens[:3] for c in text.choices]
            assert context.tokens[: len(text.prompt)] == list(text.prompt)


def test_texts_go_on_where_they_stopped(model: Model, requests: list[Request], tmp_path: Path) -> None:
    target, _, _ = model
    whole = generate_all(target, requests, tmp_path / "whole.jsonl")
    generate_all(target, requests[:5], tmp_path / "parts.jsonl")
    assert generate_all(target, requests, tmp_path / "parts.jsonl") == whole
    assert (tmp_path / "parts.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    with pytest.raises(InvalidInput, match="other prompts"):
        generate_all(target, requests[1:], tmp_path / "whole.jsonl")
    other = Llama(target.config).requires_grad_(False)
    with pytest.raises(InvalidInput, match="another target"):
        generate_all(other, requests, tmp_path / "whole.jsonl")


def test_the_vocabulary_is_what_was_said_then_what_might_have_been() -> None:
    choice = Choice(0, (5, 8, 9), tuple(np.log([0.5, 0.2, 0.3]).tolist()), complete=False)
    texts = [Text((1,), (5, 6, 6), (choice,), constrained=False)]
    assert choose_vocabulary(texts, 3, end=[2]) == [2, 5, 6]
    assert choose_vocabulary(texts, 4, end=[2]) == [2, 5, 6, 9]
    assert choose_vocabulary(texts, 9, end=[2]) == [2, 5, 6, 8, 9]


def test_a_batch_asks_for_the_draft_where_the_target_chose(model: Model) -> None:
    """Against one text at a time, through the cache, as the draft runs."""
    target, _, _ = model
    texts = [
        Text((3, 4, 5), (6, 7, 8), (Choice(1, (7, 30), (-0.2, -1.7), True),), True),
        Text((3,), (9, 10), (Choice(0, (9, 31, 7), (-0.5, -1.5, -2.0), False),), False),
    ]
    columns = {6: 0, 7: 1, 9: 2, 30: 3}
    draft = new_draft(target, list(columns), CONFIG).requires_grad_(False)
    batch = Batch.of(texts, columns)
    first = draft(torch.tensor([3, 4, 5, 6]), draft.cache(8), last=1)[0]
    first[[0, 2]] = -torch.inf  # the grammar allowed 7 and 30
    second = draft(torch.tensor([3]), draft.cache(8))[0]
    found = draft_log_probs(draft, batch)
    expected = torch.stack([first, second]).log_softmax(-1)
    torch.testing.assert_close(found.exp(), expected.exp(), atol=1e-6, rtol=1e-5)
    assert batch.said.tolist() == [1, 2]
    by_hand = torch.tensor([[0, -0.2, 0, -1.7], [0, -2.0, -0.5, 0]]).exp() * torch.tensor([[0, 1, 0, 1], [0, 1, 1, 0]])
    torch.testing.assert_close(batch.probs, by_hand)


def train(model: Model, requests: list[Request], folder: Path, **options: Any) -> tuple[Llama, dict[str, Any]]:
    target, tokenizer, _ = model
    return train_draft(target, tokenizer, requests[:10], requests[10:], replace(CONFIG, **options), folder)


def test_it_learns_its_target(model: Model, requests: list[Request], tmp_path: Path) -> None:
    target, _, _ = model
    draft, about = train(model, requests, tmp_path, steps=200)
    texts = generate_all(target, requests, tmp_path / "texts.jsonl")[:10]
    assert draft.head_tokens is not None
    columns = {token: i for i, token in enumerate(draft.head_tokens.tolist())}
    before = measure(new_draft(target, list(columns), CONFIG), texts, columns)
    after = measure(draft, texts, columns)
    assert after["agreement_choices"] > before["agreement_choices"] + 0.3
    assert after["acceptance_choices"] > before["acceptance_choices"] + 0.2
    assert after["agreement"] > after["agreement_choices"]
    assert about["data"] == {"texts": 10, "tokens": after["tokens"]}
    assert about["metrics"]["held_out"]["constrained"]["texts"] == 2


def test_a_draft_of_all_its_targets_layers_is_the_target(model: Model) -> None:
    target, _, _ = model
    said, text = [3, 7, 11], torch.tensor([3, 4, 5, 6])
    whole = part_of(target, said, target.config.layers).requires_grad_(False)
    torch.testing.assert_close(whole(text, whole.cache(8)), target(text, target.cache(8))[:, said])
    for wrong in (1, target.config.layers + 1):
        with pytest.raises(InvalidInput, match="target_layers must be between 2"):
            part_of(target, said, wrong)


def test_a_part_of_its_target_is_trained_but_for_its_embedding(
    model: Model, requests: list[Request], tmp_path: Path
) -> None:
    target, _, _ = model
    draft, _ = train(model, requests, tmp_path, target_layers=2)
    begun = part_of(target, [3], 2)
    torch.testing.assert_close(draft.embedding.weight, begun.embedding.weight, rtol=0, atol=0)
    assert not torch.equal(draft.blocks[0].qkv.weight, begun.blocks[0].qkv.weight)  # pyright: ignore


def test_interrupted_it_becomes_the_same_draft(
    model: Model, requests: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, about = train(model, requests, tmp_path / "whole", evaluate_every=30)

    def save_and_die(*state: Any) -> None:
        save_checkpoint(*state)
        raise KeyboardInterrupt

    monkeypatch.setattr(distil, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train(model, requests, tmp_path / "parts", evaluate_every=30)
    monkeypatch.undo()
    for _ in range(2):  # the second time nothing is left to do
        parts, same = train(model, requests, tmp_path / "parts", evaluate_every=30)
        assert same == about
        assert all(torch.equal(a, b) for a, b in zip(parts.parameters(), whole.parameters(), strict=True))
    log = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [30, 60]


@pytest.fixture(params=[0, 2], ids=["small", "part-of-target"])
def shipped(
    model: Model, requests: list[Request], tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[Llama, Path]:
    _, tokenizer, folder = model
    draft, about = train(model, requests, tmp_path / "work", steps=2, target_layers=request.param)
    out = tmp_path / "draft"
    manifest = export_draft(draft, str(folder), tokenizer, about | {"command": "a test"}, out)
    assert (
        verify_weights(out, "draft")
        == json.loads((out / "manifest.json").read_text())
        == json.loads(json.dumps(manifest))
    )
    return draft, out


def test_what_is_shipped_is_what_was_trained(model: Model, shipped: tuple[Llama, Path]) -> None:
    draft, out = shipped
    _, tokenizer, _ = model
    loaded, its_tokenizer = load(out, pack=False)
    assert its_tokenizer.fingerprint == tokenizer.fingerprint
    assert loaded.head_tokens is not None
    assert draft.head_tokens is not None
    assert torch.equal(loaded.head_tokens, draft.head_tokens)
    for name, weight in loaded.blocks.named_parameters():
        expected = draft.blocks.get_parameter(name).detach()
        step = expected.abs().amax(-1, keepdim=True) / 127  # 8 bits a matrix; vectors have 11
        assert ((weight - expected).abs() <= 0.501 * step).all(), name
    error = (loaded.embedding.weight - draft.embedding.weight).abs().max()
    assert error <= (0.0 if isinstance(draft.embedding, torch.nn.Embedding) else 0.05)
    tokens = torch.arange(3, 60)
    with torch.no_grad():
        expected = draft(tokens, draft.cache(64))
        logits = loaded(tokens, loaded.cache(64))
    assert (logits - expected).std() < 0.05 * expected.std()


def test_a_draft_that_is_not_its_manifests_is_refused(shipped: tuple[Llama, Path]) -> None:
    _, out = shipped
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"tokenizer_sha256": "0" * 64}))
    with pytest.raises(ArtifactError, match="distilled for the tokenizer 000000000000, that of"):
        load(out)
    (out / "manifest.json").write_text(json.dumps({"kind": "draft"}))
    with pytest.raises(ArtifactError, match=r"no manifest of language weights \(KeyError\('file'\)\)"):
        load_model(out)
    (out / "manifest.json").write_text(json.dumps(manifest | {"kind": "adapter"}))
    with pytest.raises(ArtifactError, match="of kind 'adapter', expected 'draft'"):
        verify_weights(out, "draft")
    (out / "manifest.json").write_text(json.dumps(manifest))
    content = bytearray((out / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (out / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=f"the manifest expects {manifest['sha256'][:12]}"):
        load_model(out)
    (out / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"\(no file\)"):
        load_model(out)


def test_settings_that_make_no_draft_are_refused(model: Model, requests: list[Request], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="multiple of heads"):
        DraftConfig(hidden_size=50)
    with pytest.raises(InvalidInput, match="a batch takes 16 prompts"):
        train(model, requests, tmp_path, batch=16)
    with pytest.raises(InvalidInput, match="target_layers must be between 2"):
        train(model, requests, tmp_path, target_layers=99)
    assert not (tmp_path / "texts.jsonl").exists()  # no text was generated for nothing


def test_one_command_makes_a_draft(model: Model, tmp_path: Path) -> None:
    target, tokenizer, folder = model
    options = {"instructions": 10, "questions": 5, "steps": 3, "batch": 4, "layers": 1, "hidden-size": 32, "heads": 2}
    command = ["train", "language-draft", "--target", str(folder), "--out", str(tmp_path / "work")]
    command += ["--artifact", str(tmp_path / "draft")]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert main(command) == 0
    draft = load_model(tmp_path / "draft")
    assert draft.config.vocab_size == target.config.vocab_size
    assert draft.head_tokens is not None
    assert tokenizer.end <= set(draft.head_tokens.tolist())
    manifest = verify_weights(tmp_path / "draft", "draft")
    assert manifest["data"]["instructions"] == 10
    assert manifest["data"]["texts"] == 15
    assert {kind["texts"] for kind in manifest["metrics"]["held_out"].values()} == {1}
    texts = [json.loads(line) for line in (tmp_path / "work" / "texts.jsonl").read_text().splitlines()]
    assert sum(text["constrained"] for text in texts) == 11
    for text in texts:
        assert text["prompt"][0] == 1  # <|im_start|>, of the chat template


def test_texts_made_in_parts_are_those_made_at_once(model: Model, tmp_path: Path) -> None:
    _, _, folder = model
    sizes = ["--instructions", "9", "--questions", "5", "--target-layers", "2", "--steps", "2", "--batch", "4"]
    command = ["train", "language-draft", "--target", str(folder), "--artifact", str(tmp_path / "draft"), *sizes]
    for part in ("1/3", "2/3", "3/3"):
        assert main([*command, "--out", str(tmp_path / "parts"), "--part", part]) == 0
    parts = sorted((tmp_path / "parts").glob("texts-*.jsonl"))
    (tmp_path / "parts" / "texts.jsonl").write_text("".join(part.read_text() for part in parts))
    assert [len(part.read_text().splitlines()) for part in parts] == [5, 6, 5]
    assert not (tmp_path / "draft").exists()
    for work in ("parts", "whole"):
        assert main([*command, "--out", str(tmp_path / work)]) == 0  # goes on from the joined parts
    joined, whole = (
        [json.loads(line)["tokens"] for line in (tmp_path / work / "texts.jsonl").read_text().splitlines()]
        for work in ("parts", "whole")
    )
    assert joined == whole


@pytest.mark.parametrize("part", ["3", "0/3", "4/3", "a/b"])
def test_a_part_that_is_none_is_refused(model: Model, tmp_path: Path, part: str, capsys) -> None:
    command = ["train", "language-draft", "--target", str(model[2]), "--artifact", str(tmp_path / "draft")]
    assert main([*command, "--out", str(tmp_path / "work"), "--part", part]) == 2
    assert "part" in capsys.readouterr().err
