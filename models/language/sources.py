"""Models in the forms that other programs write: GGUF files, and folders as `transformers` has them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worldpilot.errors import ArtifactError
from worldpilot.models.language.tokenizer import Tokenizer, read_json
from worldpilot.models.language.transformer import Llama, Llama3Scaling, LlamaConfig

FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


class Weights(ABC):
    """An opened model: tensors by the names that `transformers` gives them."""

    config: LlamaConfig
    adapter: Path | None = None  # folder of what is added to the weights

    @abstractmethod
    def __getitem__(self, name: str) -> Tensor: ...

    @abstractmethod
    def tokenizer(self) -> Tokenizer: ...

    def head_tokens(self) -> list[int] | None:
        """See `Llama`."""
        return None


_GGUF_LAYER = {  # the parts of a layer, as transformers and as llama.cpp name them
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GGUF_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


class GgufFile(Weights):
    """A GGUF file (github ggml-org/ggml, docs/gguf.md), dequantised as it is read."""

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader

        self.path = path
        try:
            reader = GGUFReader(path)
            self._fields = {name: field.contents() for name, field in reader.fields.items()}
            self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        except (ValueError, IndexError, KeyError, UnicodeDecodeError, OSError) as error:
            raise ArtifactError(f"{path} is no GGUF file, or a damaged one ({error}); copy it again") from error
        family = self._fields.get("general.architecture")
        if family not in FAMILIES:
            raise ArtifactError(f"{path}: architecture {family!r} is not supported; supported: {', '.join(FAMILIES)}")
        self._family = str(family)
        self.config = self._config()

    def __getitem__(self, name: str) -> Tensor:
        from gguf import dequantize

        module, _, kind = name.rpartition(".")
        if module in _GGUF_WHOLE:
            key = f"{_GGUF_WHOLE[module]}.{kind}"
        else:
            _, _, layer, part = module.split(".", 3)
            key = f"blk.{layer}.{_GGUF_LAYER[part]}.{kind}"
        tensor = find_tensor(self._tensors, key, self.path)
        try:
            values = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        except NotImplementedError as error:
            raise ArtifactError(
                f"{self.path}: {key} is quantised as {tensor.tensor_type.name}, not supported"
            ) from error
        if self._family == "llama" and module.endswith(("q_proj", "k_proj")):
            # llama.cpp turns neighbouring components together: rows (head, d/2, 2) there are (head, 2, d/2) here.
            values = values.unflatten(0, (-1, self.config.head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)
        return values

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_gguf(self._fields)

    def _config(self) -> LlamaConfig:
        prefix = f"{self._family}."
        entry = {name.removeprefix(prefix): v for name, v in self._fields.items() if name.startswith(prefix)}
        try:
            heads, hidden = entry["attention.head_count"], entry["embedding_length"]
            if entry.get("rope.scaling.type", "none") != "none" or "rope_freqs.weight" in self._tensors:
                raise ArtifactError(
                    f"{self.path}: scaled rotary positions in GGUF files are not supported; give a folder"
                )
            return LlamaConfig(
                vocab_size=len(self._fields["tokenizer.ggml.tokens"]),
                hidden_size=hidden,
                layers=entry["block_count"],
                heads=heads,
                kv_heads=entry.get("attention.head_count_kv", heads),
                head_dim=entry.get("attention.key_length", hidden // heads),
                intermediate_size=entry["feed_forward_length"],
                rope_theta=entry.get("rope.freq_base", 10000.0),
                norm_eps=entry["attention.layer_norm_rms_epsilon"],
                tied_embeddings="output.weight" not in self._tensors,
                attention_bias="blk.0.attn_q.bias" in self._tensors,
                qk_norm="blk.0.attn_q_norm.weight" in self._tensors,
                context=entry["context_length"],
            )
        except KeyError as error:
            raise ArtifactError(f"{self.path}: the metadata {error} is missing; convert the model again") from error


class Folder(Weights):
    """config.json, *.safetensors and tokenizer.json, as `transformers` writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = read_json(path / "config.json")
        if not content:
            raise ArtifactError(f"{path / 'config.json'} is missing; a model's folder has it beside *.safetensors")
        self.config = from_transformers(content, path)
        self._files: dict[str, Path] = {}
        for file in sorted(path.glob("*.safetensors")):
            self._files |= dict.fromkeys(_keys(file), file)

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(find_tensor(self._files, name, self.path), framework="pt") as file:
            return file.get_tensor(name)

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_folder(self.path, self.config.vocab_size)


def from_transformers(content: Mapping[str, Any], path: Path) -> LlamaConfig:
    """The sizes in a config.json.

    Raises:
        ArtifactError: an architecture or an option that is not supported, or a size that is missing.
    """
    family = content.get("model_type")
    if family not in FAMILIES:
        raise ArtifactError(f"{path}: architecture {family!r} is not supported; supported: {', '.join(FAMILIES)}")
    refused = {"use_sliding_window": False, "mlp_bias": False, "hidden_act": "silu"}
    refused |= {} if family == "qwen2" else {"attention_bias": False}
    for name, expected in refused.items():
        if content.get(name, expected) != expected:
            raise ArtifactError(f"{path}: {name} = {content[name]!r} is not supported, only {expected!r}")
    try:
        heads, hidden = content["num_attention_heads"], content["hidden_size"]
        theta, scaling = _rope(content, path)
        return LlamaConfig(
            vocab_size=content["vocab_size"],
            hidden_size=hidden,
            layers=content["num_hidden_layers"],
            heads=heads,
            kv_heads=content.get("num_key_value_heads") or heads,
            head_dim=content.get("head_dim") or hidden // heads,
            intermediate_size=content["intermediate_size"],
            rope_theta=theta,
            norm_eps=content["rms_norm_eps"],
            tied_embeddings=content.get("tie_word_embeddings", False),
            attention_bias=family == "qwen2",
            qk_norm=family == "qwen3",
            context=content["max_position_embeddings"],
            rope_scaling=scaling,
        )
    except KeyError as error:
        raise ArtifactError(f"{path}: config.json says nothing of {error}; copy it again") from error


def _rope(content: Mapping[str, Any], path: Path) -> tuple[float, Llama3Scaling | None]:
    """Base and scaling of the rotary positions: `rope_parameters` since transformers 5, two entries before."""
    entry = content.get("rope_parameters") or content.get("rope_scaling") or {}
    theta = float(entry.get("rope_theta") or content.get("rope_theta") or 10000.0)
    kind = entry.get("rope_type") or entry.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ArtifactError(f"{path}: rotary positions scaled by {kind!r} are not supported, only 'llama3'")
    factors = (float(entry[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    return theta, Llama3Scaling(*factors, original_context=entry["original_max_position_embeddings"])


def to_transformers(model: Llama, tokenizer: Tokenizer) -> dict[str, Any]:
    """A config.json."""
    config = model.config
    family = "qwen3" if config.qk_norm else "qwen2" if config.attention_bias else "llama"
    rope: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_type": "default"}
    if (scaling := config.rope_scaling) is not None:
        rope |= {"rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_freq_factor}
        rope |= {"high_freq_factor": scaling.high_freq_factor}
        rope |= {"original_max_position_embeddings": scaling.original_context}
    return {
        "architectures": [FAMILIES[family]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope,
        "tie_word_embeddings": config.tied_embeddings,
        "max_position_embeddings": config.context,
        "hidden_act": "silu",
        "dtype": str(model.dtype).removeprefix("torch."),
        "eos_token_id": sorted(tokenizer.end),
        "bos_token_id": None,
    }


def find_tensor(entries: Mapping[str, Any], name: str, path: Path) -> Any:
    if name not in entries:
        raise ArtifactError(f"{path}: the tensor {name} is missing; copy the model again, whole")
    return entries[name]


def _keys(file: Path) -> list[str]:
    """The tensors in a safetensors file."""
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{file} is damaged ({error}); copy it again") from error
