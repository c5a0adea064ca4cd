"""`worldpilot adapt`: an artifact's dynamics, fine-tuned to a robot that has changed, from a recording of it."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from worldpilot.errors import InvalidInput
from worldpilot.models.data.episodes import DATASET_FILE

if TYPE_CHECKING:
    from worldpilot.models.artifact import Artifact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from worldpilot.models.dynamics.adapt import AdaptConfig

    parser.add_argument("--task", required=True, help="whose artifact is adapted: walker, hopper, quadruped")
    parser.add_argument("--artifact", type=Path, help="folder of the artifact; default: the shipped one of the task")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new artifact")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, nargs="+", help="folders of episodes of the changed robot")
    source.add_argument("--bag", type=Path, nargs="+", help="recordings of the graph: rosbag2 folder, .mcap or .db3")
    parser.add_argument("--behaviours", help="which of the episodes of --data, comma separated; default: all")
    parser.add_argument("--episodes", type=int, help="so many of them, the first; default: all")
    parser.add_argument("--state-topic", default="/state", help="worldpilot_msgs/State; default: %(default)s")
    parser.add_argument("--command-topic", default="/joint_command", help="default: %(default)s")
    parser.add_argument(
        "--command-fields",
        help="one a control, comma separated; default: points.0.positions.0 … of a JointTrajectory",
    )
    parser.add_argument(
        "--command-at", type=float, default=0.99, help="where in a control period the command in force counts"
    )
    parser.add_argument("--max-steps", type=int, default=250, help="longer stretches of a recording are cut")
    for field in fields(AdaptConfig):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=type(field.default), default=field.default, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="torch threads")


def run(args: argparse.Namespace) -> int:
    import torch

    from worldpilot.models.artifact import Artifact, zoo_path
    from worldpilot.models.data.episodes import EpisodeStore
    from worldpilot.models.dynamics.adapt import AdaptConfig, adapt

    if args.threads:
        torch.set_num_threads(args.threads)
    source = args.artifact or zoo_path(args.task)
    config = AdaptConfig(**{field.name: getattr(args, field.name) for field in fields(AdaptConfig)})
    command = " ".join(("worldpilot", *sys.argv[1:]))
    with tempfile.TemporaryDirectory() as folder:
        if args.bag:
            import_bags(args, Artifact.load(source), Path(folder))
        elif len(args.data) > 1:
            link_stores(args.data, Path(folder))
        store = EpisodeStore(args.data[0] if args.data and len(args.data) == 1 else folder)
        if args.behaviours:
            store = store.select(behaviour=tuple(args.behaviours.split(",")))
        if args.episodes is not None:
            seeds = sorted({meta["seed"] for meta in store.metas})[: args.episodes]
            store = store.select(seed=tuple(seeds))
        data = f"{len(store)} episodes of {', '.join(path.name for path in args.bag or args.data)}"
        manifest = adapt(source, store, args.out, config, data=data, command=command)
    print(f"{data}, {sum(store.lengths) * manifest['action']['control_dt']:.0f} s")
    for name, figure in manifest["metrics"].items():
        if name.startswith("adapted_nmse") and name.endswith("_before"):
            after = manifest["metrics"][name.replace("_before", "_after")]["value"]
            steps = name.removeprefix("adapted_nmse_").removesuffix("_before")
            print(f"  error {steps:>2} model step(s) ahead: {figure['value']:.4f} before, {after:.4f} now")
    print(
        f"{args.out}: model {manifest['model_id']}. Its monitor must be calibrated anew: "
        f"worldpilot calibrate monitor --artifact {args.out} --data …"
    )
    return 0


def link_stores(stores: Sequence[Path], folder: Path) -> None:
    """The episodes of several stores as one, described as the first is; those that do not fit are refused when read."""
    for store in stores:
        if not (store / DATASET_FILE).is_file():
            raise InvalidInput(f"{store} is no data set; make one with `collect`")
        for shard in store.resolve().glob("shard-*.npz"):
            (folder / shard.name).symlink_to(shard)
    (folder / DATASET_FILE).write_bytes((stores[0] / DATASET_FILE).read_bytes())


def import_bags(args: argparse.Namespace, artifact: "Artifact", folder: Path) -> None:
    """The recordings' episodes, as a store in `folder`."""
    from worldpilot.models.data.bags import BagImport, read_episodes
    from worldpilot.models.data.episodes import EpisodeWriter

    spec = artifact.spec
    if spec.observation != "state":
        raise InvalidInput(f"adapt: {artifact.path.name} sees {spec.observation}s; only models of states are adapted")
    paths = tuple(f"points.0.positions.{i}" for i in range(spec.action.control_dim))
    wanted = BagImport(
        spec=spec.action,
        observation_topic=args.state_topic,
        command_topic=args.command_topic,
        command_fields=tuple(args.command_fields.split(",")) if args.command_fields else paths,
        state=spec.observation_names,
        command_at=args.command_at,
        min_steps=(spec.history + spec.horizon) * spec.action.block,
        max_steps=args.max_steps,
    )
    meta = {"action": spec.action.to_dict(), "state": {"names": list(spec.observation_names)}}
    with EpisodeWriter(folder, {"task": spec.task, **meta}) as writer:
        for bag in args.bag:
            for episode in read_episodes(bag, wanted):
                writer.append(episode)
