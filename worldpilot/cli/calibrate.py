"""`worldpilot calibrate monitor`: thresholds from good episodes training has not seen; other kinds beside."""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.calibration.intervals import wilson
from worldpilot.calibration.monitor import Monitor, PredictionTracker, proposal_spread
from worldpilot.calibration.thresholds import (
    CHANNELS,
    DEFAULT_CHANNELS,
    Thresholds,
    episode_maxima,
    episodes_needed,
    fit,
    normalise,
    whiten,
)
from worldpilot.cli import calibrate_camera, system_arguments
from worldpilot.errors import InvalidInput
from worldpilot.models.artifact import Artifact, update_manifest, zoo_path
from worldpilot.models.data.episodes import Episode, EpisodeStore
from worldpilot.types import FloatArray, ModelSpec, PredictionError

FOLDS = 5
SURPRISES = ("auto", "plain", "whitened")
SHAPE = 5  # each fifth episode gives the whitening, the others the thresholds


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
    monitor.add_argument(
        "--surprise",
        choices=SURPRISES,
        default="auto",
        help="how one-step errors are measured; whitened detects better, but takes a fifth of the episodes for itself; "
        "auto: whitened where enough are left",
    )
    monitor.add_argument(
        "--reward",
        action="append",
        default=[],
        metavar="SPEC",
        help="a reward that the robot will be asked for, JSON or a file of it; refused if no episode had one of its "
        "family; may be repeated",
    )
    monitor.add_argument("--json", type=Path, help="write the result here")
    monitor.add_argument(
        "--plot", type=Path, help="draw the episodes' maxima and their thresholds here (PNG, SVG or PDF)"
    )
    monitor.set_defaults(calibrate=calibrate_monitor)
    calibrate_camera.add_kinds(kinds)
    system_arguments.add_kinds(kinds)


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
    if len(upright) < len(indices):
        print(f"{len(indices) - len(upright)} episodes left out: the robot fell in them")
    check_data(store, [good.metas[i] for i in upright], artifact.spec)
    rewards = families([good.metas[i] for i in upright], args.reward)
    print(f"{len(upright)} good episodes ({', '.join(behaviours)})")
    channels, whitening = args.channels.split(","), None
    if args.surprise != "plain":
        shape, rest = upright[::SHAPE], [i for k, i in enumerate(upright) if k % SHAPE]
        vectors = (
            np.concatenate([residuals(artifact, good[i]) for i in shape]) if shape else np.empty((0, 0), np.float32)
        )
        few = len(rest) < episodes_needed(args.alpha, len(channels)) or len(vectors) < artifact.spec.latent_dim
        if few and args.surprise == "auto":
            print("errors are plain: too few episodes to whiten them by a part")
        else:
            upright, whitening = rest, whiten(vectors)
            print(f"errors are whitened by {len(shape)} of them, the other {len(rest)} give the thresholds")
    tracker = PredictionTracker(artifact.world_model, horizon=artifact.spec.horizon, whitening=whitening)
    rng = np.random.default_rng(args.split_seed) if "spread" in channels else None
    episodes = [errors for i in upright if (errors := prediction_errors(artifact, tracker, good[i], rng))]
    counted = ", ".join(f"{family} ({count} episodes)" for family, count in rewards.items())
    print(f"rewards in force: {counted or 'not recorded'}")

    options: dict[str, Any] = {
        "model_id": artifact.spec.model_id,
        "behaviours": behaviours,
        "alpha": args.alpha,
        "channels": channels,
        "rewards": rewards,
        "whitening": whitening,
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
    if args.plot:
        plot_maxima(args.plot, thresholds, episodes)
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


def check_data(store: EpisodeStore, metas: Sequence[Mapping[str, Any]], spec: ModelSpec) -> None:
    """Refuse episodes that tell nothing of this model's monitor: another task, robot, rate, or model that acted.

    What a store does not say is not checked.

    Raises:
        InvalidInput: with what differs.
    """
    said = store.meta
    found: dict[str, Any] = {"task": said.get("task", spec.task)}
    wanted: dict[str, Any] = {"task": spec.task}
    if "action" in said:
        fields = {"names": "controls", "units": "units of the controls", "control_dt": "control period [s]"}
        for name, text in fields.items():
            wanted[text] = spec.action.to_dict()[name]
            found[text] = said["action"].get(name, wanted[text])
    if "state" in said:
        found["state"], wanted["state"] = list(said["state"]["names"]), list(spec.observation_names)
    acted = {meta.get("model_id", said.get("model_id", spec.model_id)) for meta in metas}
    found["model that acted"], wanted["model that acted"] = " and ".join(sorted(acted)), spec.model_id
    for what, value in wanted.items():
        if found[what] != value:
            raise InvalidInput(
                f"calibrate monitor: {what} of {store.path} is {found[what]}, of the artifact {value}; thresholds hold "
                "for the robot and the policy they were fitted on: record episodes with this artifact"
            )


def families(metas: Sequence[Mapping[str, Any]], asked: Sequence[str]) -> dict[str, int]:
    """Family of the reward in force -> number of episodes; empty where the episodes had none, or do not say.

    Raises:
        InvalidInput: a reward that the robot will be asked for is of a family that no episode had.
    """
    from worldpilot.planners.rewards import registry

    counts = Counter(family for meta in metas if (family := meta.get("reward_family")))
    for text in asked:
        family = registry.family(registry.parse_spec(text if text.lstrip().startswith("{") else Path(text).read_text()))
        if family not in counts:
            raise InvalidInput(
                f"calibrate monitor: no episode was recorded under {family}, but under "
                f"{' or '.join(counts) or 'no reward that the data tells of'}; record some with this reward"
            )
    return dict(counts)


def prediction_errors(
    artifact: Artifact, tracker: PredictionTracker, episode: Episode, rng: np.random.Generator | None = None
) -> list[PredictionError]:
    """The errors along one episode; empty if it is shorter than a history.

    Args:
        rng: draws proposals of the prior at every step, for their spread; None leaves it out.
    """
    spec, n, errors = artifact.spec, int(artifact.manifest["proposals"]), list[PredictionError]()
    for error, _ in _track(artifact, tracker, episode):
        if rng is not None:
            target = episode.meta.get("target")
            proposals = artifact.prior.propose(tracker.history(), n, rng, target)
            error = replace(error, spread=proposal_spread(proposals, spec.action))
        errors.append(error)
    return errors


def residuals(artifact: Artifact, episode: Episode) -> FloatArray:
    """The one-step errors along one episode as vectors, of shape (n, D)."""
    tracker = PredictionTracker(artifact.world_model)
    vectors = [vector for _, vector in _track(artifact, tracker, episode)]
    return np.reshape(vectors, (-1, artifact.spec.latent_dim)).astype(np.float32)


def _track(
    artifact: Artifact, tracker: PredictionTracker, episode: Episode
) -> Iterator[tuple[PredictionError, FloatArray]]:
    """Error after error, each with its vector of shape (D,)."""
    spec = artifact.spec.action
    if episode.controls.shape[1] != spec.control_dim:
        raise InvalidInput(f"the model has {spec.control_dim} controls, this data {episode.controls.shape[1]}")
    tracker.reset()
    latents = artifact.world_model.encode(episode.observations)
    previous = [episode.controls[0], *episode.controls]  # none precedes the first observation; it is not used
    for i, latent in enumerate(latents):
        error = tracker.update(i * spec.control_dt, latent, previous[i])
        if error is not None and tracker.predicted is not None:
            yield error, latent - tracker.predicted


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


def plot_maxima(path: Path, thresholds: Thresholds, episodes: Sequence[Sequence[PredictionError]]) -> None:
    """Each channel's episode maxima in ascending order, and its threshold, with the episodes above it in red."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    maxima = episode_maxima([[normalise(e, thresholds.scales) for e in ep] for ep in episodes], thresholds.quantiles)
    figure, axes = plt.subplots(1, len(thresholds.limits), figsize=(4.4 * len(thresholds.limits), 3.2), squeeze=False)
    for axis, (channel, limit) in zip(axes[0], thresholds.limits.items(), strict=True):
        values = np.sort(maxima[channel])
        over, share = values > limit, np.arange(1, len(values) + 1) / len(values)
        axis.plot(values[~over], share[~over], ".", ms=4, color="#333333")
        axis.plot(values[over], share[over], ".", ms=5, color="#c0392b", label=f"{over.sum()} of {len(values)} above")
        axis.axvline(limit, color="#c0392b", ls="--", lw=1.2, label=f"threshold {limit:.3g}")
        axis.set_xscale("log")
        axis.set_title(channel, fontsize=10)
        axis.set_xlabel("largest score of an episode")
        axis.set_ylabel("share of episodes")
        axis.legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def raises_alarm(thresholds: Thresholds, errors: Sequence[PredictionError]) -> bool:
    """Whether the monitor, as it runs on the robot, raises an alert on these raw errors."""
    monitor = Monitor(thresholds)
    return any(monitor.update(normalise(error, thresholds.scales)) for error in errors)
