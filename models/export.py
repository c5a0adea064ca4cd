"""From a world model's checkpoints to an artifact: ONNX graphs with units inside, checked against torch, the manifest.

Models of states are exported by `worldpilot.models.dynamics.export`, with the means of this module.
"""

import json
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto, helper, numpy_helper
from torch import Tensor, nn

from worldpilot.errors import ArtifactError
from worldpilot.models.action_prior import train as action_prior
from worldpilot.models.action_prior.networks import Denoiser
from worldpilot.models.artifact import Artifact, write_manifest
from worldpilot.models.world_model import train as world_model
from worldpilot.models.world_model.open_loop import OpenLoop
from worldpilot.models.world_model.train import WorldModelNets
from worldpilot.types import ActionSpec

OPSET = 18
TOLERANCE = 1e-3  # largest difference between a graph and torch, in latents, signals and actions
RELATIVE = 1e-4  # and of each number's size, which a roll-out from few data can bring far off
UNITS = {"yaw": "rad", "sin": "1", "cos": "1"}  # by the last word of a signal's name; metres otherwise


class _Encode(nn.Module):
    def __init__(self, nets: WorldModelNets) -> None:
        super().__init__()
        self.encoder = nets.encoder

    def forward(self, observation: Tensor) -> Tensor:
        return self.encoder(observation.permute(0, 3, 1, 2).float() / 255)


class Predict(nn.Module):
    """An open-loop predictor, actions in physical units."""

    low: Tensor
    high: Tensor

    def __init__(self, predictor: OpenLoop, spec: ActionSpec) -> None:
        super().__init__()
        self.predictor = predictor
        self.register_buffer("low", torch.from_numpy(spec.action_low))
        self.register_buffer("high", torch.from_numpy(spec.action_high))

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        return self.predictor(latents, self.normalise(actions))

    def normalise(self, actions: Tensor) -> Tensor:
        return (actions - self.low) / (self.high - self.low) * 2 - 1


class _PredictStep(nn.Module):
    """One step of `Predict`: the body of its loop."""

    def __init__(self, predict: Predict) -> None:
        super().__init__()
        self.predict = predict

    def forward(self, latents: Tensor, past: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each member's latents (E, B, h, D), past actions (B, h-1, A) and the action (B, A) now, to the two for the
        step after and what each member predicts, (E, B, D)."""
        actions = torch.cat([past, action.unsqueeze(1)], 1)
        members = self.predict.predictor.members
        spread = self.predict.normalise(actions).unsqueeze(0).expand(members, *actions.shape)
        predicted = self.predict.predictor.step(latents, spread)
        return torch.cat([latents[:, :, 1:], predicted.unsqueeze(2)], 2), actions[:, 1:], predicted


class _Read(nn.Module):
    def __init__(self, nets: WorldModelNets) -> None:
        super().__init__()
        self.readout, self.mean, self.std = nets.readout, nets.signal_mean, nets.signal_std

    def forward(self, latents: Tensor) -> Tensor:
        return self.readout(latents) * self.std + self.mean


class Propose(nn.Module):
    """The prior's sampler, actions and goals in physical units; a goal of signals of this mean and spread (S,)."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, denoiser: Denoiser, spec: ActionSpec, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.sampler = action_prior.Sampler(denoiser)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("low", torch.from_numpy(spec.action_low))
        self.register_buffer("high", torch.from_numpy(spec.action_high))

    def forward(
        self, latents: Tensor, noise: Tensor, goal: Tensor | None = None, goal_mask: Tensor | None = None
    ) -> Tensor:
        standardised = None if goal is None else (goal - self.mean) / self.std
        return self.low + (self.sampler(latents, noise, standardised, goal_mask) + 1) / 2 * (self.high - self.low)


class _Decode(nn.Module):
    def __init__(self, nets: WorldModelNets) -> None:
        super().__init__()
        self.decoder = nets.decoder

    def forward(self, latents: Tensor) -> Tensor:
        return (self.decoder(latents).permute(0, 2, 3, 1) * 255).round().to(torch.uint8)


def export(
    task: str, spec: ActionSpec, nets_folder: Path, prior_folder: Path, out: Path, commands: Sequence[str], data: str
) -> dict[str, Any]:
    """Write the artifact of a task to `out` and load it once; returns the manifest.

    Raises:
        ArtifactError: a graph differs from torch by more than `TOLERANCE`.
    """
    out.mkdir(parents=True, exist_ok=True)
    nets, denoiser = world_model.load(nets_folder), action_prior.load(prior_folder)
    metrics = json.loads((nets_folder / "metrics.json").read_text())
    prior_metrics = json.loads((prior_folder / "metrics.json").read_text())
    config, horizon, batch = nets.config, denoiser.config.horizon, torch.export.Dim("batch", min=1, max=65536)
    size, h, d, a = config.image_size, config.history, config.latent_dim, config.action_dim
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, size, size, 3), generator=generator, dtype=torch.uint8)
    latents = torch.randn(3, h, d, generator=generator)
    actions = torch.rand(3, h - 1 + horizon, a, generator=generator) * 0.4 - 0.2
    noise = torch.randn(3, horizon, a, generator=generator)
    wanted = {}
    if denoiser.config.goal_dim:
        mask = (torch.rand(3, denoiser.config.goal_dim, generator=generator) > 0.5).float()
        wanted = {"goal": nets.signal_mean + nets.signal_std * mask, "goal_mask": mask}
    graphs: dict[str, tuple[nn.Module, dict[str, Tensor], str]] = {
        "encoder": (_Encode(nets), {"observation": image}, "latent"),
        "predictor": (Predict(nets.predictor, spec), {"latents": latents, "actions": actions}, "predicted"),
        "prior": (
            Propose(denoiser, spec, nets.signal_mean, nets.signal_std),
            {"latents": latents, "noise": noise, **wanted},
            "actions",
        ),
        "decoder": (_Decode(nets), {"latents": latents[:, 0]}, "image"),
    }
    if nets.names:
        graphs["readout"] = (_Read(nets), {"latents": latents[:, 0]}, "signals")
    for name, (module, inputs, output) in graphs.items():
        if isinstance(module, Predict):
            graph = any_horizon(module.eval(), latents, actions, batch)
            checked = [{**inputs, "actions": actions[:, :h]}, {**inputs, "actions": actions.repeat(1, 2, 1)}, inputs]
        else:
            graph, checked = trace(module.eval(), inputs, [output], tuple({0: batch} for _ in inputs)), [inputs]
        onnx.save(graph, out / f"{name}.onnx")
        for example in checked:
            check_parity(out / f"{name}.onnx", module, example)
    r2 = metrics["r2"]
    manifest = {
        "task": task,
        "observation": {"kind": "image", "shape": [size, size, 3], "dtype": "uint8", "encoding": "rgb8"},
        "action": spec.to_dict(),
        "history": h,
        "horizon": horizon,
        "latent_dim": d,
        "members": config.members,
        "proposals": 32,
        "goal_conditioned": bool(wanted),
        "signals": _signals(nets.names, r2, metrics.get("units", {})),
        "provenance": {
            "data_sha256": metrics["data_sha256"],
            "data": data,
            "commands": list(commands),
            "seed": metrics["train"]["seed"],
            "libraries": libraries(),
        },
        "metrics": {
            **{f"r2_{name}": {"value": value, "n": metrics["episodes"]} for name, value in r2.items()},
            **{f"r2_linear_{n}": {"value": v, "n": metrics["episodes"]} for n, v in metrics["r2_linear"].items()},
            "open_loop_nmse_last": {"value": metrics["open_loop_nmse"][-1], "n": metrics["episodes"]},
            "effective_rank": {"value": metrics["effective_rank"], "n": metrics["episodes"]},
            "prior_flow_loss": {"value": prior_metrics["held_out_flow_loss"], "n": prior_metrics["episodes"]},
        },
    }
    written = write_manifest(out, manifest)
    Artifact.load(out)
    return written


def libraries() -> dict[str, str]:
    """What made the graphs, with versions, for the manifest."""
    return {name: version(name) for name in ("torch", "diffusers", "onnx", "pybullet") if find_spec(name)}


def trace(module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], shapes: tuple[Any, ...]) -> ModelProto:
    """The module as a graph, `shapes` saying which sizes of each input vary."""
    program = torch.onnx.export(
        module,
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=shapes,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    _forget_sources(model.graph)
    for function in model.functions:
        _forget_sources(function)
    return model


def _forget_sources(graph: Any) -> None:
    """Leave out which lines of which files on this machine a graph was traced from."""
    for part in (graph, *graph.node, *graph.value_info, *getattr(graph, "input", ()), *getattr(graph, "output", ())):
        for field in ("doc_string", "metadata_props"):
            if not isinstance(part, str):
                part.ClearField(field)


def any_horizon(predict: Predict, latents: Tensor, actions: Tensor, batch: Any) -> ModelProto:
    """`predict` for any number of steps: one step, traced, is the body of a Scan over the actions.

    A loop in Python would be unrolled when it is traced, and the graph have one horizon for ever.
    """
    h, members = predict.predictor.history, predict.predictor.members
    first = {
        "z": latents.unsqueeze(0).repeat(members, 1, 1, 1),
        "past": actions[:, : h - 1],
        "action": actions[:, h - 1],
    }
    step = trace(
        _PredictStep(predict), first, ["next_z", "next_past", "following"], ({1: batch}, {0: batch}, {0: batch})
    )
    body = step.graph
    constants = {
        "before": np.array([0]), "now": np.array([h - 1]), "end": np.array([np.iinfo(np.int64).max]),
        "time": np.array([1]), "front": np.array([0]), "copies": np.array([members, 1, 1, 1]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Unsqueeze", ["latents", "front"], ["one"]),
        helper.make_node("Tile", ["one", "copies"], ["each"]),
        helper.make_node("Slice", ["actions", "before", "now", "time"], ["past_actions"]),
        helper.make_node("Slice", ["actions", "now", "end", "time"], ["future_actions"]),
        helper.make_node(
            "Scan",
            ["each", "past_actions", "future_actions"],
            ["last_z", "last_past", "predicted"],
            body=body,
            num_scan_inputs=1,
            scan_input_axes=[1],
            scan_output_axes=[2],
        ),
    ]
    kind, d, a = onnx.TensorProto.FLOAT, latents.shape[2], actions.shape[2]
    graph = helper.make_graph(
        nodes,
        "predictor",
        [
            helper.make_tensor_value_info("latents", kind, ["batch", h, d]),
            helper.make_tensor_value_info("actions", kind, ["batch", "steps", a]),
        ],
        [helper.make_tensor_value_info("predicted", kind, [members, "batch", "horizon", d])],
        [numpy_helper.from_array(value.astype(np.int64), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=step.opset_import, functions=step.functions)
    model.ir_version = step.ir_version
    onnx.checker.check_model(model, full_check=True)
    return model


def _signals(names: Sequence[str], r2: dict[str, float], units: dict[str, str]) -> list[dict[str, Any]]:
    signals: list[dict[str, Any]] = []
    for name in names:
        unit = units.get(name) or UNITS.get(name.rsplit("_", 1)[-1], "m")
        signals.append({"name": name, "unit": unit, "r2": r2[name]})
    for name in names:
        if name.endswith("yaw_sin"):
            angle = name.removesuffix("_sin")
            pair = [name, f"{angle}_cos"]
            signals.append({"name": angle, "unit": "rad", "r2": min(r2[n] for n in pair), "derived": {"atan2": pair}})
    return signals


def check_parity(file: Path, module: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Run the graph on one and on three of the inputs (B = 3).

    Raises:
        ArtifactError: what comes out is not what `module` gives, to within `TOLERANCE` and `RELATIVE`.
    """
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        part = {  # a predictor's noise has its members before B
            name: value.narrow(value.dim() - 3 if name == "noise" else 0, 0, count) for name, value in inputs.items()
        }
        with torch.no_grad():
            expected = module(*part.values()).numpy().astype(np.float64)
        got = np.asarray(
            session.run(None, {name: value.contiguous().numpy() for name, value in part.items()})[0], np.float64
        )
        limit = 1.0 if file.stem == "decoder" else TOLERANCE  # one grey level of rounding
        if got.shape != expected.shape:
            raise ArtifactError(f"{file.name}: gives {got.shape}, torch {expected.shape}")
        if not np.allclose(got, expected, rtol=RELATIVE, atol=limit):
            raise ArtifactError(f"{file.name}: differs from torch by {np.abs(got - expected).max():.2e} > {limit}")
