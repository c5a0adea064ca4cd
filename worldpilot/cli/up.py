"""`worldpilot up`: the node graph under a supervisor, until Ctrl-C."""

import argparse
import json
import signal
import threading
from pathlib import Path
from typing import Any

import yaml

from worldpilot import graph as graphs
from worldpilot.errors import InvalidInput
from worldpilot.supervisor import Supervisor, print_line
from worldpilot.system import System


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="push_t", help="whose parameters and artifact are used (default: push_t)")
    parser.add_argument("--artifact", type=Path, help="model folder (default: the one shipped for the task)")
    parser.add_argument("--graph", type=Path, help="graph.yaml (default: the installed one, else this checkout's)")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.PARAM=VALUE", help="set a parameter")
    parser.add_argument("--no", action="append", default=[], metavar="NODE", help="leave a node out, as sim on a robot")
    parser.add_argument(
        "--with", action="append", default=[], dest="also", metavar="NODE", help="add an optional node, as reasoning"
    )
    parser.add_argument("--system", type=Path, metavar="FILE", help="delays to reckon with, and what sim is made like")
    parser.add_argument("--remap", action="append", default=[], metavar="TOPIC:=NAME", help="rename a topic")


def run(args: argparse.Namespace) -> int:
    settings = parse_settings(args.set)
    graph = graphs.load(args.graph)
    if args.artifact:
        settings.setdefault("*", {})["artifact"] = str(args.artifact.resolve())
    if args.system:
        for node, values in late(System.load(args.system, args.task), args.system).items():
            settings[node] = {**values, **settings.get(node, {})}
    supervisor = Supervisor(
        graph, task=args.task, without=args.no, also=args.also, settings=settings, remap=parse_remaps(args.remap)
    )
    asked_to_end = threading.Event()
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, lambda *_: asked_to_end.set())
    with supervisor:
        asked_to_end.wait()
        print_line("up", "stopping")
    return 0


def late(system: System, file: Path) -> dict[str, dict[str, Any]]:
    """Settings of the nodes that a system concerns: sim is made like it, the others reckon with its delays."""
    listeners = ("world_model", "action_prior", "mpc")
    return {"sim": {"system": str(file.resolve())}, **{node: {"delay": system.delay} for node in listeners}}


def parse_settings(texts: list[str]) -> dict[str, dict[str, Any]]:
    """ "mpc.solver=cem" as {"mpc": {"solver": "cem"}}; values are YAML, and a mapping is a text of JSON to its node."""
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        node, dot, parameter = path.partition(".")
        if not (node and dot and parameter and equals):
            raise InvalidInput(f"--set takes NODE.PARAM=VALUE, as in mpc.solver=cem; got {text!r}")
        given = yaml.safe_load(value) if value else ""
        settings.setdefault(node, {})[parameter] = json.dumps(given) if isinstance(given, dict) else given
    return settings


def parse_remaps(texts: list[str]) -> dict[str, str]:
    """ "image:=/camera/image_raw" as {"image": "/camera/image_raw"}."""
    remaps: dict[str, str] = {}
    for text in texts:
        topic, sign, name = text.partition(":=")
        if not (topic and sign and name):
            raise InvalidInput(f"--remap takes TOPIC:=NAME, as in image:=/camera/image_raw; got {text!r}")
        remaps[topic] = name
    return remaps
