"""A real artifact of the Push-T shape, small enough to build in a second: random weights, real graphs, real manifest.

Latents are fixed random projections of the image, prediction adds a linear effect of the actions, signals are linear:
nothing is learned, every contract holds, and the same seed gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from worldpilot.calibration.thresholds import Thresholds
from worldpilot.models.artifact import update_manifest, write_manifest

SIZE, D, HISTORY, HORIZON, MEMBERS, BLOCK, U = 64, 16, 2, 5, 2, 5, 2
A = BLOCK * U
Tensors = Mapping[str, tuple[int, Sequence[int | str]]]  # name -> element type, shape
SIGNALS = [
    {"name": "pusher_x", "unit": "m", "r2": 0.9, "description": "pusher, world frame"},
    {"name": "pusher_y", "unit": "m", "r2": 0.9, "description": "pusher, world frame"},
    {"name": "block_x", "unit": "m", "r2": 0.9, "description": "block, world frame"},
    {"name": "block_y", "unit": "m", "r2": 0.9, "description": "block, world frame"},
    {"name": "block_yaw_sin", "unit": "1", "r2": 0.8, "description": "sine of the block's yaw"},
    {"name": "block_yaw_cos", "unit": "1", "r2": 0.8, "description": "cosine of the block's yaw"},
    {
        "name": "block_yaw",
        "unit": "rad",
        "r2": 0.8,
        "description": "block's yaw",
        "derived": {"atan2": ["block_yaw_sin", "block_yaw_cos"]},
    },
]


def build(folder: Path, *, seed: int = 0, decoder: bool = True, horizon: int | None = None) -> Path:
    """Write a whole artifact into `folder`; with `horizon` the predictor takes exactly that many steps."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    graphs = {
        "encoder": encoder(rng),
        "predictor": predictor(rng, horizon),
        "readout": readout(rng),
        "prior": prior(rng),
    }
    if decoder:
        graphs["decoder"] = _decoder(rng)
    for name, graph in graphs.items():
        onnx.save(graph, str(folder / f"{name}.onnx"))
    written = write_manifest(folder, manifest())
    thresholds = Thresholds(
        model_id=written["model_id"],
        behaviours=("expert",),
        alpha=0.05,
        episodes=100,
        scales={"one_step": 1.0, "h_step": 1.0, "disagreement": 1.0},
        limits={"surprise": 50.0, "drift": 20.0},
        quantiles=tuple(np.geomspace(0.1, 10.0, 63).tolist()),
    )
    update_manifest(folder, lambda content: content.update(thresholds=thresholds.to_dict()))
    return folder


def manifest() -> dict[str, Any]:
    """What `write_manifest` is given for these graphs."""
    return {
        "task": "push_t",
        "created": "2025-01-01",
        "description": "untrained, for tests",
        "observation": {"kind": "image", "shape": [SIZE, SIZE, 3], "dtype": "uint8", "encoding": "rgb8"},
        "action": {
            "names": ["vx", "vy"],
            "units": ["m/s", "m/s"],
            "low": [-0.25, -0.25],
            "high": [0.25, 0.25],
            "max_rate": [5.0, 5.0],
            "control_dt": 0.1,
            "block": BLOCK,
        },
        "history": HISTORY,
        "horizon": HORIZON,
        "latent_dim": D,
        "members": MEMBERS,
        "proposals": 16,
        "signals": SIGNALS,
        "provenance": {"data_sha256": "none", "data": "no data", "commands": ["tests"], "seed": 0},
        "metrics": {"block_x_r2": {"value": 0.9, "n": 10, "ci": [0.8, 1.0]}},
    }


def encoder(rng: np.random.Generator, size: int = SIZE, name: str = "observation") -> onnx.ModelProto:
    cells = 3 * (size // 8) ** 2
    nodes = [
        helper.make_node("Cast", [name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["pooled"], ["cells"], axis=1),
        helper.make_node("Gemm", ["cells", "w", "b"], ["latent"]),
    ]
    weight = rng.normal(size=(cells, D)) / (32.0 * np.sqrt(cells))
    weights = {"w": weight, "b": -128.0 * weight.sum(axis=0)}
    return _graph(
        nodes, {name: (TensorProto.UINT8, ["B", size, size, 3])}, {"latent": (TensorProto.FLOAT, ["B", D])}, weights
    )


def predictor(rng: np.random.Generator, horizon: int | None = None, members: int = MEMBERS) -> onnx.ModelProto:
    """The newest latent plus the running sum of a linear effect of each action; members differ in that effect."""
    nodes = [
        helper.make_node("Slice", ["actions", "planned", "end", "one"], ["future"]),
        helper.make_node("Slice", ["latents", "newest", "end", "one"], ["now"]),
        helper.make_node("CumSum", ["future", "axis"], ["travel"]),
    ]
    weights: dict[str, Any] = {
        "planned": np.array([HISTORY - 1]),
        "newest": np.array([HISTORY - 1]),
        "end": np.array([np.iinfo(np.int64).max]),
        "one": np.array([1]),
        "axis": np.array(1),
        "first": np.array([0]),
    }
    shared = rng.normal(size=(A, D)) * 0.05
    for e in range(members):
        weights[f"w{e}"] = shared + rng.normal(size=(A, D)) * 0.01
        nodes += [
            helper.make_node("MatMul", ["travel", f"w{e}"], [f"effect{e}"]),
            helper.make_node("Add", ["now", f"effect{e}"], [f"next{e}"]),
            helper.make_node("Unsqueeze", [f"next{e}", "first"], [f"member{e}"]),
        ]
    nodes.append(helper.make_node("Concat", [f"member{e}" for e in range(members)], ["predicted"], axis=0))
    steps: int | str = "T" if horizon is None else HISTORY - 1 + horizon
    inputs = {"latents": (TensorProto.FLOAT, ["B", HISTORY, D]), "actions": (TensorProto.FLOAT, ["B", steps, A])}
    return _graph(nodes, inputs, {"predicted": (TensorProto.FLOAT, [members, "B", horizon or "H", D])}, weights)


def readout(rng: np.random.Generator) -> onnx.ModelProto:
    read = sum("derived" not in signal for signal in SIGNALS)
    weights = {"w": rng.normal(size=(D, read)) * 0.3, "b": np.zeros(read)}
    nodes = [helper.make_node("Gemm", ["latents", "w", "b"], ["signals"])]
    return _graph(
        nodes, {"latents": (TensorProto.FLOAT, ["B", D])}, {"signals": (TensorProto.FLOAT, ["B", read])}, weights
    )


def prior(rng: np.random.Generator) -> onnx.ModelProto:
    """Noise, shifted by the history, squashed to the bounds."""
    nodes = [
        helper.make_node("Flatten", ["latents"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["offset"]),
        helper.make_node("Unsqueeze", ["offset", "axis"], ["shift"]),
        helper.make_node("Add", ["noise", "shift"], ["raw"]),
        helper.make_node("Tanh", ["raw"], ["unit"]),
        helper.make_node("Mul", ["unit", "bound"], ["actions"]),
    ]
    weights = {"w": rng.normal(size=(HISTORY * D, A)) * 0.1, "axis": np.array([1]), "bound": np.array(0.25)}
    plan = (TensorProto.FLOAT, ["B", HORIZON, A])
    return _graph(nodes, {"latents": (TensorProto.FLOAT, ["B", HISTORY, D]), "noise": plan}, {"actions": plan}, weights)


def _decoder(rng: np.random.Generator) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gemm", ["latents", "w", "b"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["unit"]),
        helper.make_node("Mul", ["unit", "white"], ["grey"]),
        helper.make_node("Reshape", ["grey", "coarse"], ["cells"]),
        helper.make_node("Tile", ["cells", "repeats"], ["tiled"]),
        helper.make_node("Reshape", ["tiled", "fine"], ["pixels"]),
        helper.make_node("Cast", ["pixels"], ["image"], to=TensorProto.UINT8),
    ]
    cells = SIZE // 8
    weights = {
        "w": rng.normal(size=(D, cells * cells * 3)),
        "b": np.zeros(cells * cells * 3),
        "white": np.array(255.0),
        "coarse": np.array([-1, cells, 1, cells, 1, 3]),
        "repeats": np.array([1, 1, 8, 1, 8, 1]),
        "fine": np.array([-1, SIZE, SIZE, 3]),
    }
    return _graph(
        nodes,
        {"latents": (TensorProto.FLOAT, ["B", D])},
        {"image": (TensorProto.UINT8, ["B", SIZE, SIZE, 3])},
        weights,
    )


def _graph(nodes: list[Any], inputs: Tensors, outputs: Tensors, weights: dict[str, Any]) -> onnx.ModelProto:
    def infos(tensors: Tensors) -> list[Any]:
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in tensors.items()]

    def plain(array: Any) -> Any:
        return np.asarray(array, np.int64 if np.asarray(array).dtype.kind == "i" else np.float32)

    constants = [numpy_helper.from_array(plain(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "tiny", infos(inputs), infos(outputs), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
