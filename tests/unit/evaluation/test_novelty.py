"""Distances of motions to a data set."""

import numpy as np
import pytest

from worldpilot.errors import InvalidInput
from worldpilot.evaluation.novelty import Motions, Yardstick, beyond, duty
from worldpilot.types import FloatArray


def motion(speed: float, height: float, period: int, seed: int, steps: int = 200) -> dict[str, FloatArray]:
    """A trot: diagonal feet together, half a period apart."""
    rng, time = np.random.default_rng(seed), np.arange(steps)
    diagonal = ((time + rng.integers(period)) % period < period // 2).astype(np.float32)
    noise = 0.02 * rng.normal(size=(3, 1)) * np.ones(steps)
    return {
        "forward_velocity": (speed + noise[0]).astype(np.float32),
        "height": (height + 0.1 * noise[1]).astype(np.float32),
        "yaw_rate": noise[2].astype(np.float32),
        "contact_fl": diagonal,
        "contact_rr": diagonal,
        "contact_fr": 1 - diagonal,
        "contact_rl": 1 - diagonal,
        "fallen": np.zeros(steps, np.float32),
    }


DATA = [motion(0.7, 0.26, 20, seed) for seed in range(40)]


def test_more_of_the_same_is_not_novel_and_another_speed_or_gait_is() -> None:
    yardstick = Yardstick.of(Motions.of(DATA, 50))
    same = Motions.of([motion(0.7, 0.26, 20, seed) for seed in range(100, 110)], 50)
    assert beyond(yardstick.region(same), same).mean() < 0.2
    assert beyond(yardstick.pattern(same), same).mean() == 0
    slow = Motions.of([motion(0.2, 0.26, 20, 200)], 50)
    assert beyond(yardstick.region(slow), slow).tolist() == [1.0]
    assert beyond(yardstick.pattern(slow), slow).tolist() == [0.0]
    bound = [{**motion(0.7, 0.26, 20, 300)}]  # front feet together, then rear feet
    bound[0]["contact_fr"], bound[0]["contact_rr"] = bound[0]["contact_fl"], bound[0]["contact_rl"]
    other = Motions.of(bound, 50)
    assert beyond(yardstick.pattern(other), other).tolist() == [1.0]


def test_windows_end_at_a_fall() -> None:
    falls = motion(0.7, 0.26, 20, 0)
    falls["fallen"][120:] = 1
    assert len(Motions.of([falls, motion(0.7, 0.26, 20, 1)], 50).episodes) == 2 + 4
    falls["fallen"][10:] = 1
    with pytest.raises(InvalidInput, match="window of 50"):
        Motions.of([falls], 50)


def test_one_episode_is_no_yardstick() -> None:
    with pytest.raises(InvalidInput, match="two episodes"):
        Yardstick.of(Motions.of(DATA[:1], 50))


def test_duty_is_the_share_of_time_on_the_ground() -> None:
    signals = motion(0.7, 0.26, 20, 0)
    signals["contact_fl"][:] = 1
    found = duty(signals, ("fl", "fr"))
    assert found["fl"] == 1
    assert found["fr"] == pytest.approx(0.5, abs=0.06)
