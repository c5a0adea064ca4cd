"""From episodes to the certificate of an artifact; and from the episodes again to whether its losses are theirs."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.calibration import bounds, certificate
from worldpilot.errors import InvalidInput
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import DATASET_FILE, EpisodeStore

SCALE_SHARE = 0.2  # of the seeds, drawn by their hash, gives the losses a scale; the others give the bounds
PRIMARY = certificate.LOSSES[0]


def certify(
    artifact: Artifact,
    store: EpisodeStore,
    delta: float,
    *,
    collected: Mapping[str, Any] | None = None,
    compression: bool = False,
) -> dict[str, Any]:
    """The certificate of an artifact from a store that it was not trained on.

    Args:
        artifact: whose.
        store: of episodes; a share of the seeds gives the scale, the others the bounds.
        delta: of each statement.
        collected: how simulation gives these episodes again, see `collect`; None: it does not.
        compression: whether the secondary bound and the flatness are wanted (needs torch).

    Raises:
        InvalidInput: too few episodes, of another robot, or those that the model was trained on.
    """
    sha256 = store.sha256()
    if sha256 in json.dumps(artifact.manifest["provenance"]):
        raise InvalidInput(f"{store.path}: the model was trained on these episodes; certify it on others")
    units_at, scale_at = store.split(SCALE_SHARE)
    unit_store, scale_store = (of_seeds(store, {store.metas[i]["seed"] for i in at}) for at in (units_at, scale_at))
    scale_units = list(certificate.measure(artifact.world_model, scale_store))
    scale = {
        "data_sha256": scale_store.sha256(),
        "seeds": [unit.seed for unit in scale_units],
        "clip": certificate.scales(scale_units),
    }
    units = list(certificate.measure(artifact.world_model, unit_store))
    data = {"data_sha256": sha256, "collected": None if collected is None else dict(collected)}
    content = certificate.certificate(artifact.manifest, scale, data, units, delta)
    return content | _secondary(artifact, unit_store, content, delta) if compression else content


def measured_again(artifact: Artifact, store: EpisodeStore) -> list[str]:
    """What is wrong with the losses of an artifact's certificate, beside those of its episodes."""
    content = artifact.manifest["certificate"]
    if store.sha256() != content["data"]["data_sha256"]:
        return ["these are not the episodes of the certificate: their hash is another"]
    scale_store, unit_store = (of_seeds(store, set(content[part]["seeds"])) for part in ("scale", "data"))
    clip, seeds = content["scale"]["clip"], content["data"]["seeds"]
    problems = []
    for name, again in certificate.scales(list(certificate.measure(artifact.world_model, scale_store))).items():
        if not np.isclose(again, clip[name], rtol=1e-3):
            problems.append(f"the scale of {name} is {clip[name]}, measured again {again}")
    units = {unit.seed: unit for unit in certificate.measure(artifact.world_model, unit_store)}
    for name, stated in content["held_out"].items():
        problem = certificate.compare(stated["losses"], [units[seed].loss(name, clip[name]) for seed in seeds])
        problems += [f"held_out {name}: {problem}"] if problem else []
    if (stated := content["compression"]) is not None:
        problem = certificate.compare(stated["losses"], _compressed_losses(artifact, unit_store, content))
        problems += [f"compression: {problem}"] if problem else []
    return problems


def of_seeds(store: EpisodeStore, seeds: set[int]) -> EpisodeStore:
    """The episodes of these seeds."""
    return store.select(seed=tuple(sorted(seeds)))


def collect(task: str, counts: Mapping[str, int], seed: int, folder: Path, workers: int = 1) -> None:
    """Episodes of behaviours in simulation, each of a seed of its own; behaviours that are there stay as they are."""
    from worldpilot.cli.main import main

    for behaviour, count in counts.items():
        if _number(folder, behaviour) != count:
            command = ["collect", task, "--behaviour", behaviour, "--episodes", str(count), "--seed", str(seed)]
            if main([*command, "--workers", str(workers), "--out", str(folder)]):
                raise InvalidInput(f"certify: {behaviour} of {task} could not be collected")
        seed += count


def _number(folder: Path, behaviour: str) -> int:
    if not (folder / DATASET_FILE).is_file():
        return 0
    return sum(meta["behaviour"] == behaviour for meta in EpisodeStore(folder).metas)


def _secondary(
    artifact: Artifact, store: EpisodeStore, content: Mapping[str, Any], delta: float
) -> dict[str, dict[str, Any]]:
    """The compression bound of the best of several updates, and the flatness of the minimum."""
    subspace = _subspace()
    net, clip = subspace.predictor(artifact), content["scale"]["clip"][PRIMARY]
    moments, config = subspace.Moments.of(artifact.world_model, store), subspace.SubspaceConfig()
    n, searched = len(moments.seeds), len(config.codes)

    def bound(tried: tuple[Any, float]) -> float:
        bits = bounds.complexity(8 * len(tried[0].message), searched)
        return bounds.compression_bound(tried[1], n, bits, delta)

    update, _ = min(subspace.compress(net, moments, clip, config), key=bound)
    losses = dict(
        zip(moments.seeds, subspace.unit_losses(net, subspace.updated(net, update), moments, clip), strict=True)
    )
    stated = certificate.compression_statement(
        [float(losses[seed]) for seed in content["data"]["seeds"]],
        delta,
        update.message,
        searched,
        steps=artifact.spec.horizon,
        dims=update.dims,
        levels=update.levels,
        directions_seed=update.seed,
        risk_without=content["held_out"][PRIMARY]["risk"],
    )
    return {"compression": stated, "flatness": subspace.flatness(net, moments, clip)}


def _compressed_losses(artifact: Artifact, store: EpisodeStore, content: Mapping[str, Any]) -> list[float]:
    subspace = _subspace()
    stated, net = content["compression"], subspace.predictor(artifact)
    message = base64.b64decode(stated["message"])
    update = subspace.Update(stated["dims"], stated["levels"], stated["directions_seed"], message)
    moments = subspace.Moments.of(artifact.world_model, store)
    losses = subspace.unit_losses(net, subspace.updated(net, update), moments, content["scale"]["clip"][PRIMARY])
    by_seed = dict(zip(moments.seeds, losses.tolist(), strict=True))
    return [by_seed[seed] for seed in content["data"]["seeds"]]


def _subspace() -> Any:
    try:
        from worldpilot.models.recipe import subspace
    except ImportError as error:
        raise InvalidInput(f"compression needs the extras `train` and `certify` ({error})") from error
    return subspace
