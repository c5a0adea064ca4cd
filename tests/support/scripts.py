"""Python files that no package holds, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(path: Path, name: str | None = None) -> ModuleType:
    """The file as a module, run anew; `name` defaults to the file's. Dataclasses look themselves up by it."""
    name = name or path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def benchmark(name: str) -> ModuleType:
    """The module benchmarks/<name>.py."""
    return load(BENCHMARKS / f"{name}.py", f"{name}_benchmark")
