"""The supervisor with real processes: small shell scripts in place of ROS nodes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from worldpilot.cli.up import parse_remaps, parse_settings
from worldpilot.errors import InvalidInput, NotReady, UnknownName
from worldpilot.graph import Graph, NodeSpec, TopicSpec
from worldpilot.supervisor import Supervisor, ros_environment

ACTIVE = 'echo "[INFO] [x]: lifecycle state: active"'


class Scripts:
    """A ROS prefix in a folder, whose executables are shell scripts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "config").mkdir()
        (folder / "config" / "t.yaml").write_text("{}")
        (folder / "share" / "worldpilot_nodes").mkdir(parents=True)
        (folder / "share" / "worldpilot_nodes" / "package.xml").write_text("<package/>")
        (folder / "lib" / "p").mkdir(parents=True)
        self.lines: list[tuple[str, str]] = []

    def supervisor(self, respawn_delay: float = 0.05, **scripts: str) -> Supervisor:
        for name, text in scripts.items():
            file = self.folder / "lib" / "p" / name
            file.write_text(f"#!/bin/sh\n{text}\n")
            file.chmod(0o755)
        nodes = {name: NodeSpec(name, "p", name, respawn_delay) for name in scripts}
        graph = Graph(self.folder, {"image": TopicSpec("image", "sensor_msgs/msg/Image", "sensor", True)}, nodes)
        return Supervisor(
            graph,
            task="t",
            settings={"*": {"artifact": "a b'c"}},
            remap={"image": "/camera"},
            echo=lambda node, line: self.lines.append((node, line)),
        )


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripts]:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    before = set(psutil.Process().children(recursive=True))  # other tests' helpers may live as long as pytest
    yield Scripts(tmp_path)
    assert not set(psutil.Process().children(recursive=True)) - before


def test_states_come_from_the_nodes_logs(scripts: Scripts) -> None:
    with scripts.supervisor(a=f"{ACTIVE}; exec sleep 60", b=f"{ACTIVE}; exec sleep 60") as supervisor:
        supervisor.wait_for("active", timeout=5)
        assert {status.starts for status in supervisor.status.values()} == {1}
    assert {status.state for status in supervisor.status.values()} == {"stopped"}


def test_a_node_is_given_its_name_parameters_and_remaps(scripts: Scripts) -> None:
    show = 'for argument in "$@"; do echo "$argument"; done'
    with scripts.supervisor(a=f"{show}; {ACTIVE}; exec sleep 60") as supervisor:
        supervisor.wait_for("active", timeout=5)
    lines = [line for _, line in scripts.lines]
    assert lines[:3] == ["--ros-args", "-r", "__node:=a"]
    assert "image:=/camera" in lines
    (artifact,) = (line for line in lines if line.startswith("a:artifact:="))
    assert yaml.safe_load(artifact.removeprefix("a:artifact:=")) == "a b'c"
    assert "a:autostart:=true" in lines


def test_a_node_that_ends_is_started_again(scripts: Scripts) -> None:
    with scripts.supervisor(a=f"{ACTIVE}; exec sleep 60") as supervisor:
        supervisor.wait_for("active", timeout=5)
        first = supervisor.status["a"].pid
        supervisor.kill("a")
        supervisor.wait_for("waiting", timeout=5)
        supervisor.wait_for("active", timeout=5)
        assert supervisor.status["a"].starts == 2
        assert supervisor.status["a"].pid != first
    assert any("SIGKILL" in line for _, line in scripts.lines)


def test_restarts_come_ever_more_slowly(scripts: Scripts) -> None:
    with scripts.supervisor(a="exit 3", b=f"sleep 1; {ACTIVE}; exec sleep 60") as supervisor:
        supervisor.wait_for("active", ["b"], timeout=5)
        assert 3 <= supervisor.status["a"].starts <= 6  # 0, .05, .15, .35, .75 s: not twenty
    assert any("exit code 3" in line for _, line in scripts.lines)


def test_a_node_that_is_refused_ends_the_wait_with_its_reason(scripts: Scripts) -> None:
    refused = 'echo "[ERROR] [a]: configure refused: wrong hash"; echo "[ERROR] [a]: lifecycle state: unconfigured"'
    with (
        scripts.supervisor(a=f"{refused}; exec sleep 60") as supervisor,
        pytest.raises(NotReady, match=r"a is unconfigured.*wrong hash"),
    ):
        supervisor.wait_for("active", timeout=30)


def test_what_ignores_sigterm_is_killed_with_all_it_started(scripts: Scripts) -> None:
    stubborn = f"trap '' TERM; sleep 60 & {ACTIVE}; while :; do wait; done"
    supervisor = scripts.supervisor(a=stubborn)
    supervisor.start()
    supervisor.wait_for("active", timeout=5)
    supervisor.stop(timeout=0.3)
    assert supervisor.status["a"].state == "stopped"  # and the fixture finds no process left


def test_children_of_a_node_that_died_are_ended(scripts: Scripts) -> None:
    before = set(psutil.Process().children(recursive=True))
    with scripts.supervisor(respawn_delay=30, a=f"sleep 61 >/dev/null & {ACTIVE}; exit 0") as supervisor:
        supervisor.wait_for("waiting", timeout=5)
        assert not set(psutil.Process().children(recursive=True)) - before


def test_an_optional_node_runs_only_where_it_is_asked_for(scripts: Scripts) -> None:
    file = scripts.folder / "lib" / "p" / "a"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    nodes = {"a": NodeSpec("a", "p", "a", 1.0), "b": NodeSpec("b", "p", "a", 1.0, optional=True)}
    graph = Graph(scripts.folder, {}, nodes)
    assert set(Supervisor(graph, task="t").status) == {"a"}
    assert set(Supervisor(graph, task="t", also=["b"]).status) == {"a", "b"}
    assert set(Supervisor(graph, task="t", also=["b"], without=["b"]).status) == {"a"}


def test_it_is_told_which_nodes_and_topics_there_are(scripts: Scripts) -> None:
    graph = Graph(scripts.folder, {}, {"a": NodeSpec("a", "p", "a", 1.0)})
    with pytest.raises(UnknownName, match="valid names: a"):
        Supervisor(graph, task="t", without=["b"])
    with pytest.raises(UnknownName, match="valid names: a"):
        Supervisor(graph, task="t", also=["b"])
    with pytest.raises(UnknownName, match="valid names: a"):
        Supervisor(graph, task="t", settings={"b": {}})
    with pytest.raises(UnknownName, match="topic"):
        Supervisor(graph, task="t", remap={"image": "x"})
    with pytest.raises(InvalidInput, match="p/a"):
        Supervisor(graph, task="t")


def test_only_a_running_node_can_be_killed(scripts: Scripts) -> None:
    supervisor = scripts.supervisor(a="exec sleep 60")
    with pytest.raises(UnknownName, match="running node"):
        supervisor.kill("a", signal.SIGTERM)


def test_a_workspace_that_is_not_built_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    with pytest.raises(InvalidInput, match="not built"):
        ros_environment(tmp_path)


def test_a_child_is_not_kept_from_finding_its_own_ros_libraries(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
    environment = ros_environment()
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in environment
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert environment["HOME"] == os.environ["HOME"]


def test_settings_and_remaps_of_the_command_line() -> None:
    assert parse_settings(["mpc.solver=cem", "mpc.seed=3", "sim.randomise=true", "recorder.path="]) == {
        "mpc": {"solver": "cem", "seed": 3},
        "sim": {"randomise": True},
        "recorder": {"path": ""},
    }
    assert parse_settings(['mpc.solver_settings={"samples": 8}'])["mpc"]["solver_settings"] == '{"samples": 8}'
    assert parse_remaps(["image:=/camera/image_raw"]) == {"image": "/camera/image_raw"}
    for bad in ("mpc", "mpc.seed", "seed=3", ".seed=3", "mpc.=3"):
        with pytest.raises(InvalidInput, match=r"NODE\.PARAM=VALUE"):
            parse_settings([bad])
    with pytest.raises(InvalidInput, match="TOPIC:=NAME"):
        parse_remaps(["image=/camera"])
