"""Episodes from recordings: rosbag2 folders and single files, MCAP or SQLite, observation and command topics.

A recording has no control rate. Each stretch of observations (images, or states) without a gap gets a grid of ticks,
one control period apart, from its first observation on. A tick's observation is the nearest one; the control that
follows it is the command in force `command_at` of a period later, or the one that the next state says was taken; a
signal is the measurement nearest to the tick's observation.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models.data.episodes import Episode
from worldpilot.types import ActionSpec, ImageArray

OBSERVATION, COMMAND, TAKEN = "the observation", "the command", "what was taken"  # beside the signals' names
_NAME = re.compile(r"[a-z][a-z0-9_]*")

Stamps = npt.NDArray[np.int64]  # [ns], ascending

# encoding -> channels, and how OpenCV makes RGB of them
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
}


@dataclass(frozen=True)
class BagImport:
    """What to take from a recording, and how to lay it on the control rate.

    A field is a path into a message: names, numbers into arrays, names of elements that have one
    ("twist.linear.x", "position.2", "signals.block_x.value").
    """

    spec: ActionSpec
    observation_topic: str  # sensor_msgs/Image or CompressedImage; with `state` worldpilot_msgs/State; "": for none
    command_topic: str
    command_fields: tuple[str, ...]  # one a control
    signals: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # name -> (topic, field)
    state: tuple[str, ...] = ()  # names of the numbers that make an observation, in order; none: it is an image
    size: int = 64  # side of the stored images [px]
    max_gap: float | None = None  # [s] without any of them that ends an episode; None: 2.5 periods
    command_at: float = 0.5  # where in a control period its command is looked up, 0 start, 1 end
    log_time: bool = False  # stamps by the recorder's clock, even where messages have a header
    min_steps: int = 30  # shorter stretches are left out: training's windows span 6 model steps of 5 control steps
    max_steps: int | None = None  # longer stretches are cut
    behaviour: str = "recorded"

    def __post_init__(self) -> None:
        u = self.spec.control_dim
        if len(self.command_fields) != u:
            raise InvalidInput(f"import: {u} controls need {u} command fields, got {list(self.command_fields)}")
        if wrong := [name for name in self.signals if not _NAME.fullmatch(name)]:
            raise InvalidInput(f"import: a signal is named in lower case, digits and _, not {', '.join(wrong)}")
        if not 0.0 <= self.command_at <= 1.0:
            raise InvalidInput(f"import: command_at must lie in [0, 1] of a control period, got {self.command_at}")
        if self.size < 1 or self.min_steps < 1 or (self.max_steps or self.min_steps) < self.min_steps:
            raise InvalidInput("import: size and min_steps must be at least 1, max_steps at least min_steps")
        if self.max_gap is not None and self.max_gap < self.spec.control_dt:
            raise InvalidInput(f"import: max_gap must be at least one control period, got {self.max_gap} s")

    @property
    def period(self) -> int:
        """A control period [ns]."""
        return round(self.spec.control_dt * 1e9)

    @property
    def longest_gap(self) -> int:
        """Without an observation, command or signal, in an episode [ns]."""
        return round((2.5 * self.spec.control_dt if self.max_gap is None else self.max_gap) * 1e9)


@dataclass(frozen=True)
class Stream:
    """What one source said: (n, H, W, 3) images, (n, S) states, (n, U) commands or (n,) signals.

    Of states also the commands (n, U) that the driver took before them, NaN where it does not say.
    """

    stamps: Stamps  # (n,)
    values: npt.NDArray[Any]  # (n, ...)

    def nearest(self, at: Stamps) -> npt.NDArray[np.int64]:
        """Index of the value nearest in time to each of `at`."""
        after = np.searchsorted(self.stamps, at).clip(0, len(self.stamps) - 1)
        before = (after - 1).clip(0)
        return np.where(at - self.stamps[before] <= self.stamps[after] - at, before, after)


def read_episodes(bag: Path, wanted: BagImport) -> list[Episode]:
    """The episodes of one recording; its seed is the stamp of its first observation [ns].

    Raises:
        InvalidInput: the recording cannot be read, lacks a topic or field, has images of another encoding, observations
            slower than the control rate, commands out of bounds, or no stretch of `min_steps` control steps.
    """
    if not wanted.observation_topic:
        raise InvalidInput("import: an episode needs observations; name their topic")
    streams = read_streams(bag, wanted)
    observed, command = streams[OBSERVATION], streams[COMMAND]
    period = float(np.median(np.diff(observed.stamps))) * 1e-9 if len(observed.stamps) > 1 else np.inf
    if period > 1.5 * wanted.spec.control_dt:
        raise InvalidInput(
            f"{bag}: {'a state' if wanted.state else 'an image'} every {period:.3g} s is too slow for a control period "
            f"of {wanted.spec.control_dt} s; give a longer one"
        )
    _check_bounds(bag, command.values, wanted)
    breaks = np.flatnonzero(np.diff(observed.stamps) > wanted.longest_gap) + 1
    episodes, longest = [], 0
    for part in np.split(np.arange(len(observed.stamps)), breaks):
        first, last = int(observed.stamps[part[0]]), int(observed.stamps[part[-1]])
        ticks = np.arange(first, last + wanted.period // 2 + 1, wanted.period)
        for episode in _on_grid(streams, ticks, wanted, bag):
            longest = max(longest, len(episode))
            if len(episode) >= wanted.min_steps:
                episodes.append(episode)
    if not episodes:
        spans = ", ".join(f"{what} {s.stamps[0] * 1e-9:.2f}–{s.stamps[-1] * 1e-9:.2f} s" for what, s in streams.items())
        raise InvalidInput(
            f"{bag}: the longest stretch with all topics is {longest} control steps, {wanted.min_steps} are needed "
            f"({spans}); where clocks differ, take the recorder's (log time), where topics pause, allow longer gaps"
        )
    return episodes


def rgb(message: Any) -> ImageArray:
    """An Image or CompressedImage message as an image of shape (H, W, 3).

    Raises:
        InvalidInput: an encoding that is not one of 8-bit colour or grey, or data that do not fit it.
    """
    if hasattr(message, "format"):
        picture = cv2.imdecode(np.asarray(message.data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise InvalidInput(f"a compressed image of format {message.format!r} cannot be decoded")
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
    if not hasattr(message, "encoding"):
        raise InvalidInput("no image, but " + ", ".join(_fields(message)))
    if message.encoding not in _ENCODINGS:
        raise UnknownName("image encoding", message.encoding, _ENCODINGS)
    channels, conversion = _ENCODINGS[message.encoding]
    h, w, step, data = message.height, message.width, message.step, np.asarray(message.data, np.uint8)
    if h == 0 or w == 0 or step < channels * w or data.size != step * h:
        raise InvalidInput(f"{h} rows of {step} bytes must hold {w} {message.encoding} pixels, got {data.size} bytes")
    picture = data.reshape(h, step)[:, : channels * w].reshape(h, w, channels)  # rows may be padded
    return picture if conversion is None else np.asarray(cv2.cvtColor(picture, conversion), np.uint8)


def state(message: Any, names: tuple[str, ...]) -> list[float]:
    """The numbers of a worldpilot_msgs/State message (names, values) called `names`, in that order.

    Raises:
        InvalidInput: another message, or as many names as values it does not have.
        UnknownName: it lacks a name; the message lists those it has.
    """
    if not (hasattr(message, "names") and hasattr(message, "values")):
        raise InvalidInput("no state (names, values), but " + ", ".join(_fields(message)))
    if len(message.names) != len(message.values):
        raise InvalidInput(f"a state of {len(message.names)} names and {len(message.values)} values")
    there = dict(zip(message.names, message.values, strict=True))
    if missing := [name for name in names if name not in there]:
        raise UnknownName("state", missing[0], there)
    return [float(there[name]) for name in names]


def taken(message: Any, control_dim: int) -> list[float]:
    """The command of the period before a worldpilot_msgs/State message, as it says itself; NaN if it doesn't.

    Raises:
        InvalidInput: it is a command of another size.
    """
    said = [float(value) for value in getattr(message, "control", ())]
    if len(said) not in (0, control_dim):
        raise InvalidInput(f"a state whose driver took {len(said)} controls, {control_dim} are expected")
    return said or [float("nan")] * control_dim


def number(message: Any, path: str) -> float:
    """The number at a path of fields.

    Raises:
        InvalidInput: there is no such field; the message lists those there are.
    """
    value = message
    for part in path.split("."):
        try:
            if not isinstance(value, list | np.ndarray):
                value = getattr(value, part)
            elif part.isdigit():
                value = value[int(part)]
            else:
                value = next(element for element in value if element.name == part)
        except (AttributeError, IndexError, StopIteration) as error:
            there = [e.name for e in value if hasattr(e, "name")] if isinstance(value, list) else _fields(value)
            raise InvalidInput(f"no {part!r} of field {path!r}; there are {', '.join(there) or 'none'}") from error
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"field {path!r} is no number, but {', '.join(_fields(value)) or value}") from error


def _fields(value: Any) -> list[str]:
    if isinstance(value, np.ndarray):
        return [f"0 to {len(value) - 1}"] if len(value) else []
    return [name for name in getattr(value, "__dataclass_fields__", {}) if not name.startswith("_")]


def read_streams(bag: Path, wanted: BagImport) -> dict[str, Stream]:
    """Observation, command and signals by name, each with the stamps of its messages.

    Raises:
        InvalidInput, UnknownName: the recording cannot be read, or lacks a topic or field.
    """
    side = (wanted.size, wanted.size)

    def observation(message: Any) -> Any:
        if wanted.state:
            return state(message, wanted.state)
        return cv2.resize(rgb(message), side, interpolation=cv2.INTER_AREA)

    takes: dict[str, tuple[str, Callable[[Any], Any]]] = {
        COMMAND: (wanted.command_topic, lambda m: [number(m, path) for path in wanted.command_fields]),
    }
    if wanted.observation_topic:
        takes[OBSERVATION] = wanted.observation_topic, observation
        if wanted.state:
            takes[TAKEN] = wanted.observation_topic, partial(taken, control_dim=wanted.spec.control_dim)
    takes |= {name: (topic, partial(number, path=path)) for name, (topic, path) in wanted.signals.items()}
    stamps: dict[str, list[int]] = {what: [] for what in takes}
    values: dict[str, list[Any]] = {what: [] for what in takes}
    for topic, logged, message in _messages(bag, {topic for topic, _ in takes.values()}):
        stamp = logged if wanted.log_time else _stamp(message) or logged
        for what, (source, take) in takes.items():
            if source == topic:
                try:
                    values[what].append(take(message))
                except (InvalidInput, UnknownName) as error:
                    raise InvalidInput(f"{bag}: {topic} ({message.__msgtype__}): {error}") from error
                stamps[what].append(stamp)
    streams = {}
    for what in takes:
        order = np.argsort(np.asarray(stamps[what], np.int64), kind="stable")
        dtype = np.uint8 if what == OBSERVATION and not wanted.state else np.float32
        streams[what] = Stream(np.asarray(stamps[what], np.int64)[order], np.asarray(values[what], dtype)[order])
    return streams


def _messages(bag: Path, topics: set[str]) -> Iterator[tuple[str, int, Any]]:
    """(topic, log time [ns], message) of the topics asked for, each of which must have some."""
    try:
        # Older SQLite bags bring no message definitions: then those of Jazzy count.
        with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            for topic in sorted(topics):
                if topic not in reader.topics or not reader.topics[topic].msgcount:
                    raise UnknownName(f"topic in {bag}:", topic, [n for n, t in reader.topics.items() if t.msgcount])
            for connection, logged, data in reader.messages([c for c in reader.connections if c.topic in topics]):
                yield connection.topic, logged, reader.deserialize(data, connection.msgtype)
    except (AnyReaderError, OSError, KeyError) as error:
        raise InvalidInput(f"{bag} is no readable recording (a rosbag2 folder, .mcap or .db3): {error}") from error


def _stamp(message: Any) -> int:
    """The header's stamp [ns]; 0 without one."""
    header = getattr(message, "header", None)
    return header.stamp.sec * 10**9 + header.stamp.nanosec if header is not None else 0


def _check_bounds(bag: Path, commands: npt.NDArray[np.float32], wanted: BagImport) -> None:
    spec, slack = wanted.spec, 1e-6
    for i, name in enumerate(spec.names):
        low, high = float(commands[:, i].min()), float(commands[:, i].max())
        if low < spec.low[i] - slack or high > spec.high[i] + slack:
            raise InvalidInput(
                f"{bag}: {name} runs from {low:.4g} to {high:.4g}, outside its bounds {spec.low[i]} to {spec.high[i]}; "
                "give the bounds within which the robot is to be driven"
            )


def _on_grid(streams: Mapping[str, Stream], ticks: Stamps, wanted: BagImport, bag: Path) -> Iterator[Episode]:
    """Episodes from all stretches of ticks at which every topic is fresh."""
    observed, command = streams[OBSERVATION], streams[COMMAND]
    seen = observed.nearest(ticks)
    measured = {name: streams[name].nearest(observed.stamps[seen]) for name in wanted.signals}
    known = np.ones(len(ticks), bool)
    for name, index in measured.items():
        known &= np.abs(streams[name].stamps[index] - observed.stamps[seen]) <= wanted.longest_gap
    when = ticks[:-1] + round(wanted.command_at * wanted.period)
    newest = np.searchsorted(command.stamps, when, side="right") - 1
    driven = (newest >= 0) & (when - command.stamps[newest] <= wanted.longest_gap)
    whole = driven & known[:-1] & known[1:]
    controls = command.values[newest]
    if TAKEN in streams:
        said = streams[TAKEN].values[seen[1:]]
        exact = np.isfinite(said).all(axis=1) & (np.diff(seen) == 1)  # of just this tick's period
        controls = np.where(exact[:, None], said, controls)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], whole, [False]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        length = wanted.max_steps or end - start
        for first in range(start, end, length):
            steps, frames = slice(first, min(first + length, end)), slice(first, min(first + length, end) + 1)
            yield Episode(
                observations=observed.values[seen[frames]],
                controls=controls[steps],
                signals={name: streams[name].values[index[frames]] for name, index in measured.items()},
                meta={"seed": int(observed.stamps[seen[first]]), "behaviour": wanted.behaviour, "bag": bag.name},
            )
