"""Delays from a recording: from a command until the robot moves, and from what the camera saw until its stamp.

The commanded motion, passed through the delay and a first-order servo, is laid over the measured one by least squares;
commands are piecewise constant, so their integral is exact at any shift and the delay is found far below a sample. The
robot's own encoder gives the control delay; images give the sum of both. Uncertainty: a bootstrap over segments, which
need not be independent within.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.signal import lfilter
from scipy.stats import t as student

from worldpilot.errors import InvalidInput, UnknownName

Array = npt.NDArray[np.float64]

KINDS = ("velocity", "position")
CONTINUOUS = 1e-3  # [s], of the servo's period where none is known

_START_DELAYS = np.arange(-0.1, 0.8, 0.03)  # [s], among which the search begins
_START_LAGS = (0.01, 0.03, 0.1)  # [s]
_CHANGES = 10  # of the commands by a tenth of the largest one, at least
_ROBUST = 3.0  # residuals beyond so many standard deviations count less
_RIDGE = 1e-6  # share of the information that there is, for a resample that has none


@dataclass(frozen=True)
class Series:
    """What was said at which times."""

    stamps: npt.NDArray[np.floating[Any]]  # (n,) [s], ascending
    values: Array  # (n, A), one column an axis

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.stamps.shape != self.values.shape[:1] or len(self.stamps) < 2:
            raise InvalidInput(
                f"latency: a series needs stamps (n,) and values (n, A), n at least 2, got {self.stamps.shape} and "
                f"{self.values.shape}"
            )
        if not (
            np.isfinite(self.stamps).all() and np.isfinite(self.values).all() and (np.diff(self.stamps) >= 0).all()
        ):
            raise InvalidInput("latency: stamps and values must be finite, stamps ascending")


@dataclass(frozen=True)
class Track:
    """A stretch of a recording without a gap.

    Args:
        command: the velocity [m/s] or position [m] that was sent; in force until the next one.
        measured: the position [m] by "encoder", "camera" or both.
    """

    command: Series
    measured: Mapping[str, Series]

    def __post_init__(self) -> None:
        for name, series in self.measured.items():
            if name not in ("encoder", "camera"):
                raise UnknownName("source of positions", name, ("encoder", "camera"))
            if series.values.shape[1] != self.command.values.shape[1]:
                raise InvalidInput(f"latency: {name} has other axes than the command")


@dataclass(frozen=True)
class LatencyConfig:
    """How delays are found.

    Args:
        commands: what they are: "velocity" or "position" of what is measured.
        servo_dt: period of the servo loop [s]; it moves a share of the way in each.
        lag: time constant of the servo [s] where it is known; None: found with the delays.
        segment: length of what is taken to be independent [s]. An offset is fitted to each, so that drift does no harm.
        tolerance: a delay is known if its standard error is at most this [s].
        resamples: of the bootstrap.
        seed: of it.
    """

    commands: str = "velocity"
    servo_dt: float = CONTINUOUS
    lag: float | None = None
    segment: float = 2.0
    tolerance: float = 0.005
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.commands not in KINDS:
            raise UnknownName("kind of commands", self.commands, KINDS)
        if not (0 < self.servo_dt <= 0.1 and self.segment > 0 and self.tolerance > 0 and self.resamples >= 100):
            raise InvalidInput(
                "latency: servo_dt must be in (0, 0.1] s, segment and tolerance positive, resamples >= 100"
            )
        if self.lag is not None and not 0 <= self.lag <= 2:
            raise InvalidInput(f"latency: a known lag must be between 0 and 2 s, got {self.lag}")


@dataclass(frozen=True)
class Estimate:
    """A time [s], its standard error and its 95 % interval."""

    value: float
    std: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """As JSON values."""
        return {"value": self.value, "std": self.std, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Latency:
    """The delays of a recording."""

    times: Mapping[str, Estimate]  # of "control", "camera" and "total" those that are known; "lag" of the servo
    names: tuple[str, ...]  # of what was fitted: "control" or "total" or both; "lag" unless it was given
    covariance: Array  # of `names`, (n, n) [s²]
    condition: float  # of their correlation matrix; 1 is best
    residuals: Mapping[str, float]  # root mean square, by source [m]
    gains: Mapping[str, tuple[float, ...]]  # measured by commanded motion, by source and axis
    segments: int
    remarks: tuple[str, ...] = ()  # what is not known, and what would tell

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "times": {name: estimate.to_dict() for name, estimate in self.times.items()},
            "names": list(self.names),
            "covariance": self.covariance.tolist(),
            "condition": self.condition,
            "residuals": dict(self.residuals),
            "gains": {name: list(gains) for name, gains in self.gains.items()},
            "segments": self.segments,
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True)
class _Piece:
    """A segment's measurements from one source."""

    track: int
    number: int  # of the segment
    source: str
    stamps: npt.NDArray[np.floating[Any]]
    values: Array  # (n, A), mean 0


def fit(tracks: Sequence[Track], config: LatencyConfig | None = None) -> Latency:
    """The delays that explain the tracks best.

    Raises:
        InvalidInput: nothing was measured, there are fewer than 8 segments, the commands hardly change, or the sum of
            the delays stays uncertain. The message says what to record.
    """
    config = config or LatencyConfig()
    pieces = [piece for i, track in enumerate(tracks) for piece in _cut(i, track, config)]
    sources = [name for name in ("encoder", "camera") if any(piece.source == name for piece in pieces)]
    segments = len({(piece.track, piece.number) for piece in pieces})
    if segments < 8:
        raise InvalidInput(
            f"latency: {segments} segments of {config.segment} s with commands and positions, at least 8 are needed; "
            "record for longer"
        )
    _check_excitation(tracks)
    model = _Model(tracks, pieces, sources, config)
    return _judge(model, model.solve(), config)


class _Model:
    """Residuals of all pieces as a function of delays, lag and gains."""

    def __init__(
        self, tracks: Sequence[Track], pieces: Sequence[_Piece], sources: Sequence[str], config: LatencyConfig
    ) -> None:
        self.tracks, self.pieces, self.sources, self.config = tracks, pieces, sources, config
        self.axes = tracks[0].command.values.shape[1]
        self.sigma = dict.fromkeys(sources, 1.0)
        self.delays = tuple("control" if source == "encoder" else "total" for source in sources)
        self.names = self.delays if config.lag is not None else (*self.delays, "lag")

    def motion(self, delays: Mapping[str, float], lag: float) -> list[Array]:
        """What each piece of the sources that have delays would show at gain 1, of mean 0."""
        shown = {
            (i, source): expected(track, track.measured[source].stamps, delay, lag, self.config)
            for i, track in enumerate(self.tracks)
            for source, delay in delays.items()
            if source in track.measured
        }
        parts = []
        for piece in (piece for piece in self.pieces if piece.source in delays):
            stamps = self.tracks[piece.track].measured[piece.source].stamps
            first = int(np.searchsorted(stamps, piece.stamps[0]))
            part = shown[piece.track, piece.source][first : first + len(piece.stamps)]
            parts.append(part - part.mean(0))
        return parts

    def unpack(self, theta: Array) -> tuple[dict[str, float], float, Array]:
        """Delays by source, lag and gains (sources, A)."""
        n = len(self.names)
        lag = self.config.lag if self.config.lag is not None else float(theta[n - 1])
        delays = {source: float(theta[i]) for i, source in enumerate(self.sources)}
        return delays, lag, theta[n:].reshape(len(self.sources), self.axes)

    def residuals(self, theta: Array) -> list[Array]:
        """Of each piece, of shape (n * A,), in standard deviations of its source."""
        delays, lag, gains = self.unpack(theta)
        by_source = dict(zip(self.sources, gains, strict=True))
        return [
            ((piece.values - by_source[piece.source] * part) / self.sigma[piece.source]).ravel()
            for piece, part in zip(self.pieces, self.motion(delays, lag), strict=True)
        ]

    def jacobian(self, theta: Array) -> list[Array]:
        """Of each piece's residuals, of shape (n * A, parameters)."""
        steps = np.where(np.arange(len(theta)) < len(self.names), 1e-4, 1e-3)
        moved = [(self.residuals(theta + step), self.residuals(theta - step)) for step in np.diag(steps)]
        return [
            np.stack([(up[i] - down[i]) / (2 * step) for (up, down), step in zip(moved, steps, strict=True)], -1)
            for i in range(len(self.pieces))
        ]

    def start(self) -> Array:
        """The best of a grid, source after source, at the gains that fit it."""
        lags = _START_LAGS if self.config.lag is None else (self.config.lag,)
        best: tuple[float, list[float], float, list[Array]] | None = None
        for lag in lags:
            total, delays, gains = 0.0, [], []
            for source in self.sources:
                costs = []
                for delay in _START_DELAYS:
                    costs.append((*self._cost(source, self.motion({source: float(delay)}, lag)), float(delay)))
                cost, gain, delay = min(costs, key=lambda c: c[0])
                total, delays, gains = total + cost, [*delays, delay], [*gains, gain]
            if best is None or total < best[0]:
                best = total, delays, lag, gains
        assert best is not None
        known = [] if self.config.lag is not None else [best[2]]
        return np.concatenate([best[1], known, np.ravel(best[3])])

    def _cost(self, source: str, parts: Sequence[Array]) -> tuple[float, Array]:
        """What is left of a source's pieces, relative to what there is, and the gains (A,)."""
        seen = np.concatenate([piece.values for piece in self.pieces if piece.source == source])
        shown = np.concatenate(parts)
        gain = (seen * shown).sum(0) / np.maximum((shown**2).sum(0), 1e-12)
        return float(((seen - gain * shown) ** 2).sum() / (seen**2).sum()), gain

    def solve(self) -> Array:
        """Delays, lag and gains; leaves the sources' standard deviations in `sigma`."""
        theta = self.start()
        low = np.full(len(theta), -np.inf)
        low[: len(self.names)] = [-1.0] * len(self.delays) + [0.0] * (len(self.names) - len(self.delays))
        for _ in range(3):
            split = self.residuals(theta)
            for source in self.sources:
                mine = np.concatenate([r for p, r in zip(self.pieces, split, strict=True) if p.source == source])
                self.sigma[source] *= max(1.4826 * float(np.median(np.abs(mine))), 1e-9)
            jacobian: Any = lambda t: np.concatenate(self.jacobian(t))  # noqa: E731 (scipy's stubs know of its name only)
            theta = least_squares(
                lambda t: np.concatenate(self.residuals(t)),
                theta,
                bounds=(low, np.full(len(theta), np.inf)),
                loss="soft_l1",
                f_scale=_ROBUST,
                jac=jacobian,
                x_scale=np.where(np.arange(len(theta)) < len(self.names), 0.01, 1.0),
            ).x
        return theta


def _judge(model: _Model, theta: Array, config: LatencyConfig) -> Latency:
    """The estimate with its bootstrap: each resample of the segments moves it by one Gauss-Newton step.

    A bootstrap of few segments is too sure of itself: its spread is widened by the degrees of freedom, and intervals
    are Student's.
    """
    split = model.residuals(theta)
    groups: dict[tuple[int, int], list[tuple[Array, Array]]] = {}
    for piece, residuals, jacobian in zip(model.pieces, split, model.jacobian(theta), strict=True):
        weighted = jacobian.T * (1 + (residuals / _ROBUST) ** 2) ** -0.5
        groups.setdefault((piece.track, piece.number), []).append((weighted @ jacobian, weighted @ residuals))
    information, gradient = (
        np.stack([sum(part) for part in column])
        for column in zip(*(zip(*group, strict=True) for group in groups.values()), strict=True)
    )
    rng = np.random.default_rng(config.seed)
    counts = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=config.resamples)
    scale = np.sqrt(np.maximum(np.diagonal(information.sum(0)), 1e-300))
    resampled = np.tensordot(counts, information, 1) / np.outer(scale, scale) + _RIDGE * np.eye(len(theta))
    shifts = np.linalg.solve(resampled, (counts @ gradient / scale)[..., None])[..., 0] / scale
    freedom = max(len(groups) - len(theta), 1)
    draws = (theta - np.sqrt(len(groups) / freedom) * shifts)[:, : len(model.names)]
    covariance = np.atleast_2d(np.cov(draws.T))
    errors = np.sqrt(np.diagonal(covariance))
    columns = {name: (float(theta[i]), draws[:, i]) for i, name in enumerate(model.names)}
    if {"control", "total"} <= columns.keys():
        (control, a), (total, b) = columns["control"], columns["total"]
        columns["camera"] = total - control, b - a
    times = {}
    for name, (value, drawn) in columns.items():
        std, reach = float(drawn.std()), float(drawn.std() * student.ppf(0.975, freedom))
        times[name] = Estimate(value, std, value - reach, value + reach)
    known, remarks = _known(times, model.sources, config)
    rms, gains = {}, {}
    for source, row in zip(model.sources, model.unpack(theta)[2], strict=True):
        mine = np.concatenate([r for piece, r in zip(model.pieces, split, strict=True) if piece.source == source])
        rms[source] = model.sigma[source] * float(np.sqrt(np.mean(mine**2)))
        gains[source] = tuple(float(gain) for gain in row)
    condition = float(np.linalg.cond(covariance / np.outer(errors, errors)))
    return Latency(known, model.names, covariance, condition, rms, gains, len(groups), remarks)


def _known(
    times: Mapping[str, Estimate], sources: Sequence[str], config: LatencyConfig
) -> tuple[dict[str, Estimate], tuple[str, ...]]:
    """The times that are known, and remarks on those that are not.

    Raises:
        InvalidInput: none of the delays is.
    """
    known = {name: time for name, time in times.items() if time.std <= config.tolerance or name == "lag"}
    remarks = [
        f"the {name} delay is not known: {1e3 * time.value:.1f} ms with a standard error of {1e3 * time.std:.1f} ms; "
        "record for longer, with commands that change more often or a faster measurement, or give the servo's lag"
        for name, time in times.items()
        if name not in known
    ]
    if not {"control", "total"} & known.keys():
        raise InvalidInput("latency: " + "; ".join(remarks))
    if "encoder" not in sources:
        remarks.append(
            "the camera's delay cannot be told from the robot's: images alone give their sum; record a position that "
            "the robot itself measures and stamps"
        )
    if "camera" not in sources:
        remarks.append("the camera's delay is not known: no position was measured from images")
    for name in ("control", "camera"):
        if name in known and known[name].high < 0:
            remarks.append(
                f"the {name} delay is negative: the stamps are later than what they belong to, or a simulator lets "
                "commands count from before they were sent; measure with clocks that agree"
            )
    return known, tuple(remarks)


def _check_excitation(tracks: Sequence[Track]) -> None:
    """Commands must change, or any delay explains the motion.

    Raises:
        InvalidInput: they do not.
    """
    changes = np.concatenate([np.diff(track.command.values, axis=0) for track in tracks])
    largest = max(float(np.abs(track.command.values).max()) for track in tracks)
    if not largest or np.count_nonzero(np.abs(changes).max(1) > 0.1 * largest) < _CHANGES:
        raise InvalidInput(
            "latency: the commands hardly change, so that any delay explains the motion; record the robot while they "
            "jump to and fro: `worldpilot collect TASK --excite N` in simulation, or drive it by hand"
        )


def _cut(index: int, track: Track, config: LatencyConfig) -> list[_Piece]:
    """The track's measurements in segments; the first second is left out: what was commanded before is not known."""
    begin, end = float(track.command.stamps[0]) + min(1.0, config.segment), float(track.command.stamps[-1])
    pieces = []
    for source, series in track.measured.items():
        number = np.floor((series.stamps - begin) / config.segment)
        for which in np.unique(number[(series.stamps >= begin) & (series.stamps <= end)]):
            inside = (number == which) & (series.stamps <= end)
            if inside.sum() >= 5:
                values = series.values[inside]
                pieces.append(_Piece(index, int(which), source, series.stamps[inside], values - values.mean(0)))
    return pieces


def expected(
    track: Track, stamps: npt.NDArray[np.floating[Any]], delay: float, lag: float, config: LatencyConfig
) -> Array:
    """The position at `stamps` (n,) when commands arrive `delay` late at a servo with a time constant of `lag` [s]."""
    dt, sent = config.servo_dt, track.command
    begin = min(float(sent.stamps[0]), float(stamps[0])) - 1.0  # [s]
    grid = begin + dt * np.arange(int((float(stamps[-1]) - begin) / dt) + 2)
    grid += float(sent.stamps[0]) - grid[np.searchsorted(grid, sent.stamps[0])]  # the servo ticks with the commands
    target = _target(sent, grid - delay, config.commands)
    share = 1.0 if lag <= 0 else -float(np.expm1(-dt / lag))
    state = (1 - share) * target[:1]
    moved = lfilter([share], [1, share - 1], target, axis=0, zi=state)[0]
    return np.stack([np.interp(stamps, grid, column) for column in moved.T], -1)


def _target(sent: Series, at: npt.NDArray[np.floating[Any]], kind: str) -> Array:
    """Where the commands lead by the times `at` (n,): their integral, or the newest."""
    if kind == "position":
        return sent.values[np.clip(np.searchsorted(sent.stamps, at, side="right") - 1, 0, None)]
    reached = np.concatenate(
        [np.zeros((1, sent.values.shape[1])), np.cumsum(sent.values[:-1] * np.diff(sent.stamps)[:, None], axis=0)]
    )
    ends = np.append(sent.stamps, sent.stamps[-1] + 1e3)
    last = np.concatenate([reached, reached[-1:] + 1e3 * sent.values[-1]])
    return np.stack([np.interp(at, ends, column) for column in last.T], -1)
