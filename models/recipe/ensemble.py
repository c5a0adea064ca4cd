"""Many members trained at once, each as if it were alone: other first weights, another order of the data.

The members are stacked in one set of tensors (`MemberLinear`), so that a step is a handful of batched products. Nothing
couples them: each has its own seeds, its own windows and its own gradient's norm, and what a member becomes does not
depend on who is trained beside it. So one call trains an ensemble, or the same recipe on several data sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from worldpilot.errors import InvalidInput
from worldpilot.models.data.windows import Frames
from worldpilot.models.dynamics.networks import Dynamics, DynamicsConfig, StepDynamics, dynamics
from worldpilot.models.world_model.train import resume, save_checkpoint
from worldpilot.types import ActionSpec

Indices = npt.NDArray[np.int64]
DRAWN = 64  # steps whose windows are drawn together
SHORTEST = 2  # model steps predicted before `Setting.short` is over


class Diverged(InvalidInput):
    """A training whose loss is not finite."""


@dataclass(frozen=True)
class Hyper:
    """What is searched for."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    steps: int = 2000  # of the optimiser

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.steps < 1:
            raise InvalidInput(f"recipe: learning rate > 0, weight decay >= 0, steps >= 1, got {self}")


@dataclass(frozen=True)
class Setting:
    """What is not."""

    batch: int = 64  # windows, per member
    rollout: int = 8  # model steps that are predicted open loop; `multi` predicts all H
    short: float = 0.6  # share of the steps, at the start, in which it is but 2

    def __post_init__(self) -> None:
        if min(self.batch, self.rollout) < 1 or not 0 <= self.short <= 1:
            raise InvalidInput(f"recipe: batch and rollout >= 1, short in [0, 1], got {self}")


@dataclass(frozen=True)
class Sequences:
    """F frames of states and the actions between them, and where in them windows begin."""

    latents: Tensor  # (F, D)
    actions: Tensor  # (F, A) in [-1, 1], the action that follows each frame
    first: Indices  # (W,), first frames of the windows
    stride: int  # frames of a model step

    @staticmethod
    def of(frames: Frames, latents: Tensor, spec: ActionSpec, model_steps: int) -> "Sequences":
        """The windows of recorded episodes that span `model_steps` model steps."""
        actions = torch.zeros(len(latents), spec.dim)
        known = np.arange(len(latents) - spec.block + 1)
        actions[known] = torch.from_numpy(frames.actions(known, 1, spec, np.zeros(len(known), np.int64))[:, 0])
        return Sequences(latents, actions, frames.windows(model_steps, spec.block), spec.block)

    def window(self, first: Indices, history: int, ahead: int) -> tuple[Tensor, Tensor]:
        """Latents (..., h+ahead, D) and actions (..., h-1+ahead, A) of windows that begin at the frames (...)."""
        index = torch.from_numpy(first[..., None] + np.arange(history + ahead) * self.stride)
        return self.latents[index], self.actions[index[..., :-1]]

    @property
    def everything(self) -> Indices:
        """All windows, as a member's `data`."""
        return np.arange(len(self.first))


@dataclass(frozen=True)
class Member:
    """One member: the seed of its first weights and of its order, and what it learns from."""

    seed: int
    data: Indices  # windows of the data, as indices into `Sequences.first`
    taught: Indices | None = None  # windows that a teacher has labelled, as indices into its sequences
    share: float = 0.0  # of each batch that is drawn from them


def untrained(config: DynamicsConfig, scale: Tensor, seeds: Sequence[int]) -> Dynamics:
    """Members with first weights of their own seeds, stacked; each is what it would be alone."""
    if config.kind == "diffusion":
        raise InvalidInput("recipe: the members of a diffusion are samples of one network; use the kind step or multi")
    alone = []
    for seed in seeds:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            alone.append(dynamics(replace(config, members=1)).state_dict())
    stacked = dynamics(replace(config, members=len(seeds)))
    names = [name for name, _ in stacked.named_parameters()]
    stacked.load_state_dict({name: torch.cat([one[name] for one in alone]) for name in names}, strict=False)
    stacked.scale.copy_(scale)
    return stacked


def fit(
    config: DynamicsConfig,
    scale: Tensor,
    sequences: Sequences,
    members: Sequence[Member],
    hyper: Hyper,
    setting: Setting = Setting(),
    *,
    teacher: Sequences | None = None,
    checkpoint: Path | None = None,
    every: int = 1000,
) -> Dynamics:
    """Train the members, all in the same steps.

    Args:
        config: sizes; its number of members is that of `members`.
        scale: std of the change after 1 to H model steps, of shape (H, D).
        sequences: the data.
        members: whom.
        hyper: learning rate (with warm-up and cosine), weight decay, steps.
        setting: batch and roll-out.
        teacher: sequences a teacher has imagined, see `distil`.
        checkpoint: file that is written every so many steps; called again, the training goes on from it.
        every: steps.

    Raises:
        InvalidInput: members that mix with and without a teacher, or a kind without members of their own.
        Diverged: the loss is not finite.
    """
    counts = {_taught(member, setting.batch) for member in members}
    if len(counts) != 1 or (counts != {0}) != (teacher is not None):
        raise InvalidInput("recipe: either all members learn from a teacher, with the same share, or none")
    taught = counts.pop()
    predictor = untrained(config, scale, [member.seed for member in members])
    stepwise = isinstance(predictor, StepDynamics)
    longest = min(setting.rollout, config.horizon) if stepwise else config.horizon
    optimiser = torch.optim.AdamW(predictor.parameters(), hyper.learning_rate, weight_decay=hyper.weight_decay)
    warm = torch.optim.lr_scheduler.LinearLR(optimiser, 0.01, 1.0, min(200, max(hyper.steps // 10, 1)))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, hyper.steps, hyper.learning_rate * 0.01)
    parts: dict[str, Any] = {"predictor": predictor, "optimiser": optimiser, "warm": warm, "cosine": cosine}
    rng = np.random.default_rng(0)  # the windows are drawn from the members' seeds and the step alone
    meta = {"config": predictor_meta(config, hyper, setting, members)}
    first = resume(checkpoint, parts, rng, meta) if checkpoint else 0
    parameters, drawn = list(predictor.parameters()), -1
    rows = rows_taught = np.empty(0, np.int64)
    bar = tqdm(range(first, hyper.steps), initial=first, total=hyper.steps, mininterval=5, disable=not checkpoint)
    for step in bar:
        if step // DRAWN != drawn:
            drawn = step // DRAWN
            rows = _draw(members, "data", drawn, setting.batch - taught)
            rows_taught = _draw(members, "taught", drawn, taught)
        ahead = min(longest, SHORTEST) if stepwise and step < setting.short * hyper.steps else longest
        window, actions = sequences.window(sequences.first[rows[:, step % DRAWN]], config.history, ahead)
        if teacher is not None:
            more = teacher.window(teacher.first[rows_taught[:, step % DRAWN]], config.history, ahead)
            window, actions = torch.cat([window, more[0]], 1), torch.cat([actions, more[1]], 1)
        loss, _ = predictor.loss(window, actions)
        if not torch.isfinite(loss):
            raise Diverged("recipe: the loss is not finite; lower the learning rate or check the data")
        optimiser.zero_grad(set_to_none=True)
        (len(members) * loss).backward()  # the sum over the members: each one's gradient is what it would be alone
        _clip(parameters, 1.0)
        optimiser.step()
        warm.step()
        cosine.step()
        if checkpoint and ((step + 1) % every == 0 or step + 1 == hyper.steps):
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(checkpoint, parts, rng, meta, step + 1)
    return predictor.eval()


def predictor_meta(config: DynamicsConfig, hyper: Hyper, setting: Setting, members: Sequence[Member]) -> dict[str, Any]:
    """What a checkpoint of `fit` must agree on."""
    who = [[member.seed, len(member.data), member.share] for member in members]
    return {**config.to_dict(), "members": who, **vars(hyper), **vars(setting)}


def members_of(predictor: Dynamics, which: Sequence[int], config: DynamicsConfig) -> Dynamics:
    """Some of the members, as a predictor of their own."""
    chosen = dynamics(replace(config, members=len(which)))
    names = {name for name, _ in predictor.named_parameters()}
    state = {name: part[list(which)] if name in names else part for name, part in predictor.state_dict().items()}
    chosen.load_state_dict(state)
    return chosen.eval()


def identity(losses: Sequence[float]) -> tuple[float, float]:
    """Squared bias and variance from the losses L(K) of ensembles of K = 1, 2, … members.

    For a squared error, and members that are drawn independently, L(K) = bias² + var / K exactly. Least squares.
    """
    k = np.arange(1, len(losses) + 1)
    if len(k) < 2:
        raise InvalidInput("ensemble: bias and variance need the losses of at least K = 1 and K = 2")
    bias, variance = np.linalg.lstsq(np.stack([np.ones(len(k)), 1 / k], 1), np.asarray(losses, float), rcond=None)[0]
    return float(bias), float(variance)


def asymptote(first: float, of_k: float, k: int) -> float:
    """The loss of infinitely many members, from that of one and that of K: (K L(K) - L(1)) / (K - 1)."""
    if k < 2:
        raise InvalidInput(f"ensemble: the asymptote needs K >= 2, got {k}")
    return (k * of_k - first) / (k - 1)


def _taught(member: Member, batch: int) -> int:
    """How many windows of a batch a teacher has labelled."""
    return 0 if member.taught is None else round(member.share * batch)


def _draw(members: Sequence[Member], which: str, chunk: int, count: int) -> Indices:
    """Windows of `DRAWN` steps, of shape (E, DRAWN, count), from the members' own seeds."""
    drawn = []
    for member in members:
        among: Indices | None = getattr(member, which)
        rng = np.random.default_rng([member.seed, chunk, which == "taught"])
        drawn.append(rng.choice(among, (DRAWN, count)) if among is not None else np.empty((DRAWN, 0), np.int64))
    return np.stack(drawn)


def _clip(parameters: Sequence[nn.Parameter], largest: float) -> None:
    """Clip each member's gradient to a norm of its own."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
    factor = (largest / (norm + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
