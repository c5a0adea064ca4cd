"""Train a predictor of proprioceptive states from a store of state episodes.

Latents are normalised states: nothing is learned about how to see. What is learned is the predictor (networks.py) and,
where the data tell of falls (a signal `fallen`), the probability of a fall soon: a small network on latents, real and
imagined, so that it reads as well what a planner shows it. Signals are affine functions of the state.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from tqdm import tqdm

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.models.data.windows import Frames
from worldpilot.models.dynamics.networks import (
    SIZED,
    DiffusionDynamics,
    Dynamics,
    DynamicsConfig,
    FallHead,
    StepDynamics,
    dynamics,
)
from worldpilot.models.world_model.train import resume, save_checkpoint
from worldpilot.types import ActionSpec, FloatArray

CHECKPOINT = "model.pt"
FALLEN, FALL = "fallen", "fall_probability"  # the data's signal, and the readout that takes its place
FALL_WINDOWS = 256  # of a training step that the fall head learns from
HORIZONS = (1, 4, 8, 16)  # model steps at which errors are reported


@dataclass(frozen=True)
class DynamicsTrainConfig:
    """How a predictor is trained; steps are optimiser steps."""

    steps: int = 6000
    batch: int = 256  # windows, per member
    rollout: int = 8  # model steps that `step` predicts open loop in training; the others predict all H
    short: float = 0.6  # share of the steps, at the start, in which it predicts but 2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    fall_within: float = 0.4  # [s]: a fall so soon is one to be foreseen
    evaluate_every: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.rollout, self.evaluate_every) < 1 or self.fall_within <= 0:
            raise InvalidInput("dynamics: steps, batch, rollout, evaluate_every must be >= 1 and fall_within positive")
        if not 0 <= self.short <= 1:
            raise InvalidInput(f"dynamics: short is a share of the steps, in [0, 1], got {self.short}")


class DynamicsNets(nn.Module):
    """Everything that is trained or measured: predictor, fall head, the state's and the signals' scales.

    Args:
        config: sizes.
        state: the state's `names` and `units`, each of D strings.
        signals: names of the signals that are read, without the probability of a fall.
        falls: whether the data tell of falls.
    """

    state_mean: Tensor
    state_std: Tensor
    signal_weight: Tensor
    signal_bias: Tensor

    def __init__(
        self, config: DynamicsConfig, state: Mapping[str, list[str]], signals: tuple[str, ...], falls: bool
    ) -> None:
        super().__init__()
        self.config, self.state, self.signals = config, dict(state), signals
        self.predictor = dynamics(config)
        self.fall = FallHead(config.latent_dim) if falls else None
        self.register_buffer("state_mean", torch.zeros(config.latent_dim))
        self.register_buffer("state_std", torch.ones(config.latent_dim))
        self.register_buffer("signal_weight", torch.zeros(len(signals), config.latent_dim))
        self.register_buffer("signal_bias", torch.zeros(len(signals)))

    @property
    def names(self) -> tuple[str, ...]:
        """Of what `read` gives."""
        return self.signals if self.fall is None else (*self.signals, FALL)

    @property
    def meta(self) -> dict[str, Any]:
        """What a checkpoint must agree on to be loaded into these networks."""
        return {
            "config": self.config.to_dict(),
            "state": self.state,
            "signals": list(self.signals),
            "falls": self.fall is not None,
        }

    def encode(self, states: FloatArray) -> Tensor:
        """States of shape (..., D) to latents of the same shape."""
        return (torch.from_numpy(states).to(self.state_mean.device) - self.state_mean) / self.state_std

    def read(self, latents: Tensor) -> Tensor:
        """Latents of shape (..., D) to signals (..., S) in physical units, in the order of `names`."""
        signals = nn.functional.linear(latents, self.signal_weight, self.signal_bias)
        if self.fall is None:
            return signals
        return torch.cat([signals, self.fall.probability(latents).unsqueeze(-1)], -1)

    def imagine(self, latents: Tensor, actions: Tensor) -> Tensor:
        """The predictor, as at run time: a diffusion's noise is the same for all B. Latents (B, h, D) and actions
        (B, h-1+H, A) to (E, B, H, D)."""
        if not isinstance(self.predictor, DiffusionDynamics):
            return self.predictor(latents, actions)
        e, horizon, d = self.config.members, self.config.horizon, self.config.latent_dim
        noise = torch.from_numpy(np.random.default_rng(0).standard_normal((e, 1, horizon, d), np.float32))
        return self.predictor(latents, actions, noise.expand(-1, len(latents), -1, -1))


def train_dynamics(
    store: EpisodeStore,
    spec: ActionSpec,
    folder: Path,
    config: DynamicsTrainConfig,
    kind: str = "step",
    predictor: Dynamics | None = None,
    **sizes: int,
) -> DynamicsNets:
    """Train on the store's training episodes, with a checkpoint at every report; run again to resume.

    Args:
        store: episodes of states; its meta names them: `state`, with `names` and `units`.
        spec: of the actions.
        folder: of checkpoint, metrics and log.
        config: how.
        kind: of the predictor, see `networks.KINDS`.
        predictor: trained already, in this store's scales; only the probability of a fall is learned.
        sizes: of its `DynamicsConfig`, where they are to differ from `networks.SIZED`.

    Raises:
        InvalidInput: data that are no states with names, or a checkpoint of other sizes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    train_index, held_index = store.split()
    before = padding(kind, sizes, spec)
    frames, held = Frames.load(store, train_index, before), Frames.load(store, held_index, before)
    frames = frames.in_every_view(store.meta["state"]["names"])
    nets = scaled(store, frames, spec, config, kind, sizes)
    if predictor is not None:
        nets.predictor.load_state_dict(predictor.state_dict())
        nets.predictor.requires_grad_(False)
    latents = nets.encode(frames.observations)
    labels, known = fall_labels(frames, round(config.fall_within / spec.control_dt))
    h, block, members = nets.config.history, spec.block, nets.config.members
    stepwise = isinstance(nets.predictor, StepDynamics)
    longest = min(config.rollout, nets.config.horizon) if stepwise else nets.config.horizon
    windows = frames.windows(h - 1 + longest, block)
    rng = np.random.default_rng([config.seed, 5])
    optimiser = torch.optim.AdamW(nets.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    warm = torch.optim.lr_scheduler.LinearLR(optimiser, 0.01, 1.0, min(200, config.steps))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps, config.learning_rate * 0.01)
    parts = {"nets": nets, "optimiser": optimiser, "warm": warm, "cosine": cosine}
    first = resume(folder / CHECKPOINT, parts, rng, nets.meta)
    for step in (bar := tqdm(range(first, config.steps), initial=first, total=config.steps, desc=kind, mininterval=5)):
        ahead = min(longest, 2) if stepwise and step < config.short * config.steps else longest
        at = rng.choice(windows, (members, config.batch))
        index = at[..., None] + np.arange(h + ahead) * block
        actions = frames.actions(at.ravel(), h - 1 + ahead, spec, np.zeros(at.size, np.int64))
        window = latents[index]
        loss, imagined = nets.predictor.loss(window, torch.from_numpy(actions).unflatten(0, at.shape))
        if nets.fall is not None:
            after = index[:, :, h:].reshape(-1, ahead)
            future, imagined = window[:, :, h:].flatten(0, 1), imagined.detach().flatten(0, 1)
            for seen in (future, imagined):
                few = slice(min(len(seen), FALL_WINDOWS))
                loss = loss + _fall_loss(nets.fall, seen[few], labels[after[few]], known[after[few]])
        if not torch.isfinite(loss):
            raise InvalidInput("train: the loss is not finite; lower the learning rate or check the data")
        optimiser.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        nn.utils.clip_grad_norm_(nets.parameters(), 1.0)
        optimiser.step()
        warm.step()
        cosine.step()
        if (step + 1) % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.4f}")
        if (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps:
            figures = evaluate(nets.eval(), held, spec, config.fall_within)
            nets.train()
            tqdm.write(f"{kind} {step + 1}: " + json.dumps({n: figures[n] for n in ("nmse", "fall_auroc")}))
            metrics = {"data_sha256": store.sha256(), "action": spec.to_dict(), "units": store.meta.get("units", {})}
            metrics |= {"train": asdict(config), "model": nets.config.to_dict(), "step": step + 1, **figures}
            (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
            save_checkpoint(folder / CHECKPOINT, parts, rng, nets.meta, step + 1)
    return nets.eval()


def is_dynamics(folder: Path) -> bool:
    """Whether a checkpoint folder holds a predictor of states (and not a world model of images)."""
    return (folder / CHECKPOINT).is_file()


def load(folder: Path) -> DynamicsNets:
    """The trained networks of a checkpoint folder, in evaluation mode."""
    path = folder / CHECKPOINT
    if not path.is_file():
        raise InvalidInput(f"{path} is missing; run `worldpilot train dynamics` first")
    state = torch.load(path, map_location="cpu", weights_only=True)
    nets = DynamicsNets(DynamicsConfig(**state["config"]), state["state"], tuple(state["signals"]), state["falls"])
    nets.load_state_dict(state["nets"])
    return nets.eval()


@dataclass(frozen=True)
class Imagined:
    """W windows of held-out episodes: what was imagined of them, mean over the members, and what came."""

    windows: npt.NDArray[np.int64]  # (W,), first frames
    future: npt.NDArray[np.int64]  # (W, H), the frames that were to be predicted
    last: Tensor  # (W, D), the last known latent
    predicted: Tensor  # (W, H, D)
    spread: Tensor  # (W, H), RMS distance of the members from their mean
    truth: Tensor  # (W, H, D)


def imagine_held(nets: DynamicsNets, held: Frames, spec: ActionSpec, every: int = 7, batch: int = 512) -> Imagined:
    """Open-loop predictions for every so many-th window of `held`."""
    h, horizon, block = nets.config.history, nets.config.horizon, spec.block
    windows = held.windows(h - 1 + horizon, block)[::every]
    latents = nets.encode(held.observations)
    means, spreads = [], []
    for first in range(0, len(windows), batch):
        at = windows[first : first + batch]
        actions = held.actions(at, h - 1 + horizon, spec, np.zeros(len(at), np.int64))
        with torch.no_grad():
            members = nets.imagine(latents[at[:, None] + np.arange(h) * block], torch.from_numpy(actions))
        means.append(members.mean(0))
        spreads.append((members - means[-1]).square().mean((0, 3)).sqrt())
    future = windows[:, None] + (h + np.arange(horizon)) * block
    last = latents[windows + (h - 1) * block]
    return Imagined(windows, future, last, torch.cat(means), torch.cat(spreads), latents[future])


def evaluate(nets: DynamicsNets, held: Frames, spec: ActionSpec, fall_within: float) -> dict[str, Any]:
    """Open-loop errors by horizon, and how well signals and falls are read, on held-out episodes.

    `nmse` is relative to the latents' variance, `nmse_copy` that of the last known state taken for the future; `rmse`
    in physical units. AUROCs of falls to come are of real latents (`now`) and of those imagined so many model steps
    ahead; None where no fall, or nothing else, is among them (episodes end at a fall, windows of H steps before).
    """
    seen = imagine_held(nets, held, spec)
    variance = nets.encode(held.observations).var(0).mean()
    horizons = [h for h in HORIZONS if h <= nets.config.horizon]
    at = [h - 1 for h in horizons]
    nmse = (seen.predicted - seen.truth).square().mean((0, 2)) / variance
    copy = (seen.last.unsqueeze(1) - seen.truth).square().mean((0, 2)) / variance
    with torch.no_grad():
        read, imagined = nets.read(nets.encode(held.observations)), nets.read(seen.predicted)
    measured = torch.from_numpy(held.signals[:, [held.names.index(name) for name in nets.signals]])
    error = (imagined[:, at, : len(nets.signals)] - measured[seen.future][:, at]).square().mean(0).sqrt()
    r2 = 1 - (read[:, : len(nets.signals)] - measured).square().mean(0) / measured.var(0).clamp(min=1e-12)
    figures: dict[str, Any] = {
        "episodes": len(held.starts) - 1,
        "windows": len(seen.windows),
        "horizons": horizons,
        "nmse": [round(float(nmse[i]), 4) for i in at],
        "nmse_copy": [round(float(copy[i]), 4) for i in at],
        "rmse": {n: [round(float(x), 4) for x in error[:, i]] for i, n in enumerate(nets.signals)},
        "r2": {name: round(float(value), 6) for name, value in zip(nets.signals, r2, strict=True)},
        "fall_auroc": {},
    }
    if nets.fall is not None:
        labels, known = fall_labels(held, round(fall_within / spec.control_dt))
        known &= held.signals[:, held.names.index(FALLEN)] < 0.5
        sets = {"now": (read[:, -1], np.arange(len(labels)))}
        sets |= {str(h): (imagined[:, h - 1, -1], seen.future[:, h - 1]) for h in horizons}
        for name, (probability, frames) in sets.items():
            figures["fall_auroc"][name] = auroc(probability.numpy()[known[frames]], labels[frames][known[frames]])
        brier = float(np.square(read[:, -1].numpy() - labels)[known].mean())
        spread = float(labels[known].var())
        figures["r2"][FALL] = round(1 - brier / spread, 4) if spread else 0.0
    return figures


def fall_labels(frames: Frames, ahead: int) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """For every frame whether the robot has fallen or does so within `ahead` control steps (F,), and whether that is
    known: the end of an episode without a fall says nothing of what would have come."""
    labels, known = np.zeros(len(frames.observations), np.float32), np.ones(len(frames.observations), bool)
    if FALLEN not in frames.names:
        return labels, ~known
    fallen = frames.signals[:, frames.names.index(FALLEN)] > 0.5
    for start, end in zip(frames.starts[:-1], frames.starts[1:], strict=True):
        falls = np.flatnonzero(fallen[start:end])
        until = falls[0] if len(falls) else np.inf
        labels[start:end] = until - np.arange(end - start) <= ahead
        known[start:end] = (labels[start:end] > 0) | (np.arange(end - start) < end - start - ahead)
    return labels, known


def auroc(scores: FloatArray, labels: FloatArray) -> float | None:
    """How often a score of label 1 is above one of label 0; None without both."""
    positive = int(labels.sum())
    negative = len(labels) - positive
    if not positive or not negative:
        return None
    ranks = rankdata(scores)[labels > 0.5].sum()
    return round(float((ranks - positive * (positive + 1) / 2) / (positive * negative)), 4)


def padding(kind: str, sizes: Mapping[str, int], spec: ActionSpec) -> int:
    """Control steps by which an episode's first history reaches back before it, for `Frames.load`."""
    known = SIZED[kind].history if kind in SIZED else 1  # an unknown kind is refused by `scaled`
    return (sizes.get("history", known) - 1) * spec.block


def scaled(
    store: EpisodeStore,
    frames: Frames,
    spec: ActionSpec,
    config: DynamicsTrainConfig,
    kind: str,
    sizes: Mapping[str, int],
) -> DynamicsNets:
    """Networks of a kind and sizes, with the scales of the data.

    Raises:
        InvalidInput: data that are no states with names.
    """
    states, state = frames.observations, store.meta.get("state")
    if states.ndim != 2:
        raise InvalidInput(f"{store.path}: observations are {states.shape[1:]}, no states; train a world model on them")
    if not state or any(len(state.get(part, ())) != states.shape[1] for part in ("names", "units")):
        raise InvalidInput(f"{store.path}: dataset.json must name the {states.shape[1]} numbers of a state and units")
    if kind not in SIZED:
        raise UnknownName("kind of dynamics", kind, SIZED)
    nets_config = replace(SIZED[kind], latent_dim=states.shape[1], action_dim=spec.dim, **sizes)
    signals = tuple(name for name in frames.names if name != FALLEN)
    nets = DynamicsNets(nets_config, {p: list(state[p]) for p in ("names", "units")}, signals, FALLEN in frames.names)
    nets.state_mean.copy_(torch.from_numpy(states.mean(0, dtype=np.float64)))
    nets.state_std.copy_(torch.from_numpy(states.std(0, dtype=np.float64).clip(1e-3)))
    latents = nets.encode(states)
    columns = [frames.names.index(name) for name in signals]
    known = np.concatenate([latents.numpy(), np.ones((len(latents), 1))], 1)
    affine = torch.from_numpy(np.linalg.lstsq(known, frames.signals[:, columns].astype(np.float64), rcond=None)[0])
    nets.signal_weight.copy_(affine[:-1].T)
    nets.signal_bias.copy_(affine[-1])
    for i in range(nets_config.horizon):
        start = frames.windows(i + 1, spec.block)
        change = latents[start + (i + 1) * spec.block] - latents[start]
        nets.predictor.scale[i] = change.std(0).clamp(min=1e-3)
    if nets.fall is not None:
        labels, known = fall_labels(frames, round(config.fall_within / spec.control_dt))
        share = float(labels[known].mean()) if known.any() else 0.0
        nets.fall.log_weight.fill_(float(np.log(np.clip(1 / max(share, 1e-6) - 1, 1, 20))))
    return nets


def _fall_loss(head: FallHead, latents: Tensor, labels: FloatArray, known: npt.NDArray[np.bool_]) -> Tensor:
    """Binary cross-entropy over latents (B, R, D) whose labels (B, R) are known, falls weighted."""
    mask = torch.from_numpy(known)
    if not mask.any():
        return latents.new_zeros(())
    weight = head.log_weight.exp()
    truth = torch.from_numpy(labels)[mask]
    return nn.functional.binary_cross_entropy_with_logits(head(latents[mask]), truth, pos_weight=weight)
