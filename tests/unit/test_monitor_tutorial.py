"""What the tutorial on alarms promises: commands parse, links lead somewhere, channels are the monitor's."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from worldpilot.calibration.thresholds import CHANNELS, DEFAULT_CHANNELS, episodes_needed
from worldpilot.cli.main import COMMANDS

FILE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "monitor.md"
TEXT = FILE.read_text()
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")


@pytest.mark.parametrize("line", [line for line in SHELL.splitlines() if line.startswith("worldpilot ")])
def test_its_commands_parse(line: str) -> None:
    _, command, *arguments = shlex.split(line)
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    parser.parse_args(arguments)


def test_its_links_and_pictures_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", TEXT)
    assert len(links) >= 4
    assert [link for link in links if not (FILE.parent / link).exists()] == []


def test_its_channels_are_the_monitors() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\w+) \|$", TEXT, re.MULTILINE)
    assert rows == [(name, level.name.lower()) for name, level in CHANNELS.items()]
    assert DEFAULT_CHANNELS == ("surprise", "drift")
    assert f"need {episodes_needed(0.05)} episodes" in " ".join(TEXT.split())
