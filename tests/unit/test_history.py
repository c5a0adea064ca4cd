"""The history a model conditions on, from a stream that may be interrupted."""

import numpy as np
import pytest

from worldpilot.errors import InvalidInput
from worldpilot.history import HistoryBuffer
from worldpilot.types import ActionSpec

SPEC = ActionSpec(("v",), ("m/s",), (-1.0,), (1.0,), (20.0,), control_dt=0.1, block=2)


def pushed(stamps: list[float]) -> HistoryBuffer:
    """A buffer that has seen latents 1, 2, … at these times."""
    buffer = HistoryBuffer(SPEC, depth=2)
    for i, stamp in enumerate(stamps, start=1):
        buffer.push(np.full(3, i, np.float32), np.full(1, i / 10, np.float32), stamp)
    return buffer


def test_a_steady_stream_is_one_history():
    history = pushed([0.0, 0.1, 0.21, 0.29, 0.4]).history(3)
    assert history.latents[:, 0].tolist() == [1, 3, 5]
    np.testing.assert_allclose(history.actions, [[0.2, 0.3], [0.4, 0.5]])


@pytest.mark.parametrize("after", [0.45, 0.3, 0.2, 0.1])  # a gap, a repeated stamp, time that ran backwards
def test_an_interruption_starts_over(after: float):
    buffer = pushed([0.0, 0.1, 0.2, 0.3, after])
    assert len(buffer) == 1
    history = buffer.history(3)
    assert history.latents[:, 0].tolist() == [5, 5, 5]
    assert not history.actions.any()


def test_what_is_not_finite_changes_nothing():
    buffer = pushed([0.0, 0.1])
    with pytest.raises(InvalidInput, match="finite"):
        buffer.push(np.full(3, np.nan, np.float32), np.zeros(1, np.float32), 0.2)
    buffer.push(np.full(3, 3, np.float32), np.zeros(1, np.float32), 0.2)
    assert len(buffer) == 3
