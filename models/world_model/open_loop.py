"""Open-loop prediction from a network that predicts one model step."""

import torch
from torch import Tensor, nn


class OpenLoop(nn.Module):
    """E ensemble members that predict one model step, applied to their own predictions.

    Args:
        history: h, model steps a prediction is made from.
        members: E.
    """

    def __init__(self, history: int, members: int) -> None:
        super().__init__()
        self.history, self.members = history, members

    def step(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Latents of shape (E, B, h, D) and actions of shape (E, B, h, A) to the next latent, (E, B, D)."""
        raise NotImplementedError

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Open loop: latents (B, h, D) and actions (B, h-1+H, A) to predictions (E, B, H, D)."""
        return self.roll(
            latents.unsqueeze(0).expand(self.members, *latents.shape),
            actions.unsqueeze(0).expand(self.members, *actions.shape),
        )

    def roll(self, latents: Tensor, actions: Tensor) -> Tensor:
        """`forward` with inputs of their own for each member: (E, B, h, D) and (E, B, h-1+H, A)."""
        predicted = []
        for i in range(actions.shape[2] - self.history + 1):
            following = self.step(latents, actions[:, :, i : i + self.history])
            predicted.append(following)
            latents = torch.cat([latents[:, :, 1:], following.unsqueeze(2)], 2)
        return torch.stack(predicted, 2)
