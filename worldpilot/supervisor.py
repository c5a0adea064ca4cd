"""Runs the node graph where `ros2 launch` is missing: one process a node, started again when it ends, no orphans.

    with Supervisor(graph.load(), task="push_t") as supervisor:
        supervisor.wait_for("active", timeout=30)

Nodes are told to configure and activate themselves (`autostart`), as the launch files tell them; the supervisor learns
of their states from their logs and needs no ROS in its own process.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

import yaml

from worldpilot.errors import InvalidInput, NotReady, UnknownName
from worldpilot.graph import Graph, NodeSpec

Echo = Callable[[str, str], None]  # node, line

_STATE = re.compile(r"lifecycle state: (\w+)")
_LONGEST_DELAY = 10.0  # [s] between restarts of a node that keeps ending
_STABLE = 30.0  # [s] after which a node that ends starts again without further delay


@dataclass(frozen=True)
class NodeStatus:
    """A node's process: "starting", a lifecycle state ("unconfigured", "inactive", "active"), "waiting", "stopped"."""

    state: str = "stopped"
    pid: int | None = None
    starts: int = 0
    reason: str = ""  # the newest error of its log


def print_line(node: str, line: str) -> None:
    """The default echo: to stdout, with the node's name before it."""
    print(f"[{node}] {line}", flush=True)


class Supervisor:
    """Starts the graph's nodes as processes and keeps them running until `stop`.

    Args:
        graph: what to run.
        task: whose `config/<task>.yaml` holds the parameters.
        without: nodes not to run.
        also: optional nodes to run.
        settings: node -> parameter -> value, stronger than the file; the node "*" stands for all.
        remap: topic -> the name it is known by outside.
        echo: called with each line of a node's log.
        workspace: the built ROS workspace; None: what is sourced, else this checkout's.
        domain_id: ROS_DOMAIN_ID of the nodes; None: as in the environment.

    Raises:
        UnknownName: a node that the graph lacks.
        InvalidInput: the workspace is not built.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        task: str,
        without: Collection[str] = (),
        also: Collection[str] = (),
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        remap: Mapping[str, str] | None = None,
        echo: Echo = print_line,
        workspace: Path | None = None,
        domain_id: int | None = None,
    ) -> None:
        self._settings = {name: dict(values) for name, values in (settings or {}).items()}
        for name in {*without, *also, *self._settings} - {"*"}:
            if name not in graph.nodes:
                raise UnknownName("node", name, graph.nodes)
        for topic in remap or {}:
            if topic not in graph.topics:
                raise UnknownName("topic", topic, graph.topics)
        self._remap, self._echo, self._task = dict(remap or {}), echo, task
        self._parameters = graph.parameters(task)
        self._nodes = {
            name: node
            for name, node in graph.nodes.items()
            if name not in without and (name in also or not node.optional)
        }
        self._environment = {**graph.environment, **ros_environment(workspace)}
        self._environment["WORLDPILOT_SUPERVISOR_PID"] = str(os.getpid())
        if domain_id is not None:
            self._environment["ROS_DOMAIN_ID"] = str(domain_id)
        self._commands = {name: self._command(node) for name, node in self._nodes.items()}
        self._changed = threading.Condition()
        self._status = {name: NodeStatus() for name in self._nodes}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def status(self) -> dict[str, NodeStatus]:
        """Every node's state now."""
        with self._changed:
            return dict(self._status)

    def start(self) -> None:
        """Start every node; returns at once."""
        if self._threads:
            raise NotReady("supervisor: already started; make a new one to start again")
        # The kernel ends a child with the *thread* that started it: each node has a thread that outlives its processes.
        self._threads = [threading.Thread(target=self._keep, args=(name,), name=name) for name in self._nodes]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def wait_for(self, state: str, nodes: Collection[str] | None = None, timeout: float = 30.0) -> None:
        """Block until `nodes` (default: all) are in `state`.

        Raises:
            NotReady: a node was refused at configure, or they are not there within `timeout` [s]; the message says in
                which states they are and why.
        """
        names = list(nodes or self._nodes)

        def late() -> dict[str, NodeStatus]:
            return {name: self._status[name] for name in names if self._status[name].state != state}

        def settled() -> bool:
            return not late() or any(status.state == "unconfigured" for status in late().values())

        with self._changed:
            self._changed.wait_for(settled, timeout)
            if late():
                states = "; ".join(f"{name} is {s.state} {s.reason}".strip() for name, s in late().items())
                raise NotReady(f"not all nodes are {state} within {timeout:.0f} s: {states}")

    def kill(self, node: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a node's process; if that ends it, it is started again."""
        with self._changed:
            if node not in self._processes:
                raise UnknownName("running node", node, self._processes)
            self._processes[node].send_signal(sig)

    def stop(self, timeout: float = 3.0) -> None:
        """End all nodes: SIGTERM, then after `timeout` [s] SIGKILL, to whole process groups."""
        self._stopping.set()
        with self._changed:
            self._signal_all(signal.SIGTERM)
            if not self._changed.wait_for(lambda: not self._processes, timeout):
                self._signal_all(signal.SIGKILL)
        for thread in self._threads:
            thread.join()

    def _command(self, node: NodeSpec) -> list[str]:
        arguments = ["--ros-args", "-r", f"__node:={node.name}", "--params-file", str(self._parameters)]
        values = {"task": self._task, "autostart": True, **self._settings.get("*", {})}
        for name, value in {**values, **self._settings.get(node.name, {})}.items():
            arguments += ["-p", f"{node.name}:{name}:={_yaml(value)}"]  # or a "/**" of the file would count for more
        for name, outside in self._remap.items():
            arguments += ["-r", f"{name}:={outside}"]
        return [_executable(node, self._environment), *arguments]

    def _keep(self, name: str) -> None:
        delay = first_delay = self._nodes[name].respawn_delay
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._run_once(name)
            if self._stopping.is_set():
                break
            delay = first_delay if time.monotonic() - began > _STABLE else delay
            self._echo(name, f"ended with {_exit_reason(code)}; starting again in {delay:.1f} s")
            self._set(name, state="waiting", pid=None)
            self._stopping.wait(delay)
            delay = min(2 * delay, _LONGEST_DELAY)
        self._set(name, state="stopped", pid=None)

    def _run_once(self, name: str) -> int:
        with self._changed:
            if self._stopping.is_set():
                return 0
            process = subprocess.Popen(
                self._commands[name],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # its own process group: Ctrl-C reaches it through us, once
            )
            self._processes[name] = process
        self._set(name, state="starting", pid=process.pid, starts=self._status[name].starts + 1, reason="")
        assert process.stdout is not None
        log = threading.Thread(target=self._listen, args=(name, process.stdout), daemon=True)
        log.start()
        code = process.wait()
        _signal_group(process.pid, signal.SIGKILL)  # what it may have started itself, which would keep the log open
        log.join(timeout=1.0)
        with self._changed:
            del self._processes[name]
            self._changed.notify_all()
        return code

    def _listen(self, name: str, log: IO[str]) -> None:
        for line in log:
            self._echo(name, line.rstrip())
            if found := _STATE.search(line):
                self._set(name, state=found[1])
            elif "[ERROR]" in line or "[FATAL]" in line:
                self._set(name, reason=f"({line.split(']: ', 1)[-1].strip()})")

    def _set(self, name: str, **changes: Any) -> None:
        with self._changed:
            self._status[name] = replace(self._status[name], **changes)
            self._changed.notify_all()

    def _signal_all(self, sig: signal.Signals) -> None:
        for process in self._processes.values():
            _signal_group(process.pid, sig)


def ros_environment(workspace: Path | None = None) -> dict[str, str]:
    """The environment a node needs: what is sourced now, else this checkout's virtual environment and workspace.

    Raises:
        InvalidInput: the workspace is not built.
    """
    environment = dict(os.environ)
    environment.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)  # a child finds its own libraries
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    environment["PYTHONUNBUFFERED"] = "1"
    if workspace is None and _find(environment, "share/worldpilot_nodes/package.xml"):
        return environment
    folder = workspace or Path(__file__).resolve().parents[1] / "ros2_ws"
    setup = folder / "install" / "local_setup.bash"
    if not setup.is_file():
        raise InvalidInput(f"the ROS workspace {folder} is not built: run `make setup`, or source the one that is")
    if not _find(environment, "share/rclpy/package.xml"):  # the wheels make the virtual environment a ROS prefix
        prefixes = [sys.prefix, *filter(None, [environment.get("AMENT_PREFIX_PATH")])]
        environment["AMENT_PREFIX_PATH"] = os.pathsep.join(prefixes)
    shell = subprocess.run(
        ["bash", "-c", f'. "{setup}" && env -0'], env=environment, capture_output=True, text=True, check=True
    )
    return dict(entry.split("=", 1) for entry in shell.stdout.split("\0") if "=" in entry)


def _find(environment: Mapping[str, str], relative: str) -> Path | None:
    prefixes = filter(None, environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep))
    return next((Path(p) / relative for p in prefixes if (Path(p) / relative).exists()), None)


def _executable(node: NodeSpec, environment: Mapping[str, str]) -> str:
    path = _find(environment, f"lib/{node.package}/{node.executable}")
    if path is None:
        raise InvalidInput(f"{node.package}/{node.executable} is not in AMENT_PREFIX_PATH: build the workspace again")
    return str(path)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("...\n").strip()


def _exit_reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _signal_group(pid: int, sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, sig)
