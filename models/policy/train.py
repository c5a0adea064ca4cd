"""Train a reactive policy on examples: what was done after a history, by a planner or in recorded episodes.

The recipe for scarce data (arXiv 2509.14786): many epochs; a strong weight decay, found by doubling and halving until
both neighbours are worse on held-out episodes; the mean of members that differ in initialisation and data order.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from worldpilot.errors import InvalidInput
from worldpilot.models.data.episodes import Episode
from worldpilot.models.policy.networks import Policy, PolicyConfig, standardise
from worldpilot.types import ActionSpec, FloatArray

log = logging.getLogger(__name__)

_WEAKEST, _STRONGEST = 2.0**-10, 2.0**6  # weight decay is searched between them


@dataclass(frozen=True)
class Examples:
    """N histories and the action that followed each."""

    latents: FloatArray  # (N, h, D)
    actions: FloatArray  # (N, A), physical units
    episodes: npt.NDArray[np.int64]  # (N,), which episode each is from: they are held out whole

    def __len__(self) -> int:
        return len(self.actions)

    @staticmethod
    def join(parts: Sequence["Examples"]) -> "Examples":
        """All examples of several sets; the episodes of each are new ones."""
        offset, episodes = 0, []
        for part in parts:
            episodes.append(part.episodes + offset)
            offset = int(episodes[-1].max(initial=offset)) + 1
        latents, actions = ([getattr(part, name) for part in parts] for name in ("latents", "actions"))
        return Examples(np.concatenate(latents), np.concatenate(actions), np.concatenate(episodes))

    def take(self, chosen: npt.NDArray[Any]) -> "Examples":
        """The examples at these indices, or where this is true."""
        return Examples(self.latents[chosen], self.actions[chosen], self.episodes[chosen])

    def split(self, held_out: float, seed: int) -> tuple["Examples", "Examples"]:
        """Training and held-out examples; of two episodes or more at least one is on each side."""
        names = np.unique(self.episodes)
        if len(names) < 2:
            raise InvalidInput("policy: examples of at least two episodes are needed, to hold one out")
        count = min(max(round(held_out * len(names)), 1), len(names) - 1)
        held = np.isin(self.episodes, np.random.default_rng([seed, 7]).permutation(names)[:count])
        return self.take(~held), self.take(held)


@dataclass(frozen=True)
class PolicyTrainConfig:
    """How a policy is trained."""

    epochs: int = 40
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.1  # where the search begins
    search: bool = True  # for a better weight decay; False: this one
    held_out: float = 0.15  # share of the episodes
    members: int = 4
    hidden: int = 128
    blocks: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1 or self.learning_rate <= 0 or not 0 < self.held_out < 1:
            raise InvalidInput("policy: epochs and batch must be >= 1, learning_rate > 0, 0 < held_out < 1")
        if not _WEAKEST <= self.weight_decay <= _STRONGEST:
            raise InvalidInput(f"policy: weight_decay must lie in [{_WEAKEST}, {_STRONGEST}], got {self.weight_decay}")


def recorded(
    episode: Episode, encode: Callable[[npt.NDArray[Any]], FloatArray], spec: ActionSpec, history: int, name: int = 0
) -> Examples:
    """The examples of a recorded episode: at each control step with a whole history before and an action after it.

    Args:
        encode: observations of shape (B, ...) to latents of shape (B, D).
        history: h, model steps.
        name: of the episode, in `Examples.episodes`.
    """
    latents, k = encode(episode.observations), spec.block
    now = np.arange((history - 1) * k, len(episode) - k + 1)
    back = np.arange(history - 1, -1, -1) * k
    actions = episode.controls[now[:, None] + np.arange(k)].reshape(len(now), spec.dim)
    return Examples(latents[now[:, None] - back], actions, np.full(len(now), name))


def train_policy(examples: Examples, spec: ActionSpec, config: PolicyTrainConfig) -> tuple[Policy, dict[str, Any]]:
    """The policy that imitates the examples, and its figures on held-out episodes.

    Raises:
        InvalidInput: examples of fewer than two episodes.
    """
    train, held = examples.split(config.held_out, config.seed)
    fits: dict[float, tuple[float, Policy]] = {}

    def loss(weight_decay: float) -> float:
        if weight_decay not in fits:
            policy = _fit(train, spec, replace(config, weight_decay=weight_decay))
            fits[weight_decay] = error(policy, held, spec), policy
            log.info("policy: weight decay %.4g, held-out error %.5f", weight_decay, fits[weight_decay][0])
        return fits[weight_decay][0]

    best = config.weight_decay
    loss(best)
    while config.search:
        neighbours = [value for value in (best / 2, best * 2) if _WEAKEST <= value <= _STRONGEST]
        found = min((best, *neighbours), key=loss)
        if found == best:
            break
        best = found
    actions = standardise(torch.from_numpy(held.actions), *_bounds(spec)).numpy()
    variance = float(np.square(actions - actions.mean(0)).mean())
    metrics = {
        "held_out_error": fits[best][0],
        "r2": 1 - fits[best][0] / max(variance, 1e-12),
        "examples": len(train),
        "held_out_examples": len(held),
        "held_out_episodes": len(np.unique(held.episodes)),
        "weight_decay": best,
        "tried": {f"{value:g}": fits[value][0] for value in sorted(fits)},
        "train": asdict(config),
    }
    return fits[best][1], metrics


def error(policy: Policy, examples: Examples, spec: ActionSpec) -> float:
    """Mean squared error of the actions, normalised to [-1, 1]."""
    with torch.no_grad():
        done = policy(torch.from_numpy(examples.latents))
        return float((done - standardise(torch.from_numpy(examples.actions), *_bounds(spec))).square().mean())


def _fit(examples: Examples, spec: ActionSpec, config: PolicyTrainConfig) -> Policy:
    torch.manual_seed(config.seed)
    _, h, d = examples.latents.shape
    policy = Policy(PolicyConfig(d, h, spec.dim, config.members, config.hidden, config.blocks))
    latents = torch.from_numpy(np.ascontiguousarray(examples.latents))
    actions = standardise(torch.from_numpy(np.ascontiguousarray(examples.actions)), *_bounds(spec))
    matrices = [p for name, p in policy.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in policy.named_parameters() if name.endswith("bias")]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": biases, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, config.learning_rate)
    batches = -(-len(examples) // config.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.epochs * batches, 1e-5)
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.epochs):
        orders = torch.stack([torch.randperm(len(examples), generator=generator) for _ in range(config.members)])
        for rows in orders.split(config.batch, dim=1):  # (E, B): each member sees the examples in its own order
            loss = (policy.each(latents[rows]) - actions[rows]).square().mean() * config.members
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return policy.eval()


def _bounds(spec: ActionSpec) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(spec.action_low), torch.from_numpy(spec.action_high)
