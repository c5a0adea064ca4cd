"""Goals in hindsight: what was reached later in the same episode."""

import numpy as np

from worldpilot.models.action_prior.train import hindsight
from worldpilot.models.data.windows import Frames


def frames() -> Frames:
    """Two episodes of 10 and 6 frames whose signals are the frame's number."""
    starts, count = np.array([0, 10, 16]), 16
    signals = np.tile(np.arange(count, dtype=np.float32)[:, None], (1, 3))
    names = ("block_x", "block_y", "pusher_x")
    return Frames(np.zeros((count, 1), np.float32), np.zeros((count, 2), np.float32), signals, names, starts)


def test_goals_lie_ahead_in_the_same_episode():
    present = np.repeat([0, 4, 8, 10, 14], 200)
    goals, _ = hindsight(frames(), present, np.zeros_like(present), 4, np.random.default_rng(0))
    ahead = goals[:, 0] - present
    assert ahead.min() == 1
    assert ahead.max() == 4
    assert goals[present < 10].max() == 9  # never the next episode's frames
    assert goals[present == 14].max() == 15


def test_entities_are_asked_for_as_a_whole_and_sometimes_not_at_all():
    _, mask = hindsight(frames(), np.zeros(4000, np.int64), np.zeros(4000, np.int64), 4, np.random.default_rng(0))
    assert (mask[:, 0] == mask[:, 1]).all()
    free = (mask.sum(1) == 0).mean()
    assert 0.25 < free < 0.25 + 0.75 * 0.35**2 + 0.03
    assert set(mask.ravel()) == {0.0, 1.0}
