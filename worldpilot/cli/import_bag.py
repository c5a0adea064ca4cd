"""`worldpilot import-bag`: recordings of a robot to episodes, observations and commands laid on the control rate."""

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from worldpilot.errors import InvalidInput
from worldpilot.models.data.bags import BagImport, read_episodes
from worldpilot.models.data.episodes import EpisodeWriter
from worldpilot.types import ActionSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the store; episodes are added to it")
    parser.add_argument("--task", help="a name for what the robot does; default: the name of the folder")
    observation = parser.add_mutually_exclusive_group(required=True)
    observation.add_argument("--image-topic", help="sensor_msgs/Image or CompressedImage")
    observation.add_argument("--state-topic", help="worldpilot_msgs/State; takes the numbers that --state names")
    parser.add_argument("--state", type=_units, default={}, metavar="NAME:UNIT,...", help="what makes an observation")
    parser.add_argument("--command-topic", required=True)
    parser.add_argument("--command-fields", required=True, type=_words, help="e.g. twist.linear.x,twist.linear.y")
    parser.add_argument("--names", type=_words, help="of the controls; default: their fields")
    parser.add_argument("--units", type=_words, help="of the controls; default: 1")
    parser.add_argument("--low", type=float, nargs="+", required=True, help="lower bound of each control")
    parser.add_argument("--high", type=float, nargs="+", required=True, help="upper bound of each control")
    parser.add_argument("--max-rate", type=float, nargs="+", help="of each control [unit/s]; default: no limit")
    parser.add_argument("--control-dt", type=float, required=True, help="control period [s]")
    parser.add_argument("--block", type=int, default=5, help="control steps in a model step")
    parser.add_argument(
        "--signal", type=_signal, action="append", default=[], metavar="NAME=TOPIC:FIELD[:UNIT]", help="repeatable"
    )
    parser.add_argument("--size", type=int, default=64, help="side of the stored images [px]")
    parser.add_argument(
        "--max-gap", type=float, help="without a message that ends an episode [s]; default: 2.5 control periods"
    )
    parser.add_argument(
        "--command-at",
        type=float,
        default=0.5,
        help="where in a control period the command in force counts: 0 its start, 1 its end "
        "(drivers that take the newest command once a period)",
    )
    parser.add_argument("--log-time", action="store_true", help="stamps by the recorder's clock, not by the headers")
    parser.add_argument("--min-steps", type=int, help="shorter stretches are left out; default: 6 model steps")
    parser.add_argument("--max-steps", type=int, help="longer stretches are cut into several episodes")
    parser.add_argument("--behaviour", default="recorded", help="what the episodes are called in the store")


def run(args: argparse.Namespace) -> int:
    names = args.names or tuple(field.replace(".", "_") for field in args.command_fields)
    units = args.units or ("1",) * len(names)
    rates = args.max_rate or [(high - low) / args.control_dt for low, high in zip(args.low, args.high, strict=False)]
    if bool(args.state) != bool(args.state_topic):
        raise InvalidInput("import-bag: --state-topic and --state, the names of what it gives, go together")
    spec = ActionSpec(names, units, tuple(args.low), tuple(args.high), tuple(rates), args.control_dt, args.block)
    wanted = BagImport(
        spec=spec,
        observation_topic=args.image_topic or args.state_topic,
        command_topic=args.command_topic,
        command_fields=args.command_fields,
        signals={name: (topic, field) for name, topic, field, _ in args.signal},
        state=tuple(args.state),
        size=args.size,
        max_gap=args.max_gap,
        command_at=args.command_at,
        log_time=args.log_time,
        min_steps=args.min_steps or 6 * spec.block,
        max_steps=args.max_steps,
        behaviour=args.behaviour,
    )
    meta: dict[str, Any] = {
        "task": args.task or args.out.resolve().name,
        "action": spec.to_dict(),
        "units": {name: unit for name, _, _, unit in args.signal},
    }
    if args.state:
        meta["state"] = {"names": list(args.state), "units": list(args.state.values())}
    count = 0
    for bag in tqdm(args.bags, unit="bag", disable=len(args.bags) < 2):
        episodes = read_episodes(bag, wanted)
        with EpisodeWriter(args.out, meta) as writer:
            for episode in episodes:
                writer.append(episode)
        count += len(episodes)
        tqdm.write(f"{bag}: {len(episodes)} episode(s), {sum(map(len, episodes)) * spec.control_dt:.1f} s")
    if count == 1:
        print("Training holds episodes out, so it needs two or more: import more, or cut this one with --max-steps.")
    return 0


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _units(text: str) -> dict[str, str]:
    """Name -> unit."""
    pairs = (part.partition(":") for part in text.split(","))
    return {name: unit or "1" for name, _, unit in pairs}


def _signal(text: str) -> tuple[str, str, str, str]:
    """Name, topic, field, unit."""
    name, equals, source = text.partition("=")
    topic, colon, rest = source.partition(":")
    field, _, unit = rest.partition(":")
    if not (name and equals and topic and colon and field):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=TOPIC:FIELD or NAME=TOPIC:FIELD:UNIT")
    return name, topic, field, unit or "1"
