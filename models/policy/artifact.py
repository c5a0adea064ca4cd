"""A reactive policy on disk: `policy.json` and `policy.onnx`. What does not match its description is refused.

It acts in the latents of one model and, if it was distilled, for one reward; both are written beside it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models import runtime
from worldpilot.types import FloatArray, ModelSpec

FORMAT = 1
DESCRIPTION, GRAPH = "policy.json", "policy.onnx"
_NEEDED = ("task", "model_id", "reward", "reward_id", "sha256", "provenance", "metrics")


@dataclass(frozen=True)
class OnnxPolicy:
    """A verified policy, ready to act."""

    path: Path
    description: Mapping[str, Any]
    spec: ModelSpec
    graph: ort.InferenceSession

    @classmethod
    def load(cls, path: Path | str, spec: ModelSpec, *, threads: int = 1) -> "OnnxPolicy":
        """Verify the description and the graph's hash, open it, run it once.

        Args:
            spec: of the model whose latents it will be given.

        Raises:
            ArtifactError: a file is missing or damaged, it acts in another model's latents, or the graph's output is
                not a finite action.
        """
        folder = Path(path)
        description = _read(folder)
        if description["model_id"] != spec.model_id:
            raise ArtifactError(
                f"{folder}: this policy acts in the latents of model {description['model_id']}, the model is "
                f"{spec.model_id}; distil it again"
            )
        policy = cls(folder, description, spec, runtime.session(folder / GRAPH, threads=threads))
        try:
            action = policy.act(np.zeros((spec.history, spec.latent_dim), np.float32))
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise ArtifactError(f"{folder}: the graph does not run on this model's latents ({error})") from error
        if action.shape != (spec.action.dim,) or not np.isfinite(action).all():
            raise ArtifactError(f"{folder}: an action must be finite, of shape ({spec.action.dim},), got {action}")
        return policy

    @property
    def reward_id(self) -> str:
        """Of the reward it was distilled for; empty if it imitates recorded episodes."""
        return self.description["reward_id"]

    def act(self, latents: FloatArray) -> FloatArray:
        """The history's latents, of shape (h, D), to a model-step action of shape (A,).

        Raises:
            InvalidInput: the latents are not finite.
        """
        return self.act_all(latents[None])[0]

    def act_all(self, latents: FloatArray) -> FloatArray:
        """The latents of N histories, of shape (N, h, D), to actions of shape (N, A).

        Raises:
            InvalidInput: the latents are not finite.
        """
        if not np.isfinite(latents).all():
            raise InvalidInput("policy: the latents are not finite; drop this observation and hold")
        actions: Any = self.graph.run(None, {"latents": np.ascontiguousarray(latents, np.float32)})[0]
        return actions


def write_description(folder: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the graph that lies in `folder`: what `load` will check, and where it comes from.

    Args:
        description: task, model_id, reward (a specification or None), reward_id, provenance, metrics.
    """
    complete = {"format": FORMAT, **description, "sha256": _sha256(folder / GRAPH)}
    _check(folder, complete)
    (folder / DESCRIPTION).write_text(json.dumps(complete, indent=2) + "\n")
    return complete


def _read(folder: Path) -> dict[str, Any]:
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        found = _sha256(folder / GRAPH)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder} is no policy ({error}); make one with `worldpilot distil`") from error
    _check(folder, description)
    if found != description["sha256"]:
        raise ArtifactError(
            f"{folder}: sha256 of {GRAPH} is {found[:12]}…, {DESCRIPTION} expects {description['sha256'][:12]}…; "
            "fetch or distil the policy again"
        )
    return description


def _check(folder: Path, description: Mapping[str, Any]) -> None:
    if description.get("format") != FORMAT:
        raise ArtifactError(f"{folder}: format {description.get('format')}, this version reads format {FORMAT}")
    if missing := [name for name in _NEEDED if name not in description]:
        raise ArtifactError(f"{folder}: {DESCRIPTION} lacks {', '.join(missing)}; distil the policy again")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
