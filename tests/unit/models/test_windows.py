"""Windows begin where histories do at run time: before the episode, its first frame stands still."""

from pathlib import Path

import numpy as np

from worldpilot.history import HistoryBuffer
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter
from worldpilot.models.data.windows import Frames
from worldpilot.types import ActionSpec

SPEC = ActionSpec(("joint",), ("rad",), (-1.0,), (1.0,), (50.0,), control_dt=0.02, block=2)
HISTORY = 3


def test_the_first_windows_are_the_histories_of_run_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with EpisodeWriter(tmp_path, {}) as writer:
        for seed in range(2):
            states, controls = rng.normal(size=(13, 2)), rng.uniform(-1, 1, (12, 1))
            signals = {"q": states[:, 0].astype(np.float32)}
            meta = {"seed": seed, "behaviour": "walk"}
            writer.append(Episode(states.astype(np.float32), controls.astype(np.float32), signals, meta))
    store = EpisodeStore(tmp_path)
    before = (HISTORY - 1) * SPEC.block
    frames = Frames.load(store, (0, 1), before)
    assert frames.starts.tolist() == [0, 17, 34]
    for index, start in enumerate(frames.starts[:-1]):
        episode, buffer = store[index], HistoryBuffer(SPEC, HISTORY - 1)
        previous = np.zeros(1, np.float32)
        for step in range(len(episode)):
            buffer.push(episode.observations[step], previous)
            history = buffer.history(HISTORY)
            seen = frames.observations[start + step + np.arange(HISTORY) * SPEC.block]
            done = frames.actions(np.array([start + step]), HISTORY - 1, SPEC, np.zeros(1, np.int64))[0]
            assert np.array_equal(seen, history.latents)
            assert np.allclose(done, history.actions)  # bounds of ±1: normalised is as it is
            assert frames.signals[start + before + step, 0] == episode.observations[step, 0]
            previous = episode.controls[step]
    windows = frames.windows(HISTORY - 1 + 1, SPEC.block)
    assert windows[0] == 0
