"""From the checkpoints of dynamics and prior to an artifact whose latents are normalised states."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from worldpilot.errors import InvalidInput
from worldpilot.models.action_prior import train as action_prior
from worldpilot.models.artifact import Artifact, write_manifest
from worldpilot.models.dynamics import train as dynamics
from worldpilot.models.dynamics.networks import DiffusionDynamics, Dynamics, StepDynamics
from worldpilot.models.dynamics.train import FALL, DynamicsNets
from worldpilot.models.export import Predict, Propose, any_horizon, check_parity, libraries, trace
from worldpilot.types import ActionSpec

PROPOSALS = 64
BATCH = torch.export.Dim("batch", min=1, max=65536)


class _Encode(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, nets: DynamicsNets) -> None:
        super().__init__()
        self.register_buffer("mean", nets.state_mean)
        self.register_buffer("std", nets.state_std)

    def forward(self, observation: Tensor) -> Tensor:
        return (observation - self.mean) / self.std


class _PredictAll(nn.Module):
    """A predictor of all H states at once, actions in physical units."""

    low: Tensor
    high: Tensor

    def __init__(self, predictor: Dynamics, spec: ActionSpec) -> None:
        super().__init__()
        self.predictor = predictor
        self.register_buffer("low", torch.from_numpy(spec.action_low))
        self.register_buffer("high", torch.from_numpy(spec.action_high))

    def forward(self, latents: Tensor, actions: Tensor, noise: Tensor | None = None) -> Tensor:
        given = () if noise is None else (noise,)
        return self.predictor(latents, (actions - self.low) / (self.high - self.low) * 2 - 1, *given)


class _Read(nn.Module):
    def __init__(self, nets: DynamicsNets) -> None:
        super().__init__()
        self.nets = nets

    def forward(self, latents: Tensor) -> Tensor:
        return self.nets.read(latents)


def export_predictor(predictor: Dynamics, spec: ActionSpec, file: Path) -> None:
    """Write a predictor's graph, checked against torch: for any horizon if it goes step by step, else for its own.

    Raises:
        ArtifactError: the graph differs from torch.
    """
    generator = torch.Generator().manual_seed(0)
    horizon, d = predictor.scale.shape
    h, members = predictor.history, predictor.members
    latents = torch.randn(3, h, d, generator=generator)
    low, high = torch.from_numpy(spec.action_low), torch.from_numpy(spec.action_high)
    actions = low + (high - low) * (0.4 + 0.2 * torch.rand(3, h - 1 + horizon, spec.dim, generator=generator))
    inputs = {"latents": latents, "actions": actions}
    graph: ModelProto
    if isinstance(predictor, StepDynamics):
        module: nn.Module = Predict(predictor, spec).eval()
        graph = any_horizon(module, latents, actions, BATCH)
        checked = [{**inputs, "actions": actions[:, :h]}, {**inputs, "actions": actions.repeat(1, 2, 1)}, inputs]
    else:
        module, shapes = _PredictAll(predictor, spec).eval(), [{0: BATCH}, {0: BATCH}]
        if isinstance(predictor, DiffusionDynamics):
            inputs["noise"] = torch.randn(members, 3, horizon, d, generator=generator)
            shapes.append({1: BATCH})
        graph, checked = trace(module, inputs, ["predicted"], tuple(shapes)), [inputs]
    # With the weights, which the graph names as the network does, all that training further needs (adapt.py).
    onnx.helper.set_model_props(graph, {"scale": json.dumps(predictor.scale.tolist())})
    onnx.save(graph, file)
    for example in checked:
        check_parity(file, module, example)


def export(
    task: str,
    spec: ActionSpec,
    nets_folder: Path,
    prior_folder: Path,
    out: Path,
    commands: Sequence[str],
    data: str,
    sampler: str | None = None,
    sampler_steps: int | None = None,
) -> dict[str, Any]:
    """Write the artifact of a task to `out` and load it once; returns the manifest.

    Args:
        task: its name.
        spec: of the actions.
        nets_folder: checkpoints of `train dynamics`.
        prior_folder: checkpoints of `train action-prior`.
        out: the artifact's folder.
        commands: how it was made, for the manifest.
        data: one line about the data, for the manifest.
        sampler: of the prior, if not that of its training.
        sampler_steps: of the prior, if not those of its training.

    Raises:
        ArtifactError: a graph differs from torch.
        InvalidInput: a prior of other latents.
    """
    nets, denoiser = dynamics.load(nets_folder), action_prior.load(prior_folder, sampler, sampler_steps)
    metrics = json.loads((nets_folder / "metrics.json").read_text())
    prior_metrics = json.loads((prior_folder / "metrics.json").read_text())
    config, prior = nets.config, denoiser.config
    if (prior.latent_dim, prior.history, prior.goal_dim) != (config.latent_dim, config.history, 0):
        raise InvalidInput(f"{prior_folder} was not trained in the latents of {nets_folder}; train a prior in them")
    if prior.horizon > config.horizon and config.kind != "step":
        raise InvalidInput(f"the prior proposes {prior.horizon} steps, {nets_folder} predicts {config.horizon}")
    out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, config.history, config.latent_dim, generator=generator)
    noise = torch.randn(3, prior.horizon, prior.action_dim, generator=generator)
    unused = torch.zeros(0)
    graphs: dict[str, tuple[nn.Module, dict[str, Tensor], str]] = {
        "encoder": (_Encode(nets), {"observation": latents[:, 0]}, "latent"),
        "prior": (Propose(denoiser, spec, unused, unused), {"latents": latents, "noise": noise}, "actions"),
    }
    if nets.names:
        graphs["readout"] = (_Read(nets), {"latents": latents[:, 0]}, "signals")
    for name, (module, inputs, output) in graphs.items():
        onnx.save(trace(module.eval(), inputs, [output], tuple({0: BATCH} for _ in inputs)), out / f"{name}.onnx")
        check_parity(out / f"{name}.onnx", module, inputs)
    export_predictor(nets.predictor, spec, out / "predictor.onnx")
    manifest = {
        "task": task,
        "observation": {
            "kind": "state",
            "shape": [config.latent_dim],
            "dtype": "float32",
            "encoding": "proprioception",
            **nets.state,
        },
        "action": spec.to_dict(),
        "history": config.history,
        "horizon": prior.horizon,
        "latent_dim": config.latent_dim,
        "members": config.members,
        "proposals": PROPOSALS,
        "sampled": isinstance(nets.predictor, DiffusionDynamics),
        "signals": _signals(nets, metrics),
        "provenance": {
            "data_sha256": metrics["data_sha256"],
            "data": data,
            "commands": list(commands),
            "seed": metrics["train"]["seed"],
            "libraries": libraries(),
            "dynamics": metrics["model"],
            "prior": prior.to_dict(),
        },
        "metrics": _figures(metrics, prior_metrics),
    }
    written = write_manifest(out, manifest)
    Artifact.load(out)
    return written


def _signals(nets: DynamicsNets, metrics: dict[str, Any]) -> list[dict[str, Any]]:
    within = metrics["train"]["fall_within"]
    units = {**dict(zip(nets.state["names"], nets.state["units"], strict=True)), **metrics["units"], FALL: "1"}
    signals = []
    for name in nets.names:
        signal = {"name": name, "unit": units.get(name, "1"), "r2": metrics["r2"][name]}
        if name == FALL:
            signal["description"] = f"probability of a fall within the next {within:g} s"
        signals.append(signal)
    return signals


def _figures(metrics: dict[str, Any], prior_metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    n = metrics["episodes"]
    figures = {f"nmse_{h}": value for h, value in zip(metrics["horizons"], metrics["nmse"], strict=True)}
    figures |= {f"fall_auroc_{when}": value for when, value in metrics["fall_auroc"].items() if value is not None}
    figures["prior_loss"] = prior_metrics["held_out_flow_loss"]
    return {name: {"value": value, "n": n} for name, value in figures.items()}
