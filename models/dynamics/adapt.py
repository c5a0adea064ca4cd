"""Fine-tune the dynamics of an artifact to a robot that has changed; encoder, readout and prior stay (2410.05364, 4.3).

What is needed for that lies in the artifact itself: the predictor's graph names its weights as the network does, so
no checkpoint has to travel with a robot.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models.artifact import Artifact, write_manifest
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.models.data.windows import Frames
from worldpilot.models.dynamics.export import export_predictor
from worldpilot.models.dynamics.networks import DiffusionDynamics, Dynamics, DynamicsConfig, StepDynamics, dynamics
from worldpilot.types import ActionSpec

HORIZONS = (1, 4, 8, 16)  # model steps at which errors are reported

_WHEN = ("before", "after")
_MADE_ANEW = ("format", "created", "model_id", "graphs", "provenance", "metrics", "thresholds", "certificate")


@dataclass(frozen=True)
class AdaptConfig:
    """How dynamics are fine-tuned; steps are optimiser steps."""

    steps: int = 1500
    batch: int = 256  # windows, per member
    rollout: int = 8  # model steps of open-loop prediction, for predictors of single steps
    learning_rate: float = 5e-4
    weight_decay: float = 1e-3
    held_out: float = 0.2  # share of the episodes; the weights that do best on them are kept
    evaluate_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.rollout, self.evaluate_every) < 1:
            raise InvalidInput("adapt: steps, batch, rollout, evaluate_every must be at least 1")
        if self.learning_rate <= 0 or not 0 < self.held_out < 1:
            raise InvalidInput("adapt: learning_rate must be positive and 0 < held_out < 1")


def adapt(
    source: Path, store: EpisodeStore, out: Path, config: AdaptConfig, *, data: str = "", command: str = ""
) -> dict[str, Any]:
    """Write to `out` the artifact in `source` with dynamics fine-tuned on the episodes of `store`; verified on load.

    Args:
        data: one line about the episodes, for the manifest.
        command: how it was made, for the manifest.

    Returns:
        The new manifest. Its thresholds are gone: they were of the old model.

    Raises:
        ArtifactError: the source does not verify, or its predictor is not of `worldpilot train dynamics`.
        InvalidInput: the episodes are of other states or controls, too few or too short.
    """
    if out.resolve() == source.resolve():
        raise InvalidInput(f"adapt: {out} is the artifact that is adapted; write to another folder")
    artifact = Artifact.load(source)
    _check_data(artifact, store)
    predictor = load_predictor(artifact)
    before = (artifact.spec.history - 1) * artifact.spec.action.block
    train, held = (Frames.load(store, index, before) for index in store.split(config.held_out, config.seed))
    figures = fine_tune(predictor, artifact, train, held, config)
    out.mkdir(parents=True, exist_ok=True)
    for name, graph in artifact.manifest["graphs"].items():
        if name != "predictor":
            shutil.copy(source / graph["file"], out / graph["file"])
    export_predictor(predictor, artifact.spec.action, out / "predictor.onnx")
    manifest = {name: value for name, value in artifact.manifest.items() if name not in _MADE_ANEW}
    before = artifact.manifest["provenance"]
    manifest["provenance"] = {
        **before,
        "data_sha256": store.sha256(),
        "data": data or str(store.path.name),
        "commands": [*before["commands"], command] if command else before["commands"],
        "seed": config.seed,
        "adapted_from": {"model_id": artifact.spec.model_id, "data_sha256": before["data_sha256"]},
        "adaptation": asdict(config),
    }
    n = len(held.starts) - 1
    errors = {f"adapted_nmse_{h}_{when}": value for when in _WHEN for h, value in figures[when].items()}
    metrics = {name: {"value": value, "n": n} for name, value in errors.items()}
    manifest["metrics"] = {**artifact.manifest["metrics"], **metrics}
    written = write_manifest(out, manifest)
    Artifact.load(out)
    return written


def load_predictor(artifact: Artifact) -> Dynamics:
    """The predictor of an artifact as a network that can be trained, from its graph.

    Raises:
        ArtifactError: it was not exported from `worldpilot train dynamics`, or by another version.
    """
    where, sizes = artifact.path.name, artifact.manifest["provenance"].get("dynamics")
    graph = onnx.load(artifact.path / artifact.manifest["graphs"]["predictor"]["file"])
    told = {entry.key: entry.value for entry in graph.metadata_props}
    if sizes is None or "scale" not in told:
        raise ArtifactError(f"{where}: only a predictor of `worldpilot train dynamics` can be adapted")
    predictor = dynamics(DynamicsConfig(**sizes))
    predictor.scale.copy_(torch.tensor(json.loads(told["scale"])))
    weights = {weight.name: weight for weight in constants(graph.graph)}
    with torch.no_grad():
        for name, parameter in predictor.named_parameters():
            found = [weight for key, weight in weights.items() if key.endswith(f"predictor.{name}")]
            if len(found) != 1 or list(found[0].dims) != list(parameter.shape):
                raise ArtifactError(f"{where}: the predictor's graph lacks the weights {name}; export it again")
            parameter.copy_(torch.from_numpy(numpy_helper.to_array(found[0]).copy()))
    return predictor.eval()


def constants(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """The constants of a graph and of the bodies of its loops."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from constants(attribute.g)


def fine_tune(
    predictor: Dynamics, artifact: Artifact, train: Frames, held: Frames, config: AdaptConfig
) -> dict[str, dict[str, float]]:
    """Train `predictor` further in place and keep what is best on the held-out episodes, which may be what it was.

    Returns:
        "before" and "after" -> horizon -> nmse: open-loop squared error relative to the latents' variance.
    """
    spec, h = artifact.spec.action, artifact.spec.history
    ahead = min(config.rollout, artifact.spec.horizon) if isinstance(predictor, StepDynamics) else artifact.spec.horizon
    latents = torch.from_numpy(artifact.world_model.encode(train.observations))
    windows = train.windows(h - 1 + ahead, spec.block)
    rng = np.random.default_rng([config.seed, 8])
    torch.manual_seed(config.seed)

    def errors() -> dict[str, float]:
        return open_loop(predictor, artifact, held)

    best = before = errors()
    kept = {name: value.clone() for name, value in predictor.state_dict().items()}
    optimiser = torch.optim.AdamW(predictor.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps, config.learning_rate * 0.01)
    for step in range(config.steps):
        at = rng.choice(windows, (artifact.spec.members, config.batch))
        actions = train.actions(at.ravel(), h - 1 + ahead, spec, np.zeros(at.size, np.int64))
        window = latents[at[..., None] + np.arange(h + ahead) * spec.block]
        loss, _ = predictor.loss(window, torch.from_numpy(actions).unflatten(0, at.shape))
        if not torch.isfinite(loss):
            raise InvalidInput("adapt: the loss is not finite; lower the learning rate or check the data")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(predictor.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % config.evaluate_every == 0 or step + 1 == config.steps:
            now = errors()
            if sum(now.values()) < sum(best.values()):
                best, kept = now, {name: value.clone() for name, value in predictor.state_dict().items()}
    predictor.load_state_dict(kept)
    return {"before": before, "after": best}


def open_loop(predictor: Dynamics, artifact: Artifact, held: Frames, count: int = 1000) -> dict[str, float]:
    """Horizon -> nmse of the members' mean over about `count` windows of `held`, evenly spaced."""
    spec, h, horizon = artifact.spec.action, artifact.spec.history, artifact.spec.horizon
    windows = held.windows(h - 1 + horizon, spec.block)
    windows = windows[:: -(-len(windows) // count)]
    latents = torch.from_numpy(artifact.world_model.encode(held.observations))
    actions = held.actions(windows, h - 1 + horizon, spec, np.zeros(len(windows), np.int64))
    index = windows[:, None] + np.arange(h + horizon) * spec.block
    past = latents[index[:, :h]]
    given: tuple[torch.Tensor, ...] = (past, torch.from_numpy(actions))
    if isinstance(predictor, DiffusionDynamics):
        shape = (predictor.members, 1, horizon, past.shape[-1])
        drawn = np.random.default_rng(0).standard_normal(shape, np.float32)  # as at run time
        given = (*given, torch.from_numpy(drawn).expand(-1, len(past), -1, -1))
    with torch.no_grad():
        imagined = predictor(*given).mean(0)
    error = (imagined - latents[index[:, h:]]).square().mean((0, 2)) / latents.var(0).mean()
    return {str(steps): float(error[steps - 1]) for steps in HORIZONS if steps <= horizon}


def _check_data(artifact: Artifact, store: EpisodeStore) -> None:
    spec = artifact.spec
    if spec.observation != "state":
        raise InvalidInput(f"adapt: {artifact.path.name} sees {spec.observation}s; only models of states are adapted")
    names = tuple(store.meta.get("state", {}).get("names", ()))
    if names != spec.observation_names:
        raise InvalidInput(
            f"{store.path}: its states are ({', '.join(names)}), the model's ({', '.join(spec.observation_names)})"
        )
    action = store.meta.get("action")
    if action is None or ActionSpec.from_dict(action) != spec.action:
        raise InvalidInput(f"{store.path}: its controls are not the model's; record with the robot's specification")
