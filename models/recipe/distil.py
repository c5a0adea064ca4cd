"""A teacher's knowledge for a student: what an ensemble predicts where there are no data.

Windows of the data are changed a little, states and actions, and a teacher imagines what follows. These windows stand
beside the data in the student's batches. The teacher may be an ensemble, whose mean is learned by one member, or one
member of the student's own size (self-distillation).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldpilot.errors import InvalidInput
from worldpilot.models.dynamics.networks import Dynamics
from worldpilot.models.recipe.ensemble import Indices, Sequences

BATCH = 1024


@dataclass(frozen=True)
class Teaching:
    """How the teacher's windows are made and weighed."""

    copies: int = 16  # of each window of the data, each changed in another way
    state_noise: float = 0.3  # std of the states' change, in units of how much a model step changes them
    action_noise: float = 0.3  # std of the actions' change; actions lie in [-1, 1]
    share: float = 0.75  # of each batch of the student

    def __post_init__(self) -> None:
        if self.copies < 1 or min(self.state_noise, self.action_noise) < 0 or not 0 < self.share <= 1:
            raise InvalidInput(f"distil: copies >= 1, noise >= 0, share in (0, 1], got {self}")


def teach(
    teacher: Dynamics, sequences: Sequences, data: Indices, ahead: int, teaching: Teaching, seed: int
) -> Sequences:
    """Windows of h + `ahead` model steps that begin as the data do, nearly, and go on as the teacher's mean says.

    Args:
        teacher: its history is the student's.
        sequences: the data.
        data: which of its windows are changed, as indices into `sequences.first`.
        ahead: model steps that are imagined.
        seed: of the changes.
    """
    rng, h = np.random.default_rng([seed, 11]), teacher.history
    windows = []
    for copy in range(teaching.copies):
        for rows in np.array_split(sequences.first[data], -(-len(data) // BATCH)):
            latents, actions = sequences.window(rows, h, ahead)
            if copy:  # the first is as the data are
                latents = latents + teaching.state_noise * teacher.scale[0] * _normal(rng, len(rows), 1, latents)
                more = teaching.action_noise * _normal(rng, len(rows), actions.shape[1], actions)
                actions = (actions + more).clamp(-1, 1)
            windows.append((imagine(teacher, latents[:, :h], actions), actions))
    latents = torch.cat([latents for latents, _ in windows])
    actions = torch.cat([torch.nn.functional.pad(actions, (0, 0, 0, 1)) for _, actions in windows])
    count, length = latents.shape[:2]
    return Sequences(latents.flatten(0, 1), actions.flatten(0, 1), np.arange(count) * length, 1)


def imagine(teacher: Dynamics, latents: Tensor, actions: Tensor) -> Tensor:
    """Latents (B, h, D) and actions (B, h-1+R, A) to whole windows (B, h+R, D), the future by the members' mean."""
    with torch.no_grad():
        return torch.cat([latents, teacher(latents, actions).mean(0)], 1)


def join(parts: list[Sequences]) -> tuple[Sequences, list[Indices]]:
    """Several teachers' sequences as one, and which of its windows are each one's."""
    if len({part.stride for part in parts}) != 1:
        raise InvalidInput("distil: sequences of one stride can be joined, these differ")
    ends = np.cumsum([len(part.latents) for part in parts])
    first = np.concatenate([part.first + end - len(part.latents) for part, end in zip(parts, ends, strict=True)])
    windows = np.split(np.arange(len(first)), np.cumsum([len(part.first) for part in parts])[:-1])
    latents, actions = torch.cat([part.latents for part in parts]), torch.cat([part.actions for part in parts])
    return Sequences(latents, actions, first, parts[0].stride), windows


def kept(single: float, ensemble: float, student: float) -> float:
    """Share of what an ensemble gains over a single model that its student keeps."""
    return (single - student) / (single - ensemble) if single != ensemble else float("nan")


def _normal(rng: np.random.Generator, batch: int, steps: int, like: Tensor) -> Tensor:
    return torch.from_numpy(rng.standard_normal((batch, steps, like.shape[-1]), np.float32))
