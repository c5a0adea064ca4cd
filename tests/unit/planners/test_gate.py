"""Nothing unsafe passes the gate, whatever is planned."""

from typing import Any

import numpy as np
import pytest

from worldpilot.errors import InvalidInput
from worldpilot.planners.gate import Gate, GateConfig, GateDecision, GateState
from worldpilot.types import ActionSpec, AlertLevel

ACTION = ActionSpec(("vx", "vy"), ("m/s", "m/s"), (-0.25, -0.25), (0.25, 0.25), (1.0, 1.0), control_dt=0.1, block=5)
GOOD = np.array([0.05, -0.05], np.float32)
STILL = np.zeros(2, np.float32)


def check(gate: Gate, control: Any = GOOD, **changes: Any) -> GateDecision:
    arguments: dict[str, Any] = {"stamp_age": 0.05, "alert_level": AlertLevel.NOMINAL, "previous": STILL} | changes
    return gate.check(control if control is None else np.atleast_2d(control), **arguments)


def test_a_good_control_passes_unchanged() -> None:
    decision = check(Gate(ACTION))
    assert decision.state is GateState.RUN
    assert decision.reason == ""
    np.testing.assert_array_equal(decision.control, GOOD)


@pytest.mark.parametrize(
    ("control", "changes", "reason"),
    [
        (np.array([np.nan, 0]), {}, "not finite"),
        (np.array([np.inf, 0]), {}, "not finite"),
        (np.zeros(3), {}, "shape"),
        (np.zeros((1, 1, 2)), {}, "shape"),
        (np.array([[0.05, 0.0], [np.nan, 0.0]]), {}, "not finite"),  # nothing of a plan that goes wrong later
        (None, {"reason": "no reward is active"}, "no reward is active"),
        (None, {}, "no plan"),
        (GOOD, {"stamp_age": 0.31}, "old"),
        (GOOD, {"stamp_age": -5.0}, "old"),
        (GOOD, {"stamp_age": np.nan}, "old"),
        (GOOD, {"alert_level": AlertLevel.HOLD}, "trust"),
        (GOOD, {"alert_level": None}, "monitor"),
        (GOOD, {"previous": np.array([np.nan, 0])}, "in force"),
    ],
)
def test_holds_and_says_why(control: Any, changes: dict[str, Any], reason: str) -> None:
    decision = check(Gate(ACTION), control, **changes)
    assert decision.state is GateState.HOLD
    assert reason in decision.reason
    np.testing.assert_array_equal(decision.control, STILL)
    assert decision.controls[1:].shape == (0, 2)


def test_what_may_follow_is_as_safe_as_what_is_sent() -> None:
    planned = np.array([[0.2, 0.0], [9.0, 0.0], [-9.0, 0.05], [0.0, 0.05]], np.float32)
    decision = check(Gate(ACTION), planned)
    np.testing.assert_allclose(decision.control, [0.1, 0.0], atol=1e-7)  # 1 m/s² for 0.1 s
    np.testing.assert_allclose(decision.controls[1:], [[0.2, 0.0], [0.1, 0.05], [0.0, 0.05]], atol=1e-7)
    assert decision.reason == "vx limited in its rate"  # of the control that is sent now
    slow = check(Gate(ACTION), np.array([[0.06, 0.0], [0.1, 0.0]]), alert_level=AlertLevel.CAUTION)
    np.testing.assert_allclose([slow.control, *slow.controls[1:]], [[0.03, 0.0], [0.05, 0.0]])


def test_bounds_clip_the_one_control_that_exceeds_them() -> None:
    previous = np.array([0.25, 0.0], np.float32)
    decision = check(Gate(ACTION), np.array([9.0, 0.05], np.float32), previous=previous)
    np.testing.assert_allclose(decision.control, [0.25, 0.05])
    assert decision.reason == "vx clipped to its bounds"


def test_rates_are_limited_from_the_control_in_force() -> None:
    decision = check(Gate(ACTION), np.array([0.2, 0.0], np.float32), previous=np.array([-0.1, 0], np.float32))
    np.testing.assert_allclose(decision.control, [0.0, 0.0], atol=1e-7)  # 1 m/s² for 0.1 s
    assert decision.reason == "vx limited in its rate"


def test_caution_slows_down() -> None:
    decision = check(Gate(ACTION), alert_level=AlertLevel.CAUTION)
    assert decision.state is GateState.SLOW
    np.testing.assert_allclose(decision.control, GOOD / 2)


def test_recovers_after_enough_good_checks_in_a_row() -> None:
    gate = Gate(ACTION, GateConfig(recovery=3))
    assert check(gate, None).state is GateState.HOLD
    states = [check(gate).state for _ in range(2)]
    assert check(gate, None).state is GateState.HOLD  # one bad check starts the count anew
    states += [check(gate).state for _ in range(4)]
    assert states == [GateState.HOLD] * 4 + [GateState.RUN] * 2


@pytest.mark.parametrize("settings", [{"max_age": 0}, {"slow_factor": 0}, {"slow_factor": 1.5}, {"recovery": 0}])
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        GateConfig(**settings)
