"""When nothing moves though something is left to do, and the way out of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from worldpilot.contracts import WorldModel
from worldpilot.errors import InvalidInput
from worldpilot.planners.gate import Gate
from worldpilot.planners.mpc import Mpc, Tick
from worldpilot.planners.rewards.registry import parse_spec
from worldpilot.planners.solvers import make
from worldpilot.planners.stall import EscapeConfig, StallDetector
from worldpilot.types import AlertLevel, FloatArray, History, RewardSpec

GOAL = {"block_x": 0.1, "block_y": 0.0, "block_yaw": 3.14}


def heard(detector: StallDetector, readings: list[dict[str, float]], target: Mapping[str, float] = GOAL) -> list[bool]:
    """What it says of readings every 0.5 s."""
    return [detector.hear(5 * i, now, target) for i, now in enumerate(readings)]


def at(x: float, yaw: float = 0.0) -> dict[str, float]:
    return {"block_x": x, "block_y": 0.0, "block_yaw": yaw, "block_speed": x}


def test_it_takes_a_while_without_motion(point: WorldModel) -> None:
    assert heard(StallDetector(point.spec, 1.0), [at(0.0)] * 4) == [False, False, True, True]
    assert heard(StallDetector(point.spec, 1.0), [at(0.004 * i) for i in range(6)]) == [False] * 6
    assert heard(StallDetector(point.spec, 1.0), [at(0.0, yaw=0.04 * i) for i in range(6)]) == [False] * 6
    stops = [at(0.0), at(0.02), at(0.04), at(0.041), at(0.042)]
    assert heard(StallDetector(point.spec, 1.0), stops) == [False] * 4 + [True]


def test_back_and_forth_is_motion(point: WorldModel) -> None:
    assert not any(heard(StallDetector(point.spec, 1.0), [at(0.0), at(0.02)] * 4))


def test_where_it_has_arrived_it_may_rest(point: WorldModel) -> None:
    assert not any(heard(StallDetector(point.spec, 1.0), [at(0.098, yaw=-3.14)] * 6))
    assert heard(StallDetector(point.spec, 1.0), [at(0.098, yaw=-3.0)] * 6)[-1]


def test_only_lengths_and_angles_with_a_target_count(point: WorldModel) -> None:
    assert not any(heard(StallDetector(point.spec, 1.0), [at(0.0)] * 6, {"block_speed": 0.3}))
    assert not any(heard(StallDetector(point.spec, 1.0), [at(0.0)] * 6, {}))
    assert heard(StallDetector(point.spec, 1.0), [at(0.0, yaw=0.2 * i) for i in range(6)], {"block_x": 0.1})[-1]


def test_it_begins_anew(point: WorldModel) -> None:
    detector = StallDetector(point.spec, 1.0)
    heard(detector, [at(0.0)] * 6)
    detector.clear()
    assert heard(detector, [at(0.0)] * 3) == [False, False, True]
    assert not detector.hear(15, at(0.0), {"block_x": 0.1})  # other signals are asked for


@pytest.mark.parametrize("settings", [{"after": 0.0}, {"after": float("nan")}, {"steps": 0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="escape: after must be positive"):
        EscapeConfig(**settings)


class Sideways:
    """Proposes to go left or right."""

    def __init__(self, model: WorldModel) -> None:
        self.horizon, self._dim = model.spec.horizon, model.spec.action.dim

    def propose(
        self, history: History, n: int, rng: np.random.Generator, goal: Mapping[str, float] | None = None
    ) -> FloatArray:
        proposals = np.zeros((n, self.horizon, self._dim // 2, 2), np.float32)
        proposals[..., 1] = 0.25 * rng.choice([-1, 1], (n, 1, 1))
        return proposals.reshape(n, self.horizon, self._dim)


def behind() -> RewardSpec:
    return parse_spec({"terms": [{"plugin": "goal_pose", "params": {"x": 0.45, "y": 0.0}}]})


def planner(model: WorldModel, **settings: Any) -> Mpc:
    return Mpc(model, make("ssr", samples=16), behind(), Gate(model.spec.action), seed=0, replan_every=5, **settings)


def walled(mpc: Mpc, steps: int) -> tuple[FloatArray, list[Tick]]:
    """Close the loop around a point before a wall of which the model knows nothing; pushed against it, it sticks."""
    position, control, ticks = np.zeros(2, np.float32), np.zeros(2, np.float32), list[Tick]()
    for _ in range(steps):
        ticks.append(mpc.tick(position, control, None))
        control = ticks[-1].control
        moved = (position + control * np.float32(0.1)).astype(np.float32)
        if moved[0] > 0.05 >= position[0] and abs(moved[1]) < 0.15:
            moved = position
        position = moved
    return position, ticks


def test_a_stall_is_left_by_a_proposal(point: WorldModel) -> None:
    escape, prior = EscapeConfig(1.5, steps=10), {"prior": Sideways(point), "proposals": 8}
    position, ticks = walled(planner(point, escape=escape, **prior), 80)
    assert position[0] > 0.2
    escapes = np.flatnonzero([tick.escapes for tick in ticks])
    assert len(escapes) >= 10
    assert (np.diff(escapes[:10]) == 1).all()  # as long as it was told
    plan = ticks[escapes[0]].plan
    assert plan is not None
    np.testing.assert_allclose(np.abs(point.spec.action.controls(plan.actions)[2:, 1]), 0.25)  # as proposed
    assert plan.terms == {"goal_pose": pytest.approx(plan.score)}
    stays, ticks = walled(planner(point, **prior), 80)
    assert stays[0] <= 0.05  # without it
    assert not any(tick.escapes for tick in ticks)


def test_the_same_seed_leaves_it_the_same_way(point: WorldModel) -> None:
    escape, prior = EscapeConfig(1.5), {"prior": Sideways(point), "proposals": 8}
    runs = [walled(planner(point, escape=escape, **prior), 60)[1] for _ in range(2)]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a.control, b.control)


def test_without_proposals_it_searches_on(point: WorldModel) -> None:
    stays, ticks = walled(planner(point, escape=EscapeConfig(1.5)), 80)
    assert stays[0] <= 0.05
    assert not any(tick.escapes for tick in ticks)


@pytest.mark.parametrize("began", ["swap", "reset", "watch", "hold"])
def test_patience_begins_anew(point: WorldModel, began: str) -> None:
    mpc = planner(point, escape=EscapeConfig(1.5), prior=Sideways(point), proposals=8)
    still = np.zeros(2, np.float32)
    for _ in range(14):
        mpc.tick(still, still, None)
    if began == "swap":
        assert mpc.swap(behind()).accepted
    elif began == "reset":
        mpc.reset()
    elif began == "watch":
        mpc.watch(still, still)
    else:
        mpc.tick(still, still, None, alert_level=AlertLevel.HOLD)
    assert not any(mpc.tick(still, still, None).escapes for _ in range(15))
    assert any(mpc.tick(still, still, None).escapes for _ in range(6))
