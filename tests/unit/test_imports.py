"""The dependency rule: who may import whom, and what a robot must never be made to install."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("models", "planners", "sim", "calibration")
GROUND_FLOOR = ("types", "contracts", "errors", "history", "graph", "system", "pending")
# Files of models/ that run where training runs, and so may import torch.
TRAIN_SIDE = (
    "train.py",
    "export.py",
    "networks.py",
    "vit.py",
    "open_loop.py",
    "sigreg.py",
    "windows.py",
    "samplers.py",
    "adapt.py",
    "ensemble.py",
    "distil.py",
    "subspace.py",
)
HEAVY = (
    "torch",
    "lightning_fabric",
    "diffusers",
    "pybullet",
    "cv2",
    "gymnasium",
    "onnx",
    "onnxscript",
    "matplotlib",
    "rclpy",
    "llguidance",
)
# calibration reads model artifacts; the others meet in worldpilot/contracts.py.
FORBIDDEN = {
    "models": {"planners", "sim", "calibration"},
    "planners": {"models", "sim", "calibration"},
    "sim": {"models", "planners", "calibration"},
    "calibration": {"planners", "sim"},
}


def python_files(*folders: str) -> list[Path]:
    """Python files below folders of the repository, links not followed."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every (line, dotted module) that a file imports, wherever in the file it stands.

    `from a import b` yields a and a.b, as b may be a module.
    """
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or "."
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def violations(paths: list[Path], forbidden: set[str]) -> list[str]:
    """Imports of a forbidden module or of something below it."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for line, name in imported(path)
        if any(name == module or name.startswith(module + ".") for module in forbidden)
    ]


def test_the_reader_of_imports_sees_every_form(tmp_path: Path) -> None:
    source = tmp_path / "example.py"
    source.write_text("import a.b\ndef f():\n    from c import d\n    from worldpilot import sim as s\n")
    assert {name for _, name in imported(source)} == {"a.b", "c", "c.d", "worldpilot", "worldpilot.sim"}


@pytest.mark.parametrize("part", PARTS)
def test_parts_meet_only_in_contracts(part: str) -> None:
    files = python_files(part)
    assert files
    assert not violations(files, {f"worldpilot.{other}" for other in FORBIDDEN[part]} | {"worldpilot.cli"})


def test_the_ground_floor_stands_on_nothing() -> None:
    files = [ROOT / "worldpilot" / f"{name}.py" for name in GROUND_FLOOR]
    own = {f"worldpilot.{name}" for name in GROUND_FLOOR}
    others = {name for path in files for _, name in imported(path) if name.startswith("worldpilot.")}
    assert {name for name in others if ".".join(name.split(".")[:2]) not in own} == set()


def test_imports_are_written_from_the_package() -> None:
    files = python_files("worldpilot", *PARTS, "ros2_ws/src", "launch", "tests", "benchmarks", "scripts")
    assert not violations(files, set(PARTS))


def test_only_the_ros_packages_import_rclpy() -> None:
    ros = {"rclpy", "launch", "launch_ros"}
    assert not violations(python_files("worldpilot"), ros)
    assert not violations(python_files(*PARTS), ros | {"worldpilot_msgs", "worldpilot_nodes"})


def test_only_training_and_language_import_torch() -> None:
    language = set(python_files("models/language"))  # the extra of that name: on a host of its own
    files = [path for path in python_files("models") if path.name not in TRAIN_SIDE and path not in language]
    files += python_files("planners", "sim", "calibration", "ros2_ws/src", "launch")
    assert not violations(files, {"torch", "diffusers", "onnx", "onnxscript"})


@pytest.mark.parametrize(
    "module",
    [
        "worldpilot.models.artifact",
        "worldpilot.planners.mpc",
        "worldpilot.planners.rewards.registry",
        "worldpilot.planners.gate",
        "worldpilot.calibration.monitor",
        "worldpilot.calibration.thresholds",
        "worldpilot.reasoning.reasoner",
        "worldpilot.cli.calibrate",
        "worldpilot.cli.main",
    ],
)
def test_a_robot_needs_only_numpy_and_onnxruntime(module: str) -> None:
    script = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
