"""The plots of a legged run: which feet stood when (the gait diagram), and speed, height and turning over time."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from worldpilot.demo.outcome import Event
from worldpilot.demo.plots import COLOURS, finish
from worldpilot.demo.recording import Recording

SHOWN = {"forward_velocity": "forward [m/s]", "height": "height [m]", "yaw_rate": "turning [rad/s]"}
_LAST = 2.0  # [s] of each chapter that its gait diagram shows


def plot_gaits(path: Path, recording: Recording, events: Sequence[Event]) -> None:
    """For each chapter its last two seconds: a bar while a foot is on the ground."""
    feet = [name for name in recording.truth[0][1] if name.startswith("contact_")]
    ends = [event.stamp for event in events[1:]]
    chapters = [(event, end) for event, end in zip(events, ends, strict=False) if end - event.stamp > 1.0]
    figure, grid = plt.subplots(
        len(chapters), 1, figsize=(11, 0.9 + 0.95 * len(chapters)), sharex=True, squeeze=False, layout="constrained"
    )
    for axes, (event, end) in zip(grid[:, 0], chapters, strict=True):
        seen = [(stamp, signals) for stamp, signals in recording.truth if end - _LAST <= stamp < end]
        for row, foot in enumerate(feet):
            down = [(stamp - end, 0.024) for stamp, signals in seen if signals[foot] > 0]
            axes.broken_barh(down, (row - 0.35, 0.7), color=COLOURS.get(event.kind, "#333333"), lw=0)
        axes.set_yticks(range(len(feet)), [foot.removeprefix("contact_") for foot in feet], fontsize=8)
        axes.set_ylim(len(feet) - 0.4, -0.6)
        axes.set_ylabel(event.label.removeprefix("swap: "), rotation=0, ha="right", va="center", labelpad=24)
        axes.set_xlim(-_LAST, 0)
    grid[-1, 0].set_xlabel("time before the end of the chapter [s]; a bar: the foot is on the ground")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_motion(path: Path, recording: Recording, events: Sequence[Event]) -> None:
    """Speed, height and turning, by the simulator's ground truth, over the whole story."""
    figure, grid = plt.subplots(len(SHOWN), 1, figsize=(11, 6.2), sharex=True, layout="constrained")
    start = events[0].stamp
    stamps = np.array([stamp for stamp, _ in recording.truth]) - start
    for axes, (name, label) in zip(grid, SHOWN.items(), strict=True):
        values = np.array([signals[name] for _, signals in recording.truth])
        axes.plot(stamps, values, lw=0.5, color="#bbbbbb")
        axes.plot(stamps, smooth(values), lw=1.4, color="#333333", label="mean of half a second")
        axes.set_ylabel(label)
        axes.grid(alpha=0.25)
    finish(figure, grid[0], events, start, path)


def smooth(values: np.ndarray, steps: int = 25) -> np.ndarray:
    """Running mean over the last `steps` values, of shape (T,) as `values`."""
    sums = np.cumsum(np.concatenate([np.zeros(1), values]))
    first = np.maximum(np.arange(len(values)) + 1 - steps, 0)
    last = np.arange(len(values)) + 1
    return (sums[last] - sums[first]) / (last - first)
