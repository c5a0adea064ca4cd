"""Real language models, small enough to be made in a test: they read and write with SmolLM2's tokenizer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F

from worldpilot.models.language.loaders import load_tokenizer, save
from worldpilot.models.language.transformer import Llama, LlamaConfig

STEPS = 200
IDLE_LAYERS = 120


def babbler(folder: Path) -> Path:
    """A model with random weights: what it says is nonsense, and quickly said."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer("smollm2")
    model = Llama(_config(tokenizer.vocab_size, layers=1, context=2048))
    with torch.no_grad():  # larger weights: what it says depends on all that was said before
        for parameter in model.parameters():
            parameter *= 2.0 if parameter.ndim > 1 else 1.0
    save(model, tokenizer, folder)
    return folder


def parrot(folder: Path, lessons: Sequence[tuple[str, str]], system: str) -> tuple[Path, Path]:
    """A model that has learned a few answers by heart, and its draft; returns their folders.

    Behind the two layers that learned the target has others that change nothing, so that an answer takes as long as a
    larger model's.

    Args:
        folder: for both.
        lessons: instructions and their answers. Of one with two answers it gives each about half the probability.
        system: the system message that stands before each.
    """
    torch.manual_seed(0)
    tokenizer = load_tokenizer("smollm2")
    model = Llama(_config(tokenizer.vocab_size, layers=2, context=1024))
    (end,) = tokenizer.end
    texts = []
    for instruction, answer in lessons:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": instruction}]
        texts.append((tokenizer.chat(messages), [*tokenizer.encode(answer), end]))
    _teach(model, texts)
    save(model, tokenizer, folder / "draft")
    save(_deepened(model), tokenizer, folder / "target")
    return folder / "target", folder / "draft"


def _config(vocab_size: int, layers: int, context: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        layers=layers,
        heads=2,
        kv_heads=1,
        head_dim=16,
        intermediate_size=64,
        tied_embeddings=False,
        context=context,
    )


def _teach(model: Llama, texts: Sequence[tuple[list[int], list[int]]]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for prompt, answer in texts:
            text = torch.tensor([[*prompt, *answer]])
            spoken = torch.arange(text.shape[1] - 1)[None] >= len(prompt) - 1
            F.cross_entropy(model.teacher_forced(text[:, :-1], spoken), torch.tensor(answer)).backward()
        optimizer.step()


def _deepened(model: Llama) -> Llama:
    """The same function, with more layers."""
    deep = Llama(replace(model.config, layers=model.config.layers + IDLE_LAYERS))
    state = deep.state_dict()
    for name, value in state.items():
        if name.endswith(("out.weight", "down.weight")):
            value.zero_()
    deep.load_state_dict(state | model.state_dict())
    return deep
