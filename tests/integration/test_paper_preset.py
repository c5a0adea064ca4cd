"""The paper's configuration (ViT-tiny/14, 224 px): trained one step, exported, and the graphs agree with torch."""

import numpy as np
import pytest
import torch

from worldpilot.models.action_prior.train import PriorTrainConfig, train_prior
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter
from worldpilot.models.export import export
from worldpilot.models.world_model.networks import preset
from worldpilot.models.world_model.train import TrainConfig, load, train, train_preset
from worldpilot.types import ActionSpec, History

pytestmark = pytest.mark.slow

SPEC = ActionSpec(("x", "y"), ("m/s", "m/s"), (-0.25, -0.25), (0.25, 0.25), (9.0, 9.0), 0.1, block=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One optimiser step of each stage on three episodes of eight frames."""
    root, rng = tmp_path_factory.mktemp("paper"), np.random.default_rng(0)
    with EpisodeWriter(root / "data", {"task": "none"}) as writer:
        for seed in range(3):
            images = rng.integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
            controls = rng.uniform(-0.2, 0.2, (7, 2)).astype(np.float32)
            signals = {"block_x": rng.normal(size=8).astype(np.float32)}
            writer.append(Episode(images, controls, signals, {"seed": seed, "behaviour": "random"}))
    paper = train_preset("paper")
    config = TrainConfig(
        steps=1, readout_steps=1, dynamics_steps=1, batch=2, dynamics_batch=2, dynamics_rollout=2,
        rollout=paper.rollout, directions=paper.directions,
        inverse_weight=paper.inverse_weight, grounding_weight=paper.grounding_weight,
    )  # fmt: skip
    store = EpisodeStore(root / "data")
    train(store, SPEC, root / "nets", preset("paper", SPEC.dim), config)
    prior = PriorTrainConfig(steps=1, batch=4, horizon=2, goal_ahead=0)
    train_prior(store, SPEC, root / "nets", root / "prior", prior)
    return root


def test_it_is_exported_and_agrees_with_torch(trained):
    export("paper", SPEC, trained / "nets", trained / "prior", trained / "artifact", ["train"], "synthetic")
    artifact, nets = Artifact.load(trained / "artifact"), load(trained / "nets")
    g = np.random.default_rng(0)
    image = g.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    with torch.no_grad():
        assert artifact.world_model.encode(image) == pytest.approx(nets.encode(image).numpy(), abs=1e-3)
    latents, past = g.normal(size=(3, 192)).astype(np.float32), g.uniform(-0.2, 0.2, (2, 2)).astype(np.float32)
    actions = g.uniform(-0.2, 0.2, (4, 2, 2)).astype(np.float32)
    predicted = artifact.world_model.predict(History(latents, past), actions)
    whole = torch.from_numpy(np.concatenate([np.broadcast_to(past, (4, 2, 2)), actions], 1)) / 0.25
    with torch.no_grad():
        expected = nets.predictor(torch.from_numpy(latents).expand(4, -1, -1), whole)
    assert predicted.shape == (1, 4, 2, 192)
    assert predicted == pytest.approx(expected.numpy(), abs=1e-3)
