"""Two processes that train together do what one would do on both their batches."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from worldpilot.models.world_model.train import load

SCRIPT = Path(__file__).parents[1] / "support" / "ranks.py"

pytestmark = pytest.mark.slow


def ranks(*argument_lists: tuple[object, ...]) -> None:
    """Run the script once for each list of arguments, all at the same time."""
    processes = [subprocess.Popen([sys.executable, SCRIPT, *map(str, arguments)]) for arguments in argument_lists]
    assert [process.wait(timeout=200) for process in processes] == [0] * len(processes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ranks")
    spec = importlib.util.spec_from_file_location("ranks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_episodes(root / "data")
    return root


def test_sigreg_sees_the_global_batch(folder):
    """Loss and averaged gradients of two ranks, each with half the batch, against one process with all of it.

    Statistics of the halves would be smaller: SIGReg of N latents is not the mean of SIGReg of N/2 and N/2.
    """
    ranks(("sigreg", folder, 0, 2), ("sigreg", folder, 1, 2), ("sigreg", folder, 0, 1))
    one, first, second = (torch.load(folder / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2"))
    assert float(first["loss"] + second["loss"]) / 2 == pytest.approx(float(one["loss"]), rel=1e-12)
    for whole, *parts in zip(one["gradients"], first["gradients"], second["gradients"], strict=True):
        assert whole.abs().max() > 1e-4
        for part in parts:
            assert torch.allclose(part, whole, rtol=1e-9, atol=1e-12)


def test_training_on_two_devices_keeps_one_model(folder):
    """Both ranks end with the same networks; files are written once; the checkpoint loads."""
    ranks(("train", folder, 2))
    out = folder / "nets-2"
    first, second = (torch.load(out / f"rank-{rank}.state") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(e["stage"], e["step"]) for e in log] == [("encoder", 2), ("encoder", 4), ("dynamics", 4)]
    assert json.loads((out / "metrics.json").read_text())["train"]["devices"] == 2
    loaded = load(out).state_dict()
    assert all(torch.equal(loaded[name], first[name]) for name in first)


def test_the_second_device_brings_data_of_its_own(folder):
    """Other weights than one device with the same seed: its gradients came from other episodes too."""
    ranks(("train", folder, 1))
    one, two = (load(folder / f"nets-{devices}").state_dict() for devices in (1, 2))
    assert (one["encoder.convolutions.0.weight"] - two["encoder.convolutions.0.weight"]).abs().max() > 1e-4
