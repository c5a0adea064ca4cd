"""Reads an MCAP recording of the graph into arrays: what the plots, the video and the report are made from."""

from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from worldpilot.errors import InvalidInput
from worldpilot.types import ImageArray

DECODED = ("image", "state", "imagined", "latent", "prediction_error", "alert", "planner_status", "ground_truth")


@dataclass
class Recording:
    """Topics as lists in order of time; stamps are the observations' [s since the epoch] where they have one."""

    counts: Counter[str] = field(default_factory=Counter)  # messages of every topic
    images: list[tuple[float, ImageArray]] = field(default_factory=list)
    states: list[tuple[float, dict[str, float]]] = field(default_factory=list)  # of tasks without a camera
    imagined: list[tuple[float, ImageArray]] = field(default_factory=list)  # stamp of the moment they show
    read: list[tuple[float, dict[str, float]]] = field(default_factory=list)  # signals, from latents
    truth: list[tuple[float, dict[str, float]]] = field(default_factory=list)  # signals, from the simulator
    surprise: list[tuple[float, float]] = field(default_factory=list)
    alerts: list[tuple[float, int, str]] = field(default_factory=list)  # stamp, level, message
    status: list[tuple[float, Any]] = field(default_factory=list)  # stamp, PlannerStatus

    @staticmethod
    def load(path: Path) -> "Recording":
        """Read a recording.

        Raises:
            InvalidInput: it is missing, or not a readable MCAP file.
        """
        recording = Recording()
        try:
            with path.open("rb") as file:
                reader = make_reader(file, decoder_factories=[DecoderFactory()])
                summary = reader.get_summary()
                if summary is None or summary.statistics is None:
                    raise InvalidInput(f"{path} was not closed by its writer; `mcap recover` can repair it")
                for number, count in summary.statistics.channel_message_counts.items():
                    recording.counts[_name(summary.channels[number].topic)] = count
                topics = [c.topic for c in summary.channels.values() if _name(c.topic) in DECODED]
                for _, channel, message, decoded in reader.iter_decoded_messages(topics=topics):
                    recording._take(_name(channel.topic), message.log_time * 1e-9, decoded)
        except (OSError, McapError) as error:
            raise InvalidInput(f"{path} is not a readable MCAP recording: {error}") from error
        return recording

    def _take(self, topic: str, logged: float, message: Any) -> None:
        stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        if topic == "image":
            self.images.append((stamp, _image(message)))
        elif topic == "state":
            self.states.append((stamp, dict(zip(message.names, message.values, strict=True))))
        elif topic == "imagined":
            self.imagined.append((stamp, _image(message)))
        elif topic == "latent":
            self.read.append((stamp, _signals(message)))
        elif topic == "ground_truth":
            self.truth.append((stamp, _signals(message)))
        elif topic == "prediction_error":
            self.surprise.append((stamp, message.one_step))
        elif topic == "alert":
            self.alerts.append((logged, message.level, message.message))
        elif topic == "planner_status":
            self.status.append((logged, message))


def at(series: Sequence[Any], stamp: float, *, within: float = float("inf")) -> Any:
    """The newest entry of a series at `stamp`, as it was known then; None if none is at most `within` [s] older."""
    index = bisect(series, stamp, key=itemgetter(0))
    return series[index - 1] if index > 0 and stamp - series[index - 1][0] <= within else None


def _name(topic: str) -> str:
    return topic.rsplit("/", 1)[-1]


def _image(message: Any) -> ImageArray:
    rows = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.step)
    return rows[:, : 3 * message.width].reshape(message.height, message.width, 3)


def _signals(message: Any) -> dict[str, float]:
    return {signal.name: signal.value for signal in message.signals}
