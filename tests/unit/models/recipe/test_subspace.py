"""An update that a few bytes say: read as it was written, better than none; without it, the artifact's predictor."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from worldpilot.calibration import certificate
from worldpilot.certification import certify, measured_again
from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models.artifact import Artifact, update_manifest, write_manifest
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter
from worldpilot.models.export import Predict, any_horizon
from worldpilot.models.recipe import subspace
from worldpilot.models.recipe.subspace import Moments, SubspaceConfig, Update
from worldpilot.models.world_model.networks import Predictor, WorldModelConfig

QUICK = SubspaceConfig(dims=(4, 16), levels=(2, 3), steps=40, batch=64, every=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """Grey squares that wander, in a light that changes."""
    folder = tmp_path_factory.mktemp("data")
    with EpisodeWriter(folder, {"task": "push_t"}) as writer:
        for seed in range(30):
            rng = np.random.default_rng(seed)
            steps = 10 if seed == 7 else 40  # too short, once
            light = 90 + np.arange(steps + 1, dtype=np.uint8)
            frames = np.broadcast_to(light[:, None, None, None], (steps + 1, 64, 64, 3)).copy()
            x, y = rng.integers(8, 40, 2)
            for frame in frames:
                x, y = np.clip(np.array([x, y]) + rng.integers(-2, 3, 2), 0, 48)
                frame[y : y + 16, x : x + 16] = 220
            controls = rng.uniform(-0.25, 0.25, (steps, 2)).astype(np.float32)
            writer.append(Episode(frames, controls, {}, {"seed": seed, "behaviour": "walk"}))
    return EpisodeStore(folder)


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The tiny artifact with a predictor of the real kind, untrained."""
    folder = Path(shutil.copytree(tiny_artifact, tmp_path_factory.mktemp("zoo") / "push_t"))
    before = Artifact.load(folder)
    spec = before.spec
    torch.manual_seed(0)
    net = Predictor(WorldModelConfig(spec.latent_dim, spec.history, spec.action.dim, members=2, hidden=32, blocks=1))
    with torch.no_grad():
        for parameter in net.parameters():  # as training leaves them: none of them 0
            parameter.add_(torch.randn_like(parameter) * 0.05)
    latents, actions = torch.randn(3, 2, spec.latent_dim), torch.rand(3, 1 + spec.horizon, spec.action.dim) * 0.1
    batch = torch.export.Dim("batch", min=1, max=65536)
    onnx.save(any_horizon(Predict(net, spec.action).eval(), latents, actions, batch), folder / "predictor.onnx")
    made = ("format", "model_id", "graphs", "thresholds")
    write_manifest(folder, {name: value for name, value in before.manifest.items() if name not in made})
    return Artifact.load(folder)


@pytest.fixture(scope="module")
def moments(artifact: Artifact, store: EpisodeStore) -> Moments:
    return Moments.of(artifact.world_model, store)


@pytest.fixture(scope="module")
def clip(artifact: Artifact, store: EpisodeStore) -> float:
    return certificate.scales(list(certificate.measure(artifact.world_model, store)))["h_step"]


def own(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in net.named_parameters()}


def test_without_an_update_the_losses_are_those_of_the_graphs(
    artifact: Artifact, store: EpisodeStore, moments: Moments, clip: float
) -> None:
    net = subspace.predictor(artifact)
    units = list(certificate.measure(artifact.world_model, store))
    assert moments.seeds == tuple(unit.seed for unit in units)
    assert len(moments.seeds) == 29
    losses = subspace.unit_losses(net, own(net), moments, clip)
    np.testing.assert_allclose(losses, [unit.loss("h_step", clip) for unit in units], atol=1e-5)


def test_an_update_is_better_than_none_and_its_message_says_all_of_it(
    artifact: Artifact, moments: Moments, clip: float
) -> None:
    net = subspace.predictor(artifact)
    before = float(subspace.unit_losses(net, own(net), moments, clip).mean())
    found = list(subspace.compress(net, moments, clip, QUICK))
    assert [(update.dims, update.levels) for update, _ in found] == QUICK.codes
    update, _ = min(found, key=lambda entry: entry[1])
    again = Update(update.dims, update.levels, update.seed, bytes(update.message))
    after = float(subspace.unit_losses(net, subspace.updated(net, again), moments, clip).mean())
    assert after < 0.8 * before
    assert own(net).keys() == subspace.updated(net, update).keys()


@pytest.mark.parametrize(("dims", "levels"), [(2, 2), (5, 2), (64, 3), (255, 40)])
def test_a_message_is_read_as_it_was_written(dims: int, levels: int) -> None:
    rng = np.random.default_rng(dims)
    codebook = rng.normal(size=levels)
    level = rng.integers(0, len(codebook), dims)
    message = subspace.write(codebook, level)
    theta = subspace.read(message, dims, levels)
    np.testing.assert_array_equal(theta, codebook.astype(np.float16).astype(np.float32)[level])
    entropy = -sum(p * np.log2(p) for p in np.bincount(level) / dims if p > 0) * dims
    assert 8 * len(message) <= 24 * len(codebook) + entropy + 64


def test_a_damaged_message_is_refused() -> None:
    message = subspace.write(np.array([0.5, -0.5, 0.0]), np.arange(30) % 3)
    with pytest.raises(InvalidInput, match="no message"):
        subspace.read(message[:4], 30, 3)
    with pytest.raises(InvalidInput, match="damaged"):
        subspace.read(message[:-1] + bytes([message[-1] ^ 0x5A]), 30, 3)


def test_noise_of_no_size_changes_nothing_and_more_of_it_more(
    artifact: Artifact, moments: Moments, clip: float
) -> None:
    net = subspace.predictor(artifact)
    flat = subspace.flatness(net, moments, clip, sigmas=(0.0, 1.0), draws=3, every=5)
    assert flat["rise"][0] == pytest.approx(0.0, abs=1e-9)
    assert flat["std"][1] > 0
    assert flat["loss"] == pytest.approx(float(subspace.unit_losses(net, own(net), moments, clip).mean()), abs=0.03)


def test_the_secondary_bound_is_certified_and_checked(artifact: Artifact, store: EpisodeStore) -> None:
    content = certify(artifact, store, 0.05, compression=True)
    stated = content["compression"]
    assert stated["searched"] == len(SubspaceConfig().codes)
    assert stated["n"] == len(content["data"]["seeds"])
    assert stated["risk_without"] == content["held_out"]["h_step"]["risk"]
    assert stated["risk"] < stated["risk_without"]
    assert content["flatness"]["sigma"] == [0.01, 0.03, 0.1]
    update_manifest(artifact.path, lambda manifest: manifest.update(certificate=content))
    certified = Artifact.load(artifact.path)
    assert certified.spec.model_id == artifact.spec.model_id
    assert certificate.check(certified.manifest) == []
    assert measured_again(certified, store) == []
    assert any("it learnt from" in line for line in certificate.describe(content))
    stated["message"] = stated["message"][:-8]  # shorter: a better bound, if one believed it
    problems = certificate.check({**certified.manifest, "certificate": content})
    assert any("compression: bits" in problem for problem in problems)


def test_what_has_no_such_predictor_is_refused(tiny_artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="none of `train world-model`"):
        subspace.predictor(Artifact.load(tiny_artifact))
    with pytest.raises(InvalidInput, match="at least 1"):
        SubspaceConfig(dims=())
    with pytest.raises(InvalidInput, match="255"):
        SubspaceConfig(levels=(1,))
