"""The graph as data, and the launch file and the parameter file that must agree with it."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from worldpilot import graph as graphs
from worldpilot.errors import InvalidInput, UnknownName

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
TASKS = sorted(file.stem for file in (LAUNCH / "config").glob("*.yaml"))
NODES = ROOT / "ros2_ws" / "src" / "worldpilot_nodes"


@pytest.fixture
def graph() -> graphs.Graph:
    return graphs.load(LAUNCH / "graph.yaml")


class Recorded:
    """Stands for a class of `launch`, which pip-only hosts lack: keeps its arguments, refuses unknown ones."""

    allowed: frozenset[str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.allowed is not None and (unknown := set(kwargs) - self.allowed):
            raise TypeError(f"{type(self).__name__} takes no {unknown}")
        self.args, self.kwargs = args, kwargs


def recorded(name: str, *allowed: str) -> type[Recorded]:
    return type(name, (Recorded,), {"allowed": frozenset(allowed)})


# The keyword arguments that launch 3.4 and launch_ros 0.26 (Jazzy) have.
PROCESS = ("output", "respawn", "respawn_delay", "condition", "emulate_tty", "sigterm_timeout", "sigkill_timeout")
ROS_NODE = ("name", "namespace", "package", "executable", "parameters", "remappings", "ros_arguments", "arguments")
MODULES = {
    "launch": {"LaunchDescription": recorded("LaunchDescription")},
    "launch.actions": {
        "DeclareLaunchArgument": recorded("DeclareLaunchArgument", "default_value", "description", "choices"),
        "SetEnvironmentVariable": recorded("SetEnvironmentVariable"),
    },
    "launch.conditions": {"IfCondition": recorded("IfCondition")},
    "launch.substitutions": {
        "EnvironmentVariable": recorded("EnvironmentVariable", "default_value"),
        "LaunchConfiguration": recorded("LaunchConfiguration", "default"),
    },
    "launch_ros": {},
    "launch_ros.actions": {"LifecycleNode": recorded("LifecycleNode", *ROS_NODE, *PROCESS)},
    "launch_ros.parameter_descriptions": {"ParameterValue": recorded("ParameterValue", "value_type")},
}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The actions of the launch file."""
    for name, contents in MODULES.items():
        module = ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("task_launch", LAUNCH / "push_t.launch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description().args[0]


def of(actions: list[Any], kind: str) -> list[Any]:
    return [action for action in actions if type(action).__name__ == kind]


def test_launch_file_starts_the_nodes_of_the_graph(launched: list[Any], graph: graphs.Graph) -> None:
    nodes = {node.kwargs["name"]: node.kwargs for node in of(launched, "LifecycleNode")}
    assert list(nodes) == list(graph.nodes)
    for name, node in graph.nodes.items():
        made = nodes[name]
        assert (made["package"], made["executable"]) == (node.package, node.executable)
        assert made["respawn"] is True
        assert made["respawn_delay"] == node.respawn_delay
        assert made["condition"].args[0].args == (name,)  # sim:=false leaves sim out
        assert [topic for topic, _ in made["remappings"]] == graph.remappable(node)


def test_an_optional_node_runs_only_where_it_is_asked_for(launched: list[Any], graph: graphs.Graph) -> None:
    defaults = {a.args[0]: a.kwargs["default_value"] for a in of(launched, "DeclareLaunchArgument")}
    for node in graph.nodes.values():
        assert defaults[node.name] == ("false" if node.optional else "true")
    assert graph.nodes["reasoning"].optional


def test_the_environment_of_the_nodes_gives_way_to_the_users(launched: list[Any], graph: graphs.Graph) -> None:
    made = {action.args[0]: action.args[1] for action in of(launched, "SetEnvironmentVariable")}
    assert {name: value.kwargs["default_value"] for name, value in made.items()} == graph.environment
    assert all(value.args == (name,) for name, value in made.items())
    assert all(Path(value).is_file() for value in graph.environment.values())


def test_every_configuration_that_the_launch_file_uses_is_declared(launched: list[Any]) -> None:
    declared = {argument.args[0] for argument in of(launched, "DeclareLaunchArgument")}
    used: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, Recorded):
            if type(value).__name__ == "LaunchConfiguration":
                used.add(value.args[0])
            collect([*value.args, *value.kwargs.values()])
        elif isinstance(value, dict):
            collect(list(value.values()))
        elif isinstance(value, list | tuple):
            for item in value:
                collect(item)

    collect(of(launched, "LifecycleNode"))
    assert used == declared


def test_the_parameters_are_those_of_the_task_that_is_asked_for(launched: list[Any], graph: graphs.Graph) -> None:
    arguments = {action.args[0]: action.kwargs for action in of(launched, "DeclareLaunchArgument")}
    folder, task, suffix = arguments["params_file"]["default_value"]
    assert (arguments["task"]["default_value"], task.args) == ("push_t", ("task",))
    for name in TASKS:
        assert Path(f"{folder}{name}{suffix}") == graph.parameters(name)
    assert all(node.kwargs["parameters"][1]["task"].args == (task,) for node in of(launched, "LifecycleNode"))


def test_the_launch_file_of_push_t_is_that_of_every_task() -> None:
    assert (LAUNCH / "push_t.launch.py").resolve() == LAUNCH / "task.launch.py"
    assert "task.launch.py push_t.launch.py" in (LAUNCH / "CMakeLists.txt").read_text()


@pytest.mark.parametrize("task", TASKS)
def test_the_parameter_file_sets_only_parameters_that_its_nodes_declare(task: str, graph: graphs.Graph) -> None:
    text = (NODES / "worldpilot_nodes" / "params.py").read_text()
    for pattern, content in yaml.safe_load(graph.parameters(task).read_text()).items():
        node = pattern.removeprefix("/**/")
        assert node in graph.nodes
        start = text.index(f"\n{node.upper()} = (")
        block = text[start : text.index("\n)\n", start)] + text[text.index("\nCOMMAND = (") : text.index("\nSIM = (")]
        assert set(content["ros__parameters"]) <= set(re.findall(r'Param\(\s*"(\w+)"', block))


def test_a_role_is_played_by_topics_of_one_quality_and_by_one_of_them_in_each_node(graph: graphs.Graph) -> None:
    roles: dict[str, set[str]] = {}
    for topic in graph.topics.values():
        if topic.role is not None:
            roles.setdefault(topic.role, set()).add(topic.name)
    assert roles == {"observation": {"image", "state"}, "control": {"command", "joint_command"}}
    for names in roles.values():
        assert len({graph.topics[name].qos for name in names}) == 1
        for node in graph.nodes.values():
            for wired in (node.publishes, node.subscribes):
                assert names <= set(wired) or not names & set(wired)  # a node must be ready for either


def test_every_node_has_an_executable_and_a_module(graph: graphs.Graph) -> None:
    setup = (NODES / "setup.py").read_text()
    for node in graph.nodes.values():
        assert f'"{node.executable}"' in setup
        assert (NODES / "worldpilot_nodes" / f"{node.executable}.py").is_file()


def test_whatever_is_subscribed_to_is_published(graph: graphs.Graph) -> None:
    published = {topic for node in graph.nodes.values() for topic in node.publishes}
    subscribed = {topic for node in graph.nodes.values() for topic in node.subscribes}
    assert subscribed <= published


def test_the_recorder_misses_nothing_but_the_clock(graph: graphs.Graph) -> None:
    assert set(graph.topics) - set(graph.nodes["recorder"].subscribes) == {"/clock"}


def test_settings_are_what_the_parameter_file_says_of_a_node(graph: graphs.Graph) -> None:
    assert graph.settings("push_t", "mpc")["replan_every"] == 5
    assert graph.settings("push_t", "recorder") == {}


def test_an_unknown_task_lists_those_there_are(graph: graphs.Graph) -> None:
    with pytest.raises(UnknownName, match="push_t"):
        graph.parameters("push_s")


def test_a_topic_that_is_not_declared_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text(
        "topics: {image: {type: sensor_msgs/msg/Image, qos: sensor}}\n"
        "nodes: {a: {package: p, executable: a, respawn_delay: 1.0, subscribes: [imgae]}}\n"
    )
    with pytest.raises(UnknownName, match=r"imgae.*image"):
        graphs.load(file)


@pytest.mark.parametrize("text", ["", "[]", "topics: {}", "{", "topics: {a: {kind: x}}\nnodes: {}"])
def test_what_is_no_graph_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match="not a graph"):
        graphs.load(file)
