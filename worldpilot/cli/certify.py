"""`worldpilot certify`: a bound on an artifact's prediction error, from fresh episodes, in its manifest; its check."""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldpilot.calibration import certificate
from worldpilot.certification import certify, collect, measured_again
from worldpilot.errors import InvalidInput
from worldpilot.models.artifact import Artifact, update_manifest, verify, zoo_path
from worldpilot.models.data.episodes import EpisodeStore

FIRST_SEED = 4_000_000  # those of training data count from 0
EPISODES = 500  # of each behaviour


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="whose artifact is certified")
    parser.add_argument("--artifact", type=Path, help="folder of the artifact; default: the shipped one of the task")
    parser.add_argument("--delta", type=float, default=0.05, help="probability with which a statement may be wrong")
    parser.add_argument("--data", type=Path, help="episodes the model was not trained on; default: simulation's")
    parser.add_argument(
        "--behaviours", help=f"which, comma separated; collected: {EPISODES} of each, or as many as in run=800,jump=400"
    )
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first episode collected")
    parser.add_argument("--work", type=Path, help="collect into this store, and use what is there")
    parser.add_argument("--workers", type=int, default=1, help="processes that collect")
    parser.add_argument("--compression", action="store_true", help="the secondary bound and flatness, too (with torch)")
    parser.add_argument("--check", action="store_true", help="check the certificate that is there; 0 if it holds")
    parser.add_argument(
        "--again", action="store_true", help="with --check: measure its losses again, on --data or collected again"
    )
    parser.add_argument("--json", type=Path, help="write the certificate here, too")


def run(args: argparse.Namespace) -> int:
    folder = args.artifact or zoo_path(args.task)
    if args.check:
        return _check(folder, args)
    artifact = Artifact.load(folder)
    with tempfile.TemporaryDirectory() as scratch:
        collected = None
        if args.data is None:
            collected = {"seed": args.seed, "episodes": _counts(artifact.spec.task, args.behaviours)}
        store = _store(args, artifact.spec.task, collected, args.work or Path(scratch))
        content = certify(artifact, store, args.delta, collected=collected, compression=args.compression)
    update_manifest(folder, lambda manifest: manifest.update(certificate=content))
    for line in certificate.describe(content):
        print(line)
    print(f"written to {folder / 'manifest.json'}; if the folder was signed, sign it again")
    if args.json:
        args.json.write_text(json.dumps({"task": artifact.spec.task, **content}, indent=2) + "\n")
    return 0


def _check(folder: Path, args: argparse.Namespace) -> int:
    """Say whether the certificate holds; with --again or --data, whether its losses are those of its episodes."""
    manifest = verify(folder)
    problems = certificate.check(manifest)
    content = manifest["certificate"]
    if not problems and (args.again or args.data):
        collected = content["data"]["collected"]
        if collected is None and args.data is None:
            raise InvalidInput("certify: its episodes were not collected in simulation; give them with --data")
        with tempfile.TemporaryDirectory() as scratch:
            store = _store(args, manifest["task"], collected, args.work or Path(scratch))
            problems = measured_again(Artifact.load(folder), store)
    for problem in problems:
        print(f"certificate FAILED: {problem}")
    for line in certificate.describe(content) if not problems else ():
        print(line)
    print("certificate ok" if not problems else f"{len(problems)} problem(s)")
    return 1 if problems else 0


def _store(args: argparse.Namespace, task: str, collected: Mapping[str, Any] | None, folder: Path) -> EpisodeStore:
    """The episodes that are given, or those collected into `folder`."""
    if args.data is not None:
        store = EpisodeStore(args.data)
        return store.select(behaviour=tuple(args.behaviours.split(","))) if args.behaviours else store
    assert collected is not None
    collect(task, collected["episodes"], collected["seed"], folder, args.workers)
    return EpisodeStore(folder)


def _counts(task: str, asked: str | None) -> dict[str, int]:
    """Behaviour -> how many episodes."""
    if asked is None:
        from worldpilot.sim.tasks import task as simulated

        return dict.fromkeys(simulated(task).behaviours, EPISODES)
    try:
        parts = (part.partition("=") for part in asked.split(","))
        return {name: int(count or EPISODES) for name, _, count in parts}
    except ValueError as error:
        raise InvalidInput(f"certify: --behaviours takes NAME or NAME=N, comma separated, got {asked!r}") from error
