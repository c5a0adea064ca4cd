"""Artifacts: what matches its manifest runs as the contracts say; whatever does not is refused with the reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from worldpilot.contracts import ActionPrior, WorldModel
from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models.artifact import Artifact, update_manifest, verify, write_manifest
from worldpilot.types import History

N, H, D, A, E = 12, 5, 16, 10, 2


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path) -> Artifact:
    return Artifact.load(tiny_artifact)


@pytest.fixture
def copy(tiny_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_artifact, tmp_path / "push_t"))


@pytest.fixture
def history() -> History:
    rng = np.random.default_rng(1)
    return History(rng.normal(size=(2, D)).astype(np.float32), rng.uniform(-0.25, 0.25, (1, A)).astype(np.float32))


@pytest.fixture
def actions() -> np.ndarray:
    return np.random.default_rng(2).uniform(-0.25, 0.25, (N, H, A)).astype(np.float32)


def test_spec_is_what_the_manifest_says(artifact: Artifact) -> None:
    spec = artifact.spec
    assert isinstance(artifact.world_model, WorldModel)
    assert isinstance(artifact.prior, ActionPrior)
    assert (spec.task, spec.latent_dim, spec.history, spec.horizon, spec.members) == ("push_t", D, 2, H, E)
    assert spec.observation_shape == (64, 64, 3)
    assert spec.action.dim == A
    assert [signal.name for signal in spec.signals][-1] == "block_yaw"
    assert artifact.thresholds is not None
    assert artifact.thresholds["model_id"] == spec.model_id


def test_rollout_is_the_mean_of_the_members_with_their_spread(
    artifact: Artifact, history: History, actions: np.ndarray
) -> None:
    model = artifact.world_model
    predicted = model.predict(history, actions)
    assert predicted.shape == (E, N, H, D)
    rollouts = model.rollout(history, actions, np.zeros(2, np.float32))
    np.testing.assert_allclose(rollouts.latents, predicted.mean(axis=0), rtol=1e-5, atol=1e-6)
    # Two members lie half their distance from the mean.
    half = (predicted[0] - predicted[1]) / 2
    np.testing.assert_allclose(rollouts.disagreement, np.sqrt((half**2).mean(axis=-1)), rtol=1e-4, atol=1e-6)
    assert {name: values.shape for name, values in rollouts.signals.items()} == {
        signal.name: (N, H) for signal in artifact.spec.signals
    }
    assert all(values.dtype == np.float32 for values in (rollouts.latents, rollouts.disagreement))
    now = model.signals(history.latents[-1])
    assert rollouts.current_signals == pytest.approx({name: float(value) for name, value in now.items()})


def test_signals_are_read_element_by_element_and_angles_derived(artifact: Artifact) -> None:
    latents = np.random.default_rng(3).normal(size=(3, 4, D)).astype(np.float32)
    signals = artifact.world_model.signals(latents)
    one = artifact.world_model.signals(latents[1, 2])
    assert all(one[name] == pytest.approx(float(values[1, 2]), abs=1e-6) for name, values in signals.items())
    yaw = np.arctan2(signals["block_yaw_sin"], signals["block_yaw_cos"])
    np.testing.assert_array_equal(signals["block_yaw"], yaw)


def test_predictions_are_causal_and_past_actions_stand_before_planned_ones(
    artifact: Artifact, history: History, actions: np.ndarray
) -> None:
    model = artifact.world_model
    full = model.predict(history, actions)
    np.testing.assert_allclose(model.predict(history, actions[:, :2]), full[:, :, :2], atol=1e-6)
    other = History(history.latents, history.actions + 0.1)  # the tiny model ignores the past's actions
    np.testing.assert_allclose(model.predict(other, actions), full, atol=1e-6)


def test_a_predictor_of_fixed_horizon_gives_the_same_up_to_that_horizon(
    tiny_artifact_builder: ModuleType, tmp_path: Path, artifact: Artifact, history: History, actions: np.ndarray
) -> None:
    fixed = Artifact.load(tiny_artifact_builder.build(tmp_path / "push_t", horizon=6)).world_model
    for steps in (1, H):
        expected = artifact.world_model.predict(history, actions[:, :steps])
        np.testing.assert_allclose(fixed.predict(history, actions[:, :steps]), expected, atol=1e-6)
    with pytest.raises(InvalidInput, match="exported for 6 steps, got actions for 10"):
        fixed.predict(history, np.tile(actions, (1, 2, 1)))


def test_proposals_follow_from_the_generator_and_keep_the_bounds(artifact: Artifact, history: History) -> None:
    first, again, other = (artifact.prior.propose(history, 32, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first.shape == (32, H, A)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.abs(first).max() <= 0.25


def test_encode_refuses_what_it_was_not_made_for(artifact: Artifact) -> None:
    assert artifact.world_model.encode(np.zeros((3, 64, 64, 3), np.uint8)).shape == (3, D)
    for wrong in (np.zeros((64, 64, 3), np.uint8), np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 64, 64, 3))):
        with pytest.raises(InvalidInput, match=r"\(B, 64, 64, 3\) uint8, got"):
            artifact.world_model.encode(wrong)


def test_predict_refuses_wrong_shapes_and_numbers(artifact: Artifact, history: History, actions: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match=r"actions: expected shape \(any, any, 10\), got \(12, 5, 4\)"):
        artifact.world_model.predict(history, actions[..., :4])
    with pytest.raises(InvalidInput, match="actions: not finite"):
        artifact.world_model.predict(history, np.full_like(actions, np.nan))
    broken = History(np.full_like(history.latents, np.inf), history.actions)
    with pytest.raises(InvalidInput, match="history latents: not finite"):
        artifact.prior.propose(broken, 4, np.random.default_rng(0))


def test_the_decoder_is_optional(tiny_artifact_builder: ModuleType, tmp_path: Path, artifact: Artifact) -> None:
    image = artifact.decode(np.zeros((2, D), np.float32))
    assert (image.shape, image.dtype) == ((2, 64, 64, 3), np.uint8)
    blind = Artifact.load(tiny_artifact_builder.build(tmp_path / "blind", decoder=False))
    assert not blind.has_decoder
    with pytest.raises(InvalidInput, match="has no decoder"):
        blind.decode(np.zeros((2, D), np.float32))


def test_state_artifacts_obey_the_same_contract(
    tiny_artifact_builder: ModuleType, tmp_path: Path, history: History, actions: np.ndarray
) -> None:
    folder = tiny_artifact_builder.build(tmp_path / "state", decoder=False)
    state = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> '
        "g (float[B,16] observation) => (float[B,16] latent) { latent = Identity(observation) }"
    )
    onnx.save(state, str(folder / "encoder.onnx"))
    content = tiny_artifact_builder.manifest()
    content["observation"] = {"kind": "state", "shape": [D], "dtype": "float32", "encoding": "joint positions"}
    with pytest.raises(ArtifactError, match="'names' is a required property"):
        write_manifest(folder, content)
    content["observation"] |= {"names": ["q"], "units": ["rad"]}
    with pytest.raises(ArtifactError, match="a state of 16 numbers needs as many names and units, got 1 and 1"):
        write_manifest(folder, content)
    names = [f"q_{i}" for i in range(D)]
    content["observation"] |= {"names": names, "units": ["rad"] * D}
    write_manifest(folder, content)
    assert Artifact.load(folder).spec.observation_names == tuple(names)
    model = Artifact.load(folder).world_model
    assert model.rollout(history, actions, np.zeros(2, np.float32)).latents.shape == (N, H, D)
    with pytest.raises(InvalidInput, match="the state is not finite"):
        model.encode(np.full((1, D), np.nan, np.float32))


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("latent_dim"), "'latent_dim' is a required property"),
        (lambda m: m.update(extra=1), "'extra' was unexpected"),
        (lambda m: m.update(format=2), "1 was expected"),
        (lambda m: m["action"].update(low=[0.5, 0.5]), "every low must be below its high"),
        (lambda m: m["action"].update(units=["m/s"]), "must have one length"),
        (lambda m: m["observation"].update(dtype="float32"), "'uint8' was expected"),
        (lambda m: m["signals"][0].update(name="block_x"), "signals share a name"),
        (lambda m: m["signals"][6]["derived"].update(atan2=["a", "b"]), "which the readout does not give"),
        (lambda m: m["graphs"].pop("prior"), "'prior' is a required property"),
        (lambda m: m["graphs"]["prior"].update(file="../prior.onnx"), "does not match"),
        (
            lambda m: m["graphs"]["prior"].update(sha256="0" * 64),
            "prior: sha256 of .* the manifest expects 000000000000",
        ),
        (lambda m: m["graphs"]["prior"].update(file="other.onnx"), r"other\.onnx is missing"),
        (lambda m: m.update(history=3), "model_id is .*, its content gives"),
        (lambda m: m["thresholds"].pop("limits"), "thresholds"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        Artifact.load(edited(copy, change))


def test_a_graph_that_was_exchanged_is_refused(copy: Path) -> None:
    with (copy / "encoder.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ArtifactError, match=r"encoder: sha256 of .* the manifest expects"):
        Artifact.load(copy)


def test_no_artifact_at_all(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing; shipped: "):
        Artifact.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="is not JSON"):
        Artifact.load(tmp_path)


def test_graphs_that_break_their_contract_are_refused_at_export(
    tiny_artifact_builder: ModuleType, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    folder = tiny_artifact_builder.build(tmp_path / "push_t")
    good = {name: (folder / f"{name}.onnx").read_bytes() for name in ("encoder", "predictor", "readout", "prior")}

    def refused(name: str, graph: onnx.ModelProto, message: str) -> None:
        onnx.save(graph, str(folder / f"{name}.onnx"))
        with pytest.raises(ArtifactError, match=message):
            write_manifest(folder, tiny_artifact_builder.manifest())
        (folder / f"{name}.onnx").write_bytes(good[name])

    refused(
        "encoder", tiny_artifact_builder.encoder(rng, size=32), r"must be uint8 \(B, 64, 64, 3\), got uint8 \(B, 32"
    )
    refused("encoder", tiny_artifact_builder.encoder(rng, name="image"), r"expected the inputs \['observation'\], got")
    refused("encoder", tiny_artifact_builder.readout(rng), r"expected the inputs \['observation'\], got \['latents'\]")
    refused("predictor", tiny_artifact_builder.predictor(rng, members=3), r"must be float32 \(2, B, H, 16\), got")
    refused("predictor", tiny_artifact_builder.predictor(rng, 3), "predicts 3 steps, the manifest's horizon is 5")
    extra = onnx.load_from_string(good["prior"])
    extra.graph.input.append(onnx.helper.make_tensor_value_info("goal", onnx.TensorProto.FLOAT, ["B", D]))
    refused("prior", extra, r"expected the inputs \['latents', 'noise'\], got \['goal', 'latents', 'noise'\]")
    infinite = onnx.load_from_string(good["readout"])
    bias = next(tensor for tensor in infinite.graph.initializer if tensor.name == "b")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(6, np.inf, np.float32), "b"))
    refused("readout", infinite, "must come out finite")
    (folder / "prior.onnx").unlink()
    with pytest.raises(ArtifactError, match="'prior' is a required property"):
        write_manifest(folder, tiny_artifact_builder.manifest())


def test_model_id_is_that_of_graphs_and_specification(tiny_artifact_builder: ModuleType, copy: Path) -> None:
    before = verify(copy)["model_id"]
    after = update_manifest(copy, lambda m: m.update(thresholds=None, metrics={"x": {"value": 1.0, "n": 2}}))
    assert after["model_id"] == before
    assert Artifact.load(copy).thresholds is None
    with pytest.raises(ArtifactError, match="touches the specification"):
        update_manifest(copy, lambda m: m["action"].update(low=[-1.0, -1.0]))
    assert verify(copy)["action"]["low"] == [-0.25, -0.25]
    other = tiny_artifact_builder.build(copy.parent / "other", seed=1)
    assert verify(other)["model_id"] != before
