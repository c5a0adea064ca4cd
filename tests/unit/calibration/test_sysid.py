"""Parameters found by playing recordings again: of a block that slides, whose motion is known in closed form."""

from collections.abc import Mapping

import numpy as np
import pytest

from worldpilot.calibration.sysid import Identified, Parameter, SysidConfig, fit
from worldpilot.errors import InvalidInput

DT, STEPS, GRAVITY = 0.02, 12, 9.81
CHANNELS = ("way", "force")
MASS, FRICTION = Parameter("mass", 0.2, 0.01, 2.0, 0.2, "kg"), Parameter("friction", 0.5, 0.05, 2.0, 0.5)


def slide(speed: float, friction: float) -> np.ndarray:
    """How far a block has slid that was let go at a speed [m], of shape (STEPS,)."""
    time = np.minimum(DT * np.arange(1, STEPS + 1), speed / (friction * GRAVITY))
    return speed * time - friction * GRAVITY * time**2 / 2


def play(speeds: np.ndarray, values: Mapping[str, float]) -> list[np.ndarray]:
    """Ways and the force that brought the block to its speed within a step, and held it there."""
    friction, mass = values["friction"], values.get("mass", 0.2)
    return [np.stack([slide(v, friction), np.full(STEPS, mass * (v / DT + friction * GRAVITY))], -1) for v in speeds]


def identify(
    channels: int, noise: tuple[float, float], seed: int, segments: int = 30, starts: float = 0.0
) -> Identified:
    """What is found of a block whose speed at the start of a segment is known to within `starts` [m/s]."""
    rng = np.random.default_rng(seed)
    speeds = rng.uniform(0.1, 0.5, segments)
    began = speeds + np.random.default_rng([seed, 1]).normal(0, starts, segments)
    measured = [s + rng.normal(0, noise, s.shape) for s in play(began, {"mass": 0.3, "friction": 0.4})]
    chosen = slice(0, channels)
    return fit(
        lambda values: [s[:, chosen] for s in play(speeds, values)],
        [m[:, chosen] for m in measured],
        CHANNELS[chosen],
        [MASS, FRICTION],
    )


def test_mass_and_friction_are_found_within_their_intervals() -> None:
    found = [identify(2, (5e-4, 0.05), seed) for seed in range(20)]
    for name, true in (("mass", 0.3), ("friction", 0.4)):
        errors = np.array([(f.parameters[name] - true) / f.std[name] for f in found])
        assert np.abs([f.parameters[name] / true - 1 for f in found]).max() < 0.02
        assert np.mean(np.abs(errors) < 1.96) >= 0.8
        assert 0.5 < np.std(errors) < 1.6
    assert found[0].identified == ("mass", "friction")
    assert not found[0].remarks
    assert min(found[0].explained.values()) > 0.95


def test_intervals_hold_where_errors_are_those_of_a_few_segments() -> None:
    """Within a segment all errors come from its start, so there are no more of them than segments."""
    found = [identify(2, (5e-4, 0.05), seed, segments=10, starts=0.02) for seed in range(20)]
    for name, true in (("mass", 0.3), ("friction", 0.4)):
        errors = np.array([(f.parameters[name] - true) / f.std[name] for f in found])
        assert np.mean(np.abs(errors) < 1.96) >= 0.8
        assert 0.5 < np.std(errors) < 1.6


@pytest.mark.parametrize("seed", range(4))
def test_contacts_that_jump_do_not_stop_the_search(seed: int) -> None:
    """A simulator whose every answer is off by a tenth, each time another way; the search begins at half the mass."""
    rng = np.random.default_rng(seed)
    speeds = rng.uniform(0.1, 0.5, 30)
    measured = [s + rng.normal(0, (5e-4, 0.05), s.shape) for s in play(speeds, {"mass": 0.4, "friction": 0.6})]

    def rough(values: Mapping[str, float]) -> list[np.ndarray]:
        jumps = np.random.default_rng([int(1e9 * value) for value in values.values()])
        return [s * (1 + 0.1 * jumps.standard_normal()) for s in play(speeds, values)]

    found = fit(rough, measured, CHANNELS, [MASS, FRICTION])
    assert found.parameters["mass"] == pytest.approx(0.4, rel=0.1)
    assert found.parameters["friction"] == pytest.approx(0.6, rel=0.2)


def test_a_mass_that_cancels_is_said_to_be_unknown() -> None:
    found = identify(1, (5e-4, 0.05), 0)
    assert found.identified == ("friction",)
    assert found.parameters["friction"] == pytest.approx(0.4, rel=0.03)
    assert any("mass is not identifiable" in remark for remark in found.remarks)
    assert found.condition > 1e3


def test_of_a_product_the_combination_is_named() -> None:
    def weigh(values: Mapping[str, float]) -> list[np.ndarray]:
        return [np.full((4, 1), values["mass"] * values["friction"] * GRAVITY) for _ in range(10)]

    rng = np.random.default_rng(0)
    measured = [m + rng.normal(0, 0.01, m.shape) for m in weigh({"mass": 0.25, "friction": 0.5})]
    found = fit(weigh, measured, ("force",), [MASS, FRICTION])
    assert not found.identified
    assert found.parameters["mass"] * found.parameters["friction"] == pytest.approx(0.125, rel=0.02)
    assert any("+0.7" in remark and "combination" in remark for remark in found.remarks)


def test_derivatives_that_are_noise_are_no_information() -> None:
    """A simulator whose contacts make it rough in a parameter that has no effect."""

    def rough(values: Mapping[str, float]) -> list[np.ndarray]:
        jumps = np.random.default_rng(int(values["mass"] * 1e6))
        return [values["friction"] * np.ones((6, 1)) + jumps.normal(0, 0.01, (6, 1)) for _ in range(40)]

    rng = np.random.default_rng(1)
    measured = [m + rng.normal(0, 0.01, m.shape) for m in rough({"mass": 0.3, "friction": 0.4})]
    found = fit(rough, measured, ("x",), [MASS, FRICTION])
    assert found.identified == ("friction",)


def test_a_recording_that_does_not_fit_ends_at_a_bound_and_says_so() -> None:
    bounded = Parameter("friction", 0.5, 0.3, 0.7, 0.5)
    measured = [np.full((4, 1), 2.0)] * 8
    found = fit(lambda values: [np.full((4, 1), values["friction"])] * 8, measured, ("x",), [bounded])
    assert any("bound" in remark for remark in found.remarks)


def test_too_little_and_misfits_are_refused() -> None:
    ones = [np.ones((3, 1))] * 8
    with pytest.raises(InvalidInput, match="at least 6"):
        fit(lambda _: ones[:3], ones[:3], ("x",), [MASS])
    with pytest.raises(InvalidInput, match="another shape"):
        fit(lambda _: ones[:3], ones, ("x",), [MASS])
    with pytest.raises(InvalidInput, match="at least one parameter"):
        fit(lambda _: ones, ones, ("x",), [])
    with pytest.raises(InvalidInput, match="within its bounds"):
        Parameter("mass", 3.0, 0.0, 1.0, 1.0)
    with pytest.raises(InvalidInput, match="step must be"):
        SysidConfig(step=0.0)
