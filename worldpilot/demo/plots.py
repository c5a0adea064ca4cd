"""The plots of a run: surprise against its threshold, overlap over time; what the story did is marked in both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from worldpilot.demo.outcome import REACHED, Event
from worldpilot.demo.recording import Recording, at
from worldpilot.sim import geometry

COLOURS = {"goal": "#2a7f4f", "swap": "#2563a8", "refused": "#8a8a8a", "fault": "#c0392b", "repair": "#8e6bbf"}
_HOLD = 2  # the alert level


def plot_surprise(path: Path, recording: Recording, threshold: float | None, events: Sequence[Event]) -> None:
    """Surprise over time on a logarithmic axis, its threshold, and when the planner was held by an alert."""
    figure, axes, start = canvas(events)
    stamps, values = columns(recording.surprise)
    axes.semilogy(stamps - start, np.maximum(values, 1e-3), lw=0.9, color="#333333", label="surprise")
    if threshold is not None:
        axes.axhline(threshold, color="#c0392b", ls="--", lw=1.2, label=f"threshold {threshold:.3g}")
    for begin, end in alarms(recording):
        axes.axvspan(begin - start, end - start, color="#c0392b", alpha=0.12, lw=0)
    axes.set_ylabel("squared prediction error\n(1 = median of good episodes)")
    finish(figure, axes, events, start, path)


def plot_overlap(path: Path, recording: Recording, events: Sequence[Event]) -> None:
    """Share of the goal that the block covers; the goal is the one in force at the time."""
    figure, axes, start = canvas(events)
    stamps, values = columns(overlaps(recording, events))
    axes.plot(stamps - start, values, lw=1.4, color="#333333", label="overlap with the goal in force")
    axes.axhline(REACHED, color="#2a7f4f", ls="--", lw=1.2, label=f"success: {REACHED}")
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("overlap")
    finish(figure, axes, events, start, path)


def overlaps(recording: Recording, events: Sequence[Event]) -> list[tuple[float, float]]:
    """(stamp, overlap with the goal that was in force then), from ground truth; nothing before the first goal."""
    goals = [(event.stamp, event.goal) for event in events if event.goal is not None]
    series = []
    for stamp, signals in recording.truth:
        if goal := at(goals, stamp):
            pose = np.array([signals["block_x"], signals["block_y"], signals["block_yaw"]])
            series.append((stamp, geometry.overlap(pose, np.array(goal[1]))))
    return series


def alarms(recording: Recording) -> list[tuple[float, float]]:
    """When the monitor said hold: (begin, end) of each time."""
    spans, begin, stamp = [], None, 0.0
    for stamp, level, _ in recording.alerts:
        if level == _HOLD and begin is None:
            begin = stamp
        elif level != _HOLD and begin is not None:
            spans.append((begin, stamp))
            begin = None
    return [*spans, (begin, stamp)] if begin is not None else spans


def canvas(events: Sequence[Event]) -> tuple[Any, Any, float]:
    """An empty plot, and when the story began [s since the epoch]."""
    figure, axes = plt.subplots(figsize=(11, 4.2), layout="constrained")
    return figure, axes, events[0].stamp


def columns(series: Sequence[tuple[float, float]]) -> tuple[Any, Any]:
    """Stamps and values, each of shape (T,)."""
    table = np.asarray(series, float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def finish(figure: Any, axes: Any, events: Sequence[Event], start: float, path: Path) -> None:
    """Mark what the story did in the uppermost axes, label the time, write the picture."""
    for number, event in enumerate(events):
        if event.kind in COLOURS:
            axes.axvline(event.stamp - start, color=COLOURS[event.kind], lw=1)
            axes.text(
                event.stamp - start,
                1.02 + 0.055 * (number % 3),
                f" {event.label} ",
                fontsize=8,
                color=COLOURS[event.kind],
                ha="right" if event.stamp - start > 0.85 * (events[-1].stamp - start) else "left",
                transform=axes.get_xaxis_transform(),
            )
    axes.set_xlim(-1, events[-1].stamp - start + 1)
    axes.set_xlabel("time since the first goal [s]")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
