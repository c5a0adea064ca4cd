"""An artifact of a legged robot's shape, built in a second: nothing is learned, every contract holds.

The latent is the state itself; prediction is the newest latent plus a linear effect of the actions; signals are the
state's components, and the probability of a fall grows as the trunk sinks; the prior stands, with a little noise.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.support.tiny_artifact import _graph
from worldpilot.models.artifact import write_manifest
from worldpilot.sim.legged import Robot
from worldpilot.sim.quadruped import ROBOT

HISTORY, HORIZON, MEMBERS = 4, 16, 2


def build(folder: Path, *, seed: int = 0, robot: Robot = ROBOT) -> Path:
    """Write a whole artifact into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name, graph in {
        "encoder": _encoder(robot),
        "predictor": _predictor(robot, rng),
        "readout": _readout(robot),
    }.items():
        onnx.save(graph, str(folder / f"{name}.onnx"))
    onnx.save(_prior(robot), str(folder / "prior.onnx"))
    signals = [{"name": name, "unit": robot.signals[name], "r2": 1.0} for name in _shown(robot)]
    write_manifest(
        folder,
        {
            "task": robot.name,
            "created": "2025-01-01",
            "description": "untrained, for tests",
            "observation": {
                "kind": "state",
                "shape": [len(robot.state)],
                "dtype": "float32",
                "encoding": robot.name,
                "names": list(robot.state),
                "units": list(robot.state.values()),
            },
            "action": robot.action.to_dict(),
            "history": HISTORY,
            "horizon": HORIZON,
            "latent_dim": len(robot.state),
            "members": MEMBERS,
            "proposals": 4,
            "signals": [*signals, {"name": "fall_probability", "unit": "1", "r2": 0.5}],
            "provenance": {"data_sha256": "none", "data": "no data", "commands": ["tests"], "seed": seed},
            "metrics": {},
        },
    )
    return folder


def _shown(robot: Robot) -> list[str]:
    """The signals that are components of the state."""
    return [name for name in robot.signals if name != "fallen"]


def _encoder(robot: Robot) -> onnx.ModelProto:
    nodes = [helper.make_node("Identity", ["observation"], ["latent"])]
    state = (TensorProto.FLOAT, ["B", len(robot.state)])
    return _graph(nodes, {"observation": state}, {"latent": state}, {})


def _predictor(robot: Robot, rng: np.random.Generator) -> onnx.ModelProto:
    s, a = len(robot.state), robot.action.dim
    nodes = [
        helper.make_node("Slice", ["actions", "planned", "end", "one"], ["future"]),
        helper.make_node("Slice", ["latents", "planned", "end", "one"], ["now"]),
    ]
    weights = {
        "planned": np.array([HISTORY - 1]),
        "end": np.array([np.iinfo(np.int64).max]),
        "one": np.array([1]),
        "first": np.array([0]),
    }
    for e in range(MEMBERS):
        weights[f"w{e}"] = rng.normal(size=(a, s)) * 0.01
        nodes += [
            helper.make_node("MatMul", ["future", f"w{e}"], [f"effect{e}"]),
            helper.make_node("Add", ["now", f"effect{e}"], [f"next{e}"]),
            helper.make_node("Unsqueeze", [f"next{e}", "first"], [f"member{e}"]),
        ]
    nodes.append(helper.make_node("Concat", [f"member{e}" for e in range(MEMBERS)], ["predicted"], axis=0))
    inputs = {"latents": (TensorProto.FLOAT, ["B", HISTORY, s]), "actions": (TensorProto.FLOAT, ["B", "T", a])}
    return _graph(nodes, inputs, {"predicted": (TensorProto.FLOAT, [MEMBERS, "B", "H", s])}, weights)


def _readout(robot: Robot) -> onnx.ModelProto:
    state, shown = list(robot.state), _shown(robot)
    nodes = [
        helper.make_node("Gather", ["latents", "shown"], ["read"], axis=1),
        helper.make_node("Gather", ["latents", "height"], ["trunk"], axis=1),
        helper.make_node("Sub", ["limit", "trunk"], ["below"]),
        helper.make_node("Mul", ["below", "steepness"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["fall"]),
        helper.make_node("Concat", ["read", "fall"], ["signals"], axis=1),
    ]
    weights = {
        "shown": np.array([state.index(name) for name in shown]),
        "height": np.array([state.index("height")]),
        "limit": np.array(robot.fallen_height),
        "steepness": np.array(40.0),
    }
    latents, signals = ["B", len(state)], ["B", len(shown) + 1]
    return _graph(nodes, {"latents": (TensorProto.FLOAT, latents)}, {"signals": (TensorProto.FLOAT, signals)}, weights)


def _prior(robot: Robot) -> onnx.ModelProto:
    s, a = len(robot.state), robot.action.dim
    nodes = [
        helper.make_node("Flatten", ["latents"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "nothing"], ["offset"]),
        helper.make_node("Unsqueeze", ["offset", "axis"], ["shift"]),
        helper.make_node("Mul", ["noise", "little"], ["tremble"]),
        helper.make_node("Add", ["tremble", "shift"], ["actions"]),
    ]
    weights = {"nothing": np.zeros((HISTORY * s, a)), "axis": np.array([1]), "little": np.array(0.05)}
    plan = (TensorProto.FLOAT, ["B", HORIZON, a])
    return _graph(nodes, {"latents": (TensorProto.FLOAT, ["B", HISTORY, s]), "noise": plan}, {"actions": plan}, weights)
