"""What `worldpilot calibrate latency` and `calibrate system` do: a robot's delays and parameters, into one file."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.calibration import latency, sysid
from worldpilot.calibration.latency import Latency, LatencyConfig, Series, Track
from worldpilot.calibration.sysid import Identified, Parameter
from worldpilot.cli import system_plots
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.data.bags import COMMAND, OBSERVATION, BagImport, Stream, read_streams
from worldpilot.models.data.episodes import Episode, EpisodeStore
from worldpilot.sim.identify import Replay, Segment
from worldpilot.sim.tasks import Task, task
from worldpilot.system import System
from worldpilot.types import FloatArray

_BATCH = 64  # images that are encoded at once
_SOURCES = ("encoder", "camera")

Array = npt.NDArray[np.float64]


# --- latency ---------------------------------------------------------------------------------------------------------


def calibrate_latency(args: argparse.Namespace) -> int:
    if (args.data is None) == (args.bag is None):
        raise InvalidInput("calibrate latency: give --data or --bag")
    store = EpisodeStore(args.data) if args.data else None
    name = store.meta.get("task", args.task) if store else args.task
    sources = tuple(args.sources.split(","))
    if unknown := [source for source in sources if source not in _SOURCES]:
        raise UnknownName("source of positions", unknown[0], _SOURCES)
    entry = _known(name)
    position = args.position or (entry.position if entry else ())
    if not position:
        raise InvalidInput(f"calibrate latency: controls of {name} are no velocities of positions it knows; --position")
    artifact = Artifact.load(args.artifact or zoo_path(name)) if "camera" in sources else None
    servo = 1 / args.servo_rate if args.servo_rate else entry.servo_dt if entry else None
    config = LatencyConfig(args.commands, servo or latency.CONTINUOUS, args.lag, args.segment)
    if store is not None:
        tracks = [_track(episode, store.meta["action"]["control_dt"], position, sources, artifact) for episode in store]
    else:
        tracks = _bag_tracks(args, entry, position, sources, artifact)
    found = latency.fit(tracks, config)
    for what, time in found.times.items():
        label = "lag of the servo" if what == "lag" else "sum of the delays" if what == "total" else f"{what} delay"
        bounds = f"95 % CI {1e3 * time.low:.1f} to {1e3 * time.high:.1f}"
        print(f"{label}: {1e3 * time.value:.1f} ms ({bounds}), from {found.segments} segments")
    _finish(args, name, found, system_plots.latency(tracks, found, config) if args.plot else None)
    return 0


def _known(name: str) -> Task | None:
    """A task by its name; None for a robot that is not simulated here."""
    try:
        return task(name)
    except UnknownName:
        return None


def _track(
    episode: Episode, dt: float, position: Sequence[str], sources: Sequence[str], artifact: Artifact | None
) -> Track:
    """An episode, whose controls and observations lie on one clock."""
    stamps = dt * np.arange(len(episode) + 1)
    measured = {}
    if "encoder" in sources:
        measured["encoder"] = Series(stamps, _columns(episode.signals, position))
    if artifact is not None:
        measured["camera"] = Series(stamps, _read(artifact, episode.observations, position))
    return Track(Series(stamps[:-1], episode.controls.astype(float)), measured)


def _bag_tracks(
    args: argparse.Namespace,
    entry: Task | None,
    position: Sequence[str],
    sources: Sequence[str],
    artifact: Artifact | None,
) -> list[Track]:
    """A recording, with the stamps of its messages."""
    if entry is None:
        raise InvalidInput(f"calibrate latency: {args.task} is no task here; import the bag and give --data")
    fields = args.position_fields or tuple(f"signals.{name}.value" for name in position)
    wanted = BagImport(
        spec=entry.action,
        observation_topic=args.image_topic if artifact else "",
        command_topic=args.command_topic,
        command_fields=args.command_fields,
        signals={name: (args.position_topic, field) for name, field in zip(position, fields, strict=True)}
        if "encoder" in sources
        else {},
        size=artifact.spec.observation_shape[0] if artifact else 8,
    )
    streams = read_streams(args.bag, wanted)
    start = min(int(stream.stamps[0]) for stream in streams.values())

    def series(stream: Stream, values: npt.NDArray[Any]) -> Series:
        return Series((stream.stamps - start) * 1e-9, values.astype(float))

    measured = {}
    if "encoder" in sources:
        columns = {name: streams[name].values for name in position}
        measured["encoder"] = series(streams[position[0]], _columns(columns, position))
    if artifact is not None:
        seen = streams[OBSERVATION]
        measured["camera"] = series(seen, _read(artifact, seen.values, position))
    return [Track(series(streams[COMMAND], streams[COMMAND].values), measured)]


def _columns(signals: Any, names: Sequence[str]) -> Array:
    """Signals as (n, A)."""
    for name in names:
        if name not in signals:
            raise UnknownName("signal of the recording", name, signals)
    return np.stack([np.asarray(signals[name], float) for name in names], -1)


def _read(artifact: Artifact, images: npt.NDArray[Any], names: Sequence[str]) -> Array:
    """Where the artifact sees the robot, (n, A)."""
    model = artifact.world_model
    parts: list[FloatArray] = [model.encode(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
    return _columns(model.signals(np.concatenate(parts)), names)


# --- system ----------------------------------------------------------------------------------------------------------


def calibrate_system(args: argparse.Namespace) -> int:
    stores = [EpisodeStore(folder) for folder in args.data]
    names = {store.meta.get("task", "") for store in stores}
    if len(names) != 1:
        raise InvalidInput(f"calibrate system: the recordings are of several tasks: {', '.join(sorted(names))}")
    name = names.pop()
    known = System.load(args.system, name) if args.system and args.system.is_file() else System(name)
    entry = task(name)
    if entry.replay is None:
        raise InvalidInput(f"calibrate system: recordings of {name} cannot be played again; there is no replay for it")
    replay = entry.replay(known)
    try:
        found, segments, channels = identify(replay, [e for store in stores for e in store], args.parameters)
        figure = system_plots.system(replay, segments, channels, found) if args.plot else None
    finally:
        replay.close()
    for parameter, value in found.parameters.items():
        unit, std = replay.sought[parameter].unit, found.std[parameter]
        state = "" if parameter in found.identified else ": NOT identifiable"
        print(f"{parameter}: {value:.4g} ± {1.96 * std:.2g} {unit.replace('1', '')}".rstrip() + f" (95 % CI){state}")
    print(f"from {found.segments} segments; condition of the covariance {found.condition:.3g}")
    _finish(args, name, found, figure)
    return 0


def identify(
    replay: Replay, episodes: Sequence[Episode], wanted: Sequence[str] | None = None
) -> tuple[Identified, list[Segment], list[str]]:
    """The parameters with which a replay agrees best with episodes; the segments and channels it was judged by.

    Raises:
        UnknownName: a parameter that the replay doesn't know.
        InvalidInput: the episodes lack something, or hold too few segments.
    """
    names = tuple(wanted or replay.sought)
    for parameter in names:
        if parameter not in replay.sought:
            raise UnknownName("parameter", parameter, replay.sought)
    segments, channels = list[Segment](), list[str]()
    for episode in episodes:
        observed = episode.observations.astype(float) if episode.observations.ndim == 2 else None
        part, channels = replay.cut(episode.controls.astype(float), episode.signals, observed)
        segments += part
    parameters = [
        Parameter(parameter, s.start, s.low, s.high, s.scale, s.unit)
        for parameter, s in ((parameter, replay.sought[parameter]) for parameter in names)
    ]
    measured = [segment.measured for segment in segments]
    found = sysid.fit(lambda values: replay.play(values, segments, channels), measured, channels, parameters)
    return found, segments, channels


# --- both ------------------------------------------------------------------------------------------------------------


def _finish(args: argparse.Namespace, name: str, found: Latency | Identified, figure: Any) -> None:
    for remark in found.remarks:
        print(f"note: {remark}")
    if args.json:
        args.json.write_text(json.dumps({"task": name, **found.to_dict()}, indent=2) + "\n")
    if figure is not None:
        figure.savefig(args.plot, dpi=110)
    if args.system:
        before = System.load(args.system, name) if args.system.is_file() else System(name)
        updated(before, found).save(args.system)
        print(f"written to {args.system}")


def updated(system: System, found: Latency | Identified) -> System:
    """A system with what was found, where it is known; the rest is as it was."""
    result = found.to_dict()
    if isinstance(found, Latency):
        control, camera = (found.times.get(what) for what in ("control", "camera"))
        return replace(
            system,
            control_delay=max(control.value, 0.0) if control else system.control_delay,
            camera_delay=max(camera.value, 0.0) if camera else system.camera_delay,
            measured={**system.measured, "latency": result},
        )
    known = {name: found.parameters[name] for name in found.identified}
    delay = known.pop("control_delay", system.control_delay)
    return replace(
        system,
        control_delay=delay,
        parameters={**system.parameters, **known},
        measured={**system.measured, "system": result},
    )
