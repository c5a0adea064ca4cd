"""What rewards ask for, and when an episode did it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from worldpilot.errors import InvalidInput, RewardError, UnknownName
from worldpilot.evaluation.asked import NOVEL, Keep, load, mean
from worldpilot.planners.rewards.base import RewardContext
from worldpilot.planners.rewards.registry import build
from worldpilot.sim.quadruped import ROBOT

NINE = ["slow", "fast", "stop", "crouch_run", "high_trot_or_leap", "turn_left", "turn_right", "backwards", "pitch_up"]


def test_the_nine_rewards_fit_the_quadrupeds_signals(legged) -> None:
    protocol = load()
    assert [asked.name for asked in protocol.rewards] == NINE
    signals = {name: np.zeros(5, np.float32) for name in ROBOT.signals}
    for asked in protocol.rewards:
        build(asked.reward, RewardContext(legged.spec))  # every name and unit is known
        for quantity in asked.quantities:
            assert mean(quantity, signals, ROBOT.signals) == 0
        assert asked.why.endswith(".")


def test_a_direction_decides_what_counts() -> None:
    fast, stop = load().select(("fast", "stop"))
    assert fast.moved(0.1, 0.3)
    assert not fast.moved(-0.1, 0.3)
    assert stop.moved(-0.3, -0.1)
    assert not stop.moved(0.1, 0.3)
    assert not replace(stop, direction="higher").moved(-0.3, -0.1)


@pytest.mark.parametrize(("low", "high", "holds"), [(None, None, True), (0.1, None, True), (0.3, None, False)])
def test_a_keep_bounds_a_mean(low, high, holds) -> None:
    assert Keep("height", "m", low, high).holds(0.2) == holds
    assert Keep("height", "m", high, low).holds(0.2) == (low is None or low >= 0.2)


def test_quantities_are_means_over_steps() -> None:
    signals = {"forward_velocity": np.array([3, 0], np.float32), "lateral_velocity": np.array([4, 0], np.float32)}
    units = {"forward_velocity": "m/s", "lateral_velocity": "m/s"}
    assert mean("hypot(forward_velocity, lateral_velocity)", signals, units) == 2.5
    with pytest.raises(UnknownName, match="height"):
        mean("height", signals, units)


def test_bad_files_are_refused(tmp_path) -> None:
    with pytest.raises(UnknownName, match="moonwalk"):
        load().select(("slow", "moonwalk"))
    content = json.loads(NOVEL.read_text())
    file = tmp_path / "rewards.json"
    for change, error, says in [
        (lambda c: c["rewards"]["slow"]["asked"].update(direction="up"), InvalidInput, "higher or lower"),
        (lambda c: c["rewards"]["slow"].pop("why"), InvalidInput, "'why' is missing"),
        (lambda c: c["rewards"]["slow"]["reward"].update(terms=[]), RewardError, "terms"),
    ]:
        changed = json.loads(json.dumps(content))
        change(changed)
        file.write_text(json.dumps(changed))
        with pytest.raises(error, match=says):
            load(file)
