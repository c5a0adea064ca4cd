"""Entry point: find the subcommand, parse, run; refusals become one line on stderr and exit code 2."""

import argparse
import importlib
import os
import sys

from worldpilot import __version__
from worldpilot.errors import WorldpilotError

# name -> (module, one-line help). Modules are imported only when asked for: a robot has no torch, pybullet or cv2.
COMMANDS = {
    "collect": ("worldpilot.cli.collect", "record episodes of behaviour data in simulation"),
    "practise": (
        "worldpilot.cli.practise",
        "record episodes of a robot on legs that is asked for all it can be asked for",
    ),
    "collect-gym": ("worldpilot.cli.collect_gym", "record episodes in any gymnasium environment"),
    "import-bag": ("worldpilot.cli.import_bag", "recordings of a robot (rosbag2, MCAP) to episodes"),
    "train": ("worldpilot.cli.train", "train a world model or an action prior on episodes"),
    "export": ("worldpilot.cli.export", "export trained checkpoints to ONNX and write an artifact"),
    "calibrate": ("worldpilot.cli.calibrate", "the monitor's thresholds, cameras, a robot's delays, mass and friction"),
    "certify": (
        "worldpilot.cli.certify",
        "bound an artifact's prediction error from fresh episodes, check the bound",
    ),
    "evaluate": ("worldpilot.cli.evaluate", "success rates with confidence intervals, policies side by side"),
    "adapt": ("worldpilot.cli.adapt", "fine-tune an artifact's dynamics to a robot that has changed"),
    "distil": ("worldpilot.cli.distil", "the planner as a reactive policy for small computers"),
    "imagine": ("worldpilot.cli.imagine", "what the model imagines of an episode beside what came, as a picture"),
    "models": ("worldpilot.cli.models", "list and verify artifacts"),
    "rewards": ("worldpilot.cli.rewards", "list reward plugins, print their JSON schema, check a specification"),
    "language": ("worldpilot.cli.language", "instruct the robot in words; the language model as a chat or a service"),
    "up": ("worldpilot.cli.up", "run the node graph under a supervisor (hosts without `ros2 launch`)"),
    "demo": ("worldpilot.cli.demo", "the whole story in simulation, with a report"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="worldpilot", description="Robot control with a learned world model.")
    parser.add_argument("--version", action="version", version=f"worldpilot {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module_name, text) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=text, description=text)
        if args and args[0] == name:
            module = importlib.import_module(module_name)
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    parsed = parser.parse_args(args)
    try:
        return int(parsed.run(parsed) or 0)
    except WorldpilotError as error:
        print(f"worldpilot {parsed.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
