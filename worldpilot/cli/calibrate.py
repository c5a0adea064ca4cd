"""`worldpilot calibrate monitor`: thresholds from good episodes that the model was not trained on."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldpilot.calibration.intervals import wilson
from worldpilot.calibration.monitor import Monitor, PredictionTracker
from worldpilot.calibration.thresholds import CHANNELS, DEFAULT_CHANNELS, Thresholds, episodes_needed, fit, normalise
from worldpilot.errors import InvalidInput
from worldpilot.models.artifact import Artifact, update_manifest, zoo_path
from worldpilot.models.data.episodes import Episode, EpisodeStore
from worldpilot.types import PredictionError

FOLDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    monitor = kinds.add_parser("monitor", help="the monitor's thresholds, stored in the artifact's manifest")
    monitor.add_argument("--task", default="push_t")
    monitor.add_argument("--artifact", type=Path, help="folder of the artifact; default: the shipped one of the task")
    monitor.add_argument("--data", type=Path, required=True, help="folder of episodes (see `worldpilot collect`)")
    monitor.add_argument(
        "--behaviours", help="which of the episodes are good ones; default: expert, mpc, or all if there are none"
    )
    monitor.add_argument("--held-out", type=float, default=0.1, help="share that training held out; 1 takes all")
    monitor.add_argument("--split-seed", type=int, default=0, help="of that split")
    monitor.add_argument("--alpha", type=float, default=0.05, help="bound on the share of episodes with a false alarm")
    monitor.add_argument("--channels", default=",".join(DEFAULT_CHANNELS), help=f"of {', '.join(CHANNELS)}")
    monitor.add_argument("--json", type=Path, help="write the result here")
    monitor.set_defaults(calibrate=calibrate_monitor)


def run(args: argparse.Namespace) -> int:
    return args.calibrate(args)


def calibrate_monitor(args: argparse.Namespace) -> int:
    folder = args.artifact or zoo_path(args.task)
    artifact = Artifact.load(folder)
    store = EpisodeStore(args.data)
    behaviours = good_behaviours(store, args.behaviours)
    good = store.select(behaviour=behaviours)
    indices = range(len(good)) if args.held_out >= 1 else good.split(args.held_out, args.split_seed)[1]
    upright = [i for i in indices if not good.metas[i].get("fallen", False)]
    tracker = PredictionTracker(artifact.world_model, horizon=artifact.spec.horizon)
    episodes = [errors for i in upright if (errors := prediction_errors(artifact, tracker, good[i]))]
    if len(upright) < len(indices):
        print(f"{len(indices) - len(upright)} episodes left out: the robot fell in them")
    print(f"{len(episodes)} good episodes ({', '.join(behaviours)}), {sum(map(len, episodes))} predictions")

    options: dict[str, Any] = {
        "model_id": artifact.spec.model_id,
        "behaviours": behaviours,
        "alpha": args.alpha,
        "channels": args.channels.split(","),
    }
    thresholds = fit(episodes, **options)
    alarms = cross_validate(episodes, options)
    metric = None
    if alarms is None:
        enough = math.ceil(episodes_needed(args.alpha, len(options["channels"])) * FOLDS / (FOLDS - 1))
        print(f"false alarms: not checked, {FOLDS}-fold cross-validation needs {enough} episodes")
    else:
        n = len(episodes)
        low, high = wilson(alarms, n)
        metric = {"value": alarms / n, "n": n, "ci": [low, high]}
        print(f"false alarms: {alarms} of {n} held-out episodes, {alarms / n:.1%} (95 % CI {low:.1%} to {high:.1%})")

    def store_thresholds(manifest: dict[str, Any]) -> None:
        manifest["thresholds"] = thresholds.to_dict()
        manifest["metrics"].pop("monitor_false_alarms", None)
        if metric is not None:
            manifest["metrics"]["monitor_false_alarms"] = metric

    update_manifest(folder, store_thresholds)
    limits = ", ".join(f"{name} {limit:.3g}" for name, limit in thresholds.limits.items())
    print(f"thresholds (1 = the median of good steps): {limits}; written to {folder / 'manifest.json'}")
    if args.json:
        result = {"task": artifact.spec.task, "data_sha256": store.sha256(), "false_alarms": metric}
        args.json.write_text(json.dumps({**result, **thresholds.to_dict()}, indent=2) + "\n")
    return 0


def good_behaviours(store: EpisodeStore, asked: str | None) -> tuple[str, ...]:
    """The behaviours of good episodes: those asked for that the store has; all asked for if it has none of them."""
    known = sorted({meta["behaviour"] for meta in store.metas})
    wanted = ("expert", "mpc") if asked is None else tuple(asked.split(","))
    found = tuple(name for name in wanted if name in known)
    return found or (tuple(known) if asked is None else wanted)


def prediction_errors(artifact: Artifact, tracker: PredictionTracker, episode: Episode) -> list[PredictionError]:
    """The errors along one episode; empty if it is shorter than a history."""
    spec = artifact.spec.action
    if episode.controls.shape[1] != spec.control_dim:
        raise InvalidInput(f"the model has {spec.control_dim} controls, this data {episode.controls.shape[1]}")
    tracker.reset()
    latents = artifact.world_model.encode(episode.observations)
    previous = [episode.controls[0], *episode.controls]  # none precedes the first observation; it is not used
    errors = [tracker.update(i * spec.control_dt, latents[i], previous[i]) for i in range(len(latents))]
    return [error for error in errors if error is not None]


def cross_validate(episodes: Sequence[Sequence[PredictionError]], options: dict[str, Any]) -> int | None:
    """How many episodes raise an alarm under thresholds fitted without them; None if they are too few for that."""
    alarms = 0
    for fold in range(FOLDS):
        rest = [errors for i, errors in enumerate(episodes) if i % FOLDS != fold]
        if len(rest) < episodes_needed(options["alpha"], len(options["channels"])):
            return None
        thresholds = fit(rest, **options)
        alarms += sum(raises_alarm(thresholds, errors) for errors in episodes[fold::FOLDS])
    return alarms


def raises_alarm(thresholds: Thresholds, errors: Sequence[PredictionError]) -> bool:
    """Whether the monitor, as it runs on the robot, raises an alert on these raw errors."""
    monitor = Monitor(thresholds)
    return any(monitor.update(normalise(error, thresholds.scales)) for error in errors)
