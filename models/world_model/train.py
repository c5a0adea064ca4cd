"""Train a latent world model end to end from pixels, then its ensemble on the frozen latents.

Stage 1 (encoder): open-loop prediction error + lambda * SIGReg, the two terms of LeWorldModel (arXiv 2603.19312), no
stop-gradient; plus two optional terms, both off with weight 0: inverse dynamics (the action from two consecutive
latents) and grounding (measured signals read from real and from imagined latents).
Stage 2 (dynamics): E members of other initialisation and data order, trained on longer open-loop rollouts of frozen
latents. The decoder, for eyes only, is trained beside them.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from worldpilot.errors import InvalidInput
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.models.data.windows import Frames, gather_actions
from worldpilot.models.world_model.networks import (
    Decoder,
    Encoder,
    Predictor,
    WorldModelConfig,
    inverse_dynamics,
    readout,
)
from worldpilot.models.world_model.sigreg import sigreg
from worldpilot.types import ActionSpec


@dataclass(frozen=True)
class TrainConfig:
    """How a world model is trained. Weights multiply loss terms; steps are optimiser steps."""

    steps: int = 9000
    dynamics_steps: int = 5000
    batch: int = 64  # windows
    dynamics_batch: int = 512
    rollout: int = 2  # model steps of open-loop prediction in stage 1
    dynamics_rollout: int = 5  # in stage 2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    sigreg_weight: float = 0.1
    directions: int = 256
    inverse_weight: float = 0.3
    grounding_weight: float = 1.0
    evaluate_every: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.rollout, self.dynamics_rollout, self.evaluate_every) < 1:
            raise InvalidInput("train: steps, batch, rollouts and evaluate_every must be at least 1")


class WorldModelNets(nn.Module):
    """Everything that is trained, with the constants that bring inputs and outputs into physical units."""

    signal_mean: Tensor
    signal_std: Tensor

    def __init__(self, config: WorldModelConfig, names: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.names = config, names
        self.encoder = Encoder(config)
        self.predictor = Predictor(config)
        self.readout = readout(config)
        self.inverse = inverse_dynamics(config)
        self.decoder = Decoder(config)
        self.register_buffer("signal_mean", torch.zeros(config.signal_dim))
        self.register_buffer("signal_std", torch.ones(config.signal_dim))

    @property
    def meta(self) -> dict[str, Any]:
        """What a checkpoint must agree on to be loaded into these networks."""
        return {"config": self.config.to_dict(), "names": list(self.names)}

    def encode(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """Images of shape (B, S, S, 3) uint8 to latents of shape (B, D)."""
        return self.encoder(_to_tensor(images))


def train(
    store: EpisodeStore, spec: ActionSpec, folder: Path, model: WorldModelConfig, config: TrainConfig
) -> WorldModelNets:
    """Train on the store's training episodes; checkpoints and `metrics.json` (held-out episodes) go to `folder`.

    Called again with the same folder it resumes after the newest checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    train_index, held_index = store.split()
    frames, held = Frames.load(store, train_index), Frames.load(store, held_index)
    nets = WorldModelNets(model, frames.names)
    nets.signal_mean.copy_(torch.from_numpy(frames.signals.mean(0)))
    nets.signal_std.copy_(torch.from_numpy(frames.signals.std(0) + 1e-6))
    _encoder_stage(nets, frames, held, spec, folder, config)
    _dynamics_stage(nets, frames, held, spec, folder, config)
    metrics = {"data_sha256": store.sha256(), "action": spec.to_dict(), "train": asdict(config), "model": model.to_dict()}
    metrics |= evaluate(nets, held, spec, config.dynamics_rollout)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
    return nets


def load(folder: Path, stage: str = "dynamics") -> WorldModelNets:
    """The trained networks of a checkpoint folder, after "encoder" or "dynamics", in evaluation mode."""
    path = folder / f"{stage}.pt"
    if not path.exists():
        raise InvalidInput(f"{path} is missing; run `worldpilot train world-model` up to its {stage} stage first")
    state = torch.load(path, weights_only=True)
    nets = WorldModelNets(WorldModelConfig(**state["config"]), tuple(state["names"]))
    nets.load_state_dict(state["nets"])
    return nets.eval()


def evaluate(nets: WorldModelNets, held: Frames, spec: ActionSpec, rollout: int) -> dict[str, Any]:
    """R2 of every signal (shipped readout; linear probe beside it) and open-loop errors, on held-out episodes."""
    nets.eval()
    latents = encode_all(nets, held.observations)
    with torch.no_grad():
        read = nets.readout(latents) * nets.signal_std + nets.signal_mean
    truth = torch.from_numpy(held.signals)
    half = len(latents) // 2
    probe = torch.cat([latents, torch.ones(len(latents), 1)], 1)
    linear = probe[half:] @ torch.linalg.lstsq(probe[:half], truth[:half]).solution
    singular = torch.linalg.svdvals(latents - latents.mean(0)).square()
    share = singular / singular.sum()
    h = nets.config.history
    windows = held.windows(h - 1 + rollout, spec.block)[::7]
    past = torch.stack([latents[windows + i * spec.block] for i in range(h)], 1)
    actions = torch.from_numpy(gather_actions(held.controls, windows, h - 1 + rollout, spec))
    with torch.no_grad():
        predicted = nets.predictor(past, actions).mean(0)
        signals = nets.readout(predicted) * nets.signal_std + nets.signal_mean
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
    nets: WorldModelNets, frames: Frames, held: Frames, spec: ActionSpec, folder: Path, config: TrainConfig
) -> None:
    h, steps = nets.config.history, nets.config.history + config.rollout
    windows = frames.windows(steps - 1, spec.block)
    rng = np.random.default_rng([config.seed, 1])
    optimiser = torch.optim.AdamW(nets.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warm_cosine(config.steps))
    parts = {"nets": nets, "optimiser": optimiser, "schedule": schedule}
    first = resume(folder / "encoder.pt", parts, rng, nets.meta)
    bar = tqdm(range(first, config.steps), initial=first, total=config.steps, desc="encoder", mininterval=5)
    for step in bar:
        nets.train()
        at = rng.choice(windows, config.batch)
        index = at[:, None] + np.arange(steps) * spec.block
        images = _jitter(_to_tensor(frames.observations[index.ravel()]), rng)
        actions = torch.from_numpy(gather_actions(frames.controls, at, steps - 1, spec))
        signals = (torch.from_numpy(frames.signals[index]) - nets.signal_mean) / nets.signal_std
        with torch.autocast("cpu", torch.bfloat16):
            latents = nets.encoder(images)
        latents = latents.float().unflatten(0, index.shape)
        predicted = nets.predictor(latents[:, :h], actions)  # (E, B, R, D)
        losses = {
            "prediction": (predicted - latents[:, h:]).square().mean(),
            "sigreg": config.sigreg_weight * sigreg(latents.transpose(0, 1), config.directions),
        }
        if config.inverse_weight:
            pairs = torch.cat([latents[:, :-1], latents[:, 1:]], -1)
            losses["inverse"] = config.inverse_weight * (nets.inverse(pairs) - actions).square().mean()
        real, imagined = latents, predicted
        if not config.grounding_weight:  # readouts are then probes: they learn, the encoder does not hear of it
            real, imagined = real.detach(), imagined.detach()
        losses["grounding"] = (config.grounding_weight or 1.0) * (
            (nets.readout(real) - signals).square().mean() + (nets.readout(imagined) - signals[:, h:]).square().mean()
        )
        _descend(optimiser, schedule, sum(losses.values(), torch.zeros(())))
        if (step + 1) % 50 == 0:
            bar.set_postfix({name: f"{float(value):.3f}" for name, value in losses.items()})
        if (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps:
            _report(nets, held, spec, config, folder, "encoder", step + 1)
            save_checkpoint(folder / "encoder.pt", parts, rng, nets.meta, step + 1)


def _dynamics_stage(
    nets: WorldModelNets, frames: Frames, held: Frames, spec: ActionSpec, folder: Path, config: TrainConfig
) -> None:
    h, rollout, members = nets.config.history, config.dynamics_rollout, nets.config.members
    nets.eval()
    latents = encode_all(nets, frames.observations)
    windows = frames.windows(h - 1 + rollout, spec.block)
    rng = np.random.default_rng([config.seed, 2])
    torch.manual_seed(config.seed + 1)
    if not (folder / "dynamics.pt").exists():
        nets.predictor = Predictor(nets.config)  # members that owe nothing to stage 1's shared data order
    optimiser = torch.optim.AdamW(
        [*nets.predictor.parameters(), *nets.decoder.parameters()], config.learning_rate, weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warm_cosine(config.dynamics_steps))
    parts = {"nets": nets, "optimiser": optimiser, "schedule": schedule}
    first = resume(folder / "dynamics.pt", parts, rng, nets.meta)
    total = config.dynamics_steps
    bar = tqdm(range(first, total), initial=first, total=total, desc="dynamics", mininterval=5)
    for step in bar:
        at = rng.choice(windows, (members, config.dynamics_batch))
        flat = at.ravel()
        index = flat[:, None] + np.arange(h + rollout) * spec.block
        window = latents[index].unflatten(0, at.shape)
        actions = torch.from_numpy(gather_actions(frames.controls, flat, h - 1 + rollout, spec)).unflatten(0, at.shape)
        predicted = nets.predictor.roll(window[:, :, :h], actions)
        loss = (predicted - window[:, :, h:]).square().mean() * members
        if config.grounding_weight:
            signals = (torch.from_numpy(frames.signals[index[:, h:]]) - nets.signal_mean) / nets.signal_std
            read = nets.readout(predicted)
            loss = loss + config.grounding_weight * members * (read - signals.unflatten(0, at.shape)).square().mean()
        picture = rng.integers(len(latents), size=16)
        loss = loss + (nets.decoder(latents[picture]) - _to_tensor(frames.observations[picture])).square().mean() * 10
        _descend(optimiser, schedule, loss)
        if (step + 1) % 50 == 0:
            bar.set_postfix(loss=f"{float(loss):.4f}")
        if (step + 1) % (2 * config.evaluate_every) == 0 or step + 1 == total:
            _report(nets, held, spec, config, folder, "dynamics", step + 1)
            save_checkpoint(folder / "dynamics.pt", parts, rng, nets.meta, step + 1)
    nets.eval()


def _descend(optimiser: Any, schedule: Any, loss: Tensor) -> None:
    """One step on the optimiser's parameters; gradients that pass through frozen networks don't count in the clip."""
    if not torch.isfinite(loss):
        raise InvalidInput("train: the loss is not finite; lower the learning rate or check the data")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
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


def _to_tensor(images: npt.NDArray[np.uint8]) -> Tensor:
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


def _jitter(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Other light for each frame: nothing about it can be predicted, so nothing about it stays in the latent."""
    n = len(images)
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (n, 3, 1, 1)).astype(np.float32))
    offset = torch.from_numpy(rng.uniform(-0.06, 0.06, (n, 3, 1, 1)).astype(np.float32))
    return (images * gain + offset).clamp(0, 1)


def _r2(read: Tensor, truth: Tensor) -> list[float]:
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
    state = torch.load(path, weights_only=True)
    if any(state[name] != value for name, value in meta.items()):
        raise InvalidInput(f"{path} holds a model of other sizes or signals; choose another folder or delete it")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    rng.bit_generator.state = json.loads(state["rng"])
    torch.set_rng_state(state["torch_rng"])
    return int(state["step"])
