"""`worldpilot export`: checkpoints to an artifact, with parity checks."""

import argparse
import json
from pathlib import Path

from worldpilot.errors import InvalidInput
from worldpilot.types import ActionSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="what the artifact is for, e.g. push_t")
    parser.add_argument(
        "--world-model", type=Path, required=True, help="checkpoints of `train world-model` or `train dynamics`"
    )
    parser.add_argument("--prior", type=Path, required=True, help="checkpoints of `train action-prior`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the artifact, e.g. models/zoo/push_t")
    parser.add_argument("--data", default="", help="one line about the data, for the manifest")
    parser.add_argument("--command", dest="commands", action="append", default=[], help="how it was made, repeatable")


def run(args: argparse.Namespace) -> int:
    from worldpilot.models.dynamics.train import is_dynamics

    if is_dynamics(args.world_model):
        from worldpilot.models.dynamics.export import export
    else:
        from worldpilot.models.export import export
    file = args.world_model / "metrics.json"
    if not file.is_file():
        raise InvalidInput(f"{file} is missing; let the training come to its end first")
    action = json.loads(file.read_text())["action"]
    commands = args.commands or ["not recorded"]
    spec = ActionSpec.from_dict(action)
    manifest = export(args.task, spec, args.world_model, args.prior, args.out, commands, args.data)
    print(json.dumps({name: graph["bytes"] for name, graph in manifest["graphs"].items()}))
    print(f"{args.out}: model {manifest['model_id']}")
    return 0
