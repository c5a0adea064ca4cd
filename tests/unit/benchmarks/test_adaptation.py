"""The adaptation benchmark: who drives sees the state, the joint breaks when it is said to, the figures are right."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.scripts import benchmark
from tests.support.tiny_legged import build
from worldpilot.models.artifact import Artifact
from worldpilot.sim.planar import WALKER, Walker
from worldpilot.types import FloatArray


@pytest.fixture(scope="module")
def adaptation() -> ModuleType:
    return benchmark("adaptation")


@pytest.fixture(scope="module")
def lab(adaptation: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    work = tmp_path_factory.mktemp("adaptation")
    shipped = build(work / "shipped", robot=WALKER)
    with closing(Walker()) as world, pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "zoo_path", lambda name: shipped)
        yield adaptation.Lab("walker", world, work / "work", work / "checkpoints")


@pytest.fixture
def at_once(adaptation: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """No gait begins."""
    monkeypatch.setattr(adaptation, "BEGINS", 0)


class Standing:
    """Remembers what it saw, and what it watched."""

    def __init__(self) -> None:
        self.solves: list[float] = []
        self.seen: list[tuple[FloatArray, FloatArray]] = []
        self.watched = 0

    def watch(self, state: FloatArray, previous: FloatArray) -> None:
        assert not self.seen
        self.watched += 1

    def act(self, state: FloatArray, previous: FloatArray) -> FloatArray:
        self.seen.append((state, previous))
        return np.full(6, 0.05, np.float32)


@pytest.mark.usefixtures("at_once")
def test_who_drives_sees_the_state_and_what_was_done(lab: Any) -> None:
    standing = Standing()
    episode = lab.drive(lab.shipped, lambda setting: standing, 3, None)
    states, previous = (np.stack(part) for part in zip(*standing.seen, strict=True))
    assert np.array_equal(states, episode.observations[:-1])
    assert np.array_equal(previous[1:], episode.controls[:-1])
    assert episode.observations[5, -6:] == pytest.approx(0.05)  # the control in force is a part of the state
    assert len(episode) == episode.meta["steps"] < 250  # it falls, and that ends it
    assert episode.meta["fallen"]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("breaks_at", [0, 10])
def test_the_joint_breaks_when_it_is_said_to(lab: Any, breaks_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "robot", replace(lab.robot, params={"joint": 2, "fraction": 0.0}))
    healthy, broken = (lab.drive(lab.shipped, lambda setting: Standing(), 3, at) for at in (None, breaks_at))
    assert np.array_equal(healthy.observations[: breaks_at + 1], broken.observations[: breaks_at + 1])
    assert not np.array_equal(healthy.observations[:25], broken.observations[:25])
    assert lab.world.faults.strength[2] == 0


def test_the_gait_begins_and_who_drives_after_it_watches(lab: Any, adaptation: ModuleType) -> None:
    standing = Standing()
    episode = lab.drive(lab.shipped, lambda setting: standing, 3, None)
    assert standing.watched == adaptation.BEGINS == len(episode) - len(standing.seen)
    assert np.array_equal(standing.seen[0][0], episode.observations[adaptation.BEGINS])
    assert episode.signals["forward_velocity"][25 : adaptation.BEGINS].mean() > 0.4
    assert episode.observations[-1, -6:] == pytest.approx(0.05)


@pytest.mark.usefixtures("at_once")
def test_a_return_is_what_was_earned_in_all_of_its_time(lab: Any) -> None:
    episode = lab.drive(lab.shipped, lambda setting: Standing(), 3, None)
    earned = np.clip(episode.signals["forward_velocity"][1:], 0, 1).sum() / 250
    assert lab.earn(episode) == pytest.approx(earned, rel=1e-5)


def test_the_broken_robot_is_recorded_once_by_gait_and_planner(
    lab: Any, adaptation: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "STEPS", 12)
    monkeypatch.setattr(adaptation, "BEGINS", 6)
    first = lab.broken(2)
    assert sorted(meta["behaviour"] for meta in first.metas) == ["behaviour", "planner"]
    monkeypatch.setattr(lab, "plan", None)  # what is there is not driven again
    assert lab.broken(2).sha256() == first.sha256()
    assert tuple(first.meta["state"]["names"]) == Artifact.load(lab.shipped.path).spec.observation_names


def test_what_came_back_is_the_share_of_what_was_lost(adaptation: ModuleType) -> None:
    rng = np.random.default_rng(0)
    before, healthy = rng.normal(0.2, 0.05, 40), rng.normal(0.8, 0.05, 40)
    figure = adaptation.recovered(before + 0.3, before, healthy)
    assert figure["value"] == pytest.approx(0.3 / (healthy - before).mean())
    assert figure["ci"][0] < figure["value"] < figure["ci"][1]
    assert adaptation.recovered(healthy, before, healthy)["ci"] == [1.0, 1.0]
    assert adaptation.recovered(before, before, healthy)["value"] == 0.0


def test_the_page_says_what_was_measured(adaptation: ModuleType) -> None:
    runs = {
        "healthy": {"returns": [0.8, 0.9], "fallen": [False, False]},
        "before": {"returns": [0.2, 0.3], "fallen": [True, True]},
        "dynamics 25": {"returns": [0.5, 0.6], "fallen": [True, False]},
    }
    setting = {"fault": {"weak_joint": {"joint": 2, "fraction": 0.3}}, "seeds": 2, "steps": 250, "model_id": "abc"}
    kept = {"setting": {**setting, "reward": "speed", "adapt": {"steps": 600}}, "runs": runs}
    page = adaptation.report({"walker": {**kept, "figures": adaptation.summarise(kept)}})
    assert "weak_joint (joint 2, fraction 0.3)" in page
    assert "| dynamics | 25 | 0.55 [0.50, 0.60] | 0.50 [0.50, 0.50] | 50% |" in page
    assert "| nothing, broken joint | – | 0.25 [0.20, 0.30] | – | 100% |" in page
    assert "fine-tuned for 600 optimiser steps" in page
    (missing,) = (line for line in page.splitlines() if line.startswith("Not measured: "))
    assert "dynamics from 5, 10, 50, 100 episodes; " in missing
    assert missing.endswith("; the monitor.")
