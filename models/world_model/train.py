"""Train a latent world model end to end from pixels, then its ensemble on the frozen latents.

Stage 1 (encoder): open-loop prediction error + lambda * SIGReg, the two terms of LeWorldModel (arXiv 2603.19312), no
stop-gradient; plus two optional terms, both off with weight 0: inverse dynamics (the action from two consecutive
latents) and, where the data have signals, grounding (those signals read from real and from imagined latents).
Between the stages the readout is fitted to its end on the frozen latents: in stage 1 it learns from few frames a step,
of an encoder that moves.
Stage 2 (dynamics): E members of other initialisation and data order, trained on longer open-loop rollouts of frozen
latents. The decoder, for eyes only, is trained beside them.

On several devices every process trains on its own share of the episodes, with `batch` windows of its own a step;
gradients are averaged and SIGReg sees all batches as one. BatchNorm does so on GPUs; on CPUs, where torch cannot
synchronise it, each process normalises by its own batch and the running statistics are those of rank 0.
"""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.models.data.windows import Frames
from worldpilot.models.world_model.networks import (
    Decoder,
    WorldModelConfig,
    encoder,
    inverse_dynamics,
    predictor,
    readout,
)
from worldpilot.models.world_model.sigreg import sigreg
from worldpilot.types import ActionSpec

if TYPE_CHECKING:  # takes a second to import; only `train` needs it
    from lightning_fabric import Fabric

ACCELERATORS = ("auto", "cpu", "cuda")

_SMALL = 0.02  # error of a prediction, in standard deviations, below which it hardly matters


@dataclass(frozen=True)
class TrainConfig:
    """How a world model is trained. Weights multiply loss terms; steps are optimiser steps."""

    steps: int = 9000
    readout_steps: int = 8000  # of the readout alone, between the stages
    dynamics_steps: int = 5000
    batch: int = 64  # windows, per device
    readout_batch: int = 1024  # frames
    dynamics_batch: int = 512  # per device and ensemble member
    rollout: int = 2  # model steps of open-loop prediction in stage 1
    dynamics_rollout: int = 5  # in stage 2
    views: int = 1  # of each episode that stage 2 sees, if the task has symmetries; above 1 stage 1 sees all there are
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    sigreg_weight: float = 0.1
    directions: int = 256
    inverse_weight: float = 0.3
    grounding_weight: float = 1.0
    evaluate_every: int = 1000
    seed: int = 0
    devices: int = 1
    accelerator: str = "auto"  # a GPU if there is one

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch, self.rollout, self.dynamics_rollout, self.views, self.evaluate_every)
        if min(*counts, self.devices) < 1:
            raise InvalidInput("train: steps, batch, rollouts, views, evaluate_every, devices must be at least 1")
        if self.accelerator not in ACCELERATORS:
            raise UnknownName("accelerator", self.accelerator, ACCELERATORS)


TRAIN_PRESETS = {
    "small": TrainConfig(),
    # The paper's two terms alone. Its models saw 10 epochs and more: choose `steps` by the data.
    "paper": TrainConfig(
        batch=128, rollout=1, learning_rate=5e-5, directions=1024, inverse_weight=0.0, grounding_weight=0.0
    ),
}


def train_preset(name: str) -> TrainConfig:
    """How the networks of `networks.preset(name)` are trained.

    Raises:
        UnknownName: the message lists the presets.
    """
    if name not in TRAIN_PRESETS:
        raise UnknownName("preset", name, TRAIN_PRESETS)
    return TRAIN_PRESETS[name]


def device_of(accelerator: str) -> torch.device:
    """The device that one of `ACCELERATORS` means here, for what is trained on one.

    Raises:
        UnknownName: there is no such accelerator.
        InvalidInput: a GPU is asked for where there is none.
    """
    if accelerator not in ACCELERATORS:
        raise UnknownName("accelerator", accelerator, ACCELERATORS)
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("train: a GPU was asked for, torch finds none; choose accelerator auto or cpu")
    return torch.device("cpu" if accelerator == "cpu" or not torch.cuda.is_available() else "cuda")


class WorldModelNets(nn.Module):
    """Everything that is trained, with the constants that bring inputs and outputs into physical units."""

    signal_mean: Tensor
    signal_std: Tensor

    def __init__(self, config: WorldModelConfig, names: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.names = config, names
        self.encoder = encoder(config)
        self.predictor = predictor(config)
        self.readout = readout(config)
        self.inverse = inverse_dynamics(config)
        self.decoder = Decoder(config)
        self.register_buffer("signal_mean", torch.zeros(config.signal_dim))
        self.register_buffer("signal_std", torch.ones(config.signal_dim))

    @property
    def device(self) -> torch.device:
        return self.signal_mean.device

    @property
    def meta(self) -> dict[str, Any]:
        """What a checkpoint must agree on to be loaded into these networks."""
        return {"config": self.config.to_dict(), "names": list(self.names)}

    def encode(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """Images of shape (B, S, S, 3) uint8 to latents of shape (B, D)."""
        return self.encoder(_to_tensor(images, self.device))

    def standardise(self, signals: npt.NDArray[np.float32]) -> Tensor:
        """Signals of shape (..., S) in physical units to zero mean and unit variance, as the readout gives them."""
        return (torch.from_numpy(signals).to(self.device) - self.signal_mean) / self.signal_std

    def read(self, latents: Tensor) -> Tensor:
        """Latents of shape (..., D) to signals of shape (..., S) in physical units."""
        return self.readout(latents) * self.signal_std + self.signal_mean


class EncoderLosses(nn.Module):
    """The weighted loss terms of stage 1, in one forward pass: what data parallelism needs to average gradients."""

    def __init__(self, nets: WorldModelNets, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.predictor = nets.encoder, nets.predictor
        self.readout = nets.readout if nets.names else None
        self.inverse = nets.inverse if config.inverse_weight else None  # no parameter may stay without a gradient

    def forward(self, images: Tensor, actions: Tensor, signals: Tensor) -> dict[str, Tensor]:
        """Images (B*(h+R), 3, S, S), actions (B, h+R-1, A) between them and standardised signals (B, h+R, S)."""
        h = self.predictor.history
        with torch.autocast(images.device.type, torch.bfloat16):
            latents = self.encoder(images)
        latents = latents.float().unflatten(0, signals.shape[:2])
        predicted = self.predictor(latents[:, :h], actions)  # (E, B, R, D)
        losses = {
            "prediction": (predicted - latents[:, h:]).square().mean(),
            "sigreg": self.config.sigreg_weight * sigreg(latents.transpose(0, 1), self.config.directions),
        }
        if self.inverse is not None:
            pairs = torch.cat([latents[:, :-1], latents[:, 1:]], -1)
            losses["inverse"] = self.config.inverse_weight * (self.inverse(pairs) - actions).square().mean()
        if self.readout is not None:  # with weight 0 it is a probe: it learns, the encoder does not hear of it
            weight = self.config.grounding_weight
            real, imagined = (latents, predicted) if weight else (latents.detach(), predicted.detach())
            error = (self.readout(real) - signals).square().mean()
            error = error + (self.readout(imagined) - signals[:, h:]).square().mean()
            losses["grounding"] = (weight or 1.0) * error
        return losses


class DynamicsLoss(nn.Module):
    """The loss of stage 2 on frozen latents; the readout is frozen too.

    Errors count by their size, not by its square: the few windows with contacts that nobody could foretell would else
    make up most of the loss, and what can be foretold to a millimetre, such as that an untouched object stays, little.
    """

    def __init__(self, nets: WorldModelNets, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.predictor, self.decoder = nets.predictor, nets.decoder
        self.readout = nets.readout if nets.names and config.grounding_weight else None

    def forward(self, window: Tensor, actions: Tensor, signals: Tensor, seen: Tensor, images: Tensor) -> Tensor:
        """Windows of each member (E, B, h+R, D), actions (E, B, h+R-1, A) and standardised signals (E, B, R, S) of
        their futures; the latents (B', D) and images (B', 3, S, S) of other frames for the decoder."""
        h, members = self.predictor.history, self.predictor.members
        with torch.autocast(images.device.type, torch.bfloat16):
            predicted, painted = self.predictor.roll(window[:, :, :h], actions), self.decoder(seen)
        predicted, painted = predicted.float(), painted.float()
        loss = _size((predicted - window[:, :, h:]).square().mean(-1)).mean() * members
        if self.readout is not None:
            error = _size((self.readout(predicted) - signals).square()).mean()
            loss = loss + self.config.grounding_weight * members * error
        return loss + (painted - images).square().mean() * 10


def _size(squared: Tensor) -> Tensor:
    """Of errors, from their squares: smooth at 0, where it is `_SMALL` instead."""
    return (squared + _SMALL**2).sqrt()


def train(
    store: EpisodeStore,
    spec: ActionSpec,
    folder: Path,
    model: WorldModelConfig,
    config: TrainConfig,
    start: Path | None = None,
) -> WorldModelNets:
    """Train on the store's training episodes; checkpoints and `metrics.json` (held-out episodes) go to `folder`.

    Called again with the same folder it resumes after the newest checkpoint. With `config.devices` above 1 the running
    script is started again once for each further device, and all of them return from here; rank 0 writes the files.

    Args:
        store: episodes.
        spec: of the actions.
        folder: of checkpoints, log and metrics.
        model: sizes.
        config: how.
        start: checkpoints of a world model to go on from: its latents and what is read from them stay, its dynamics
            learn on, in stage 2 alone. None: begin anew.

    Raises:
        InvalidInput: there are fewer episodes than devices, images of another size than the model's, or a start of
            other sizes or signals.
    """
    fabric = _launch(config)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    train_index, held_index = store.split()
    if len(train_index) < fabric.world_size:
        raise InvalidInput(f"{store.path}: {len(train_index)} training episodes, fewer than devices; ask for fewer")
    frames = Frames.load(store, train_index[fabric.global_rank :: fabric.world_size])
    held = Frames.load(store, held_index)
    size = (model.image_size, model.image_size, 3)
    if frames.observations.shape[1:] != size:
        raise InvalidInput(f"{store.path}: frames are {frames.observations.shape[1:]}, the model takes images {size}")
    model = replace(model, signal_dim=len(frames.names))
    nets = WorldModelNets(model, frames.names) if start is None else load(start)
    if (nets.config, nets.names) != (model, frames.names):
        raise InvalidInput(f"{start} holds a model of other sizes or signals than the data and options ask for")
    if start is None:
        _fit_scales(fabric, nets, frames)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(nets)
    nets.to(fabric.device)
    if start is None:
        _encoder_stage(fabric, nets, frames, held, spec, folder, config)
    for buffer in nets.buffers():  # BatchNorm's running statistics: from here on all ranks need the same latents
        buffer.copy_(fabric.broadcast(buffer.cpu()))
    _dynamics_stage(fabric, nets, frames, held, spec, folder, config, anew=start is None)
    if fabric.is_global_zero:
        metrics = {"data_sha256": store.sha256(), "action": spec.to_dict(), "units": store.meta.get("units", {})}
        metrics |= {"train": asdict(config), "model": nets.config.to_dict()}
        metrics |= evaluate(nets, held, spec, config.dynamics_rollout)
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
    return nets


def _fit_scales(fabric: "Fabric", nets: WorldModelNets, frames: Frames) -> None:
    """Mean and standard deviation of the signals, over all ranks' frames."""
    mean = _mean_over_ranks(fabric, frames.signals.mean(0))
    variance = _mean_over_ranks(fabric, np.square(frames.signals - mean.numpy()).mean(0))
    nets.signal_mean.copy_(mean)
    nets.signal_std.copy_(variance.sqrt() + 1e-6)


def _launch(config: TrainConfig) -> "Fabric":
    """This process's place among `config.devices` processes, which are started if need be."""
    from lightning_fabric import Fabric

    if config.accelerator == "cuda" and torch.cuda.device_count() < config.devices:
        raise InvalidInput(f"train: {config.devices} GPUs asked for, {torch.cuda.device_count()} found")
    fabric = Fabric(accelerator=config.accelerator, devices=config.devices)
    fabric.launch()
    return fabric


def load(folder: Path, stage: str = "dynamics") -> WorldModelNets:
    """The trained networks of a checkpoint folder, after "encoder" or "dynamics", in evaluation mode."""
    path = folder / f"{stage}.pt"
    if not path.exists():
        raise InvalidInput(f"{path} is missing; run `worldpilot train world-model` up to its {stage} stage first")
    state = torch.load(path, map_location="cpu", weights_only=True)
    nets = WorldModelNets(WorldModelConfig.from_dict(state["config"]), tuple(state["names"]))
    nets.load_state_dict(state["nets"])
    return nets.eval()


def evaluate(nets: WorldModelNets, held: Frames, spec: ActionSpec, rollout: int) -> dict[str, Any]:
    """R2 of every signal (shipped readout; linear probe beside it) and open-loop errors, on held-out episodes."""
    nets.eval()
    latents = encode_all(nets, held.observations)
    with torch.no_grad():
        read = nets.read(latents)
    truth = torch.from_numpy(held.signals).to(nets.device)
    half = len(latents) // 2
    probe = torch.cat([latents, torch.ones_like(latents[:, :1])], 1)
    linear = probe[half:] @ torch.linalg.lstsq(probe[:half], truth[:half]).solution
    singular = torch.linalg.svdvals(latents - latents.mean(0)).square()
    share = singular / singular.sum()
    h = nets.config.history
    windows = held.windows(h - 1 + rollout, spec.block)[::7]
    past = torch.stack([latents[windows + i * spec.block] for i in range(h)], 1)
    unchanged = np.zeros(len(windows), np.int64)
    actions = torch.from_numpy(held.actions(windows, h - 1 + rollout, spec, unchanged)).to(nets.device)
    with torch.no_grad():
        predicted = nets.predictor(past, actions).mean(0)
        signals = nets.read(predicted)
    future = np.stack([windows + (h + i) * spec.block for i in range(rollout)], 1)
    target = latents[future]
    nmse = (predicted - target).square().mean((0, 2)) / latents.var(0).mean()
    copy = (past[:, -1:] - target).square().mean((0, 2)) / latents.var(0).mean()
    error = (signals - truth[future]).square().mean(0).sqrt()
    return {
        "frames": len(latents),
        "episodes": len(held.starts) - 1,
        "r2": dict(zip(held.names, _r2(read, truth), strict=True)),
        "r2_linear": dict(zip(held.names, _r2(linear, truth[half:]), strict=True)),
        "effective_rank": float(torch.exp(-(share * (share + 1e-12).log()).sum())),
        "open_loop_nmse": [round(float(x), 4) for x in nmse],
        "open_loop_nmse_copy": [round(float(x), 4) for x in copy],
        "open_loop_rmse": {n: [round(float(x), 4) for x in error[:, i]] for i, n in enumerate(held.names)},
    }


def _encoder_stage(
    fabric: "Fabric",
    nets: WorldModelNets,
    frames: Frames,
    held: Frames,
    spec: ActionSpec,
    folder: Path,
    config: TrainConfig,
) -> None:
    steps = nets.config.history + config.rollout
    windows = frames.windows(steps - 1, spec.block)
    rng = np.random.default_rng([config.seed, 1])
    optimiser = torch.optim.AdamW(nets.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warm_cosine(config.steps))
    parts = {"nets": nets, "optimiser": optimiser, "schedule": schedule}
    first = resume(folder / "encoder.pt", parts, rng, nets.meta)
    rng = _own_stream(fabric, rng, [config.seed, 1], first)
    terms = fabric.setup_module(EncoderLosses(nets, config))
    for step in (bar := _progress(fabric, "encoder", first, config.steps)):
        nets.train()
        at = rng.choice(windows, config.batch)
        views = rng.integers(frames.views if config.views > 1 else 1, size=config.batch)
        index = at[:, None] + np.arange(steps) * spec.block
        pictures = frames.images(index, views)
        images = _jitter(_to_tensor(pictures.reshape(-1, *pictures.shape[2:]), nets.device), rng)
        actions = torch.from_numpy(frames.actions(at, steps - 1, spec, views)).to(nets.device)
        losses = terms(images, actions, nets.standardise(frames.measured(index, views)))
        _descend(fabric, optimiser, schedule, sum(losses.values(), torch.zeros(())))
        if (step + 1) % 50 == 0:
            bar.set_postfix({name: f"{float(value):.3f}" for name, value in losses.items()})
        save = (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps
        if save and fabric.is_global_zero:
            _report(nets, held, spec, config, folder, "encoder", step + 1)
            save_checkpoint(folder / "encoder.pt", parts, rng, nets.meta, step + 1)


def _dynamics_stage(
    fabric: "Fabric",
    nets: WorldModelNets,
    frames: Frames,
    held: Frames,
    spec: ActionSpec,
    folder: Path,
    config: TrainConfig,
    anew: bool,
) -> None:
    """Train the predictor on frozen latents; `anew` with the readout and from nothing, else on from what it is."""
    h, rollout, members = nets.config.history, config.dynamics_rollout, nets.config.members
    nets.eval()
    nets.encoder.requires_grad_(False)
    drawn = frames.draw_views(config.views, np.random.default_rng([config.seed, 4]))
    latents = encode_views(nets, frames, drawn)
    begins = anew and not (folder / "dynamics.pt").exists()
    if begins and nets.names and config.readout_steps:
        _fit_readout(nets, frames, latents, drawn, config)
        nets.readout.load_state_dict(fabric.broadcast(nets.readout.state_dict()))
    nets.readout.requires_grad_(False)
    windows = frames.windows(h - 1 + rollout, spec.block)
    rng = np.random.default_rng([config.seed, 2])
    torch.manual_seed(config.seed + 1)
    if begins:  # members that owe nothing to stage 1's shared data order
        nets.predictor = predictor(nets.config).to(nets.device)
    optimiser = torch.optim.AdamW(
        [*nets.predictor.parameters(), *nets.decoder.parameters()], config.learning_rate, weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warm_cosine(config.dynamics_steps))
    parts = {"nets": nets, "optimiser": optimiser, "schedule": schedule}
    first = resume(folder / "dynamics.pt", parts, rng, nets.meta)
    rng = _own_stream(fabric, rng, [config.seed, 2], first)

    def draw(rng: np.random.Generator) -> tuple[Tensor, ...]:
        """The arguments of `DynamicsLoss`, for one step."""
        shape = (members, config.dynamics_batch)
        at, row = rng.choice(windows, shape).ravel(), rng.integers(len(drawn), size=math.prod(shape))
        views = drawn[row, at]
        index = at[:, None] + np.arange(h + rollout) * spec.block
        window = latents[row[:, None], index].unflatten(0, shape)
        actions = torch.from_numpy(frames.actions(at, h - 1 + rollout, spec, views)).unflatten(0, shape)
        signals = nets.standardise(frames.measured(index[:, h:], views)).unflatten(0, shape)
        picture = rng.integers(len(frames.observations), size=4)
        images = _to_tensor(frames.observations[picture], nets.device)
        return window, actions.to(nets.device), signals, latents[0, picture], images

    objective: Any = DynamicsLoss(nets, config)
    if fabric.device.type == "cuda" and fabric.world_size == 1:  # hundreds of small kernels in one launch
        objective = torch.cuda.make_graphed_callables(objective, draw(np.random.default_rng(0)))
    objective = fabric.setup_module(objective)
    total = config.dynamics_steps
    for step in (bar := _progress(fabric, "dynamics", first, total)):
        nets.predictor.train()
        loss = objective(*draw(rng))
        _descend(fabric, optimiser, schedule, loss)
        if (step + 1) % 50 == 0:
            bar.set_postfix(loss=f"{float(loss):.4f}")
        save = (step + 1) % (2 * config.evaluate_every) == 0 or step + 1 == total
        if save and fabric.is_global_zero:
            _report(nets, held, spec, config, folder, "dynamics", step + 1)
            save_checkpoint(folder / "dynamics.pt", parts, rng, nets.meta, step + 1)
    nets.eval()


def _fit_readout(
    nets: WorldModelNets, frames: Frames, latents: Tensor, drawn: npt.NDArray[np.int64], config: TrainConfig
) -> None:
    """Fit the readout to frozen latents of shape (V, F, D), of frames in their views of shape (V, F)."""
    rng, size = np.random.default_rng([config.seed, 5]), config.readout_batch
    optimiser = torch.optim.AdamW(nets.readout.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warm_cosine(config.readout_steps))
    for _ in range(config.readout_steps):
        row, frame = rng.integers(len(drawn), size=size), rng.integers(drawn.shape[1], size=size)
        signals = nets.standardise(frames.measured(frame[:, None], drawn[row, frame])[:, 0])
        optimiser.zero_grad(set_to_none=True)
        _size((nets.readout(latents[row, frame]) - signals).square()).mean().backward()
        optimiser.step()
        schedule.step()


def _own_stream(fabric: "Fabric", rng: np.random.Generator, entropy: Sequence[int], first: int) -> np.random.Generator:
    """Rank 0 goes on with `rng`, which checkpoints keep; each other rank draws from a stream of its own."""
    return np.random.default_rng([*entropy, fabric.global_rank, first]) if fabric.global_rank else rng


def _mean_over_ranks(fabric: "Fabric", values: npt.NDArray[np.float32]) -> Tensor:
    return torch.as_tensor(fabric.all_reduce(torch.from_numpy(values))).cpu()


def _progress(fabric: "Fabric", stage: str, first: int, total: int) -> Any:
    quiet = not fabric.is_global_zero
    return tqdm(range(first, total), initial=first, total=total, desc=stage, mininterval=5, disable=quiet)


def _descend(fabric: "Fabric", optimiser: Any, schedule: Any, loss: Tensor) -> None:
    """One step on the optimiser's parameters; gradients that pass through frozen networks don't count in the clip."""
    if not torch.isfinite(loss):
        raise InvalidInput("train: the loss is not finite; lower the learning rate or check the data")
    optimiser.zero_grad(set_to_none=True)
    fabric.backward(loss)
    nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
    optimiser.step()
    schedule.step()


def _report(
    nets: WorldModelNets, held: Frames, spec: ActionSpec, config: TrainConfig, folder: Path, stage: str, step: int
) -> None:
    figures = evaluate(nets, held, spec, config.dynamics_rollout)
    r2 = "  ".join(f"{n} {v:.3f}/{figures['r2_linear'][n]:.3f}" for n, v in figures["r2"].items())
    nmse = ", ".join(f"{x:.3f}" for x in figures["open_loop_nmse"])
    tqdm.write(f"{stage} {step}: R2 (readout/linear) {r2}  rank {figures['effective_rank']:.1f}  open-loop nMSE {nmse}")
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({"stage": stage, "step": step, "time": time.time(), **figures}) + "\n")


def encode_all(nets: WorldModelNets, observations: npt.NDArray[np.uint8], batch: int = 512) -> Tensor:
    """Images of shape (F, S, S, 3) uint8 to latents of shape (F, D), without gradients."""
    with torch.no_grad():
        return torch.cat([nets.encode(observations[i : i + batch]) for i in range(0, len(observations), batch)])


def encode_views(nets: WorldModelNets, frames: Frames, views: npt.NDArray[np.int64], batch: int = 512) -> Tensor:
    """Latents of shape (V, F, D) of all frames, in views of shape (V, F), without gradients."""
    rows = []
    for row in views:
        for first in range(0, len(row), batch):
            at = np.arange(first, min(first + batch, len(row)))
            with torch.no_grad(), torch.autocast(nets.device.type, torch.bfloat16):
                rows.append(nets.encode(frames.images(at[:, None], row[at])[:, 0]).float())
    return torch.cat(rows).unflatten(0, views.shape)


def _to_tensor(images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
    return (pixels.float() / 255).contiguous(memory_format=torch.channels_last)


def _jitter(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Other light for each frame: nothing about it can be predicted, so nothing about it stays in the latent."""
    n = len(images)
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (n, 3, 1, 1)).astype(np.float32))
    offset = torch.from_numpy(rng.uniform(-0.06, 0.06, (n, 3, 1, 1)).astype(np.float32))
    return (images * gain.to(images.device) + offset.to(images.device)).clamp(0, 1)


def _r2(read: Tensor, truth: Tensor) -> list[float]:
    if not truth.shape[1]:
        return []
    residual = (read - truth).square().mean(0) / truth.var(0, unbiased=False)
    return [round(float(1 - x), 4) for x in residual]


def _warm_cosine(steps: int) -> Any:
    warm = max(1, min(200, steps // 10))
    return lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))) + 0.01)


def save_checkpoint(
    path: Path, parts: Mapping[str, Any], rng: np.random.Generator, meta: Mapping[str, Any], step: int
) -> None:
    """Write, whole or not at all, what `resume` needs: the parts' states, both random states, `meta` and the step."""
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"rng": json.dumps(rng.bit_generator.state), "torch_rng": torch.get_rng_state(), **meta, "step": step}
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def resume(path: Path, parts: Mapping[str, Any], rng: np.random.Generator, meta: Mapping[str, Any]) -> int:
    """Put everything back to where `save_checkpoint` left it; returns the step, 0 if there is no checkpoint.

    Raises:
        InvalidInput: the checkpoint was made with another `meta`.
    """
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if any(state[name] != value for name, value in meta.items()):
        raise InvalidInput(f"{path} holds a model of other sizes or signals; choose another folder or delete it")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    rng.bit_generator.state = json.loads(state["rng"])
    torch.set_rng_state(state["torch_rng"])
    return int(state["step"])
