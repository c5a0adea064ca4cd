"""Small language models and tokenizers, as other programs write them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # far from uniform logits
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "llama": (transformers.LlamaConfig, {"tie_word_embeddings": True}),
    "llama3": (transformers.LlamaConfig, {"rope_parameters": LLAMA3, "head_dim": 16}),
    "qwen2": (transformers.Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 16}),
}


@pytest.fixture(scope="session")
def tiny_backend() -> tokenizers.Tokenizer:
    """A byte-level BPE of 300 tokens with ChatML's special ones, digits one by one as SmolLM has them."""
    backend = tokenizers.Tokenizer(models.BPE())
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        show_progress=False,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(["push the block to the left edge, then the robot is at the goal of the user"], trainer)
    return backend


@pytest.fixture(scope="session")
def tiny_model(
    tmp_path_factory: pytest.TempPathFactory, tiny_backend: tokenizers.Tokenizer
) -> Callable[[str], tuple[Path, transformers.PreTrainedModel]]:
    """Makes a random model of a family, saved by `transformers` with its tokenizer: the folder and the model."""

    def make(family: str) -> tuple[Path, transformers.PreTrainedModel]:
        torch.manual_seed(0)
        kind, options = FAMILIES[family]
        config = kind(**(SIZES | options | {"vocab_size": tiny_backend.get_vocab_size()}))
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():  # biases and norms are 0 and 1 at first: no test would miss them
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter += 0.2 * torch.randn_like(parameter)
        folder = tmp_path_factory.mktemp(family)
        model.save_pretrained(folder)
        tiny_backend.save(str(folder / "tokenizer.json"))
        names = {"chat_template": TEMPLATE, "eos_token": "<|im_end|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(names))
        return folder, model

    return make
