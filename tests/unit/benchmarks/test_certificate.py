"""The benchmark of certificates, on the tiny artifact and episodes on disk: its ratios and its page are right."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.scripts import benchmark as load_benchmark
from worldpilot.calibration import bounds
from worldpilot.certification import certify
from worldpilot.models.artifact import Artifact, update_manifest
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("certificate")


def write(folder: Path, first: int, count: int) -> EpisodeStore:
    with EpisodeWriter(folder, {"task": "push_t"}) as writer:
        for seed in range(first, first + count):
            rng = np.random.default_rng(seed)
            frames = np.full((36, 64, 64, 3), 90, np.uint8)
            for frame, x in zip(frames, np.clip(24 + rng.integers(-3, 4, 36).cumsum(), 0, 48), strict=True):
                frame[20:36, x : x + 16] = 220
            controls = rng.uniform(-0.25, 0.25, (35, 2)).astype(np.float32)
            writer.append(Episode(frames, controls, {}, {"seed": seed, "behaviour": "random_push"}))
    return EpisodeStore(folder)


@pytest.fixture
def measured(
    benchmark: ModuleType, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The shipped part for the tiny artifact, certified on some episodes and measured on others that lie there."""
    folder = Path(shutil.copytree(tiny_artifact, tmp_path / "push_t"))
    content = certify(Artifact.load(folder), write(tmp_path / "data", 0, 50), 0.05)
    update_manifest(folder, lambda manifest: manifest.update(certificate=content))
    write(tmp_path / "push_t_test", benchmark.TEST_SEED, 20)
    monkeypatch.setattr(benchmark, "zoo_path", lambda task: tmp_path / task)
    return {"shipped": {"push_t": benchmark.shipped("push_t", 20, tmp_path)}, "changed": {}}


def test_ratios_are_of_the_bound_to_the_loss_on_fresh_episodes(measured: dict[str, Any]) -> None:
    part = measured["shipped"]["push_t"]
    assert part["test_episodes"] == {"random_push": 20}
    for row in part["held_out"].values():
        assert row["test"]["n"] == 20
        assert row["test"]["ci"][0] < row["test"]["value"] < row["test"]["ci"][1]
        assert row["ratio"] == pytest.approx(row["bound"] / row["test"]["value"])
        assert row["by_n"][-1] == pytest.approx([row["n"], bounds.held_out_bound(row["risk"], row["n"], 0.05)])


def test_the_page_says_whether_targets_are_met(benchmark: ModuleType, measured: dict[str, Any], tmp_path: Path) -> None:
    row = measured["shipped"]["push_t"]["held_out"]["h_step"]
    text = benchmark.markdown(measured)
    assert f"**{row['bound']:.4f}**" in text
    assert benchmark.verdict([1.2, 1.6], 1.5) == "**Met** by 1 of 2, the largest is 1.60."
    assert "3 × test, below 1. Not measured." in text
    benchmark.plot(json.loads(json.dumps(measured)), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_what_is_not_certified_is_not_measured(
    benchmark: ModuleType, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "zoo_path", lambda task: tiny_artifact)
    with pytest.raises(SystemExit, match="no certificate that holds"):
        benchmark.shipped("push_t", 20, tmp_path)


def test_the_fault_is_there_from_the_beginning(benchmark: ModuleType, tmp_path: Path) -> None:
    store = benchmark.weakened("walker", 2, 77, tmp_path / "weak")
    assert [meta["seed"] for meta in store.metas] == [77, 78]
    assert len(benchmark.weakened("walker", 2, 77, tmp_path / "weak")) == 2  # not made again
    healthy = tmp_path / "healthy"
    benchmark.collect("walker", {"walk": 1}, 77, healthy)
    a, b = store[0].observations, EpisodeStore(healthy)[0].observations
    np.testing.assert_array_equal(a[0], b[0])
    ankle = store.meta["state"]["names"].index("q_left_ankle")
    assert np.abs(a[: len(b), ankle] - b[: len(a), ankle]).max() > 0.02
