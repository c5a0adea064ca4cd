"""What the tutorial promises: its commands parse, its program writes a store, its links lead somewhere."""

import argparse
import importlib
import importlib.metadata
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from worldpilot.cli.main import COMMANDS
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.sim import tasks

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "tutorials" / "own_environment.md"
TEXT = FILE.read_text()
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")
LINES = [line for line in SHELL.splitlines() if line.startswith("worldpilot ")]


@pytest.fixture
def example_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if examples/gym_pusht were installed; it can be imported without gym-pusht."""
    monkeypatch.syspath_prepend(ROOT / "examples" / "gym_pusht")
    entry = importlib.metadata.EntryPoint("gym_pusht", "worldpilot_gym_pusht:TASK", tasks.GROUP)
    monkeypatch.setattr(tasks, "entry_points", lambda group: [entry])
    tasks.available.cache_clear()
    yield
    tasks.available.cache_clear()


@pytest.mark.usefixtures("example_installed")
@pytest.mark.parametrize("line", LINES)
def test_its_commands_parse(line: str) -> None:
    _, command, *arguments = shlex.split(line)
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    parser.parse_args(arguments)


def test_it_leads_from_data_to_planning() -> None:
    assert [shlex.split(line)[1] for line in LINES][-5:] == ["collect", "train", "train", "export", "evaluate"]


def test_its_program_writes_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (source,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(source, FILE.name, "exec"), {"__name__": "tutorial"})
    store = EpisodeStore(tmp_path / "data" / "dot")
    assert len(store) == 20
    assert store.meta["task"] == "dot"
    assert all(len(episode) == 60 and episode.observations.any() for episode in store)


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", TEXT)
    assert links
    assert [link for link in links if not (FILE.parent / link).exists()] == []
