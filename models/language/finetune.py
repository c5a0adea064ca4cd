"""Teach a language model a narrow task by low-rank adapters (LoRA, 2106.09685) in its upper layers, on one core or GPU.

Three things make it cheap. A batch is the trie of its texts, read as one sequence under a tree mask: what they have in
common, such as a system message, is read once. The lower layers are frozen and not adapted, so that what they make of
a batch is computed in the first epoch and kept, and no gradient goes through them. Logits are those of the tokens that
can occur in an answer; under the grammar no others ever follow.

What is shipped is the adapter: `apply_adapter` adds it to the weights it was trained on.
"""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models.language.transformer import Attend, Llama, attend_where
from worldpilot.models.language.weights import verify_weights, write_manifest

ADAPTER, CHECKPOINT = "adapter.safetensors", "checkpoint.pt"
RUN = 256  # nodes of a batch whose attention is computed together
_LINEARS = ("qkv", "out", "gate_up", "down")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A text to learn, in tokens: given the prompt, say the answer, its end token included."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    group: str = ""  # examples of a group begin alike and are batched together


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of `Finetune`."""

    rank: int = 16
    layers: int = 12  # adapted, from the top
    epochs: int = 2
    batch_tokens: int = 384  # new tokens of a batch, about
    lr: float = 1e-3
    warmup: int = 30  # steps
    dropout: float = 0.05  # of what the adapters read
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    log_every: int = 20  # steps
    evaluate_every: int = 300

    def __post_init__(self) -> None:
        if min(self.rank, self.layers, self.epochs, self.batch_tokens, self.log_every, self.evaluate_every) < 1:
            raise InvalidInput("finetune: rank, layers, epochs, batch_tokens and the intervals must be at least 1")
        if not (self.lr > 0 and 0 <= self.dropout < 1 and self.weight_decay >= 0 and self.clip > 0):
            raise InvalidInput("finetune: lr and clip must be positive, dropout in [0, 1), weight_decay at least 0")


@dataclass(frozen=True)
class Batch:
    """The trie of some texts, in depth-first order: T nodes, S answer tokens to be predicted."""

    tokens: Tensor  # (T,)
    positions: Tensor  # (T,), depth in the trie
    mask: Tensor  # (T, T) bool: a node sees its ancestors and itself
    sources: Tensor  # (S,), the node after which it is predicted
    targets: Tensor  # (S,), the token
    owners: Tensor  # (S,), the example it belongs to

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))

    @staticmethod
    def of(examples: Sequence[Example]) -> "Batch":
        """The batch of some examples."""
        children: list[dict[int, int]] = []
        tokens, parents, depths = list[int](), list[int](), list[int]()
        sources, targets, owners = list[int](), list[int](), list[int]()
        roots: dict[int, int] = {}
        for owner, example in enumerate(examples):
            node = -1
            text = (*example.prompt, *example.answer)
            for position, token in enumerate(text):
                if position >= len(example.prompt):
                    sources.append(node)
                    targets.append(token)
                    owners.append(owner)
                if position == len(text) - 1:
                    break  # nothing is predicted after the last
                known = roots if node < 0 else children[node]
                if token not in known:
                    known[token] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                    depths.append(position)
                    children.append({})
                node = known[token]
        mask = np.eye(len(tokens), dtype=bool)
        for node, parent in enumerate(parents):  # parents come before their children
            if parent >= 0:
                mask[node] |= mask[parent]
        index = [torch.tensor(values) for values in (tokens, depths, sources, targets, owners)]
        return Batch(index[0], index[1], torch.from_numpy(mask), *index[2:])


class LowRank(nn.Module):
    """A frozen linear layer plus a product of two thin matrices."""

    def __init__(self, linear: nn.Linear, rank: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.linear, self.dropout = linear, dropout
        bound = math.sqrt(3 / linear.in_features)
        self.down = nn.Parameter(torch.empty(rank, linear.in_features).uniform_(-bound, bound, generator=generator))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        seen = F.dropout(x, self.dropout, self.training)
        return self.linear(x) + F.linear(F.linear(seen, self.down.to(x.dtype)), self.up.to(x.dtype))


class Finetune:
    """Adapts a model to examples.

    Args:
        model: unpacked; its weights are frozen here, its upper layers wrapped. Work is done on its device.
        train: what is learned.
        validation: what is measured on: the share of answers of which every token is the likeliest.
        config: settings.
        work: folder of the log and the checkpoint; an interrupted run with the same settings goes on from there.
        start: folder of an adapter of the same layers and rank to begin with; None: nothing is learned yet.
    """

    def __init__(
        self,
        model: Llama,
        train: Sequence[Example],
        validation: Sequence[Example],
        config: FinetuneConfig,
        work: Path,
        start: Path | None = None,
    ) -> None:
        if not train or not validation:
            raise InvalidInput("finetune: there must be at least one example to train on and one to validate on")
        if config.layers > len(model.blocks):
            raise InvalidInput(f"finetune: {config.layers} layers to adapt, the model has {len(model.blocks)}")
        self.config, self._model, self._work = config, model, work
        model.requires_grad_(False)
        self._first = len(model.blocks) - config.layers
        generator = torch.Generator().manual_seed(config.seed)
        self._adapters: dict[str, LowRank] = {}
        for i in range(self._first, len(model.blocks)):
            for name in _LINEARS:
                linear = model.get_submodule(f"blocks.{i}.{name}")
                if not isinstance(linear, nn.Linear):
                    raise InvalidInput("finetune: the model is packed for running; load it with pack=False")
                adapter = LowRank(linear, config.rank, config.dropout, generator).to(model.device)
                self._adapters[f"blocks.{i}.{name}"] = adapter
        for name, adapter in self._adapters.items():
            model.set_submodule(name, adapter)
        begun = None if start is None else self._begin_with(start)
        examples = [*train, *validation]
        vocabulary = sorted({token for example in examples for token in example.answer})
        self._columns = torch.tensor(vocabulary, device=model.device)
        self._head = model.head.weight[self._columns]
        self._train, self._validation = (
            [batch.to(model.device) for batch in _batches(part, config)] for part in (train, validation)
        )
        self._kept: dict[int, Tensor] = {}  # id of a batch -> what the frozen layers make of it
        self._optimizer = torch.optim.AdamW(self._parameters().values(), config.lr, weight_decay=config.weight_decay)
        self.steps = config.epochs * len(self._train)
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._key = hashlib.sha256(
            json.dumps(
                [asdict(config), [asdict(example) for example in examples], *([begun] if begun else [])]
            ).encode()
        ).hexdigest()

    def run(self, limit: int | None = None) -> dict[str, float]:
        """Train to the end, or for `limit` steps; returns the last measurement."""
        self._resume()
        begin, running = time.monotonic(), list[float]()
        stop = self.steps if limit is None else min(self.steps, self.step + limit)
        for batch in self._order(stop):
            running.append(self._learn(batch))
            if self.step % self.config.log_every == 0 or self.step == stop:
                self._note({"loss": float(np.mean(running)), "seconds": time.monotonic() - begin})
                running.clear()
            if self.step % self.config.evaluate_every == 0 or self.step == stop:
                self._note(self.evaluate())
                self._save()
        return {name: value for entry in self.history for name, value in entry.items()}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The validation loss a token, and the share of answers that a greedy model would give exactly."""
        losses, right = [], []
        self._model.eval()
        for batch in self._validation:
            logits, targets = self._logits(batch)
            losses.append(F.cross_entropy(logits, targets, reduction="none"))
            wrong = torch.zeros(int(batch.owners.max()) + 1, device=targets.device).index_add_(
                0, batch.owners, (logits.argmax(-1) != targets).float()
            )
            right.append(wrong == 0)
        exact = torch.cat(right).float()
        return {"val_loss": float(torch.cat(losses).mean()), "val_exact": float(exact.mean()), "val_n": len(exact)}

    def adapter(self) -> dict[str, Tensor]:
        """The adapter's tensors, in half precision."""
        return {
            name: parameter.detach().cpu().to(torch.float16).contiguous()
            for name, parameter in self._parameters().items()
        }

    @torch.no_grad()
    def average_with(self, folder: Path) -> dict[str, float]:
        """Go halfway back to an adapter, usually the one that training began with; returns the measurement there.

        What was learned last is often paid for with what was known before; the mean of the weights keeps more of both
        than either (Wortsman et al., Robust fine-tuning of zero-shot models, 2022).

        Raises:
            ArtifactError: a file is missing, damaged or differs from its manifest.
            InvalidInput: it is of other layers or another rank.
        """
        shipped, (_, tensors) = self.adapter(), self._read(folder)
        for name, parameter in self._parameters().items():
            parameter.copy_((shipped[name].float() + tensors[name].float()) / 2)
        return self.evaluate()

    @torch.no_grad()
    def _begin_with(self, folder: Path) -> str:
        """Take over an adapter's tensors; returns its hash."""
        digest, tensors = self._read(folder)
        for name, parameter in self._parameters().items():
            parameter.copy_(tensors[name])
        return digest

    def _read(self, folder: Path) -> tuple[str, dict[str, Tensor]]:
        """The hash and the tensors of an adapter of the same layers and rank."""
        manifest = verify_weights(folder, "adapter")
        tensors = load_file(folder / manifest["file"])
        shapes = {name: parameter.shape for name, parameter in self._parameters().items()}
        if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
            raise InvalidInput(f"finetune: the adapter {folder} is of other layers or another rank; give its own")
        return manifest["sha256"], tensors

    def _parameters(self) -> dict[str, nn.Parameter]:
        """What is learned, by the names it has in the adapter's file."""
        return {f"{name}.{part}": getattr(a, part) for name, a in self._adapters.items() for part in ("down", "up")}

    # --- a step --------------------------------------------------------------------------------------------------

    def _learn(self, batch: Batch) -> float:
        """One step of gradient descent; returns the loss a token."""
        self._model.train()
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # dropout: a resumed run draws the same
        logits, targets = self._logits(batch)
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(self._optimizer.param_groups[0]["params"], self.config.clip)
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.lr * _schedule(self.step, self.steps, self.config.warmup)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    def _logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of shape (S, W) over the W tokens of answers, and the targets among them, of shape (S,)."""
        cos, sin = self._model._rotations(batch.positions)
        attend = _attend_in(batch.mask)
        x = self._below(batch, cos, sin, attend)
        for block in self._model.blocks[self._first :]:
            x = block(x, cos, sin, attend)
        x = self._model.norm(x[batch.sources]).to(self._model.dtype)
        return F.linear(x, self._head).float(), torch.searchsorted(self._columns, batch.targets)

    @torch.no_grad()
    def _below(self, batch: Batch, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """What the frozen layers make of a batch, of shape (T, C); computed once."""
        if id(batch) not in self._kept:
            x = self._model.embedding(batch.tokens).to(cos.dtype)
            for block in self._model.blocks[: self._first]:
                x = block(x, cos, sin, attend)
            self._kept[id(batch)] = x.to(self._model.dtype)
        return self._kept[id(batch)].to(cos.dtype)

    def _order(self, stop: int) -> Iterator[Batch]:
        """The batches from the present step on, each epoch in an order of its own."""
        while self.step < stop:
            epoch, index = divmod(self.step, len(self._train))
            order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self._train))
            yield self._train[order[index]]

    # --- log and checkpoint --------------------------------------------------------------------------------------

    def _note(self, entry: Mapping[str, float]) -> None:
        self.history.append({"step": self.step, **entry})
        _LOG.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in self.history[-1].items()))
        self._work.mkdir(parents=True, exist_ok=True)
        with (self._work / "log.jsonl").open("a") as log:
            log.write(json.dumps(self.history[-1]) + "\n")

    def _save(self) -> None:
        state = {
            "key": self._key,
            "step": self.step,
            "history": self.history,
            "adapters": {name: adapter.state_dict(prefix="") for name, adapter in self._thin().items()},
            "optimizer": self._optimizer.state_dict(),
        }
        self._work.mkdir(parents=True, exist_ok=True)
        torch.save(state, self._work / (CHECKPOINT + ".new"))
        os.replace(self._work / (CHECKPOINT + ".new"), self._work / CHECKPOINT)

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one of the same data and settings."""
        path = self._work / CHECKPOINT
        if self.step or not path.is_file():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["key"] != self._key:
            raise InvalidInput(f"finetune: {path} is of other data or settings; remove it or give another folder")
        for name, thin in self._thin().items():
            thin.load_state_dict(state["adapters"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.history = state["step"], state["history"]

    def _thin(self) -> dict[str, nn.ParameterDict]:
        """The adapters without the layers they wrap."""
        return {
            name: nn.ParameterDict({"down": adapter.down, "up": adapter.up}) for name, adapter in self._adapters.items()
        }


def write_adapter(folder: Path, tensors: dict[str, Tensor], about: Mapping[str, Any]) -> dict[str, Any]:
    """Write an adapter and its manifest.

    Args:
        folder: created if need be.
        tensors: from `Finetune.adapter`.
        about: what the manifest says beside the hash: base, command, seed, data, metrics.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / ADAPTER)
    return write_manifest(folder, "adapter", ADAPTER, about)


@torch.no_grad()
def apply_adapter(model: Llama, folder: Path) -> Llama:
    """Add an adapter to the weights of the model it was trained on, which must not be packed yet.

    Raises:
        ArtifactError: a file is missing, damaged or differs from its manifest, or it was made for another model.
    """
    tensors = load_file(folder / verify_weights(folder, "adapter")["file"])
    for name in sorted({key.rpartition(".")[0] for key in tensors}):
        try:
            weight = model.get_parameter(f"{name}.weight")
            delta = tensors[f"{name}.up"].float() @ tensors[f"{name}.down"].float()
        except (AttributeError, KeyError, RuntimeError) as error:
            raise ArtifactError(f"adapter {folder}: it does not fit the model: {error}") from error
        if delta.shape != weight.shape:
            raise ArtifactError(
                f"adapter {folder}: {name} has shape {tuple(delta.shape)}, the model's {tuple(weight.shape)}"
            )
        weight.copy_(weight.float() + delta.to(weight.device))
    return model


def _batches(examples: Sequence[Example], config: FinetuneConfig) -> list[Batch]:
    """The examples in batches of about so many new tokens, groups together."""
    rng = np.random.default_rng([config.seed, len(examples)])
    shuffled = [examples[i] for i in rng.permutation(len(examples))]
    batches, some, size, shared = list[Batch](), list[Example](), 0, ""
    for example in sorted(shuffled, key=lambda example: example.group):
        new = len(example.prompt) + len(example.answer)
        if some and example.group == shared:
            new -= _common(some[-1].prompt, example.prompt)
        if some and size + new > config.batch_tokens:
            batches.append(Batch.of(some))
            some, size, new = [], 0, len(example.prompt) + len(example.answer)
        some.append(example)
        size, shared = size + new, example.group
    return [*batches, Batch.of(some)]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _attend_in(mask: Tensor) -> Attend:
    """Attention of a trie's nodes to their ancestors.

    In depth-first order, a run of nodes sees of the nodes before it only the ancestors of its first: so each run
    attends to its own few keys, and what the texts do not share is not multiplied.
    """
    runs = list[tuple[slice, Tensor, Tensor]]()
    for begin in range(0, len(mask), RUN):
        run = slice(begin, begin + RUN)
        keys = mask[run].any(0).nonzero()[:, 0]
        runs.append((run, keys, mask[run][:, keys]))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([attend_where(q[run], k[keys], v[keys], seen) for run, keys, seen in runs])

    return attend


def _schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate: up in a line, down in half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
