"""`worldpilot imagine`: what the model imagines of a held-out episode beside what came, as a picture and in figures."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worldpilot.cli.collect import behave, record
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.imagination import Comparison, compare
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.data.episodes import Episode, EpisodeStore
from worldpilot.sim.tasks import available, task

FRESH = 1_000_000  # seed of the first episode recorded here; those of training data count from 0
_REFERENCE = 100  # frames over which a latent's variance is taken
_SHOWN = {"m": (1e3, " mm"), "rad": (180 / np.pi, "°")}  # units of the picture
_CELL, _GAP, _LEFT, _TOP, _TEXT, _CHART, _BOTTOM = 1.2, 0.06, 0.95, 0.55, 0.62, 1.15, 0.42  # [inch]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=list(available()))
    parser.add_argument("--out", type=Path, required=True, help="the picture: PNG, SVG or PDF, by its ending")
    parser.add_argument("--start", type=int, default=25, help="control step of the episode from which it imagines")
    parser.add_argument("--steps", type=int, default=10, help="model steps to imagine, also beyond the model's horizon")
    parser.add_argument(
        "--episode", type=int, default=0, help="which of the fresh, or of the store's held-out episodes"
    )
    parser.add_argument("--seed", type=int, default=FRESH, help="of fresh episode 0")
    parser.add_argument("--behaviour", default="random_push", help="what acts in a fresh episode")
    parser.add_argument("--data", type=Path, help="folder of episodes; default: a fresh one is recorded in simulation")
    parser.add_argument(
        "--held-out", type=float, default=0.1, help="share of --data that training held out; 1 takes all"
    )
    parser.add_argument("--split-seed", type=int, default=0, help="of that split")
    parser.add_argument("--artifact", type=Path, help="folder of the artifact; default: the shipped one of the task")
    parser.add_argument("--json", type=Path, help="write the figures here")


def run(args: argparse.Namespace) -> int:
    artifact = Artifact.load(args.artifact or zoo_path(args.task))
    spec = artifact.spec
    if spec.task != args.task:
        raise InvalidInput(f"imagine: {artifact.path} is for task {spec.task!r}, not {args.task!r}")
    if spec.observation != "image" or not artifact.has_decoder:
        raise InvalidInput("imagine: nothing to look at without images and a decoder; export the model with one")
    episode, reference = _fresh(args) if args.data is None else _stored(args)
    variance = float(artifact.world_model.encode(reference).var(axis=0).mean())
    latents = artifact.world_model.encode(episode.observations)
    compared = compare(
        artifact.world_model, latents, episode.controls, episode.signals, args.start, args.steps, variance
    )
    figures = _figures(artifact, episode, args.start, compared)
    _print(figures)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    seen = episode.observations[list(compared.frames)]
    _draw(args.out, seen, artifact.decode(compared.latents), compared, figures)
    print(f"written to {args.out}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _fresh(args: argparse.Namespace) -> tuple[Episode, npt.NDArray[Any]]:
    """An episode recorded now, and the first frames of many others."""
    behaviours = task(args.task).behaviours
    if args.behaviour not in behaviours:
        raise UnknownName(f"behaviour of {args.task}", args.behaviour, behaviours)
    if args.episode < 0:
        raise InvalidInput(f"imagine: --episode must be 0 or more, got {args.episode}")
    world, source, seed = task(args.task).world(), behaviours[args.behaviour], args.seed + args.episode
    controls = behave(args.task, args.behaviour, source.make(), world, seed)
    episode = record(world, controls, source.steps, {"seed": seed, "behaviour": args.behaviour})
    reference = np.stack([world.reset(seed=args.seed + i)[0] for i in range(_REFERENCE)])
    world.close()
    return episode, reference


def _stored(args: argparse.Namespace) -> tuple[Episode, npt.NDArray[Any]]:
    """An episode of the store that training held out, and frames from all those."""
    store = EpisodeStore(args.data)
    indices = list(range(len(store))) if args.held_out >= 1 else store.split(args.held_out, args.split_seed)[1]
    if not 0 <= args.episode < len(indices):
        raise InvalidInput(
            f"imagine: {args.data} has {len(indices)} such episodes, from 0; got --episode {args.episode}"
        )
    rng = np.random.default_rng(0)
    chosen = [store[i] for i in rng.choice(indices, min(len(indices), 20), replace=False)]
    frames = np.concatenate([episode.observations for episode in chosen])
    return store[indices[args.episode]], frames[rng.choice(len(frames), min(len(frames), _REFERENCE), replace=False)]


def _figures(artifact: Artifact, episode: Episode, start: int, compared: Comparison) -> dict[str, Any]:
    spec, steps = artifact.spec, len(compared.nmse)
    return {
        "task": spec.task,
        "model_id": spec.model_id,
        "horizon": spec.horizon,
        "episode": {name: episode.meta[name] for name in ("behaviour", "seed")},
        "start_s": round(start * spec.action.control_dt, 6),
        "after_s": [round(i * spec.action.block * spec.action.control_dt, 6) for i in range(steps + 1)],
        "nmse": [0.0, *compared.nmse.tolist()],
        "nmse_copy": [0.0, *compared.nmse_copy.tolist()],
        "errors": {
            name: {"unit": compared.units[name], "values": values.tolist()} for name, values in compared.errors.items()
        },
    }


def _print(figures: dict[str, Any]) -> None:
    """A line a step; the line of 0 s is what the signals are read from, the last latent seen."""
    errors = figures["errors"]
    names = [f"{name} [{error['unit']}]" for name, error in errors.items()]
    print(" ".join(["time [s]", "   nMSE", "  (copy)", *(f"{name:>16}" for name in names)]))
    for i, after in enumerate(figures["after_s"]):
        values = [f"{error['values'][i]:16.4f}" for error in errors.values()]
        print(" ".join([f"{after:8.1f}", f"{figures['nmse'][i]:7.3f}", f"{figures['nmse_copy'][i]:8.3f}", *values]))


def _draw(
    path: Path,
    real: npt.NDArray[np.uint8],
    imagined: npt.NDArray[np.uint8],
    compared: Comparison,
    figures: dict[str, Any],
) -> None:
    """Real frames (T+1, H, W, 3) above imagined ones, their errors below, a column a model step."""
    columns, horizon = len(real), figures["horizon"]
    width = _LEFT + columns * (_CELL + _GAP) + 0.1
    height = _TOP + 2 * _CELL + _GAP + _TEXT + _CHART + _BOTTOM
    figure = Figure(figsize=(width, height))

    def cell(column: int, row: int) -> Axes:
        x, y = _LEFT + column * (_CELL + _GAP), height - _TOP - (row + 1) * _CELL - row * _GAP
        axes = figure.add_axes((x / width, y / height, _CELL / width, _CELL / height), xticks=[], yticks=[])
        axes.spines[:].set_color("#c8c8c8")
        return axes

    for column, after in enumerate(figures["after_s"]):
        top, bottom = cell(column, 0), cell(column, 1)
        top.imshow(real[column], interpolation="lanczos")
        bottom.imshow(imagined[column], interpolation="lanczos")
        top.set_title(f"+{after:.1f} s" if column else "now", fontsize=9)
        lines = [_shown(name, values[column], compared.units[name]) for name, values in compared.errors.items()]
        bottom.set_xlabel("\n".join(lines), fontsize=7.5, color="#444444")
        if column == 0:
            top.set_ylabel("real", fontsize=10)
            bottom.set_ylabel("imagined", fontsize=10)
    place = ((_LEFT - 0.1) / width, (height - _TOP - 2 * _CELL - _GAP - 0.08) / height)
    figure.text(*place, "error of\nwhat is read", fontsize=7.5, color="#444444", ha="right", va="top")
    title = (
        f"{figures['task']}, {figures['episode']['behaviour']} episode {figures['episode']['seed']}, from "
        f"{figures['start_s']:.1f} s: the model sees the present and what led to it, from then on only the actions"
    )
    figure.text(0.1 / width, 1 - 0.08 / height, title, fontsize=9, va="top")

    chart = figure.add_axes(
        (_LEFT / width, _BOTTOM / height, columns * (_CELL + _GAP) / width, _CHART / height), xlim=(-0.5, columns - 0.5)
    )
    steps = np.arange(columns)
    chart.plot(steps, figures["nmse_copy"], "o--", ms=3, lw=1, color="#8a8a8a", label="nothing changes")
    chart.plot(steps, figures["nmse"], "o-", ms=4, lw=1.6, color="#2563a8", label="imagined")
    if columns > horizon + 1:
        chart.axvspan(horizon + 0.5, columns - 0.5, color="#000000", alpha=0.05, lw=0)
        label, place = f"beyond the {horizon} steps of a plan", chart.get_xaxis_transform()
        chart.text(columns - 0.55, 0.04, label, fontsize=7.5, color="#666666", ha="right", transform=place)
    chart.set_ylim(bottom=0)
    chart.set_ylabel("latent nMSE", fontsize=8)
    chart.set_xticks(steps, [str(step) for step in steps], fontsize=8)
    chart.set_xlabel("model step", fontsize=8)
    chart.tick_params(labelsize=8)
    chart.grid(alpha=0.25)
    chart.legend(fontsize=7.5, loc="upper left")
    figure.savefig(path, dpi=90)


def _shown(name: str, error: float, unit: str) -> str:
    scale, suffix = _SHOWN.get(unit, (1.0, f" {unit}"))
    return f"{name} {error * scale:.0f}{suffix}" if unit in _SHOWN else f"{name} {error:.3g}{suffix}"
