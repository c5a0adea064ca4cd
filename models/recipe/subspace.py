"""An artifact's predictor with an update that a few bytes say: what a compression bound can be had for.

The weights are w + P theta: w those of the artifact (the prior, fixed before the data were seen), P random directions
of its biases, from a seed, theta of d numbers. These are trained, rounded to a codebook of a few levels by k-means, and
written as a message: the codebook, how often each level occurs, and the levels by arithmetic coding. From the artifact
and the message alone, `read` and `Subspace.weights` give the predictor back. (Lotfi et al., arXiv 2211.13609.)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.models.dynamics.adapt import constants, load_predictor
from worldpilot.models.onnx_model import OnnxWorldModel
from worldpilot.models.world_model.networks import Predictor, WorldModelConfig

Array = npt.NDArray[np.floating[Any]]
Weights = Mapping[str, Tensor]
DIRECTION = 0.1  # size of a direction, in the units of a pre-activation
_HALF, _WORD = np.dtype("<f2"), np.dtype("<u4")  # of the codebook and of what is arithmetic-coded, in a message
_CHUNK = 4096  # moments predicted at once


@dataclass(frozen=True)
class SubspaceConfig:
    """How an update is trained, and which are tried: each of `dims` with each of `levels`."""

    dims: tuple[int, ...] = (16, 64)
    levels: tuple[int, ...] = (2, 3, 4)
    steps: int = 150  # optimiser steps, and a third as many for the levels of a codebook
    batch: int = 32  # moments
    learning_rate: float = 0.3
    every: int = 10  # so many-th moment of an episode serves to train and to choose; all of them to certify
    seed: int = 0  # of directions, batches and clusters

    def __post_init__(self) -> None:
        if not self.dims or not self.levels or min(*self.dims, self.steps, self.batch, self.every) < 1:
            raise InvalidInput("subspace: dims, levels, steps, batch and every must be at least 1")
        if not 2 <= min(self.levels) <= max(self.levels) <= min(self.dims) <= max(self.dims) <= 255:
            raise InvalidInput("subspace: levels must be at least 2, dims no fewer than levels and at most 255")

    @property
    def codes(self) -> list[tuple[int, int]]:
        """Every (dimensions, levels) that is tried."""
        return [(dims, levels) for dims in self.dims for levels in self.levels]


@dataclass(frozen=True)
class Moments:
    """F frames of episodes of n seeds, one after another, and the W moments among them that can be predicted from."""

    latents: Tensor  # (F, D)
    controls: Tensor  # (F, U), normalised to [-1, 1]; after each frame, 0 after an episode's last
    first: npt.NDArray[np.int64]  # (W,), where the history of a moment begins
    unit: npt.NDArray[np.int64]  # (W,), which of the n seeds it is of
    seeds: tuple[int, ...]  # (n,)
    history: int
    horizon: int
    block: int

    @staticmethod
    def of(model: OnnxWorldModel, store: EpisodeStore) -> "Moments":
        """All moments of a store; seeds whose episodes are too short for one are left out."""
        spec = model.spec
        low, high = np.asarray((spec.action.low, spec.action.high), np.float32)
        span = (spec.history - 1 + spec.horizon) * spec.action.block
        latents, controls, first, unit, number, at = [], [], [], [], {}, 0
        for episode in store:
            moments = np.arange(len(episode) - span + 1)
            if len(moments):
                latents.append(model.encode(episode.observations))
                controls.append(np.pad((episode.controls - low) / (high - low) * 2 - 1, ((0, 1), (0, 0))))
                first.append(at + moments)
                unit.append(np.full(len(moments), number.setdefault(episode.meta["seed"], len(number))))
                at += len(episode) + 1
        if not number:
            raise InvalidInput(f"{store.path}: no episode is as long as {span} control steps; collect longer ones")
        return Moments(
            latents=torch.from_numpy(np.concatenate(latents)),
            controls=torch.from_numpy(np.concatenate(controls).astype(np.float32)),
            first=np.concatenate(first),
            unit=np.concatenate(unit),
            seeds=tuple(number),
            history=spec.history,
            horizon=spec.horizon,
            block=spec.action.block,
        )

    def at(self, moments: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Histories (B, h, D), actions (B, h-1+H, A) and what came H model steps after them (B, D)."""
        first = self.first[moments]
        steps = (self.history - 1 + self.horizon) * self.block
        controls = self.controls[first[:, None] + np.arange(steps)]
        past = self.latents[first[:, None] + np.arange(self.history) * self.block]
        return past, controls.reshape(len(first), steps // self.block, -1), self.latents[first + steps]


class Subspace:
    """The weights around those of a network, in `dims` random directions of its biases, of about `DIRECTION` each."""

    def __init__(self, net: nn.Module, dims: int, seed: int) -> None:
        self._prior = {name: value.detach() for name, value in net.named_parameters()}
        generator = torch.Generator().manual_seed(seed)
        self._directions = {
            name: torch.randn(dims, *value.shape, generator=generator) * DIRECTION / dims**0.5
            for name, value in sorted(self._prior.items())
            if name.endswith("bias")
        }

    def weights(self, theta: Tensor) -> Weights:
        """Of the network at theta (d,)."""
        moved = {n: self._prior[n] + torch.tensordot(theta, p, 1) for n, p in self._directions.items()}
        return {**self._prior, **moved}


def predictor(artifact: Artifact) -> nn.Module:
    """The predictor of an artifact as a network: latents (B, h, D), normalised actions (B, h-1+H, A) to (E, B, H, D).

    Raises:
        ArtifactError: its graph does not name its weights as our networks do, or it takes noise.
    """
    if artifact.manifest.get("sampled"):
        raise ArtifactError(f"{artifact.path.name}: a predictor that samples has no weights of its mean; not supported")
    if "dynamics" in artifact.manifest["provenance"]:
        return load_predictor(artifact)
    spec, graph = artifact.spec, onnx.load(artifact.path / artifact.manifest["graphs"]["predictor"]["file"])
    found = {w.name.rpartition("predictor.")[2]: w for w in constants(graph.graph) if "predictor." in w.name}
    weights = {name: torch.from_numpy(numpy_helper.to_array(weight).copy()) for name, weight in found.items()}
    try:
        members, _, hidden = weights["input.weight"].shape
        blocks = sum(name.startswith("blocks.") and name.endswith(".weight") for name in weights)
        net = Predictor(
            WorldModelConfig(
                latent_dim=spec.latent_dim,
                history=spec.history,
                action_dim=spec.action.dim,
                members=members,
                hidden=hidden,
                blocks=blocks,
            )
        )
        net.load_state_dict(weights)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{artifact.path.name}: the predictor is none of `train world-model` ({error})") from error
    return net.eval()


def unit_losses(net: nn.Module, weights: Weights, moments: Moments, clip: float) -> Array:
    """Clipped H-step loss of each seed, of shape (n,)."""
    losses = _losses(net, weights, moments, clip, np.arange(len(moments.first)))
    total = np.bincount(moments.unit, losses, len(moments.seeds))
    return total / np.bincount(moments.unit, minlength=len(moments.seeds))


@dataclass(frozen=True)
class Update:
    """An update as its message says it."""

    dims: int
    levels: int
    seed: int  # of the directions
    message: bytes


def compress(net: nn.Module, moments: Moments, clip: float, config: SubspaceConfig) -> Iterator[tuple[Update, float]]:
    """Train an update in each of the codes; each with its mean loss over every so many-th moment."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    few = np.arange(0, len(moments.first), config.every)
    for dims in config.dims:
        space, theta = Subspace(net, dims, config.seed), torch.zeros(dims, requires_grad=True)
        _descend(net, theta, space.weights, moments, few, clip, config, config.steps, rng)
        trained = theta.detach().numpy()
        for levels in config.levels:
            started = np.random.default_rng(config.seed)
            values, level = kmeans2(trained, levels, minit="++", rng=started)
            codebook, which = torch.tensor(values, requires_grad=True), torch.from_numpy(level.astype(np.int64))

            def weights(book: Tensor, space: Subspace = space, which: Tensor = which) -> Weights:
                return space.weights(book[which])

            _descend(net, codebook, weights, moments, few, clip, config, config.steps // 3, rng)
            message = write(codebook.detach().numpy(), level)
            said = space.weights(torch.from_numpy(read(message, dims, levels)))
            yield Update(dims, levels, config.seed, message), float(_losses(net, said, moments, clip, few).mean())


def updated(net: nn.Module, update: Update) -> Weights:
    """The weights of the network with an update."""
    theta = torch.from_numpy(read(update.message, update.dims, update.levels))
    return Subspace(net, update.dims, update.seed).weights(theta)


def write(codebook: Array, level: npt.NDArray[np.integer[Any]]) -> bytes:
    """The message of codebook (k,) and levels (d,), k and d known to the reader: values, counts, coded levels."""
    counts = np.bincount(level, minlength=len(codebook))
    encoder = _constriction().stream.queue.RangeEncoder()
    encoder.encode(level.astype(np.int32), _model(counts))
    coded = encoder.get_compressed().astype(_WORD).tobytes()
    return codebook.astype(_HALF).tobytes() + counts.astype(np.uint8).tobytes() + coded


def read(message: bytes, dims: int, levels: int) -> npt.NDArray[np.float32]:
    """Theta (d,) of a message.

    Raises:
        InvalidInput: it is none of so many dimensions and levels.
    """
    head, counts_end = levels * _HALF.itemsize, levels * (_HALF.itemsize + 1)
    if len(message) < counts_end or (len(message) - counts_end) % _WORD.itemsize:
        raise InvalidInput(f"subspace: {len(message)} bytes are no message of {levels} levels")
    codebook = np.frombuffer(message[:head], _HALF).astype(np.float32)
    counts = np.frombuffer(message[head:counts_end], np.uint8).astype(np.int64)
    decoder = _constriction().stream.queue.RangeDecoder(np.frombuffer(message[counts_end:], _WORD).astype(np.uint32))
    level = decoder.decode(_model(counts), dims)
    if not np.array_equal(np.bincount(level, minlength=levels), counts):
        raise InvalidInput("subspace: the message's levels are not as many as it says; it is damaged")
    return codebook[level]


def flatness(
    net: nn.Module,
    moments: Moments,
    clip: float,
    *,
    sigmas: tuple[float, ...] = (0.01, 0.03, 0.1),
    draws: int = 5,
    every: int = 10,
) -> dict[str, Any]:
    """How the mean loss changes when Gaussian noise, of `sigmas` of a tensor's own size, is added to all weights.

    The flatter the minimum, the less: the fewer bits say the weights well enough.
    """
    few = np.arange(0, len(moments.first), every)
    prior = {name: value.detach() for name, value in net.named_parameters()}
    before = float(_losses(net, prior, moments, clip, few).mean())
    rise, spread = [], []
    for sigma in sigmas:
        generator = torch.Generator().manual_seed(0)
        after = []
        for _ in range(draws):
            noisy = {
                name: value + sigma * value.square().mean().sqrt() * torch.randn(value.shape, generator=generator)
                for name, value in prior.items()
            }
            after.append(float(_losses(net, noisy, moments, clip, few).mean()) - before)
        rise.append(float(np.mean(after)))
        spread.append(float(np.std(after)))
    return {"sigma": list(sigmas), "rise": rise, "std": spread, "draws": draws, "loss": before, "moments": len(few)}


def _losses(
    net: nn.Module, weights: Weights, moments: Moments, clip: float, which: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    with torch.no_grad():
        chunks = [_clipped(net, weights, moments, clip, which[i : i + _CHUNK]) for i in range(0, len(which), _CHUNK)]
    return torch.cat(chunks).numpy().astype(np.float64)


def _clipped(net: nn.Module, weights: Weights, moments: Moments, clip: float, which: npt.NDArray[np.int64]) -> Tensor:
    past, actions, future = moments.at(which)
    predicted = torch.func.functional_call(net, dict(weights), (past, actions)).mean(0)[:, -1]
    return ((predicted - future).square().mean(-1) / clip).clamp(max=1.0)


def _descend(
    net: nn.Module,
    free: Tensor,
    weights: Any,
    moments: Moments,
    few: npt.NDArray[np.int64],
    clip: float,
    config: SubspaceConfig,
    steps: int,
    rng: np.random.Generator,
) -> None:
    """Train the numbers `free`, which `weights` makes weights of, in place."""
    optimiser = torch.optim.Adam([free], config.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, steps)
    for _ in range(steps):
        loss = _clipped(net, weights(free), moments, clip, rng.choice(few, config.batch)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()


def _model(counts: npt.NDArray[np.int64]) -> Any:
    """How likely each level is; one that does not occur is not impossible, which the coder would not have."""
    likely = (counts + 0.01) / (counts + 0.01).sum()
    return _constriction().stream.model.Categorical(likely.astype(np.float32), perfect=False)


def _constriction() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise InvalidInput("compression needs `constriction`: pip install 'worldpilot[certify]'") from error
    return constriction
