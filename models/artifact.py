"""A model on disk: `manifest.json` and its ONNX graphs. What does not match its manifest is refused, never run.

    zoo/push_t/
      manifest.json     manifest.schema.json says what is in it
      encoder.onnx      observation (B, H, W, 3) uint8 or (B, S) float32 -> latent (B, D)
      predictor.onnx    latents (B, h, D), actions (B, h-1+H, A)[, noise (E, B, H, D)] -> predicted (E, B, H, D)
      readout.onnx      where it has signals: latents (B, D) -> signals (B, S)
      prior.onnx        latents (B, h, D), noise (B, H, A) -> actions (B, H, A)
      decoder.onnx      optional, for the eye only: latents (B, D) -> image (B, H, W, 3) uint8

Everything that enters or leaves a graph is in physical units; normalisation is inside. Batch sizes vary, and H may.
"""

import datetime
import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema.exceptions
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from worldpilot.errors import ArtifactError, InvalidInput
from worldpilot.models import runtime
from worldpilot.models.onnx_model import OnnxPrior, OnnxWorldModel
from worldpilot.types import ActionSpec, FloatArray, ModelSpec, SignalSpec

FORMAT = 1
MANIFEST = "manifest.json"
GRAPHS = ("encoder", "predictor", "readout", "prior", "decoder")
_HERE = Path(__file__).resolve().parent

Tensor = tuple[str, tuple[int | str, ...]]  # dtype, shape; a name stands for a size that may vary


def zoo_path(name: str) -> Path:
    """Where a shipped artifact lies; the one that a task uses is named as the task."""
    return _HERE / "zoo" / name


def zoo_names() -> list[str]:
    """Of the shipped artifacts. (Language weights lie beside them: models/language/weights.py.)"""
    names = (path.parent.name for path in (_HERE / "zoo").glob(f"*/{MANIFEST}"))
    return sorted(name for name in names if not name.startswith("language_"))


@dataclass(frozen=True)
class Artifact:
    """A verified model, ready to run."""

    path: Path
    manifest: dict[str, Any]
    spec: ModelSpec
    world_model: OnnxWorldModel
    prior: OnnxPrior
    decoder: ort.InferenceSession | None

    @classmethod
    def load(cls, path: Path | str, *, provider: str = "cpu", threads: int = 1) -> "Artifact":
        """Verify manifest, hashes and signatures, open the graphs, run each once.

        Raises:
            ArtifactError: anything differs from the manifest; the message says what was expected and what was found.
            InvalidInput: the provider is not available.
        """
        folder = Path(path)
        manifest = verify(folder)
        spec = _spec(manifest)
        sessions = {
            name: runtime.session(folder / graph["file"], provider, threads)
            for name, graph in manifest["graphs"].items()
        }
        contract = signatures(manifest)
        for name, session in sessions.items():
            _check_signature(f"{folder.name}/{name}", session, *contract[name])
            _trial(f"{folder.name}/{name}", session, *contract[name], manifest)
        return cls(
            path=folder,
            manifest=manifest,
            spec=spec,
            world_model=OnnxWorldModel(spec, sessions, _derived(manifest)),
            prior=OnnxPrior(spec, sessions["prior"], _derived(manifest)),
            decoder=sessions.get("decoder"),
        )

    @property
    def thresholds(self) -> dict[str, Any] | None:
        """The monitor's thresholds, as `calibrate` stored them; None before."""
        return self.manifest["thresholds"]

    @property
    def has_decoder(self) -> bool:
        return self.decoder is not None

    def decode(self, latents: FloatArray) -> npt.NDArray[np.uint8]:
        """Latents of shape (B, D) as images of shape (B, H, W, 3): what the model imagines, for the eye only."""
        if self.decoder is None:
            raise InvalidInput(f"{self.path.name} has no decoder; export one to see what it imagines")
        image: Any = self.decoder.run(None, {"latents": np.ascontiguousarray(latents, np.float32)})[0]
        return image


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`, after checking its schema, the graphs' hashes and the model id.

    Raises:
        ArtifactError: with what was expected and what was found.
    """
    manifest = _read(folder)
    for name, graph in manifest["graphs"].items():
        file = folder / graph["file"]
        if not file.is_file():
            raise ArtifactError(f"{folder.name}/{name}: {file} is missing; fetch or export the artifact again")
        found = _sha256(file)
        if found != graph["sha256"]:
            raise ArtifactError(
                f"{folder.name}/{name}: sha256 of {file} is {found[:12]}…, the manifest expects "
                f"{graph['sha256'][:12]}…; fetch or export the artifact again"
            )
    expected = model_id(manifest)
    if manifest["model_id"] != expected:
        raise ArtifactError(
            f"{folder.name}: model_id is {manifest['model_id']}, its content gives {expected}; "
            "the specification was edited after the export, export again"
        )
    return manifest


def model_id(manifest: Mapping[str, Any]) -> str:
    """Hash of what the model computes: graphs and specifications, not metrics, thresholds or dates."""
    names = ("format", "task", "observation", "action", "history", "horizon", "latent_dim", "members")
    content = {name: manifest[name] for name in names}
    content["signals"] = [{key: s[key] for key in ("name", "unit", "derived") if key in s} for s in manifest["signals"]]
    content["graphs"] = {name: graph["sha256"] for name, graph in manifest["graphs"].items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def write_manifest(folder: Path | str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a manifest with what follows from the graphs `<name>.onnx` beside it, check it and write it.

    Args:
        folder: where the graphs lie.
        manifest: everything but `format`, `model_id` and `graphs`; `created`, `thresholds` and `certificate` may be
            left out.

    Returns:
        The complete manifest.

    Raises:
        ArtifactError: a graph is missing or breaks its contract, or the manifest breaks the schema.
    """
    folder = Path(folder)
    complete: dict[str, Any] = {
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "metrics": {},
        "thresholds": None,
        "certificate": None,
        **manifest,
        "format": FORMAT,
        "model_id": "0" * 12,
        "graphs": {},
    }
    for name in GRAPHS:
        file = folder / f"{name}.onnx"
        if file.is_file():
            complete["graphs"][name] = _describe(file)
    _check_schema(folder, complete)
    complete["model_id"] = model_id(complete)
    for name, contract in signatures(complete).items():
        if name in complete["graphs"]:
            session = runtime.session(folder / f"{name}.onnx")
            _check_signature(f"{folder.name}/{name}", session, *contract)
            _trial(f"{folder.name}/{name}", session, *contract, complete)
    _write(folder, complete)
    return complete


def update_manifest(folder: Path | str, mutate: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Change what may change after the export (metrics, thresholds, certificate …); the model id stays the same.

    Raises:
        ArtifactError: the artifact does not verify, or the change breaks the schema or touches the specification.
    """
    folder = Path(folder)
    manifest = verify(folder)
    mutate(manifest)
    _check_schema(folder, manifest)
    if model_id(manifest) != manifest["model_id"]:
        raise ArtifactError(f"{folder.name}: this change touches the specification of the model; export it again")
    _write(folder, manifest)
    return manifest


def signatures(manifest: Mapping[str, Any]) -> dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Graph -> its inputs and outputs, each name -> (dtype, shape)."""
    h, d, e = manifest["history"], manifest["latent_dim"], manifest["members"]
    observation = manifest["observation"]
    a = manifest["action"]["block"] * len(manifest["action"]["names"])
    prior_steps = manifest["horizon"]
    read = sum("derived" not in signal for signal in manifest["signals"])
    observed: Tensor = (observation["dtype"], ("B", *observation["shape"]))
    latents: Tensor = ("float32", ("B", h, d))
    one_latent: Tensor = ("float32", ("B", d))
    plan: Tensor = ("float32", ("B", prior_steps, a))
    goal: Tensor = ("float32", ("B", read))
    wanted = {"goal": goal, "goal_mask": goal} if manifest.get("goal_conditioned") else {}
    future: Tensor = ("float32", (e, "B", "H", d))
    drawn = {"noise": future} if manifest.get("sampled") else {}
    return {
        "encoder": ({"observation": observed}, {"latent": one_latent}),
        "predictor": (
            {"latents": latents, "actions": ("float32", ("B", "h-1+H", a)), **drawn},
            {"predicted": future},
        ),
        "readout": ({"latents": one_latent}, {"signals": ("float32", ("B", read))}),
        "prior": ({"latents": latents, "noise": plan, **wanted}, {"actions": plan}),
        "decoder": ({"latents": one_latent}, {"image": observed}),
    }


def _spec(manifest: Mapping[str, Any]) -> ModelSpec:
    return ModelSpec(
        task=manifest["task"],
        model_id=manifest["model_id"],
        latent_dim=manifest["latent_dim"],
        history=manifest["history"],
        horizon=manifest["horizon"],
        members=manifest["members"],
        observation=manifest["observation"]["kind"],
        observation_shape=tuple(manifest["observation"]["shape"]),
        action=ActionSpec.from_dict(manifest["action"]),
        signals=tuple(
            SignalSpec(signal["name"], signal["unit"], float(signal["r2"]), signal.get("description", ""))
            for signal in manifest["signals"]
        ),
        observation_names=tuple(manifest["observation"].get("names", ())),
    )


def _derived(manifest: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {
        s["name"]: (s["derived"]["atan2"][0], s["derived"]["atan2"][1]) for s in manifest["signals"] if "derived" in s
    }


def _check_schema(folder: Path, manifest: Mapping[str, Any]) -> None:
    """The schema, and what a schema cannot say."""
    error = jsonschema.exceptions.best_match(_validator().iter_errors(manifest))
    if error is not None:
        raise ArtifactError(f"{folder.name}/{MANIFEST}: {error.json_path}: {error.message}")
    try:
        _spec(manifest)
    except InvalidInput as invalid:
        raise ArtifactError(f"{folder.name}/{MANIFEST}: {invalid}") from invalid
    observed = manifest["observation"]
    if observed["kind"] == "state" and any(len(observed[part]) != observed["shape"][0] for part in ("names", "units")):
        raise ArtifactError(
            f"{folder.name}/{MANIFEST}: a state of {observed['shape'][0]} numbers needs as many names and units, got "
            f"{len(observed['names'])} and {len(observed['units'])}"
        )
    names = [signal["name"] for signal in manifest["signals"]]
    if len(set(names)) != len(names):
        raise ArtifactError(f"{folder.name}/{MANIFEST}: signals share a name: {', '.join(names)}")
    if bool(names) != ("readout" in manifest["graphs"]):
        raise ArtifactError(f"{folder.name}/{MANIFEST}: signals need a readout, and a readout signals; export again")
    derived = _derived(manifest)
    for name, sources in derived.items():
        if not set(sources) <= set(names) - set(derived):
            raise ArtifactError(
                f"{folder.name}/{MANIFEST}: {name} derives from {sources}, which the readout does not give"
            )


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((_HERE / "manifest.schema.json").read_text()))


def _check_signature(
    where: str, session: ort.InferenceSession, inputs: dict[str, Tensor], outputs: dict[str, Tensor]
) -> None:
    for kind, expected, nodes in (("input", inputs, session.get_inputs()), ("output", outputs, session.get_outputs())):
        found = {node.name: (runtime.DTYPES.get(node.type, node.type), tuple(node.shape)) for node in nodes}
        if found.keys() != expected.keys():
            raise ArtifactError(f"{where}: expected the {kind}s {sorted(expected)}, got {sorted(found)}")
        for name, (dtype, shape) in expected.items():
            got_dtype, got_shape = found[name]
            fits = len(shape) == len(got_shape) and all(map(_size_fits, shape, got_shape))
            if got_dtype != dtype or not fits:
                raise ArtifactError(
                    f"{where}: {kind} {name!r} must be {dtype} {_show(shape)}, got {got_dtype} {_show(got_shape)}"
                )


def _size_fits(expected: int | str, got: int | str | None) -> bool:
    """B must vary, H may; a size that the exporter left open is settled by the trial run."""
    if isinstance(got, int):
        return got == expected or expected in ("H", "h-1+H")
    return True


def _trial(
    where: str,
    session: ort.InferenceSession,
    inputs: dict[str, Tensor],
    outputs: dict[str, Tensor],
    manifest: Mapping[str, Any],
) -> None:
    """Run on zeros: warms the graph up, and its outputs must be finite and of the right shape."""
    steps = manifest["horizon"]
    sizes = {"B": 2, "H": steps, "h-1+H": manifest["history"] - 1 + steps}
    for node in session.get_inputs():
        if node.name == "actions" and isinstance(node.shape[1], int):  # exported with a fixed horizon
            steps = node.shape[1] - manifest["history"] + 1
            if steps < manifest["horizon"]:
                raise ArtifactError(f"{where}: predicts {steps} steps, the manifest's horizon is {manifest['horizon']}")
            sizes.update({"H": steps, "h-1+H": node.shape[1]})
    feed = {
        name: np.zeros([sizes[n] if isinstance(n, str) else n for n in shape], dtype)
        for name, (dtype, shape) in inputs.items()
    }
    try:
        results = session.run(list(outputs), feed)
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise ArtifactError(f"{where}: does not run on inputs of its own contract ({error})") from error
    for (name, (_, shape)), result in zip(outputs.items(), results, strict=True):
        expected = tuple(sizes[n] if isinstance(n, str) else n for n in shape)
        array = np.asarray(result)
        if array.shape != expected or not np.isfinite(array).all():
            state = "finite" if np.isfinite(array).all() else "not finite"
            raise ArtifactError(
                f"{where}: {name!r} must come out finite, of shape {expected}; got {array.shape}, {state}"
            )


def _describe(file: Path) -> dict[str, Any]:
    session = runtime.session(file)

    def tensors(nodes: Sequence[Any]) -> dict[str, Any]:
        return {
            node.name: {
                "dtype": runtime.DTYPES.get(node.type, node.type),
                "shape": [size if isinstance(size, int) else str(size or "?") for size in node.shape],
            }
            for node in nodes
        }

    return {
        "file": file.name,
        "sha256": _sha256(file),
        "bytes": file.stat().st_size,
        "inputs": tensors(session.get_inputs()),
        "outputs": tensors(session.get_outputs()),
    }


def _read(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if not file.is_file():
        raise ArtifactError(f"{file} is missing; shipped: {', '.join(zoo_names()) or '(none)'}")
    try:
        manifest = json.loads(file.read_text())
    except ValueError as error:
        raise ArtifactError(f"{file} is not JSON ({error})") from error
    _check_schema(folder, manifest)
    return manifest


def _write(folder: Path, manifest: Mapping[str, Any]) -> None:
    text = json.dumps(manifest, indent=2, allow_nan=False)
    # Numbers in a list share a line; no text looks so, as JSON has no line breaks in texts.
    text = re.sub(r"\[\n[-+.,\deE\s]+\]", lambda numbers: json.dumps(json.loads(numbers[0])), text)
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".writing-", delete=False) as file:
        file.write(f"{text}\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, folder / MANIFEST)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _show(shape: tuple[int | str | None, ...]) -> str:
    return f"({', '.join(str(size) for size in shape)})"
