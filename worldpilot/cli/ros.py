"""Commands that talk to the graph need ROS and the workspace's packages, whether or not they were sourced."""

import importlib.util
import os
import sys

from worldpilot.errors import InvalidInput
from worldpilot.supervisor import ros_environment


def enter() -> None:
    """Go on with ROS and the workspace importable; where they are not, the command starts over with them.

    Raises:
        InvalidInput: the workspace is not built.
    """
    if importlib.util.find_spec("worldpilot_nodes") is not None:
        return
    environment = ros_environment()
    if environment.get("PYTHONPATH") == os.environ.get("PYTHONPATH"):
        raise InvalidInput("the ROS workspace has no package worldpilot_nodes: run `make setup`")
    os.execve(sys.executable, [sys.executable, "-m", "worldpilot.cli.main", *sys.argv[1:]], environment)
