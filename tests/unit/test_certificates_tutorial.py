"""What the tutorial on certificates promises: its commands parse, its scripts and links are there."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from worldpilot.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "tutorials" / "certificates.md"
TEXT = FILE.read_text()
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")


@pytest.mark.parametrize("line", [line for line in SHELL.splitlines() if line.startswith("worldpilot ")])
def test_its_commands_parse(line: str) -> None:
    _, command, *arguments = shlex.split(line)
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    parser.parse_args(arguments)


def test_its_scripts_are_there() -> None:
    scripts = re.findall(r"^python (\S+)", SHELL, re.MULTILINE)
    assert scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", TEXT)
    assert len(links) >= 4
    assert [link for link in links if not (FILE.parent / link).exists()] == []
