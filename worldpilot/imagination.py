"""Open-loop imagination: where a sequence of actions leads, as far as one likes, and how far off that was."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worldpilot.contracts import WorldModel
from worldpilot.errors import InvalidInput
from worldpilot.types import FloatArray, History


def imagine(model: WorldModel, history: History, actions: FloatArray) -> FloatArray:
    """Actions of shape (T, A), for any T, to latents of shape (T, D), the ensemble's mean.

    A model is trained and exported for H steps. Beyond them it is asked again, from what it has imagined itself.
    """
    h, horizon = model.spec.history, model.spec.horizon
    latents, applied = history.latents, history.actions
    for first in range(0, len(actions), horizon):
        ahead = actions[first : first + horizon]
        past = History(latents[len(latents) - h :], applied[len(applied) - (h - 1) :])
        latents = np.concatenate([latents, model.predict(past, ahead[None]).mean(axis=0)[0]])
        applied = np.concatenate([applied, ahead])
    return latents[h:]


@dataclass(frozen=True)
class Comparison:
    """T model steps imagined from one moment of an episode, beside what came. Index 0 of T+1 is that moment itself."""

    frames: tuple[int, ...]  # (T+1,), which observations of the episode
    latents: FloatArray  # (T+1, D): seen, then imagined
    nmse: FloatArray  # (T,), squared error of the latent over its variance
    nmse_copy: FloatArray  # (T,), of the guess that nothing changes
    errors: Mapping[str, FloatArray]  # signal -> (T+1,), absolute error [its unit]; `block` joins block_x, block_y, …
    units: Mapping[str, str]  # of the errors


def compare(
    model: WorldModel,
    latents: FloatArray,
    controls: FloatArray,
    truth: Mapping[str, FloatArray],
    start: int,
    steps: int,
    variance: float,
) -> Comparison:
    """Imagine `steps` model steps from observation `start` under the controls that were applied, and compare.

    Args:
        model: the world model.
        latents: of the whole episode, of shape (n+1, D).
        controls: of the whole episode, of shape (n, U).
        truth: measured signals, name -> (n+1,); those that the model does not read are left out.
        start: index of the last observation that the model sees [control steps].
        steps: T.
        variance: of a latent dimension, over the data that the error is compared with.

    Raises:
        InvalidInput: the episode does not hold the history before `start` or the steps after it.
    """
    spec, k, before = model.spec.action, model.spec.action.block, (model.spec.history - 1) * model.spec.action.block
    if steps < 1 or not before <= start <= len(controls) - steps * k:
        raise InvalidInput(
            f"imagine: {steps} model steps of {k} controls from step {start} do not fit; this episode has "
            f"{len(controls)} controls and the history takes {before}, so start between {before} and "
            f"{len(controls) - max(steps, 1) * k} with at least one step"
        )
    frames = np.arange(start, start + steps * k + 1, k)
    past = History(latents[start - before : start + 1 : k], spec.actions(controls[start - before : start]))
    imagined = imagine(model, past, spec.actions(controls[start : start + steps * k]))
    shown = np.concatenate([latents[start][None], imagined])
    came = latents[frames[1:]]
    errors, units = _signal_errors(model, shown, {name: values[frames] for name, values in truth.items()})
    return Comparison(
        frames=tuple(int(i) for i in frames),
        latents=shown,
        nmse=np.square(imagined - came).mean(axis=1) / variance,
        nmse_copy=np.square(latents[start] - came).mean(axis=1) / variance,
        errors=errors,
        units=units,
    )


def _signal_errors(
    model: WorldModel, latents: FloatArray, truth: Mapping[str, FloatArray]
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Absolute errors of what is read from latents (T+1, D); coordinates of one point become a distance."""
    read = model.signals(latents)
    squares: dict[str, FloatArray] = {}
    units: dict[str, str] = {}
    for signal in model.spec.signals:
        if signal.name not in truth:
            continue
        error = read[signal.name] - truth[signal.name]
        if signal.unit == "rad":
            error = np.angle(np.exp(1j * error)).astype(np.float32)
        name = signal.name[:-2] if signal.name.endswith(("_x", "_y", "_z")) else signal.name
        squares[name] = squares.get(name, np.zeros_like(error)) + np.square(error)
        units[name] = signal.unit
    return {name: np.sqrt(square) for name, square in squares.items()}, units
