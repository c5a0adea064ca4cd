"""What the tutorial on legged robots promises: its commands parse, its links lead somewhere, its signals are there."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from worldpilot.cli.main import COMMANDS
from worldpilot.sim.faults import LEGGED_FAULTS
from worldpilot.sim.quadruped import ACTION, ROBOT

FILE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "legged.md"
TEXT = FILE.read_text()
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")


@pytest.mark.parametrize("line", [line for line in SHELL.splitlines() if line.startswith("worldpilot ")])
def test_its_commands_parse(line: str) -> None:
    _, command, *arguments = shlex.split(line)
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    parser.parse_args(arguments)


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", TEXT)
    assert links
    assert [link for link in links if not (FILE.parent / link).exists()] == []


def test_its_signals_and_faults_are_those_of_the_world() -> None:
    (told,) = re.findall(r"Signals are(.*?)\. ?\n\n", TEXT.replace("0.4 s.", "."), re.DOTALL)
    named = set(re.findall(r"`(\w+)`", told)) - {"fall_probability"}
    assert named == {name for name in ROBOT.signals if not name.startswith("contact_") and name != "fallen"}
    assert all(f"`{fault}`" in TEXT or f"name: {fault}" in TEXT for fault in LEGGED_FAULTS)
    assert ACTION.names[8] == "rl_knee"
