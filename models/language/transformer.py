"""A decoder of the Llama family for one sequence: explicit positions, tree masks, a cache that can go back.

Symbols: T new tokens, L slots filled in the cache, V vocabulary, C hidden size, n and m heads of queries and of keys,
d size of a head. The batch is one sequence: a tree of continuations is a batch within it, by its mask.

What is common to Llama (2307.09288, 2407.21783), Qwen2 (2407.10671) and Qwen3 (2505.09388) is here: RMSNorm before each
part, rotary positions, grouped queries, SwiGLU; biases on queries, keys and values (Qwen2) and a norm on the heads of
queries and keys (Qwen3) are options. Weights that read the same input are one matrix. The residual stream, norms,
rotations and logits are in float32 also where weights and cache are bfloat16.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldpilot.errors import InvalidInput
from worldpilot.models.language.captured import LONGEST, Captures

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries (..., T, n, d), keys, values (..., T, m, d) -> as queries
Write = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]  # layer, keys and values (T, m, d) -> all that are seen


@dataclass(frozen=True)
class Llama3Scaling:
    """Rotary frequencies stretched for a longer context, as Llama 3.1 does: slow ones by `factor`, fast ones not."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes and options of a model."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tied_embeddings: bool = True
    attention_bias: bool = False  # on queries, keys and values (Qwen2)
    qk_norm: bool = False  # on each head of queries and keys (Qwen3)
    context: int = 8192  # positions the model was trained on
    rope_scaling: Llama3Scaling | None = None

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.hidden_size, self.layers, self.heads, self.kv_heads, self.intermediate_size)
        if min(*sizes, self.context) < 1 or self.heads % self.kv_heads or self.head_dim < 2 or self.head_dim % 2:
            raise InvalidInput(
                f"language model: sizes must be at least 1, heads a multiple of kv_heads and head_dim even, got {self}"
            )


class KVCache:
    """Keys and values of the tokens so far. A slot is where one token's lie; slots stay in place until `gather`."""

    def __init__(
        self,
        config: LlamaConfig,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if capacity < 1:
            raise InvalidInput(f"key-value cache: capacity must be at least 1, got {capacity}")
        self.config, self.capacity, self.length = config, capacity, 0
        shape = (config.layers, 2, config.kv_heads, capacity, config.head_dim)
        with torch.inference_mode(False):  # a graph that writes into it is recorded outside that mode
            self._data = torch.zeros(shape, dtype=dtype, device=device)
        self._layers = [(layer[0], layer[1]) for layer in self._data]

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` slots."""
        if not 0 <= length <= self.length:
            raise InvalidInput(f"key-value cache: cannot cut {self.length} slots to {length}")
        self.length = length

    def gather(self, slots: Sequence[int]) -> None:
        """Keep these slots, in this order: after a tree, the path that was accepted."""
        index = torch.tensor(slots, dtype=torch.int64)
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= self.length):
            raise InvalidInput(f"key-value cache: slots must be within 0..{self.length - 1}, got {list(slots)}")
        moved = (index != torch.arange(len(index))).nonzero()
        if len(moved):
            first = int(moved[0])
            self._data[:, :, :, first : len(index)] = self._data[:, :, :, index[first:].to(self._data.device)]
        self.length = len(index)

    def clone(self) -> Self:
        """An independent copy."""
        copy = type(self)(self.config, self.capacity, self._data.dtype, self._data.device)
        copy._data[:, :, :, : self.length] = self._data[:, :, :, : self.length]
        copy.length = self.length
        return copy

    def slots(self, layer: int) -> tuple[Tensor, Tensor]:
        """The keys and values of a layer, views of shape (m, L, d)."""
        keys, values = self._layers[layer]
        return keys[:, : self.length], values[:, : self.length]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k and v, of shape (T, m, d), behind the slots filled; returns views of all, of shape (m, L + T, d).

        `length` stays: it moves once all layers are written.
        """
        keys, values = self._layers[layer]
        end = self.length + len(k)
        keys[:, self.length : end] = k.transpose(0, 1)
        values[:, self.length : end] = v.transpose(0, 1)
        return keys[:, :end], values[:, :end]

    def put(self, slots: Tensor, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k and v, of shape (T, m, d), into slots (T,); returns all there is room for, of shape (m, S, d)."""
        keys, values = self._layers[layer]
        keys.index_copy_(1, slots, k.transpose(0, 1).to(keys.dtype))
        values.index_copy_(1, slots, v.transpose(0, 1).to(values.dtype))
        return keys, values


class Llama(nn.Module):
    """The model.

    `head_tokens`, of shape (V',), are the target's tokens that the columns of the logits stand for: a draft may have
    an output over a part of the vocabulary. None: all of it.
    """

    head_tokens: Tensor | None
    frequencies: Tensor

    def __init__(
        self,
        config: LlamaConfig,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        head_tokens: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if head_tokens is not None and config.tied_embeddings:
            raise InvalidInput("language model: a head over a part of the vocabulary cannot be tied to the embeddings")
        self.config, self.dtype = config, dtype
        wide = _at_least_float32(dtype)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size, dtype=dtype, device=device)
        self.blocks = nn.ModuleList(Block(config, dtype, device) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.norm_eps, dtype=wide, device=device)
        width = config.vocab_size if head_tokens is None else len(head_tokens)
        self.head = nn.Linear(config.hidden_size, width, bias=False, dtype=dtype, device=device)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight
        self.set_constants(device, head_tokens)
        self._captures: Captures | None = None

    def set_constants(self, device: torch.device | str, head_tokens: Sequence[int] | None) -> None:
        """Make the buffers, which no file holds, on a device."""
        tokens = None if head_tokens is None else torch.tensor(head_tokens, dtype=torch.int64, device=device)
        self.register_buffer("head_tokens", tokens, persistent=False)
        frequencies = rotary_frequencies(self.config, _at_least_float32(self.dtype)).to(device)
        self.register_buffer("frequencies", frequencies, persistent=False)

    @property
    def device(self) -> torch.device:
        return self.frequencies.device

    def cache(self, capacity: int | None = None) -> KVCache:
        """An empty cache, of the model's context if not said otherwise."""
        return KVCache(self.config, capacity or self.config.context, self.dtype, self.device)

    def forward(
        self,
        tokens: Tensor,
        cache: KVCache,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        last: int | None = None,
    ) -> Tensor:
        """Read tokens, append them to the cache, and say what comes after each.

        Args:
            tokens: of shape (T,), int64.
            cache: of this model.
            positions: of shape (T,); None: they go on from the cache's length.
            mask: of shape (T, L + T), bool: which slots a token sees, itself included; None: all before and itself.
            last: logits of so many last tokens only; None: of all.

        Returns:
            Logits of shape (T or last, V or V'), float32 or wider.

        Raises:
            InvalidInput: the cache has no room for the tokens.
        """
        count, end = len(tokens), cache.length + len(tokens)
        if end > cache.capacity:
            raise InvalidInput(f"key-value cache: {end} tokens do not fit into {cache.capacity} slots")
        if self._captures is not None and 0 < count <= LONGEST:
            return self._captures.forward(tokens, cache, positions, mask, last)
        if positions is None:
            positions = torch.arange(cache.length, end, device=self.device)
        if mask is None and count > 1 and cache.length:
            mask = torch.ones(count, end, dtype=torch.bool, device=self.device).tril(cache.length)
        x = self._through_blocks(tokens, positions, mask, cache.append)
        cache.length = end
        return self._logits(x if last is None else x[count - last :])

    def step(self, tokens: Tensor, cache: KVCache, positions: Tensor, slots: Tensor, sees: Tensor) -> Tensor:
        """`forward` in the same shapes however much is in the cache, for `Captures`; the cache's length stays.

        Args:
            tokens: of shape (T,), int64.
            cache: of this model, with room for S slots.
            positions: of shape (T,).
            slots: of shape (T,), where the tokens go in the cache.
            sees: of shape (T, S), bool: which slots a token sees, itself included.

        Returns:
            Logits of shape (T, V or V').
        """
        return self._logits(self._through_blocks(tokens, positions, sees, partial(cache.put, slots)))

    def teacher_forced(self, tokens: Tensor, at: Tensor | None = None) -> Tensor:
        """Logits after each token of B whole texts, for training.

        Args:
            tokens: of shape (B, T), int64.
            at: of shape (B, T), bool: where logits are wanted; None: everywhere.

        Returns:
            Of shape (B, T, V or V'), or (N, V or V') for the N places of `at`, text by text.
        """
        cos, sin = self._rotations(torch.arange(tokens.shape[1], device=self.device))
        x = self.embedding(tokens).to(cos.dtype)
        for i, block in enumerate(self.blocks, start=1):
            x = block(x, cos, sin, _attend_causally, at if i == len(self.blocks) else None)
        return self._logits(x)

    def pack(self) -> Self:
        """Make ready for running only.

        On a CPU the weights are laid out as oneDNN's kernels read them, where it has any that are faster, and are no
        parameters any more. On a GPU short reads are replayed from CUDA graphs.
        """
        if self.device.type == "cuda":
            self._captures = Captures(self)
        for name, layer in list(self.named_modules()):
            if isinstance(layer, nn.Linear) and PackedLinear.pays(layer.weight):
                self.set_submodule(name, PackedLinear(layer))
        return self

    def _through_blocks(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, write: Write) -> Tensor:
        """The residual stream (T, C) behind the last block; `write` puts each layer's keys and values into a cache."""
        bias = None
        if mask is not None:
            groups = self.config.heads // self.config.kv_heads
            bias = torch.zeros_like(mask, dtype=self.dtype).masked_fill_(~mask, -math.inf).repeat(groups, 1)
        cos, sin = self._rotations(positions)
        x = self.embedding(tokens).to(cos.dtype)
        for i, block in enumerate(self.blocks):
            x = block(x, cos, sin, lambda q, k, v, i=i: _attend(q, *write(i, k, v), bias))
        return x

    def _rotations(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of shape (T, 1, d)."""
        angles = (positions[:, None].to(self.frequencies.dtype) * self.frequencies)[:, None]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)

    def _logits(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x).to(self.dtype)).to(x.dtype)


class Block(nn.Module):
    """Attention and feed-forward network, each on the normalised residual stream."""

    def __init__(self, config: LlamaConfig, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__()
        self.config, self.dtype = config, dtype
        wide, size, inner = _at_least_float32(dtype), config.hidden_size, config.intermediate_size
        rows = (config.heads + 2 * config.kv_heads) * config.head_dim
        self.attention_norm = nn.RMSNorm(size, config.norm_eps, dtype=wide, device=device)
        self.qkv = nn.Linear(size, rows, config.attention_bias, dtype=dtype, device=device)
        self.out = nn.Linear(config.heads * config.head_dim, size, bias=False, dtype=dtype, device=device)
        self.mlp_norm = nn.RMSNorm(size, config.norm_eps, dtype=wide, device=device)
        self.gate_up = nn.Linear(size, 2 * inner, bias=False, dtype=dtype, device=device)
        self.down = nn.Linear(inner, size, bias=False, dtype=dtype, device=device)
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(config.head_dim, config.norm_eps, dtype=wide, device=device)
            self.k_norm = nn.RMSNorm(config.head_dim, config.norm_eps, dtype=wide, device=device)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend, at: Tensor | None = None) -> Tensor:
        """The residual stream x (..., T, C), after this layer; (N, C) where it is wanted at N places (..., T) only."""
        n, m = self.config.heads, self.config.kv_heads
        qkv = self.qkv(self.attention_norm(x).to(self.dtype)).unflatten(-1, (n + 2 * m, self.config.head_dim))
        qk, v = qkv[..., : n + m, :].to(x.dtype), qkv[..., n + m :, :]
        if self.config.qk_norm:
            qk = torch.cat((self.q_norm(qk[..., :n, :]), self.k_norm(qk[..., n:, :])), -2)
        qk = rotate(qk, cos, sin)
        y = attend(qk[..., :n, :], qk[..., n:, :], v)
        if at is not None:
            x, y = x[at], y[at]
        x = x + self.out(y.to(self.dtype).flatten(-2))
        gate, up = self.gate_up(self.mlp_norm(x).to(self.dtype)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class PackedLinear(nn.Module):
    """A linear layer whose weights need not be rearranged at each call: 1.2 to 1.7 times faster for 1 to 40 tokens."""

    SMALL = 1 << 18  # weights; a plain product of float32 costs less than a call of oneDNN's

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        self._bias = None if layer.bias is None else layer.bias.detach()

    @classmethod
    def pays(cls, weight: Tensor) -> bool:
        """Whether there is a faster layout for these weights on this machine."""
        if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return False
        if weight.dtype == torch.bfloat16:
            return torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return weight.dtype == torch.float32 and weight.numel() >= cls.SMALL

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads (..., T, n, d), component i and i + d/2 turned by their position's angle (RoFormer, 2104.09864)."""
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, torch.cat((x[..., half:], x[..., :half]), -1), sin)


def rotary_frequencies(config: LlamaConfig, dtype: torch.dtype) -> Tensor:
    """Radians a position, of shape (d/2,)."""
    powers = torch.arange(0, config.head_dim, 2, dtype=dtype) / config.head_dim
    frequencies = 1.0 / config.rope_theta**powers
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_context * frequencies / (2 * math.pi)  # within the context of the first training
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return torch.lerp(frequencies / scaling.factor, frequencies, smooth.clamp(0, 1))


def _attend(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of queries (T, n, d) to slots (m, L + T, d); as the queries.

    `mask`, of shape (n/m * T, L + T), is added to the scores; None: one token sees all, several see an empty cache's
    slots up to their own.
    """
    count, n, d = q.shape
    q = q.to(keys.dtype).transpose(0, 1)[None]
    if mask is None and count > 1:
        grouped = n != len(keys)
        y = F.scaled_dot_product_attention(q, keys[None], values[None], is_causal=True, enable_gqa=grouped)
    else:  # the queries that share a head of keys, one group after another: keys and values are read once
        q = q.reshape(1, len(keys), -1, d)
        y = F.scaled_dot_product_attention(q, keys[None], values[None], attn_mask=mask)
    return y.reshape(n, count, d).transpose(0, 1)


def _attend_causally(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of each token to itself and those before it, for training."""
    count = q.shape[-3]
    return attend_where(q, k, v, torch.ones(count, count, dtype=torch.bool, device=q.device).tril())


def attend_where(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Attention of queries (..., T, n, d) to keys and values (..., S, m, d) where `seen` (T, S) is true; as the
    queries.

    For training: spelled out, it is 1.5 times quicker forth and back on a CPU than PyTorch's for short texts.
    """
    count, groups = q.shape[-3], q.shape[-2] // k.shape[-2]
    q, k, v = (x.to(v.dtype).transpose(-2, -3) for x in (q, k, v))
    q = q.reshape(*k.shape[:-2], groups * count, k.shape[-1])  # the queries that share a head of keys
    scores = (q @ k.transpose(-1, -2)).to(_at_least_float32(v.dtype)) / math.sqrt(k.shape[-1])
    y = scores.masked_fill(~seen.repeat(groups, 1), -math.inf).softmax(-1).to(v.dtype) @ v
    return y.reshape(*k.shape[:-3], -1, count, k.shape[-1]).transpose(-2, -3)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
