"""A changed robot: the dynamics are learnt further from the artifact alone, and nothing else of it changes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from mcap_ros2.writer import Writer

from worldpilot.cli.main import main
from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models.action_prior.train import PriorTrainConfig, train_prior
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter
from worldpilot.models.dynamics.adapt import AdaptConfig, adapt, load_predictor
from worldpilot.models.dynamics.export import export, export_predictor
from worldpilot.models.dynamics.networks import DynamicsConfig, dynamics
from worldpilot.models.dynamics.train import DynamicsTrainConfig, train_dynamics
from worldpilot.types import ActionSpec

ACTION = ActionSpec(("joint",), ("rad",), (-1.0,), (1.0,), (50.0,), control_dt=0.02, block=2)
META = {"task": "walker", "action": ACTION.to_dict(), "state": {"names": ["q", "dq"], "units": ["rad", "rad/s"]}}
QUICK = AdaptConfig(steps=150, batch=64, rollout=4, learning_rate=3e-3, evaluate_every=50)


def episode(seed: int, strength: float, steps: int = 60) -> Episode:
    """A damped joint under a PD controller of some strength."""
    rng = np.random.default_rng(seed)
    controls = np.repeat(rng.uniform(-1, 1, (steps // 6 + 1, 1)), 6, axis=0)[:steps].astype(np.float32)
    q, dq, states = rng.uniform(-0.5, 0.5), 0.0, []
    for control in [*controls[:, 0], 0.0]:
        states.append((q, dq))
        dq += 0.02 * (strength * 60 * (control - q) - 6 * dq)
        q += 0.02 * dq
    return Episode(np.array(states, np.float32), controls, {}, {"seed": seed, "behaviour": "walk"})


def store(folder: Path, episodes: int, strength: float, first: int = 0) -> EpisodeStore:
    with EpisodeWriter(folder, META) as writer:
        for seed in range(first, first + episodes):
            writer.append(episode(seed, strength))
    return EpisodeStore(folder)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of the healthy robot."""
    work = tmp_path_factory.mktemp("walker")
    data = store(work / "data", 30, strength=1.0)
    train = DynamicsTrainConfig(steps=300, batch=64, rollout=4, learning_rate=3e-3, evaluate_every=300)
    train_dynamics(data, ACTION, work / "nets", train, history=2, horizon=4, hidden=32, layers=1)
    prior = PriorTrainConfig(steps=10, batch=32, horizon=4, hidden=32, goal_ahead=0, sampler_steps=1, evaluate_every=10)
    train_prior(data, ACTION, work / "nets", work / "prior", prior)
    export("walker", ACTION, work / "nets", work / "prior", work / "artifact", ["train"], "healthy")
    return work / "artifact"


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return store(tmp_path_factory.mktemp("weak"), 10, strength=0.3, first=100)


@pytest.fixture(scope="module")
def adapted(shipped: Path, weak: EpisodeStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapted")
    adapt(shipped, weak, out, QUICK, data="a weak joint", command="worldpilot adapt")
    return out


@pytest.mark.parametrize("kind", ["step", "multi", "diffusion"])
def test_a_graph_holds_all_that_its_network_was(kind: str, shipped: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shipped, tmp_path / "artifact"))
    sizes = DynamicsConfig(2, ACTION.dim, kind=kind, history=2, horizon=4, hidden=16, layers=1)
    torch.manual_seed(0)
    trained = dynamics(sizes)
    with torch.no_grad():
        trained.scale.uniform_(0.1, 0.3)
        for parameter in trained.parameters():  # as training leaves them: none of them 0
            parameter.add_(torch.randn_like(parameter) * 0.01)
    export_predictor(trained, ACTION, folder / "predictor.onnx")
    artifact = Artifact.load(shipped)
    artifact.manifest["provenance"]["dynamics"] = sizes.to_dict()
    loaded = load_predictor(Artifact(folder, artifact.manifest, *(getattr(artifact, n) for n in _REST)))
    for name, value in trained.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


_REST = ("spec", "world_model", "prior", "decoder")


def test_the_changed_robot_is_predicted_better_and_the_rest_stays(
    shipped: Path, adapted: Path, weak: EpisodeStore
) -> None:
    before, after = Artifact.load(shipped), Artifact.load(adapted)
    assert after.spec.model_id != before.spec.model_id
    for name in ("encoder", "prior"):
        assert after.manifest["graphs"][name] == before.manifest["graphs"][name]
    metrics = {name: figure["value"] for name, figure in after.manifest["metrics"].items()}
    for steps in ("1", "4"):
        assert metrics[f"adapted_nmse_{steps}_after"] < 0.3 * metrics[f"adapted_nmse_{steps}_before"]
    assert after.manifest["thresholds"] is None
    provenance = after.manifest["provenance"]
    assert provenance["adapted_from"]["model_id"] == before.spec.model_id
    assert provenance["data_sha256"] == weak.sha256()
    assert provenance["commands"] == ["train", "worldpilot adapt"]


def test_an_adapted_artifact_can_be_adapted_again(adapted: Path, tmp_path: Path) -> None:
    healthy = store(tmp_path / "healthy", 10, strength=1.0, first=200)
    manifest = adapt(adapted, healthy, tmp_path / "again", QUICK)
    figures = manifest["metrics"]
    assert figures["adapted_nmse_4_after"]["value"] < 0.3 * figures["adapted_nmse_4_before"]["value"]


def test_it_is_kept_as_it_was_where_learning_does_not_help(shipped: Path, tmp_path: Path) -> None:
    data = store(tmp_path / "few", 2, strength=1.0, first=300)
    spoiled = AdaptConfig(steps=3, batch=8, rollout=4, learning_rate=1.0, evaluate_every=1)
    figures = adapt(shipped, data, tmp_path / "out", spoiled)["metrics"]
    assert figures["adapted_nmse_4_after"]["value"] == figures["adapted_nmse_4_before"]["value"]


def test_what_cannot_be_adapted_is_refused(
    shipped: Path, tiny_artifact: Path, weak: EpisodeStore, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="write to another folder"):
        adapt(shipped, weak, shipped, QUICK)
    with pytest.raises(InvalidInput, match="only models of states"):
        adapt(tiny_artifact, weak, tmp_path / "out", QUICK)
    with EpisodeWriter(tmp_path / "other", {**META, "state": {"names": ["dq", "q"]}}) as writer:
        writer.append(episode(0, 1.0))
    with pytest.raises(InvalidInput, match=r"states are \(dq, q\), the model's \(q, dq\)"):
        adapt(shipped, EpisodeStore(tmp_path / "other"), tmp_path / "out", QUICK)
    artifact = Artifact.load(Path(shutil.copytree(shipped, tmp_path / "nameless")))
    graph = onnx.load(artifact.path / "predictor.onnx")
    del graph.metadata_props[:]
    onnx.save(graph, artifact.path / "predictor.onnx")
    with pytest.raises(ArtifactError, match="only a predictor of `worldpilot train dynamics`"):
        load_predictor(artifact)


STATE = "std_msgs/Header header\nstring[] names\nfloat32[] values"
JOINTS = "std_msgs/Header header\nstring[] joint_names\ntrajectory_msgs/JointTrajectoryPoint[] points"
USED = "\n".join(
    f"{'=' * 80}\nMSG: {name}\n{text}"
    for name, text in {
        "std_msgs/Header": "builtin_interfaces/Time stamp\nstring frame_id",
        "builtin_interfaces/Time": "int32 sec\nuint32 nanosec",
        "builtin_interfaces/Duration": "int32 sec\nuint32 nanosec",
        "trajectory_msgs/JointTrajectoryPoint": "float64[] positions\nfloat64[] velocities\nfloat64[] accelerations\n"
        "float64[] effort\nbuiltin_interfaces/Duration time_from_start",
    }.items()
)


def points(*controls: np.ndarray) -> list[dict[str, Any]]:
    """Of a trajectory, 20 ms apart."""
    return [
        {
            "positions": control.tolist(),
            "velocities": [],
            "accelerations": [],
            "effort": [],
            "time_from_start": {"sec": 0, "nanosec": i * 20_000_000},
        }
        for i, control in enumerate(controls)
    ]


def recording(file: Path, strength: float) -> Path:
    """As the graph's recorder writes: states, and the commands that answer them some milliseconds later."""
    done = episode(500, strength, steps=200)
    with file.open("wb") as stream:
        writer = Writer(stream)
        states = writer.register_msgdef("worldpilot_msgs/msg/State", f"{STATE}\n{USED}")
        commands = writer.register_msgdef("trajectory_msgs/msg/JointTrajectory", f"{JOINTS}\n{USED}")
        for step, state in enumerate(done.observations):
            at = 10**18 + step * 20_000_000
            for topic, schema, delay, content in (
                ("/state", states, 0, {"names": ["q", "dq"], "values": state.tolist()}),
                ("/joint_command", commands, 12_000_000, None),
            ):
                if content is None and step == len(done):
                    continue
                stamp = {"sec": at // 10**9, "nanosec": at % 10**9}
                said = content or {"joint_names": ["joint"], "points": points(done.controls[step], done.controls[-1])}
                message = {"header": {"stamp": stamp, "frame_id": ""}, **said}
                writer.write_message(topic, schema, message, at + delay, at + delay)
        writer.finish()
    return file


def test_the_command_line_adapts_from_a_recording(
    shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag, out = recording(tmp_path / "weak.mcap", strength=0.3), tmp_path / "adapted"
    command = ["adapt", "--task", "walker", "--artifact", str(shipped), "--bag", str(bag), "--out", str(out)]
    command += ["--max-steps", "50", "--steps", "100", "--batch", "64", "--rollout", "4", "--learning-rate", "0.003"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "4 episodes of weak.mcap, 4 s" in said
    assert "calibrate monitor" in said
    metrics = json.loads((out / "manifest.json").read_text())["metrics"]
    assert metrics["adapted_nmse_1_after"]["value"] < 0.5 * metrics["adapted_nmse_1_before"]["value"]
    assert main([*command, "--state-topic", "/nothing"]) == 2
    assert "unknown topic" in capsys.readouterr().err
