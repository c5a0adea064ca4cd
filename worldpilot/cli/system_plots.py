"""Pictures of what was found of delays and parameters."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from worldpilot.calibration.latency import Latency, LatencyConfig, Track, expected
from worldpilot.calibration.sysid import Identified
from worldpilot.sim.identify import Replay, Segment

mpl.use("Agg")

_COLOURS = {"encoder": "#2b6cb0", "camera": "#c05621"}
_DELAY = {"encoder": "control", "camera": "total"}


def latency(tracks: Sequence[Track], found: Latency, config: LatencyConfig) -> Figure:
    """What is left of the motion for each delay; and a piece of the motion, measured and expected."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    profile, motion = figure.subplots(1, 2, width_ratios=(2, 3))
    lag = found.times["lag"].value if "lag" in found.times else config.lag or 0.0
    for source, colour in _COLOURS.items():
        time = found.times.get(_DELAY[source])
        if time is None or source not in found.residuals:
            continue
        delays = time.value + np.linspace(-0.06, 0.06, 61)
        left = [1e3 * _left(tracks, source, float(delay), lag, config) for delay in delays]
        profile.plot(1e3 * delays, left, color=colour, label=f"{source}: {1e3 * time.value:.1f} ms")
        profile.axvspan(1e3 * time.low, 1e3 * time.high, color=colour, alpha=0.25, lw=0)
        series = tracks[0].measured[source]
        middle = float(series.stamps[len(series.stamps) // 2])
        shown = (series.stamps >= middle) & (series.stamps <= middle + 3)
        stamps = np.linspace(middle, min(middle + 3, float(series.stamps[-1])), 600)
        fine = expected(tracks[0], stamps, time.value, lag, config)[:, 0]
        late = expected(tracks[0], stamps, 0.0, 0.0, config)[:, 0]
        at = expected(tracks[0], series.stamps[shown], time.value, lag, config)[:, 0]
        gain = found.gains[source][0]
        offset = float(np.mean(series.values[shown, 0] - gain * at))
        motion.plot(series.stamps[shown], series.values[shown, 0], ".", color=colour, ms=7, label=f"{source}, measured")
        motion.plot(stamps, gain * fine + offset, color=colour, lw=1, label=f"{source}, expected")
        if source == next(iter(found.residuals)):
            motion.plot(stamps, gain * late + offset, color="0.6", lw=1, ls="--", label="as commanded")
    profile.set(xlabel="delay [ms]", ylabel="motion left unexplained, rms [mm]", ylim=(0, None))
    profile.legend(title="delay, with 95 % interval")
    motion.set(xlabel="time [s]", ylabel="position along the first axis [m]")
    motion.legend(fontsize=8)
    return figure


def _left(tracks: Sequence[Track], source: str, delay: float, lag: float, config: LatencyConfig) -> float:
    """Root mean square of what a delay doesn't explain, over pieces of a segment's length [m]."""
    squares = []
    for track in tracks:
        series = track.measured[source]
        shown = expected(track, series.stamps, delay, lag, config)
        number = ((series.stamps - series.stamps[0]) // config.segment).astype(int)
        for which in range(1, number.max()):
            seen, model = series.values[number == which], shown[number == which]
            difference = seen - model
            squares.append(np.square(difference - difference.mean(0)))
    return float(np.sqrt(np.median(np.concatenate([s.mean(1) for s in squares]))))


def system(replay: Replay, segments: Sequence[Segment], channels: Sequence[str], found: Identified) -> Figure:
    """The first two parameters with their region; and the channels explained least, of some segments."""
    names = list(found.parameters)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    ranked = sorted(range(len(channels)), key=lambda i: found.explained[channels[i]])[:3]
    grid = figure.add_gridspec(len(ranked), 2, width_ratios=(2, 3))
    plane = figure.add_subplot(grid[:, 0])
    scales = np.array([replay.sought[name].scale for name in names])
    values = np.array([found.parameters[name] for name in names])
    if len(names) == 1:
        plane.errorbar([0], values, 1.96 * found.std[names[0]], fmt="o", capsize=6)
        plane.set(xticks=[], ylabel=f"{names[0]} [{replay.sought[names[0]].unit}], 95 % interval")
    else:
        covariance = found.covariance[:2, :2] * np.outer(scales[:2], scales[:2])
        variances, axes = np.linalg.eigh(covariance)
        turn = np.linspace(0, 2 * np.pi, 200)
        circle = np.stack([np.cos(turn), np.sin(turn)]) * np.sqrt(5.99 * np.maximum(variances, 0))[:, None]
        plane.plot(*(values[:2, None] + axes @ circle), color="#2b6cb0", label="95 % region")
        plane.plot(*values[:2], "+", color="#2b6cb0", ms=12)
        plane.set(
            xlabel=f"{names[0]} [{replay.sought[names[0]].unit}]", ylabel=f"{names[1]} [{replay.sought[names[1]].unit}]"
        )
        plane.locator_params(nbins=5)
        plane.ticklabel_format(useOffset=False)
        plane.legend()
    few = list(segments[:6])
    simulated = replay.play(found.parameters, few, channels)
    panels = [figure.add_subplot(grid[row, 1]) for row in range(len(ranked))]
    for panel, i in zip(panels, ranked, strict=True):
        start = 0
        for segment, shown in zip(few, simulated, strict=True):
            steps = np.arange(start, start + len(shown))
            panel.plot(steps, segment.measured[:, i], ".", color="0.3", ms=5)
            panel.plot(steps, shown[:, i], color="#c05621", lw=1)
            start += len(shown) + 2
        panel.set_ylabel(channels[i])
    panels[-1].set_xlabel("control steps, some segments side by side (dots: measured, lines: simulated)")
    return figure
