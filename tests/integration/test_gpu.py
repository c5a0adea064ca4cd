"""What differs on a GPU: reads and training steps as CUDA graphs, and networks that come back to the CPU.

Nothing of it runs where there is none; `pytest tests/integration/test_gpu.py` on a machine that has one.
"""

import numpy as np
import pytest
import torch

from worldpilot.models.action_prior.train import PriorTrainConfig, train_prior
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter
from worldpilot.models.language.finetune import Example, Finetune, FinetuneConfig
from worldpilot.models.language.transformer import Llama, LlamaConfig
from worldpilot.models.world_model.networks import WorldModelConfig
from worldpilot.models.world_model.train import TrainConfig, load, train
from worldpilot.types import ActionSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SPEC = ActionSpec(("x", "y"), ("m/s", "m/s"), (-1.0, -1.0), (1.0, 1.0), (9.0, 9.0), 0.1, block=1)
SIZES = LlamaConfig(
    vocab_size=50, hidden_size=32, layers=3, heads=4, kv_heads=2, head_dim=16, intermediate_size=48, context=128
)


def language_model(dtype: torch.dtype = torch.float32) -> Llama:
    torch.manual_seed(1)
    return Llama(SIZES, dtype).requires_grad_(False)


def tokens(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(50, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(3))
def test_replayed_reads_give_the_logits_of_a_cpu(seed):
    """Reads of all lengths, a tree, cuts and gathered slots, in an order drawn at random."""
    rng = np.random.default_rng(seed)
    here, there = language_model(), language_model().to("cuda").pack()
    cache, other = here.cache(120), there.cache(120)
    for _ in range(40):
        if cache.length > 60:
            kept = sorted(rng.choice(cache.length, 20, replace=False).tolist())
            cache.gather(kept)
            other.gather(kept)
        count = int(rng.integers(1, 12))
        new, positions, mask = tokens(count, int(rng.integers(1000))), None, None
        if rng.random() < 0.4:
            mask = torch.from_numpy(rng.random((count, cache.length + count)) < 0.7)
            mask[:, cache.length :].fill_diagonal_(True)
            positions = torch.from_numpy(rng.integers(0, 100, count))
        last = None if rng.random() < 0.5 else int(rng.integers(0, count + 1))
        moved = (None if x is None else x.cuda() for x in (positions, mask))
        with torch.inference_mode(bool(rng.random() < 0.5)):
            logits = there(new.cuda(), other, *moved, last=last)
        torch.testing.assert_close(logits.cpu(), here(new, cache, positions, mask, last), rtol=1e-3, atol=1e-3)
        assert cache.length == other.length
        if rng.random() < 0.3:
            length = int(rng.integers(cache.length + 1))
            cache.truncate(length)
            other.truncate(length)


def test_two_caches_of_a_model_stay_apart():
    model = language_model().to("cuda").pack()
    one, two = model.cache(64), model.cache(64)
    first, second = tokens(5, 1).cuda(), tokens(5, 2).cuda()
    kept = model(first, one)
    before = kept.clone()
    alone = model(second, two)
    assert torch.equal(kept, before)
    assert torch.equal(model(second, model.cache(64)), alone)


def test_an_adapter_is_learned(tmp_path):
    settings = FinetuneConfig(
        rank=4, layers=2, epochs=60, batch_tokens=40, lr=1e-2, warmup=2, log_every=10, evaluate_every=50
    )
    rows = [Example((1, 2, 4, 5 + i % 6, 6 + i // 6, 3), (6 + i // 6, 5 + i % 6, 0), "all") for i in range(30)]
    model = language_model().to("cuda")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else None
    assert Finetune(model, rows, rows[:6], settings, tmp_path).run()["val_exact"] > 0.5


def test_a_world_model_and_a_prior_are_trained_and_come_back(tmp_path):
    """The recorded step must learn as the plain one does: the networks of both devices stay close."""
    rng = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "data", {"task": "none"}) as writer:
        for seed in range(12):
            images = rng.integers(0, 256, (13, 16, 16, 3), dtype=np.uint8)
            controls = rng.uniform(-1, 1, (12, 2)).astype(np.float32)
            signals = {"x": rng.normal(size=13).astype(np.float32)}
            writer.append(Episode(images, controls, signals, {"seed": seed, "behaviour": "random"}))
    store = EpisodeStore(tmp_path / "data")
    sizes = WorldModelConfig(latent_dim=8, action_dim=2, image_size=16, channels=(8, 8), hidden=16)
    found = {}
    for accelerator in ("cpu", "cuda"):
        config = TrainConfig(
            steps=20, readout_steps=20, dynamics_steps=60, batch=8, dynamics_batch=8, dynamics_rollout=3,
            evaluate_every=10, directions=16, accelerator=accelerator,
        )  # fmt: skip
        out = tmp_path / accelerator
        nets = train(store, SPEC, out, sizes, config)
        assert nets.device.type == accelerator
        loaded = load(out)
        assert loaded.device.type == "cpu"
        assert all(torch.equal(value, nets.state_dict()[name].cpu()) for name, value in loaded.state_dict().items())
        prior = PriorTrainConfig(steps=20, batch=16, horizon=2, goal_ahead=5, accelerator=accelerator)
        denoiser = train_prior(store, SPEC, out, out / "prior", prior)
        assert {parameter.device.type for parameter in denoiser.parameters()} == {"cpu"}
        found[accelerator] = {name: p.detach() for name, p in loaded.predictor.named_parameters()}
    for name, value in found["cpu"].items():
        assert (value - found["cuda"][name]).abs().mean() < 0.005, name
