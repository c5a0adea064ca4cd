"""From a trained policy to an ONNX graph with units inside, checked against torch, and its description."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from worldpilot.errors import ArtifactError
from worldpilot.models.export import TOLERANCE, trace
from worldpilot.models.policy.artifact import GRAPH, OnnxPolicy, write_description
from worldpilot.models.policy.networks import Physical, Policy
from worldpilot.types import ModelSpec


def export_policy(policy: Policy, spec: ModelSpec, folder: Path, description: Mapping[str, Any]) -> OnnxPolicy:
    """Write the policy to `folder` and load it from there.

    Args:
        spec: of the model in whose latents it acts.
        description: reward (a specification or None), reward_id, provenance, metrics.

    Raises:
        ArtifactError: the graph differs from torch by more than `TOLERANCE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    action = spec.action
    module = Physical(policy, torch.from_numpy(action.action_low), torch.from_numpy(action.action_high)).eval()
    latents = torch.randn(3, spec.history, spec.latent_dim, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch", min=1, max=65536)
    onnx.save(trace(module, {"latents": latents}, ["actions"], ({0: batch},)), folder / GRAPH)
    write_description(folder, {"task": spec.task, "model_id": spec.model_id, **description})
    exported = OnnxPolicy.load(folder, spec)
    with torch.no_grad():
        expected = module(latents).numpy()
    got = exported.act_all(latents.numpy())
    if np.abs(got - expected).max() > TOLERANCE:
        raise ArtifactError(f"{folder}: the graph differs from torch by {np.abs(got - expected).max():.2e}")
    return exported
