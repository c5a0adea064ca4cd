"""Options of `worldpilot calibrate latency` and `calibrate system`; what they do is imported when it is asked for."""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path


def add_kinds(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both to `worldpilot calibrate`."""
    late = kinds.add_parser("latency", help="how late commands and images are, from a recording")
    late.add_argument("--data", type=Path, help="folder of episodes (see `collect --excite`, `import-bag`)")
    late.add_argument("--bag", type=Path, help="instead: a recording with the stamps it was made with (rosbag2, MCAP)")
    late.add_argument("--task", default="push_t", help="of the recording; a store knows its own")
    late.add_argument("--sources", default="encoder,camera", help="of positions: encoder, camera or both")
    late.add_argument("--position", type=_words, help="signals of the encoder, one a control; default: the task's")
    late.add_argument("--artifact", type=Path, help="whose readouts find the robot in images; default: the shipped one")
    late.add_argument("--commands", choices=("velocity", "position"), default="velocity", help="what the controls are")
    late.add_argument("--servo-rate", type=float, metavar="HZ", help="of the robot's servo loop; default: the task's")
    late.add_argument("--lag", type=float, metavar="S", help="time constant of the servo, where it is known [s]")
    late.add_argument(
        "--segment", type=float, default=2.0, metavar="S", help="length of what counts as independent [s]"
    )
    late.add_argument("--image-topic", default="/image", help="of a bag")
    late.add_argument("--command-topic", default="/command", help="of a bag")
    late.add_argument("--command-fields", type=_words, default=("twist.linear.x", "twist.linear.y"), help="of a bag")
    late.add_argument("--position-topic", default="/ground_truth", help="of a bag: what the robot itself measures")
    late.add_argument("--position-fields", type=_words, help="of it; default: signals.NAME.value for each position")
    _add_outputs(late)
    late.set_defaults(calibrate=_later("calibrate_latency"))

    system = kinds.add_parser("system", help="mass, friction and the like, from recordings of a robot of the task")
    system.add_argument("--data", type=Path, nargs="+", required=True, help="folders of episodes, taken as one bundle")
    system.add_argument("--parameters", type=_words, help="comma separated; default: all that the task knows")
    _add_outputs(system)
    system.set_defaults(calibrate=_later("calibrate_system"))


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", type=Path, metavar="FILE", help="write what is known here; the rest of it is kept")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--plot", type=Path, help="draw it here (PNG, SVG or PDF)")


def _later(name: str) -> Callable[[argparse.Namespace], int]:
    """A function of `calibrate_system`, which needs the simulator: a robot that only sets its monitor has none."""
    return lambda args: getattr(importlib.import_module("worldpilot.cli.calibrate_system"), name)(args)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))
