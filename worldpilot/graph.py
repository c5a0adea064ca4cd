"""The node graph as data: reads `launch/graph.yaml`, from which launch files and the supervisor are both made.

Needs nothing but PyYAML: launch files import it on hosts that have no numpy in their launch environment.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from worldpilot.errors import InvalidInput, UnknownName

PACKAGE = "worldpilot_bringup"  # the ROS package that the graph and its parameters are installed with


@dataclass(frozen=True)
class TopicSpec:
    """A topic: its message type ("package/msg/Name"), its quality of service, whether robots may rename it.

    Of the topics with one role ("observation", "control") a task uses one.
    """

    name: str
    type: str
    qos: str
    remappable: bool = False
    role: str | None = None


@dataclass(frozen=True)
class NodeSpec:
    """A node: what to start, when to start it again, what it is connected to."""

    name: str
    package: str
    executable: str
    respawn_delay: float  # [s]
    publishes: tuple[str, ...] = ()
    subscribes: tuple[str, ...] = ()
    services: Mapping[str, str] | None = None
    actions: Mapping[str, str] | None = None
    optional: bool = False  # runs only where it is asked for


@dataclass(frozen=True)
class Graph:
    """All nodes and topics, and the folder in which `config/<task>.yaml` holds the nodes' parameters."""

    folder: Path
    topics: Mapping[str, TopicSpec]
    nodes: Mapping[str, NodeSpec]

    def parameters(self, task: str) -> Path:
        """The parameter file of a task."""
        file = self.folder / "config" / f"{task}.yaml"
        if not file.is_file():
            raise UnknownName("task", task, (path.stem for path in (self.folder / "config").glob("*.yaml")))
        return file

    def settings(self, task: str, node: str) -> dict[str, Any]:
        """What the parameter file of a task says of a node, parameter -> value."""
        sections = yaml.safe_load(self.parameters(task).read_text()) or {}
        return dict(sections.get(f"/**/{node}", {}).get("ros__parameters", {}))

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the nodes, where the user has not set them."""
        return {"FASTRTPS_DEFAULT_PROFILES_FILE": str(self.folder / "config" / "fastdds.xml")}

    def remappable(self, node: NodeSpec) -> list[str]:
        """The topics of a node that a robot may know by another name."""
        return [name for name in (*node.publishes, *node.subscribes) if self.topics[name].remappable]


def find() -> Path:
    """`graph.yaml`: of the installed ROS package if there is one, else of this checkout."""
    shares = [Path(prefix) / "share" / PACKAGE for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    folders = [*shares, Path(__file__).resolve().parents[1] / "launch"]
    for folder in folders:
        if (folder / "graph.yaml").is_file():
            return folder / "graph.yaml"
    raise InvalidInput(f"no graph.yaml in {', '.join(map(str, folders))}: build and source ros2_ws, or name the file")


def load(path: Path | None = None) -> Graph:
    """Read and check a graph; every name that a node uses must be declared."""
    path = path or find()
    try:
        data: dict[str, Any] = yaml.safe_load(path.read_text())
        topics = {name: TopicSpec(name, **fields) for name, fields in data["topics"].items()}
        nodes = {name: _node(name, fields) for name, fields in data["nodes"].items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path} is not a graph (topics: ..., nodes: ...): {error}") from error
    for node in nodes.values():
        for name in (*node.publishes, *node.subscribes):
            if name not in topics:
                raise UnknownName(f"topic of node {node.name}", name, topics)
    return Graph(path.parent, topics, nodes)


def _node(name: str, fields: dict[str, Any]) -> NodeSpec:
    lists = {key: tuple(fields.get(key, ())) for key in ("publishes", "subscribes")}
    return NodeSpec(name, **{**fields, **lists})
