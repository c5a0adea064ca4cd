"""What the tutorials promise: commands parse, scripts are there, links lead somewhere, what they list is so."""

import argparse
import importlib
import importlib.metadata
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from worldpilot.calibration.targets import Charuco, load
from worldpilot.calibration.thresholds import CHANNELS, DEFAULT_CHANNELS, episodes_needed
from worldpilot.cli.main import COMMANDS
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.sim import tasks
from worldpilot.sim.faults import LEGGED_FAULTS
from worldpilot.sim.push_t import PARAMETERS
from worldpilot.sim.quadruped import ACTION, ROBOT
from worldpilot.system import System

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "tutorials"
TEXTS = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
LEAST_LINKS = {"certificates": 4, "monitor": 4}  # elsewhere one
WITH_SCRIPTS = ("certificates", "latency_and_system")


def shell(name: str) -> str:
    """All that a tutorial types into a shell."""
    return "\n".join(re.findall(r"```bash\n(.*?)```", TEXTS[name], re.DOTALL)).replace("\\\n", " ")


def lines(name: str) -> list[str]:
    return [line for line in shell(name).splitlines() if line.startswith("worldpilot ")]


@pytest.fixture
def example_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if examples/gym_pusht were installed; it can be imported without gym-pusht."""
    monkeypatch.syspath_prepend(ROOT / "examples" / "gym_pusht")
    entry = importlib.metadata.EntryPoint("gym_pusht", "worldpilot_gym_pusht:TASK", tasks.GROUP)
    monkeypatch.setattr(tasks, "entry_points", lambda group: [entry])
    tasks.available.cache_clear()
    yield
    tasks.available.cache_clear()


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in TEXTS for line in lines(name)])
def test_commands_parse(name: str, line: str, request: pytest.FixtureRequest) -> None:
    if name == "own_environment":
        request.getfixturevalue("example_installed")
    _, command, *arguments = shlex.split(line)
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
    parser.parse_args(arguments)


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_pictures_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", TEXTS[name])
    assert len(links) >= LEAST_LINKS.get(name, 1)
    assert [link for link in links if not (FOLDER / link).exists()] == []


@pytest.mark.parametrize("name", TEXTS)
def test_scripts_are_there(name: str) -> None:
    scripts = re.findall(r"^python (\S+)", shell(name), re.MULTILINE)
    assert scripts or name not in WITH_SCRIPTS
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def test_own_environment_leads_from_data_to_planning() -> None:
    commands = [shlex.split(line)[1] for line in lines("own_environment")]
    assert commands[-5:] == ["collect", "train", "train", "export", "evaluate"]


def test_own_environments_program_writes_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (source,) = re.findall(r"```python\n(.*?)```", TEXTS["own_environment"], re.DOTALL)
    exec(compile(source, "own_environment.md", "exec"), {"__name__": "tutorial"})
    store = EpisodeStore(tmp_path / "data" / "dot")
    assert len(store) == 20
    assert store.meta["task"] == "dot"
    assert all(len(episode) == 60 and episode.observations.any() for episode in store)


def test_legged_signals_and_faults_are_those_of_the_world() -> None:
    text = TEXTS["legged"]
    (told,) = re.findall(r"Signals are(.*?)\. ?\n\n", text.replace("0.4 s.", "."), re.DOTALL)
    named = set(re.findall(r"`(\w+)`", told)) - {"fall_probability"}
    assert named == {name for name in ROBOT.signals if not name.startswith("contact_") and name != "fallen"}
    assert all(f"`{fault}`" in text or f"name: {fault}" in text for fault in LEGGED_FAULTS)
    assert ACTION.names[8] == "rl_knee"


def test_the_system_file_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXTS["latency_and_system"], re.DOTALL)
    (tmp_path / "true.yaml").write_text(text)
    system = System.load(tmp_path / "true.yaml", "push_t")
    assert system.delay == pytest.approx(0.102)
    assert system.checked(PARAMETERS) == {"mass": 0.3, "friction": 0.4}


def test_the_channels_are_the_monitors() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\w+) \|$", TEXTS["monitor"], re.MULTILINE)
    assert rows == [(name, level.name.lower()) for name, level in CHANNELS.items()]
    assert DEFAULT_CHANNELS == ("surprise", "drift")
    assert f"need {episodes_needed(0.05)} episodes" in " ".join(TEXTS["monitor"].split())


def test_the_target_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXTS["camera"], re.DOTALL)
    assert load(text) == Charuco(7, 5, 0.04, 0.03, "DICT_4X4_50")
