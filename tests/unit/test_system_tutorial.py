"""What the tutorial on delays and parameters promises: its commands parse, its links lead somewhere, its file loads."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from worldpilot.cli.main import COMMANDS
from worldpilot.sim.push_t import PARAMETERS
from worldpilot.system import System

FILE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "latency_and_system.md"
TEXT = FILE.read_text()
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")


@pytest.mark.parametrize("line", [line for line in SHELL.splitlines() if line.startswith("worldpilot ")])
def test_its_commands_parse(line: str) -> None:
    _, command, *arguments = shlex.split(line)
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    parser.parse_args(arguments)


def test_its_links_and_scripts_are_there() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", TEXT)
    assert links
    assert [link for link in links if not (FILE.parent / link).exists()] == []
    scripts = re.findall(r"^python (\S+)", SHELL, re.MULTILINE)
    assert scripts
    assert [script for script in scripts if not (FILE.parents[2] / script).is_file()] == []


def test_its_system_file_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "true.yaml").write_text(text)
    system = System.load(tmp_path / "true.yaml", "push_t")
    assert system.delay == pytest.approx(0.102)
    assert system.checked(PARAMETERS) == {"mass": 0.3, "friction": 0.4}
