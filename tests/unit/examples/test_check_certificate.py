"""The example that checks a certificate without worldpilot agrees with worldpilot on what holds and what does not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worldpilot.calibration import certificate
from worldpilot.models.artifact import update_manifest, verify

SCRIPT = Path(__file__).resolve().parents[3] / "examples" / "check_certificate.py"


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=60)


@pytest.fixture
def certified(tiny_artifact: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_artifact, tmp_path / "push_t"))
    losses = [0.0, 1.0, *(0.01 * i for i in range(50))]
    about = {"dims": 16, "levels": 2, "directions_seed": 0, "risk_without": 0.3}

    def certify(manifest: dict[str, Any]) -> None:
        manifest["certificate"] = {
            "format": 1,
            "model_id": manifest["model_id"],
            "graphs": {name: manifest["graphs"][name]["sha256"] for name in certificate.GRAPHS},
            "unit": "episode",
            "scale": {"quantile": 0.99, "data_sha256": "0" * 64, "seeds": [99], "clip": {"h_step": 0.5}},
            "data": {"data_sha256": "1" * 64, "collected": None, "behaviours": {"walk": 52}, "seeds": list(range(52))},
            "held_out": {"h_step": certificate.statement(losses, 0.05, steps=5, copy_risk=0.9)},
            "compression": certificate.compression_statement(losses, 0.05, b"0123456789", 6, steps=5, **about),
            "flatness": None,
        }

    update_manifest(folder, certify)
    assert certificate.check(verify(folder)) == []
    return folder


def test_what_holds_is_found_to_hold(certified: Path) -> None:
    done = check(certified)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the certificate holds" in done.stdout
    assert f"{verify(certified)['certificate']['compression']['bound']:.5f}" in done.stdout


@pytest.mark.parametrize("what", ["bound", "loss", "message", "graph", "none"])
def test_what_does_not_is_found_not_to(certified: Path, what: str) -> None:
    file = certified / "manifest.json"
    manifest = json.loads(file.read_text())
    content = manifest["certificate"]
    if what == "bound":
        content["held_out"]["h_step"]["bound"] -= 1e-4
    elif what == "loss":
        content["held_out"]["h_step"]["losses"][1] = 0.5
    elif what == "message":
        content["compression"]["message"] = content["compression"]["message"][:8]
    elif what == "graph":
        (certified / "predictor.onnx").write_bytes(b"another")
    else:
        manifest["certificate"] = None
    file.write_text(json.dumps(manifest))
    assert check(certified).returncode == 1


def test_it_imports_nothing_of_ours() -> None:
    lines = SCRIPT.read_text().splitlines()
    imported = {line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert "numpy" in imported
    assert "worldpilot" not in imported
