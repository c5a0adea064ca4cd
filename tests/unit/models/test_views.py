"""Frames in the views of a task's symmetries."""

import numpy as np
import pytest

from worldpilot.models.data.windows import Frames
from worldpilot.types import ActionSpec, Symmetry

SPEC = ActionSpec(("vx", "vy"), ("m/s",) * 2, (-1.0,) * 2, (1.0,) * 2, (20.0,) * 2, control_dt=0.1, block=2)
SAME = Symmetry(0, False, ((1, 0), (0, 1)), {})
TURNED = Symmetry(1, False, ((0, -1), (1, 0)), {"x": {"y": -1.0}, "y": {"x": 1.0}})
MIRRORED = Symmetry(0, True, ((-1, 0), (0, 1)), {"x": {"x": -1.0}})


def frames(*symmetries: Symmetry) -> Frames:
    """Two episodes of 4 and 3 frames."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)
    controls, signals = rng.uniform(-1, 1, (7, 2)), rng.uniform(-1, 1, (7, 2))
    return Frames(
        images, controls.astype(np.float32), signals.astype(np.float32), ("x", "y"), np.array([0, 4, 7]), symmetries
    )


def test_without_symmetries_there_is_one_view():
    assert frames().views == 1
    assert frames().draw_views(3, np.random.default_rng(0)).tolist() == [[0] * 7]


def test_an_episode_keeps_its_view_and_has_another_in_each_row():
    drawn = frames(SAME, TURNED, MIRRORED).draw_views(3, np.random.default_rng(1))
    assert drawn.shape == (3, 7)
    assert not drawn[0].any()
    for first, end in ((0, 4), (4, 7)):
        assert sorted(drawn[:, first]) == [0, 1, 2]
        assert (drawn[:, first:end] == drawn[:, [first]]).all()


@pytest.mark.parametrize("view", [0, 1, 2])
def test_images_signals_and_actions_are_seen_from_one_side(view: int):
    data = frames(SAME, TURNED, MIRRORED)
    symmetry, at, views = data.symmetries[view], np.array([0, 4]), np.array([view, 0])
    index = at[:, None] + np.arange(2)
    images = data.images(index, views)
    assert (images[0] == symmetry.images(data.observations[index[0]])).all()
    assert (images[1] == data.observations[index[1]]).all()
    x, y = data.signals[0]
    assert data.measured(index, views)[0, 0] == pytest.approx([(x, y), (-y, x), (-x, y)][view])
    vx, vy = data.controls[0]
    assert data.actions(at, 1, SPEC, views)[0, 0, :2] == pytest.approx([(vx, vy), (-vy, vx), (-vx, vy)][view])


def test_episodes_of_states_are_laid_end_to_end_in_every_view():
    rng = np.random.default_rng(2)
    states, controls, signals = (rng.uniform(-1, 1, (7, 2)).astype(np.float32) for _ in range(3))
    data = Frames(states, controls, signals, ("x", "y"), np.array([0, 4, 7]), (SAME, MIRRORED))
    both = data.in_every_view(("x", "z"))
    assert both.starts.tolist() == [0, 4, 7, 11, 14]
    assert both.views == 1  # there is nothing left to draw
    for seen, was in ((both.observations, states), (both.controls, controls), (both.signals, signals)):
        np.testing.assert_array_equal(seen, np.concatenate([was, was * np.array([-1, 1], np.float32)]))


def test_without_symmetries_states_stay_as_they_are():
    data = frames()
    assert data.in_every_view(("x", "y")) is data
