"""What the tutorial on cameras promises: its commands parse, its target is one, its links lead somewhere."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from worldpilot.calibration.targets import Charuco, load
from worldpilot.cli.main import COMMANDS

FILE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "camera.md"
TEXT = FILE.read_text()
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")


@pytest.mark.parametrize("line", [line for line in SHELL.splitlines() if line.startswith("worldpilot ")])
def test_its_commands_parse(line: str) -> None:
    _, command, *arguments = shlex.split(line)
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    parser.parse_args(arguments)


def test_its_target_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert load(text) == Charuco(7, 5, 0.04, 0.03, "DICT_4X4_50")


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", TEXT)
    assert links
    assert [link for link in links if not (FILE.parent / link).exists()] == []
