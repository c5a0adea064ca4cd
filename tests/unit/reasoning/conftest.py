"""A language model with SmolLM2's tokenizer and random weights: what it says is nonsense, and quickly said."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `language`")


@pytest.fixture(scope="session")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    from worldpilot.models.language.loaders import load_tokenizer, save
    from worldpilot.models.language.transformer import Llama, LlamaConfig

    tokenizer = load_tokenizer("smollm2")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        layers=1,
        heads=1,
        kv_heads=1,
        head_dim=16,
        intermediate_size=16,
        tied_embeddings=False,
        context=2048,
    )
    folder = tmp_path_factory.mktemp("babbler")
    save(Llama(config), tokenizer, folder)
    return folder
