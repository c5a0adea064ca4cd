"""Controls that were sent and are not in force yet."""

import numpy as np
import pytest

from worldpilot.errors import InvalidInput
from worldpilot.pending import PendingControls
from worldpilot.types import ActionSpec, FloatArray

SPEC = ActionSpec(("v",), ("m/s",), (-1.0,), (1.0,), (10.0,), control_dt=0.1, block=2)


def sent(delay: float, *controls: float) -> tuple[PendingControls, list[float]]:
    pending = PendingControls(SPEC, delay)
    return pending, [float(pending.send(np.asarray([control], np.float32))[0]) for control in controls]


@pytest.mark.parametrize(
    ("delay", "in_force"),
    [(0.0, [1, 2, 3, 4]), (0.1, [0, 1, 2, 3]), (0.3, [0, 0, 0, 1]), (0.05, [0.5, 1.5, 2.5, 3.5]), (0.125, None)],
)
def test_a_control_is_in_force_after_the_delay(delay: float, in_force: list[float] | None) -> None:
    _, found = sent(delay, 1, 2, 3, 4)
    assert found == pytest.approx(in_force or [0, 0.75, 1.75, 2.75])


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.05, 0.125])
def test_what_a_plan_does_is_what_is_in_force_when_it_is_sent(delay: float) -> None:
    rng = np.random.default_rng(0)
    pending, _ = sent(delay, *map(float, rng.normal(size=7)))
    plans = rng.normal(size=(3, 4, SPEC.dim)).astype(np.float32)
    expected: list[list[FloatArray]] = []
    for plan in SPEC.controls(plans):
        other = PendingControls(SPEC, delay)
        other._sent = pending._sent.copy()
        expected.append([other.send(control) for control in plan])
    np.testing.assert_allclose(SPEC.controls(pending.effect(plans)), expected, atol=1e-6)


@pytest.mark.parametrize(("delay", "periods"), [(0.0, 0), (0.1, 1), (0.125, 2), (0.3, 3)])
def test_what_is_sent_ahead_has_the_wanted_effect_but_for_what_comes_too_late(delay: float, periods: int) -> None:
    pending, _ = sent(delay, 5, 5, 5)
    ramp = np.arange(12, dtype=np.float32).reshape(1, 6, 2)
    effect = SPEC.controls(pending.effect(pending.ahead(ramp)))[0, :, 0]
    assert pending.periods == periods
    np.testing.assert_allclose(effect[:1], [5.0] if periods else [0.0])
    np.testing.assert_allclose(effect[periods:-1], np.arange(12)[periods:-1], atol=1e-5)


def test_after_an_interruption_nothing_is_on_its_way() -> None:
    pending, _ = sent(0.2, 1, 2, 3)
    pending.clear()
    assert pending.send(np.ones(1, np.float32)) == 0
    assert SPEC.controls(pending.effect(np.zeros((1, 2, 2), np.float32))).ravel().tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("delay", [-0.1, 2.5, float("nan")])
def test_what_is_no_delay_is_refused(delay: float) -> None:
    with pytest.raises(InvalidInput, match="between 0 and 2 s"):
        PendingControls(SPEC, delay)
