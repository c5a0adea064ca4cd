"""What a model's prediction error is on average, with a guarantee: a certificate in its manifest that anyone can check.

The loss of a moment of an episode is the model's squared prediction error one model step or H of them ahead (mean over
the latent's dimensions, of the ensemble's mean), divided by a scale and clipped at 1. The *unit* is what is
independent: an episode, whose loss is the mean over its moments; neighbouring moments resemble one another and count
as nothing more. The scale comes from other episodes. The certificate bounds the expected loss of a new episode of the
same behaviours in the same world, and of no other:

- `held_out`: of the artifact's own networks, from episodes they were not trained on. The primary one.
- `compression`: of the predictor with an update that was trained on these very episodes, by the bits that say which
  (models/recipe/subspace.py). The secondary one, and looser.

Each statement fails with probability at most its delta over the draw of the episodes.
"""

import base64
import binascii
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldpilot.calibration import bounds
from worldpilot.errors import InvalidInput
from worldpilot.models.data.episodes import Episode, EpisodeStore
from worldpilot.models.onnx_model import OnnxWorldModel
from worldpilot.types import FloatArray

FORMAT = 1
LOSSES = ("h_step", "one_step")  # the first is the primary one
QUANTILE = 0.99  # of the errors on other data: the scale
GRAPHS = ("encoder", "predictor")  # what the losses depend on
DIGITS = 5  # of the losses as stored, rounded up
_EXACT = 1e-9  # to which a bound must be what its losses give
_ALIKE = 2e-3  # to which losses must be those of another machine: processors round differently


@dataclass(frozen=True)
class Windows:
    """The W moments of an episode that have a whole history before them and H model steps after."""

    latents: FloatArray  # (W, h, D), what is known
    actions: FloatArray  # (W, h-1+H, A)
    future: FloatArray  # (W, H, D), what came

    @staticmethod
    def of(model: OnnxWorldModel, episode: Episode) -> "Windows | None":
        """None if the episode is too short for one.

        Raises:
            InvalidInput: observations or controls of another model.
        """
        spec = model.spec
        h, block = spec.history, spec.action.block
        if episode.controls.shape[1] != spec.action.control_dim:
            raise InvalidInput(
                f"the model has {spec.action.control_dim} controls, this data {episode.controls.shape[1]}"
            )
        span = (h - 1 + spec.horizon) * block
        first = np.arange(len(episode) - span + 1)[:, None]
        if not len(first):
            return None
        latents = model.encode(episode.observations)
        return Windows(
            latents=latents[first + np.arange(h) * block],
            actions=spec.action.actions(episode.controls[first + np.arange(span)]),
            future=latents[first + np.arange(h, h + spec.horizon) * block],
        )

    def errors(self, predicted: FloatArray) -> dict[str, FloatArray]:
        """Loss -> squared errors (W,) of predictions (W, H, D)."""
        error = np.square(predicted - self.future).mean(-1)
        return {"h_step": error[:, -1], "one_step": error[:, 0]}

    def copied(self) -> FloatArray:
        """What "nothing changes" predicts, of shape (W, H, D)."""
        return np.broadcast_to(self.latents[:, -1:], self.future.shape)


@dataclass(frozen=True)
class Unit:
    """The episodes of one seed, which are one start and one look of the scene, and so count as one."""

    seed: int
    behaviours: tuple[str, ...]
    errors: Mapping[str, FloatArray]  # loss -> (W,), of all moments
    copied: Mapping[str, FloatArray]

    def loss(self, name: str, clip: float) -> float:
        """In [0, 1]: the mean over the moments."""
        return clipped_mean(self.errors[name], clip)


def clipped_mean(errors: FloatArray, clip: float) -> float:
    """Mean of errors (W,), in units of `clip` and no more than 1."""
    return float(np.minimum(errors.astype(np.float64) / clip, 1.0).mean())


def measure(model: OnnxWorldModel, store: EpisodeStore) -> Iterator[Unit]:
    """The prediction errors in the episodes of a store, by seed; those that are too short for one are left out."""
    by_seed: dict[int, list[int]] = {}
    for i, meta in enumerate(store.metas):
        by_seed.setdefault(meta["seed"], []).append(i)
    for seed, indices in by_seed.items():
        whole = [(i, windows) for i in indices if (windows := Windows.of(model, store[i])) is not None]
        if whole:
            errors = [w.errors(model.predict_each(w.latents, w.actions).mean(0)) for _, w in whole]
            copied = [w.errors(w.copied()) for _, w in whole]
            yield Unit(
                seed=seed,
                behaviours=tuple(store.metas[i]["behaviour"] for i, _ in whole),
                errors={name: np.concatenate([e[name] for e in errors]) for name in LOSSES},
                copied={name: np.concatenate([e[name] for e in copied]) for name in LOSSES},
            )


def scales(units: Sequence[Unit]) -> dict[str, float]:
    """Loss -> its scale, in squared latent units: of these units, which must be no others' certificate.

    Raises:
        InvalidInput: no unit, or errors that give none.
    """
    if not units:
        raise InvalidInput("certify: no episode is long enough to give the losses a scale; give more of them")
    clips = {name: np.quantile(np.concatenate([unit.errors[name] for unit in units]), QUANTILE) for name in LOSSES}
    if not all(np.isfinite(clip) and clip > 0 for clip in clips.values()):
        raise InvalidInput(f"certify: the errors' {QUANTILE} quantiles are {clips}, no scale; is the model constant?")
    return {name: float(f"{clip:.6g}") for name, clip in clips.items()}


def statement(losses: Sequence[float], delta: float, **about: Any) -> dict[str, Any]:
    """A held-out bound with all that it follows from; losses are rounded up, and so is the bound."""
    stored = rounded_up(losses)
    mean = float(np.mean(stored))
    return {
        **about,
        "delta": delta,
        "n": len(stored),
        "losses": stored,
        "losses_sha256": losses_sha256(stored),
        "risk": mean,
        "bound": bounds.held_out_bound(mean, len(stored), delta),
    }


def compression_statement(
    losses: Sequence[float], delta: float, message: bytes, searched: int, **about: Any
) -> dict[str, Any]:
    """The bound of a predictor that these losses chose, by the message that says which."""
    stored = statement(losses, delta, **about)
    bits = bounds.complexity(8 * len(message), searched)
    stored["message"] = base64.b64encode(message).decode()
    stored |= {"bits": 8 * len(message), "searched": searched, "complexity": bits}
    stored["bound"] = bounds.compression_bound(stored["risk"], stored["n"], bits, delta)
    stored["bound_sqrt"] = bounds.compression_bound_sqrt(stored["risk"], stored["n"], bits, delta)
    return stored


def certificate(
    manifest: Mapping[str, Any],
    scale: Mapping[str, Any],
    data: Mapping[str, Any],
    units: Sequence[Unit],
    delta: float,
) -> dict[str, Any]:
    """The certificate of an artifact, without its secondary part.

    Args:
        manifest: of the artifact.
        scale: `clip`, loss -> scale, and what it is from: `data_sha256`, `seeds`.
        data: what the units are from: `data_sha256`, and how it is collected again.
        units: none of them seen in training, nor for the scale.
        delta: of each statement.

    Raises:
        InvalidInput: no unit, or one that gave the scale.
    """
    if not units or set(scale["seeds"]) & {unit.seed for unit in units}:
        raise InvalidInput("certify: needs episodes, of other seeds than those that gave the scale")
    spec_horizon = manifest["horizon"]
    behaviours = [name for unit in units for name in unit.behaviours]
    held_out = {
        name: statement(
            [unit.loss(name, scale["clip"][name]) for unit in units],
            delta,
            steps=spec_horizon if name == "h_step" else 1,
            copy_risk=float(np.mean([clipped_mean(unit.copied[name], scale["clip"][name]) for unit in units])),
        )
        for name in LOSSES
    }
    return {
        "format": FORMAT,
        "model_id": manifest["model_id"],
        "graphs": {name: manifest["graphs"][name]["sha256"] for name in GRAPHS},
        "unit": "episode",
        "scale": {"quantile": QUANTILE, **scale},
        "data": {
            **data,
            "behaviours": {name: behaviours.count(name) for name in sorted(set(behaviours))},
            "seeds": [unit.seed for unit in units],
        },
        "held_out": held_out,
        "compression": None,
        "flatness": None,
    }


def check(manifest: Mapping[str, Any]) -> list[str]:
    """What is wrong with the certificate of a manifest whose hashes and schema are right; nothing, if it holds."""
    content = manifest["certificate"]
    if content is None:
        return ["there is none; run `worldpilot certify`"]
    problems = []
    if content["model_id"] != manifest["model_id"]:
        problems.append(f"it is of model {content['model_id']}, this is {manifest['model_id']}; certify again")
    for name in GRAPHS:
        if content["graphs"][name] != manifest["graphs"][name]["sha256"]:
            problems.append(f"it is of another {name}; certify again")
    seeds = content["data"]["seeds"]
    if len(set(seeds)) != len(seeds) or set(seeds) & set(content["scale"]["seeds"]):
        problems.append("a seed counts twice, or has given the scale")
    for name, stated in content["held_out"].items():
        problems += [f"held_out {name}: {problem}" for problem in _check_statement(stated, len(seeds))]
    if content["compression"] is not None:
        problems += [f"compression: {problem}" for problem in _check_statement(content["compression"], len(seeds))]
    return problems


def compare(stored: Sequence[float], measured: Sequence[float]) -> str | None:
    """What is wrong with stored losses, beside the same measured again."""
    if len(stored) != len(measured):
        return f"{len(stored)} losses are stored, {len(measured)} were measured"
    furthest = float(np.abs(np.asarray(stored) - np.asarray(measured)).max())
    return None if furthest <= _ALIKE else f"a loss is {furthest:.2g} away from the one measured again"


def describe(content: Mapping[str, Any]) -> list[str]:
    """The statements in words, the primary one first."""
    lines = []
    for stated in content["held_out"].values():
        ahead = f"{stated['steps']} model step{'s' if stated['steps'] > 1 else ''} ahead"
        lines.append(
            f"held out, {ahead}: at most {stated['bound']:.4f} with probability {1 - stated['delta']:g}; measured "
            f"{stated['risk']:.4f} on {stated['n']} {content['unit']}s, where no change is predicted "
            f"{stated['copy_risk']:.4f}"
        )
    if (stated := content["compression"]) is not None:
        lines.append(
            f"compression, {stated['steps']} model steps ahead: at most {stated['bound']:.4f} (by the square root "
            f"{stated['bound_sqrt']:.4f}) for the predictor with an update of {stated['dims']} dimensions in "
            f"{stated['bits']} bits; measured {stated['risk']:.4f} on the {stated['n']} {content['unit']}s that it "
            f"learnt from, and without the update {stated['risk_without']:.4f}"
        )
    if (flat := content["flatness"]) is not None:
        rises = ", ".join(f"{rise:+.4f} at {sigma:g}" for sigma, rise in zip(flat["sigma"], flat["rise"], strict=True))
        lines.append(f"flatness: the loss changes under noise on the predictor's weights by {rises} of their size")
    return lines


def rounded_up(losses: Sequence[float]) -> list[float]:
    """As stored: to `DIGITS` decimals, never down, so that bounds hold for the losses themselves."""
    tick = 10**DIGITS
    return [min(math.ceil(loss * tick - 1e-9) / tick, 1.0) for loss in losses]


def losses_sha256(losses: Sequence[float]) -> str:
    """Hash of the losses as text, each with `DIGITS` decimals, a comma between two."""
    return hashlib.sha256(",".join(f"{loss:.{DIGITS}f}" for loss in losses).encode()).hexdigest()


def _check_statement(stated: Mapping[str, Any], units: int) -> list[str]:
    losses, n, delta = stated["losses"], stated["n"], stated["delta"]
    if not len(losses) == n == units:
        return [f"{len(losses)} losses of {n} units, {units} seeds"]
    if losses_sha256(losses) != stated["losses_sha256"]:
        return ["the losses are not those of their hash"]
    if not 0.0 <= min(losses) <= max(losses) <= 1.0:
        return ["a loss is outside [0, 1]"]
    mean = float(np.mean(losses))
    expected = {"risk": mean}
    if "message" in stated:
        try:
            bits = 8 * len(base64.b64decode(stated["message"], validate=True))
            expected |= {"bits": bits, "complexity": bounds.complexity(bits, stated["searched"])}
        except (binascii.Error, InvalidInput) as error:
            return [f"the message is none ({error})"]
        expected["bound"] = bounds.compression_bound(mean, n, expected["complexity"], delta)
        expected["bound_sqrt"] = bounds.compression_bound_sqrt(mean, n, expected["complexity"], delta)
    else:
        expected["bound"] = bounds.held_out_bound(mean, n, delta)
    return [
        f"{name} is {stated[name]:.6g}, the losses give {value:.6g}"
        for name, value in expected.items()
        if not abs(stated[name] - value) <= _EXACT * max(1.0, abs(value))
    ]
