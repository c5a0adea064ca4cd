"""Everything that flows through the graph, as MCAP: opens in Foxglove, PlotJuggler and rosbag2."""

import datetime
import os
from pathlib import Path
from typing import Any

from mcap.writer import Writer
from rclpy.qos import QoSProfile

from worldpilot import graph as graphs
from worldpilot_nodes import params, qos
from worldpilot_nodes.base import PilotNode, run
from worldpilot_nodes.schema import message_definition

_DEPTH = 50  # messages that may wait while a chunk is written


class RecorderNode(PilotNode):
    """Writes what its graph says it subscribes to, as it came over the wire."""

    def __init__(self) -> None:
        super().__init__("recorder", params.RECORDER)

    def configure(self) -> None:
        graph = graphs.load(Path(self.params.graph)) if self.params.graph else self.graph
        path = _new_file(self.params.path)
        self._heard: set[int] = set()  # channels that have spoken
        file = path.open("wb")
        self._writer = Writer(file)
        self._writer.start(profile="ros2", library="worldpilot")
        self.at_cleanup(file.close)
        self.at_cleanup(self._writer.finish)
        for topic in graph.nodes["recorder"].subscribes:
            if topic not in self.params.leave_out:
                self._record(graph.topics[topic])
        self.get_logger().info(f"writing to {path}")

    def _record(self, topic: graphs.TopicSpec) -> None:
        name = self.resolve_topic_name(topic.name)
        schema = self._writer.register_schema(topic.type, "ros2msg", message_definition(topic.type).encode())
        channel = self._writer.register_channel(name, "cdr", schema)

        def write(data: bytes) -> None:
            if channel not in self._heard:
                self._heard.add(channel)
                self.get_logger().info(f"recording {name}")
            now = self.get_clock().now().nanoseconds
            self._writer.add_message(channel, log_time=now, publish_time=now, data=data)

        self.subscription(topic.name, write, raw=True, qos=_deep(qos.SUBSCRIPTIONS[topic.qos]))


def _deep(profile: QoSProfile) -> Any:
    return QoSProfile(
        history=profile.history, depth=_DEPTH, reliability=profile.reliability, durability=profile.durability
    )


def _new_file(wanted: str) -> Path:
    """The file asked for, or a numbered one beside it: a recorder that is started again overwrites nothing."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    first = Path(wanted) if wanted else Path("runs") / f"{stamp}.mcap"
    first.parent.mkdir(parents=True, exist_ok=True)
    path, number = first, 1
    while os.path.exists(path):
        path, number = first.with_stem(f"{first.stem}-{number}"), number + 1
    return path


def main() -> None:
    """Run the node."""
    run(RecorderNode)


if __name__ == "__main__":
    main()
