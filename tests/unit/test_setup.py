"""Set-up: what it says when something is missing, and that the pins agree with what the package declares."""

import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "scripts" / "setup.sh"


def pins(name: str) -> dict[str, str]:
    """Distribution -> exact version, of a requirements file of the repository."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(re.findall(r"^([\w.-]+)==([\w.!+]+)", "\n".join(lines), re.MULTILINE))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of which only the set-up and what it reads are there."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "ros2_ws" / "src").mkdir(parents=True)
    shutil.copy(SETUP, tmp_path / "scripts")
    for name in ("requirements.txt", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def run_setup(checkout: Path, *args: str, path: str) -> subprocess.CompletedProcess[str]:
    """The set-up with another PATH."""
    return subprocess.run(
        ["/bin/bash", str(checkout / "scripts" / "setup.sh"), *args],
        env={"PATH": path, "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with the basic tools and neither compiler, cmake, make, uv nor Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("dirname", "cat", "cut", "sha256sum", "uname", "grep", "rm", "tr"):
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    return str(folder)


def test_missing_tools_are_named_in_one_line(checkout: Path, bare_path: str) -> None:
    result = run_setup(checkout, path=bare_path)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("setup: missing:")
    assert all(f"{tool};" in line for tool in ("cmake", "g++", "make"))
    assert "apt-get" in line
    assert not (checkout / ".venv").exists()


@pytest.mark.skipif(Path("/opt/ros/jazzy/setup.bash").exists(), reason="this machine has ROS 2 Jazzy from apt")
def test_make_ros_without_ros_says_what_to_install(checkout: Path, bare_path: str) -> None:
    result = run_setup(checkout, "apt", path=bare_path)
    assert result.returncode == 1
    assert "ros-jazzy-ros-base" in result.stderr


def test_an_unknown_way_lists_the_valid_ones(checkout: Path, bare_path: str) -> None:
    result = run_setup(checkout, "conda", path=bare_path)
    assert result.returncode == 1
    assert "valid: wheels, apt" in result.stderr


def test_every_pin_is_exact_and_stands_once() -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    asked = [line for line in lines if line and line != "-c constraints.txt"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in asked)
    assert {name.lower() for name in pins("requirements.txt")}.isdisjoint(pins("constraints.txt"))


def test_pins_meet_the_floors_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name in extras if name != "gpu" for line in extras[name])]
    pinned = {name.lower(): pin for name, pin in pins("requirements.txt").items()}
    for requirement in map(Requirement, wanted):
        assert requirement.name.lower() in pinned, f"requirements.txt lacks {requirement.name}"
        assert pinned[requirement.name.lower()] in requirement.specifier


def test_pins_are_what_is_installed() -> None:
    asked = pins("requirements.txt")
    assert {name: version(name).partition("+")[0] for name in asked} == asked


def test_every_package_of_the_tree_is_declared() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = set()
    for part in ("worldpilot", "models", "planners", "sim", "calibration"):
        base = ROOT if part == "worldpilot" else ROOT / "worldpilot"
        folders = [path.parent for path in (base / part).rglob("__init__.py")]
        found |= {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert declared == found
