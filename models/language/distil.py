"""Distil a draft: a small model that guesses what a target would say, for speculative decoding (2211.17192).

The target answers prompts, greedily and under their grammars; at each token where it had a choice, its likeliest
alternatives are kept. The draft learns that distribution, among what the grammar allowed (DistillSpec, 2310.08461:
data of the target's own, Kullback-Leibler divergence to it). Its output is over the few tokens that occur. Its
embeddings start as the target's principal components, so that words it has not seen begin where their likes are. Or it
starts as some of the target's own layers, and keeps the target's embeddings: those are no part of its file.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from worldpilot.errors import InvalidInput
from worldpilot.models.language import loaders
from worldpilot.models.language.base import Request
from worldpilot.models.language.context import Context
from worldpilot.models.language.tokenizer import Tokenizer
from worldpilot.models.language.transformer import Llama, LlamaConfig
from worldpilot.models.language.weights import write_manifest
from worldpilot.models.world_model.train import resume, save_checkpoint

ALTERNATIVES = 64  # of the target, kept where it had a choice
ALIKE = 8  # batches' worth of texts of about one length that a batch is drawn from: little of it is padding


@dataclass(frozen=True)
class DraftConfig:
    """A draft's sizes and how it is trained."""

    target_layers: int = 0  # so many of the target's, evenly spaced, in place of the sizes from here to `rank`; 0: none
    layers: int = 2
    hidden_size: int = 256
    heads: int = 4
    kv_heads: int = 2
    intermediate_size: int = 768
    rank: int = 48  # of the embeddings, at most the target's hidden size
    head_size: int = 1536  # tokens it can say
    steps: int = 3000
    batch: int = 16  # texts
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    evaluate_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.rank, self.head_size, self.steps, self.batch, self.evaluate_every) < 1:
            raise InvalidInput("draft: rank, head_size, steps, batch and evaluate_every must be at least 1")
        if self.target_layers < 0:
            raise InvalidInput(f"draft: target_layers must be at least 0, got {self.target_layers}")
        if self.hidden_size % self.heads:
            raise InvalidInput(f"draft: hidden_size must be a multiple of heads, got {self.hidden_size}, {self.heads}")


@dataclass(frozen=True)
class Choice:
    """What the target thought where its grammar left it a choice."""

    place: int  # index in the text's tokens
    tokens: tuple[int, ...]  # likeliest first
    log_probs: tuple[float, ...]
    complete: bool  # no other token was allowed


@dataclass(frozen=True)
class Text:
    """What the target said to a prompt."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    choices: tuple[Choice, ...]
    constrained: bool  # by a grammar


@torch.inference_mode()
def generate(target: Llama, request: Request, context: Context, guess: Sequence[int] = ()) -> Text:
    """The target's greedy answer with its alternatives.

    Args:
        target: answers.
        request: the prompt and the grammar.
        context: of the target; keeps what prompts have in common.
        guess: what the answer may be; read at once with the prompt, it saves a step for each token that it has right.
    """
    state = request.grammar.start() if request.grammar else None
    text, end = list(request.prompt), len(request.prompt) + request.max_tokens
    choices: list[Choice] = []
    context.keep_common(text)
    first, logits = len(text), context.read([*text[len(context.tokens) :], *guess], last=len(guess) + 1).cpu()
    while len(text) < end:
        new = state.forced() if state else []
        if not new:
            ended, wrong = len(text) - first >= len(logits), context.tokens[: len(text)] != text
            if ended or wrong:  # the guess
                context.keep_common(text)
                first, logits = len(text), context.read(text[len(context.tokens) :], last=1).cpu()
            now = logits[len(text) - first]
            allowed = torch.from_numpy(state.mask()) if state else torch.ones(len(now), dtype=torch.bool)
            count = int(allowed.sum())
            best = now.masked_fill(~allowed, -torch.inf).log_softmax(-1).topk(min(ALTERNATIVES, count))
            new = best.indices[:1].tolist()
            if count > 1:
                values = tuple(round(value, 3) for value in best.values.tolist())
                place = len(text) - len(request.prompt)
                choices.append(Choice(place, tuple(best.indices.tolist()), values, count <= ALTERNATIVES))
        new = new[: end - len(text)]
        text += new
        if request.end & set(new):
            break
        if state:
            state.advance(new)
    return Text(request.prompt, tuple(text[len(request.prompt) :]), tuple(choices), state is not None)


def generate_all(
    target: Llama,
    requests: Sequence[Request],
    path: Path,
    guesses: Mapping[tuple[int, ...], Sequence[int]] | None = None,
) -> list[Text]:
    """The target's answers to all requests, one a line of `path`; goes on behind the lines that are there.

    Args:
        target: answers.
        requests: neighbours should begin alike.
        path: the file.
        guesses: by prompt, what the answer may be.

    Raises:
        InvalidInput: the file holds answers to other requests or of another target.
    """
    guesses = guesses or {}
    capacity = max(len(r.prompt) + max(r.max_tokens, len(guesses.get(r.prompt, ()))) for r in requests)
    context = Context(target, capacity)

    def answer(request: Request) -> Text:
        return generate(target, request, context, guesses.get(request.prompt, ()))

    texts = [_from_json(line) for line in path.read_text().splitlines()] if path.exists() else []
    asked = [request.prompt for request in requests[: len(texts)]]
    if [text.prompt for text in texts] != asked or (texts and answer(requests[0]) != texts[0]):
        raise InvalidInput(f"{path} holds texts for other prompts or of another target; delete it or choose a folder")
    with path.open("a") as file:
        left = requests[len(texts) :]
        for request in tqdm(left, initial=len(texts), total=len(requests), desc="target's texts", mininterval=5):
            texts.append(answer(request))
            file.write(json.dumps(asdict(texts[-1])) + "\n")
            file.flush()
    return texts


def choose_vocabulary(texts: Iterable[Text], size: int, end: Iterable[int]) -> list[int]:
    """The tokens a draft can say: `end`, those the target said, then those it might have, by their probability."""
    said = Counter(dict.fromkeys(end, 1))
    meant: defaultdict[int, float] = defaultdict(float)
    for text in texts:
        said.update(text.tokens)
        for choice in text.choices:
            for token, log_prob in zip(choice.tokens, choice.log_probs, strict=True):
                meant[token] += float(np.exp(log_prob))
    by_weight = sorted(said, key=lambda t: (-said[t], t)) + sorted(
        meant.keys() - said.keys(), key=lambda t: (-meant[t], t)
    )
    return sorted(by_weight[:size])


class FactorisedEmbedding(nn.Module):
    """Embeddings of rank r: rows (V, r) times columns (r, C)."""

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        super().__init__()
        self.rows, self.columns = nn.Parameter(rows), nn.Parameter(columns)

    @property
    def weight(self) -> Tensor:
        return self.rows @ self.columns

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.rows) @ self.columns


def new_draft(target: Llama, head_tokens: Sequence[int], config: DraftConfig) -> Llama:
    """An untrained draft of `target`; `embedding` is a `FactorisedEmbedding`."""
    torch.manual_seed(config.seed)
    if config.target_layers:
        return part_of(target, head_tokens, config.target_layers)
    sizes = LlamaConfig(
        vocab_size=target.config.vocab_size,
        hidden_size=config.hidden_size,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.hidden_size // config.heads,
        intermediate_size=config.intermediate_size,
        rope_theta=10000.0,
        tied_embeddings=False,
        context=target.config.context,
    )
    draft = Llama(sizes, head_tokens=head_tokens)
    embeddings = target.embedding.weight.detach().float().cpu()
    _, directions = torch.linalg.eigh(embeddings.T @ embeddings)  # ascending
    rows = embeddings @ directions[:, -config.rank :]
    columns = torch.randn(rows.shape[1], config.hidden_size) / rows.shape[1] ** 0.5
    draft.embedding = FactorisedEmbedding(rows / rows.std(0), columns)  # pyright: ignore[reportAttributeAccessIssue]
    return draft


def part_of(target: Llama, head_tokens: Sequence[int], layers: int) -> Llama:
    """A draft that is some of the target's layers, evenly spaced, its first and last among them. Its embedding stays.

    Args:
        target: not packed.
        head_tokens: that the draft can say.
        layers: how many; see `kept_layers`.
    """
    draft = Llama(replace(target.config, layers=layers, tied_embeddings=False), head_tokens=head_tokens)
    for block, index in zip(draft.blocks, kept_layers(target, layers), strict=True):
        block.load_state_dict(target.blocks[index].state_dict())
    draft.norm.load_state_dict(target.norm.state_dict())
    draft.head.weight.data.copy_(target.head.weight[list(head_tokens)])
    draft.embedding.load_state_dict(target.embedding.state_dict())
    draft.embedding.requires_grad_(False)
    return draft


def kept_layers(target: Llama, layers: int) -> list[int]:
    """Which of the target's layers a draft of so many starts as.

    Raises:
        InvalidInput: the target has not so many.
    """
    if not 2 <= layers <= target.config.layers:
        raise InvalidInput(f"draft: target_layers must be between 2 and {target.config.layers}, got {layers}")
    return np.linspace(0, target.config.layers - 1, layers).round().astype(int).tolist()


@dataclass(frozen=True)
class Batch:
    """Texts side by side. N choices among V' tokens."""

    tokens: Tensor  # (B, T), prompts and answers, padded behind
    at: Tensor  # (B, T), bool: the places before a choice
    probs: Tensor  # (N, V'), the target's; what a draft cannot say is missing from the sum
    allowed: Tensor  # (N, V'), bool
    said: Tensor  # (N,), the column of the target's choice; -1: a draft cannot say it

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))

    @staticmethod
    def of(texts: Sequence[Text], columns: Mapping[int, int]) -> "Batch":
        """`columns`: of each token that the draft can say."""
        length = max(len(text.prompt) + len(text.tokens) for text in texts) - 1
        tokens = torch.zeros(len(texts), length, dtype=torch.int64)
        at = torch.zeros(len(texts), length, dtype=torch.bool)
        choices = [choice for text in texts for choice in text.choices]
        probs = torch.zeros(len(choices), len(columns))
        allowed = torch.tensor([not choice.complete for choice in choices])[:, None].repeat(1, len(columns))
        said = torch.tensor([columns.get(choice.tokens[0], -1) for choice in choices])
        for row, text in enumerate(texts):
            whole = (text.prompt + text.tokens)[:-1]
            tokens[row, : len(whole)] = torch.tensor(whole)
            at[row, [len(text.prompt) + choice.place - 1 for choice in text.choices]] = True
        for row, choice in enumerate(choices):
            known = [i for i, token in enumerate(choice.tokens) if token in columns]
            index = torch.tensor([columns[choice.tokens[i]] for i in known], dtype=torch.int64)
            probs[row, index] = torch.tensor([choice.log_probs[i] for i in known]).exp()
            allowed[row, index] = True
        return Batch(tokens, at, probs, allowed, said)


def draft_log_probs(draft: Llama, batch: Batch) -> Tensor:
    """The draft's distributions at the batch's choices, of shape (N, V'); 0 where it can say nothing allowed."""
    logits = draft.teacher_forced(batch.tokens, batch.at)
    forbidden = ~batch.allowed & batch.allowed.any(1, keepdim=True)
    return logits.masked_fill(forbidden, -1e9).log_softmax(-1)


@torch.no_grad()
def measure(draft: Llama, texts: Sequence[Text], columns: Mapping[int, int]) -> dict[str, float]:
    """How well a draft guesses: the share of the tokens that it would say too (those without a choice are always
    right), of those with a choice, and with what probability these would be accepted at temperature 1."""
    right, overlap, choices, tokens = 0, 0.0, 0, 0
    for part in _chunks(texts, 32):
        batch = Batch.of(part, columns).to(draft.device)
        log_probs = draft_log_probs(draft, batch)
        right += int((log_probs.argmax(1) == batch.said).sum())
        overlap += float(torch.minimum(log_probs.exp() * batch.allowed, batch.probs).sum())
        choices += len(batch.said)
        tokens += sum(len(text.tokens) for text in part)
    return {
        "agreement": round(1 - (choices - right) / max(tokens, 1), 4),
        "agreement_choices": round(right / max(choices, 1), 4),
        "acceptance_choices": round(overlap / max(choices, 1), 4),
        "texts": len(texts),
        "tokens": tokens,
        "choices": choices,
    }


def train_draft(
    target: Llama,
    tokenizer: Tokenizer,
    prompts: Sequence[Request],
    held_prompts: Sequence[Request],
    config: DraftConfig,
    folder: Path,
    guesses: Mapping[tuple[int, ...], Sequence[int]] | None = None,
) -> tuple[Llama, dict[str, Any]]:
    """Generate the target's texts into `folder` and train a draft on them; run again to resume.

    Args:
        target: answers the prompts; the draft is trained on its device.
        tokenizer: its own.
        prompts: to train on.
        held_prompts: to measure on.
        config: the draft's sizes, and how it is trained.
        folder: gets texts.jsonl, draft.pt and log.jsonl.
        guesses: by prompt, what the target may answer; right ones make its texts quicker, no more.

    Returns:
        The draft and what is known of it: data and metrics on held-out texts.
    """
    if len(prompts) < config.batch or not held_prompts:
        raise InvalidInput(
            f"draft: a batch takes {config.batch} prompts, and some must be held out; got {len(prompts)} and "
            f"{len(held_prompts)}"
        )
    if config.target_layers:
        kept_layers(target, config.target_layers)  # refused before the texts are generated
    folder.mkdir(parents=True, exist_ok=True)
    texts = generate_all(target, [*prompts, *held_prompts], folder / "texts.jsonl", guesses)
    train, held = texts[: len(prompts)], texts[len(prompts) :]
    rng = np.random.default_rng(config.seed)
    vocabulary = choose_vocabulary(train, config.head_size, tokenizer.end)
    columns = {token: i for i, token in enumerate(vocabulary)}
    by_length = np.argsort([len(text.prompt) + len(text.tokens) for text in train], kind="stable")
    draft = new_draft(target, vocabulary, config).to(target.device)
    kind = target.device.type
    halves = kind != "cpu" or torch.cpu._is_avx512_bf16_supported()

    optimiser = torch.optim.AdamW(draft.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, config.steps, pct_start=0.05)
    parts = {"draft": draft, "optimiser": optimiser, "schedule": schedule}
    meta = {"config": asdict(config), "vocabulary": vocabulary}
    first = resume(folder / "draft.pt", parts, rng, meta)
    metrics: dict[str, Any] = {}
    bar = tqdm(range(first, config.steps), initial=first, total=config.steps, desc="draft", mininterval=5)
    for step in bar:
        alike = by_length[(rng.integers(len(train)) + np.arange(ALIKE * config.batch)) % len(train)]
        chosen = rng.choice(np.unique(alike), config.batch, replace=False)
        batch = Batch.of([train[i] for i in chosen], columns).to(target.device)
        with torch.autocast(kind, torch.bfloat16, enabled=halves):
            log_probs = draft_log_probs(draft, batch)
        # The Kullback-Leibler divergence but for the target's entropy, which no parameter changes.
        loss = -(batch.probs * log_probs).sum() / len(batch.said)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(draft.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps:
            metrics = _measure_kinds(draft, held, columns)
            tqdm.write(f"draft {step + 1}: loss {loss.item():.3f}, held-out {json.dumps(metrics)}")
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, "loss": loss.item(), **metrics}) + "\n")
            save_checkpoint(folder / "draft.pt", parts, rng, meta, step + 1)
    if not metrics:  # resumed behind the last step
        metrics = _measure_kinds(draft, held, columns)
    data = {"texts": len(train), "tokens": sum(len(text.tokens) for text in train)}
    return draft, {"train": asdict(config), "data": data, "metrics": {"held_out": metrics}}


def export_draft(
    draft: Llama, target: str, tokenizer: Tokenizer, about: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Write a trained draft as `loaders.load` reads it; returns the manifest.

    Matrices are kept in 8 bits, each row with a scale in float32, vectors in float16.

    Args:
        draft: from `train_draft`.
        target: how `loaders.load` finds the model whose tokenizer it shares.
        tokenizer: of the target.
        about: what else the manifest says: command, data, metrics.
        folder: gets manifest.json and model.safetensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = dict(loaders.split_tensors(draft))
    named.pop("model.embed_tokens.weight", None)  # the target's
    if isinstance(draft.embedding, FactorisedEmbedding):
        named["model.embed_tokens.rows"] = draft.embedding.rows
        named["model.embed_tokens.columns"] = draft.embedding.columns
    tensors: dict[str, Tensor] = {}
    for name, tensor in named.items():
        value = tensor.detach().float().cpu()
        if value.ndim == 2:
            scale = (value.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
            tensors[name], tensors[f"{name}.scale"] = (value / scale[:, None]).round().to(torch.int8), scale
        else:
            tensors[name] = value.half()
    assert draft.head_tokens is not None
    tensors["head_tokens"] = draft.head_tokens.to(torch.int32)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    known = {"target": target, "tokenizer_sha256": tokenizer.fingerprint, "model": asdict(draft.config)}
    return write_manifest(folder, "draft", "model.safetensors", {**known, **about})


def _measure_kinds(draft: Llama, texts: Sequence[Text], columns: Mapping[int, int]) -> dict[str, Any]:
    kinds = {"constrained": [t for t in texts if t.constrained], "free": [t for t in texts if not t.constrained]}
    return {name: measure(draft, part, columns) for name, part in kinds.items() if part}


def _chunks(texts: Sequence[Text], size: int) -> Iterator[Sequence[Text]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _from_json(line: str) -> Text:
    entry = json.loads(line)
    choices = tuple(
        Choice(c["place"], tuple(c["tokens"]), tuple(c["log_probs"]), c["complete"]) for c in entry["choices"]
    )
    return Text(tuple(entry["prompt"]), tuple(entry["tokens"]), choices, entry["constrained"])
