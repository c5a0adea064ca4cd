"""`worldpilot models`: the artifacts there are, their checks, signatures and cards, one for a running graph."""

import argparse
import time
from pathlib import Path
from typing import Any

from worldpilot import cards
from worldpilot.cli import ros
from worldpilot.errors import WorldpilotError
from worldpilot.models import signing
from worldpilot.models.language.weights import SHIPPED, verify_weights

MAX_GRAPH_MB, MAX_ZOO_MB = 10.0, 60.0  # what a clone of the repository carries


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    commands.add_parser("list", help="the shipped artifacts")
    verify = commands.add_parser("verify", help="check hashes, signatures, specifications, sizes; 0 if all is well")
    verify.add_argument("tasks", nargs="*", metavar="TASK", help="task names or artifact folders; default: all shipped")
    verify.add_argument("--key", type=Path, help="PEM of the public key that must have signed each, too")
    sign = commands.add_parser("sign", help="sign every file of an artifact's folder, as `model.sig` in it")
    sign.add_argument("folder", type=Path, metavar="FOLDER")
    sign.add_argument("--key", type=Path, required=True, help="PEM of the private key, of an elliptic curve")
    card = commands.add_parser("card", help="write a page for each artifact from its manifest")
    card.add_argument("names", nargs="*", metavar="NAME", help="of shipped artifacts; default: all")
    card.add_argument("--out", type=Path, default=Path("docs/model_cards"), help="default: %(default)s")
    card.add_argument("--check", action="store_true", help="write nothing; 1 if a page is not as it would be written")
    use = commands.add_parser(
        "use", help="give the graph that runs another model; only the robot's motion is interrupted"
    )
    use.add_argument("folder", type=Path, metavar="FOLDER", help="of the artifact, where the nodes run")
    use.add_argument("--namespace", default="", help="of the graph")


def run(args: argparse.Namespace) -> int:
    if args.action == "use":
        return _use(args.folder, args.namespace)
    if args.action == "card":
        return _cards(args.names or cards.names(), args.out, args.check)
    if args.action == "sign":
        print(f"signed: {signing.sign(args.folder, args.key)}")
        return 0
    return _list() if args.action == "list" else _verify(args.tasks, args.key)


def _cards(names: list[str], folder: Path, check: bool) -> int:
    pages = {folder / f"{name}.md": cards.card(name) for name in names}
    if check:
        pages[folder / cards.INDEX] = cards.index(folder)
        old = [path for path, text in pages.items() if not path.is_file() or path.read_text() != text]
        for path in old:
            print(f"{path} is not current: run `worldpilot models card`")
        return 1 if old else 0
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in pages.items():
        path.write_text(text)
        print(path)
    (folder / cards.INDEX).write_text(cards.index(folder))
    return 0


def _use(folder: Path, namespace: str) -> int:
    ros.enter()
    from worldpilot_nodes.client import Client
    from worldpilot_nodes.use_model import use_model

    begin = time.monotonic()
    with Client(namespace=namespace) as client:
        artifact = use_model(client, folder)
    print(f"{artifact.spec.task}: model {artifact.spec.model_id} in use after {time.monotonic() - begin:.1f} s")
    return 0


def _list() -> int:
    from worldpilot.models.artifact import verify, zoo_names, zoo_path

    for name in zoo_names():
        manifest = verify(zoo_path(name))
        print(f"{name:<20} {manifest['model_id']}  {manifest['created']}  {manifest.get('description', '')}")
    for folder in _language_folders():
        manifest = verify_weights(folder)
        print(f"{folder.name:<20} {manifest['sha256'][:12]}  language {manifest['kind']}")
    return 0


def _verify(tasks: list[str], key: Path | None) -> int:
    from worldpilot.calibration import certificate
    from worldpilot.models.artifact import Artifact, zoo_names, zoo_path

    names = tasks or zoo_names()
    if not names:
        print("no artifact is shipped; train and export one, or name a folder")
        return 1
    failures, total_mb = 0, 0.0
    for name in names:
        folder = Path(name) if "/" in name or Path(name).is_dir() else zoo_path(name)
        try:
            artifact = Artifact.load(folder)
        except WorldpilotError as error:
            print(f"{name}: FAILED: {error}")
            failures += 1
            continue
        print(_summary(artifact.manifest))
        for graph, entry in artifact.manifest["graphs"].items():
            size_mb = entry["bytes"] / 1e6
            total_mb += size_mb
            fits = size_mb <= MAX_GRAPH_MB
            failures += not fits
            verdict = "ok" if fits else f"FAILED: larger than {MAX_GRAPH_MB:g} MB"
            print(f"  {graph:<10} sha256 {entry['sha256'][:12]}  {size_mb:6.2f} MB  {verdict}")
        problem = _thresholds_problem(artifact.manifest)
        failures += problem is not None
        print(f"  thresholds {'ok' if problem is None else f'FAILED: {problem}'}")
        problems = [] if artifact.manifest["certificate"] is None else certificate.check(artifact.manifest)
        failures += len(problems)
        print(f"  certificate {_certified(artifact.manifest) if not problems else f'FAILED: {problems[0]}'}")
        failures += not _signed(folder, key)
    for folder in [] if tasks else _language_folders():
        size_mb, problem = _verify_language(folder)
        total_mb += size_mb
        failures += problem is not None
        print(f"{folder.name:<12} {size_mb:6.2f} MB  {'ok' if problem is None else f'FAILED: {problem}'}")
        failures += not _signed(folder, key)
    if total_mb > MAX_ZOO_MB:
        print(f"FAILED: {total_mb:.1f} MB together, at most {MAX_ZOO_MB:g} MB may be shipped")
        failures += 1
    print(f"{len(names)} artifact(s), {total_mb:.1f} MB, {failures} failure(s)")
    return 1 if failures else 0


def _language_folders() -> list[Path]:
    return [folder for folder in SHIPPED.values() if folder.is_dir()]


def _verify_language(folder: Path) -> tuple[float, str | None]:
    """Size of language weights [MB] and what is wrong with them."""
    try:
        size_mb = (folder / verify_weights(folder)["file"]).stat().st_size / 1e6
    except WorldpilotError as error:
        return 0.0, str(error)
    return size_mb, None if size_mb <= MAX_GRAPH_MB else f"larger than {MAX_GRAPH_MB:g} MB"


def _summary(manifest: dict[str, Any]) -> str:
    observation, action = manifest["observation"], manifest["action"]
    controls = ", ".join(f"{name} [{unit}]" for name, unit in zip(action["names"], action["units"], strict=True))
    signals = ", ".join(f"{signal['name']} [{signal['unit']}] {signal['r2']:.2f}" for signal in manifest["signals"])
    return (
        f"{manifest['task']}: model {manifest['model_id']} of {manifest['created']}\n"
        f"  observes   {observation['kind']} {'×'.join(map(str, observation['shape']))} {observation['encoding']}\n"
        f"  controls   {controls} every {action['control_dt']:g} s, {action['block']} a model step\n"
        f"  latent     {manifest['latent_dim']}, history {manifest['history']}, horizon {manifest['horizon']}, "
        f"{manifest['members']} member(s)\n"
        f"  signals    {signals} (R² on held-out episodes)"
    )


def _signed(folder: Path, key: Path | None) -> bool:
    """Whether the holder of the key has signed a folder, and say so; without a key nobody asks."""
    if key is None:
        return True
    try:
        signing.require(folder, key)
    except WorldpilotError as error:
        print(f"  signature FAILED: {error}")
        return False
    print("  signature  ok")
    return True


def _certified(manifest: dict[str, Any]) -> str:
    if manifest["certificate"] is None:
        return f"none; run `worldpilot certify {manifest['task']}`"
    primary = next(iter(manifest["certificate"]["held_out"].values()))
    return f"ok: prediction error at most {primary['bound']:.3f}, probability {1 - primary['delta']:g}"


def _thresholds_problem(manifest: dict[str, Any]) -> str | None:
    from worldpilot.calibration.thresholds import Thresholds

    if manifest["thresholds"] is None:
        return f"none; run `worldpilot calibrate monitor --task {manifest['task']} --data DIR`"
    try:
        thresholds = Thresholds.from_dict(manifest["thresholds"])
    except WorldpilotError as error:
        return str(error)
    if thresholds.model_id != manifest["model_id"]:
        return f"fitted for model {thresholds.model_id}, this is {manifest['model_id']}; calibrate again"
    return None
