"""Thresholds of the monitor: how large a prediction error may be in an episode that goes well.

A channel turns the stream of prediction errors into a score. Guarantees for independent errors are void here, because
errors of neighbouring steps resemble one another; so each channel is thresholded on its *episode maximum* over good
episodes, which are independent of one another, at one rank for all channels: an exchangeable new episode raises any
alarm with probability at most alpha (split conformal prediction; FIPER, arXiv 2510.09459; FAIL-Detect, arXiv
2503.08558). That holds for the model, the behaviours and the rewards it was fitted on, and for no other: they are
stored beside it.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.types import AlertLevel, FloatArray, PredictionError

ERRORS = ("one_step", "h_step", "disagreement", "spread")
CHANNELS: Mapping[str, AlertLevel] = {
    "surprise": AlertLevel.HOLD,  # the newest one-step error
    "drift": AlertLevel.CAUTION,  # evidence accumulated over many of them
    "h_step": AlertLevel.CAUTION,
    "disagreement": AlertLevel.CAUTION,
    "spread": AlertLevel.CAUTION,  # of the prior's proposals
}
DEFAULT_CHANNELS = ("surprise", "drift")
N_QUANTILES = 255  # of good one-step errors: p-values down to 1/256


@dataclass(frozen=True)
class Thresholds:
    """What `fit` found, and what it is valid for."""

    model_id: str
    behaviours: tuple[str, ...]  # the policies of the good episodes
    alpha: float  # bound on the share of good episodes with a false alarm
    episodes: int
    scales: Mapping[str, float]  # error -> its median over good episodes: the unit of PredictionError
    limits: Mapping[str, float]  # channel -> a score above it is an alarm
    quantiles: tuple[float, ...]  # of good one-step errors, ascending, in units of their median
    rewards: Mapping[str, int] = field(default_factory=dict)  # family -> episodes in which one of it was in force
    whitening: tuple[tuple[float, ...], ...] = ()  # rows of a lower triangle (D, D), see `whiten`; none: plain errors

    def __post_init__(self) -> None:
        for channel in self.limits:
            if channel not in CHANNELS:
                raise UnknownName("monitor channel", channel, CHANNELS)
        triangle = [value for row in self.whitening for value in row]
        values = [self.alpha, *self.scales.values(), *self.limits.values(), *self.quantiles, *triangle]
        if not np.isfinite(values).all():
            raise InvalidInput("thresholds: every number must be finite; calibrate again")
        if set(self.scales) | {"spread"} != set(ERRORS) or min(self.scales.values()) <= 0:
            raise InvalidInput(
                f"thresholds: scales must be positive, one for each of {ERRORS}, got {dict(self.scales)}"
            )
        if [len(row) for row in self.whitening] != list(range(1, len(self.whitening) + 1)):
            raise InvalidInput("thresholds: whitening must be the rows of a lower triangle; calibrate again")
        if not self.limits or not self.quantiles or list(self.quantiles) != sorted(self.quantiles):
            raise InvalidInput("thresholds: needs at least one limit, and quantiles in ascending order")
        if not 0.0 < self.alpha < 1.0 or self.episodes < 1:
            raise InvalidInput(f"thresholds: needs 0 < alpha < 1 and episodes >= 1, got {self.alpha}, {self.episodes}")

    def whitening_matrix(self) -> FloatArray:
        """W of shape (D, D), float32."""
        d = len(self.whitening)
        matrix = np.zeros((d, d), np.float32)
        for i, row in enumerate(self.whitening):
            matrix[i, : i + 1] = row
        return matrix

    def to_dict(self) -> dict[str, Any]:
        """As stored in a manifest."""
        lists = {"behaviours": list(self.behaviours), "quantiles": list(self.quantiles)}
        return {**asdict(self), **lists, "whitening": [list(row) for row in self.whitening]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Thresholds":
        """What `to_dict` gave.

        Raises:
            InvalidInput: a field is missing or unknown, or a value is out of range.
        """
        try:
            tuples = {"behaviours": tuple(content["behaviours"]), "quantiles": tuple(content["quantiles"])}
            rows = tuple(tuple(row) for row in content.get("whitening", ()))
            return cls(**{**content, **tuples, "whitening": rows})
        except (TypeError, KeyError) as error:
            raise InvalidInput(f"thresholds: {error}; calibrate again with this version") from error


class Drift:
    """Evidence that errors have grown, accumulated over steps: a Shiryaev-Roberts e-process over conformal p-values.

    With p = (1 + #{good errors >= error}) / (n + 1), the bet kappa * p^(kappa - 1) has mean at most 1 while nothing is
    wrong; M <- (M + 1) * bet multiplies the bets since every possible beginning of the change (Shiryaev 1963, Roberts
    1966; as conformal test martingales: Volkhonskiy et al., arXiv 1706.03415). M is averaged over several kappa.

    Args:
        quantiles: of good one-step errors, ascending.
        ceiling: evidence is not accumulated beyond this score, so that an alarm also ends.
    """

    _KAPPAS = (0.3, 0.5, 0.7)

    def __init__(self, quantiles: Sequence[float], ceiling: float = 600.0) -> None:
        self._quantiles = list(quantiles)
        n = len(self._quantiles)
        self._bets = [
            [kappa * ((1 + n - below) / (n + 1)) ** (kappa - 1.0) for kappa in self._KAPPAS] for below in range(n + 1)
        ]
        self._ceiling = math.exp(min(ceiling, 600.0))
        self.reset()

    def reset(self) -> None:
        """Forget the evidence."""
        self._evidence = [0.0] * len(self._KAPPAS)

    def update(self, error: float) -> float:
        """The score log(1 + M) after one more normalised one-step error."""
        bets = self._bets[bisect_left(self._quantiles, error)]
        self._evidence = [min((m + 1.0) * bet, self._ceiling) for m, bet in zip(self._evidence, bets, strict=True)]
        return math.log1p(sum(self._evidence) / len(self._evidence))


class Scores:
    """The channels' scores, step by step, from normalised prediction errors."""

    def __init__(self, quantiles: Sequence[float], drift_limit: float | None = None) -> None:
        # A little above its limit: far enough for the alarm to stand, near enough for it to end within seconds.
        self._drift = Drift(quantiles) if drift_limit is None else Drift(quantiles, drift_limit + 1.0)

    def reset(self) -> None:
        """A new stream begins."""
        self._drift.reset()

    def update(self, error: PredictionError) -> dict[str, float]:
        """Channel -> score; a one-step error that is NaN counts as infinite, an absent H-step error as none."""
        one_step = error.one_step if error.one_step == error.one_step else math.inf
        return {
            "surprise": one_step,
            "drift": self._drift.update(one_step),
            "h_step": error.h_step,
            "disagreement": error.disagreement,
            "spread": error.spread,
        }


def fit(
    episodes: Sequence[Sequence[PredictionError]],
    *,
    model_id: str,
    behaviours: Sequence[str],
    alpha: float = 0.05,
    channels: Sequence[str] = DEFAULT_CHANNELS,
    scales: Mapping[str, float] | None = None,
    rewards: Mapping[str, int] | None = None,
    whitening: FloatArray | None = None,
) -> Thresholds:
    """Thresholds from the prediction errors of good episodes.

    Args:
        episodes: the errors of each episode, in order. Episodes should be as long as those to be monitored: the
            maximum over a longer one is larger.
        model_id: of the model that predicted.
        behaviours: the policies that acted.
        alpha: bound on the share of good episodes with a false alarm, over all channels together.
        channels: which scores may raise an alarm; each more of them makes the others' thresholds higher.
        scales: None if the errors are raw; if they were divided by scales already (recalibrating at run time), those.
        rewards: in how many of the episodes a reward of which family was in force.
        whitening: of the one-step errors, of shape (D, D), see `whiten`; None: they are plain.

    Raises:
        InvalidInput: too few episodes for alpha, an episode without errors, or errors that are not finite.
        UnknownName: no such channel.
    """
    for channel in channels:
        if channel not in CHANNELS:
            raise UnknownName("monitor channel", channel, CHANNELS)
    if not 0.0 < alpha < 1.0 or not channels:
        raise InvalidInput(f"thresholds: needs 0 < alpha < 1 and a channel, got {alpha} and {list(channels)}")
    n, needed = len(episodes), episodes_needed(alpha, len(channels))
    if n < needed:
        raise InvalidInput(
            f"thresholds: {n} good episodes are too few for alpha {alpha} over {len(channels)} channels, "
            f"{needed} are needed; collect more or raise alpha"
        )
    raw = {name: _column(episodes, name) for name in ERRORS}
    if min(map(len, episodes)) == 0 or not np.isfinite(raw["one_step"]).all():
        raise InvalidInput("thresholds: every good episode needs prediction errors, all finite; leave the others out")

    units: dict[str, float] = {name: 1.0 if scales is not None else _median(raw[name]) for name in ERRORS}
    normalised = [[normalise(error, units) for error in episode] for episode in episodes]
    levels = np.linspace(0.0, 1.0, N_QUANTILES)
    quantiles = tuple(np.quantile(raw["one_step"] / units["one_step"], levels).tolist())
    found = episode_maxima(normalised, quantiles)
    maxima = np.array([found[channel] for channel in channels]).T  # (n, C)
    rank = common_rank(maxima, alpha)
    limits = dict(zip(channels, np.sort(maxima, axis=0)[rank - 1].tolist(), strict=True))
    if not np.isfinite(list(limits.values())).all():
        raise InvalidInput(f"thresholds: limits {limits} are not finite; a channel has no scores in these episodes")
    return Thresholds(
        model_id=model_id,
        behaviours=tuple(behaviours),
        alpha=alpha,
        episodes=n,
        scales=dict(scales or units),
        limits=limits,
        quantiles=quantiles,
        rewards=dict(rewards or {}),
        whitening=() if whitening is None else _triangle(whitening),
    )


def common_rank(maxima: npt.NDArray[np.floating[Any]], alpha: float) -> int:
    """The rank whose order statistics, one a channel, a new episode exceeds in any channel with probability <= alpha.

    An episode counts by its largest rank over the channels, however they depend on one another. A new episode raises
    the others' ranks by at most one, so rank k will do if 1 + #{largest rank >= k} <= alpha (n + 1); the union bound's
    ceil((n + 1)(1 - alpha/C)) always does.

    Args:
        maxima: of n good episodes in C channels, of shape (n, C).
    """
    n, channels = maxima.shape
    union = math.ceil(round((n + 1) * (1.0 - alpha / channels), 9))
    ranks = [np.searchsorted(np.sort(column), column, side="right") for column in maxima.T]
    largest = np.sort(np.max(ranks, axis=0))[::-1]
    allowed = math.floor(round(alpha * (n + 1), 9)) - 1
    return min(union, int(largest[allowed]) + 1)


def whiten(residuals: FloatArray) -> FloatArray:
    """The matrix W, lower triangular of shape (D, D), by which prediction errors e become uncorrelated, of variance 1.

    |We|^2 = e' S^-1 e, the score of a Gaussian error: its other term, log det S, is the same at every step, and no
    threshold feels it. S is the second moment of the errors, shrunk towards a multiple of the identity as far as its
    own uncertainty asks for (Ledoit & Wolf 2004).

    Args:
        residuals: errors of good episodes, of shape (n, D), n of at least D: other episodes than the thresholds'.

    Raises:
        InvalidInput: too few of them, or not finite.
    """
    n, d = residuals.shape
    if n < d or not np.isfinite(residuals).all():
        raise InvalidInput(f"whitening: needs at least {d} finite errors of {d} dimensions, got {n}; collect more")
    x = residuals.astype(np.float64)
    moment = x.T @ x / n
    mean = np.trace(moment) / d
    spread = np.square(moment - mean * np.eye(d)).sum()
    doubt = (np.square(np.square(x).sum(axis=1)).sum() / n - np.square(moment).sum()) / n
    share = min(doubt / spread, 1.0) if spread > 0 else 1.0
    shrunk = (1.0 - share) * moment + share * mean * np.eye(d)
    return np.tril(np.linalg.inv(np.linalg.cholesky(shrunk)))


def recalibrate(
    stream: Sequence[PredictionError],
    current: Thresholds,
    *,
    segment_s: float = 5.0,
    rewards: Sequence[str] = (),
) -> Thresholds:
    """Thresholds from the recent past of a running robot, which must have been good operation.

    The stream, normalised by `current`, is cut into segments of `segment_s` that stand for episodes: the bound alpha
    then holds for a segment, and only as far as neighbouring segments are independent. The units stay as they are.

    Args:
        rewards: families of the rewards that were in force.

    Raises:
        InvalidInput: the past is too short; the message says how long it must be.
    """
    segments: list[list[PredictionError]] = []
    for error in stream:
        if not segments or error.stamp - segments[-1][0].stamp >= segment_s:
            segments.append([])
        segments[-1].append(error)
    whole = segments[:-1]  # the last one is still growing
    needed = episodes_needed(current.alpha, len(current.limits))
    if len(whole) < needed:
        raise InvalidInput(
            f"recalibrate: {len(whole) * segment_s:.0f} s of good operation are too short, {needed * segment_s:.0f} s "
            f"are needed for alpha {current.alpha}; keep running, or calibrate offline"
        )
    fitted = fit(
        whole,
        model_id=current.model_id,
        behaviours=current.behaviours,
        alpha=current.alpha,
        channels=list(current.limits),
        scales=current.scales,
        rewards=dict.fromkeys(rewards, len(whole)),
    )
    return replace(fitted, whitening=current.whitening)


def episodes_needed(alpha: float, channels: int = len(DEFAULT_CHANNELS)) -> int:
    """The least n for which the rank of the union bound exists: 39 for alpha = .05 and two channels."""
    return math.ceil(round(channels / alpha, 9)) - 1


def episode_maxima(episodes: Sequence[Sequence[PredictionError]], quantiles: Sequence[float]) -> dict[str, list[float]]:
    """Channel -> the largest score of each episode; -inf where an episode has none."""
    maxima: dict[str, list[float]] = {channel: [] for channel in CHANNELS}
    for episode in episodes:
        scores = Scores(quantiles)
        steps = [scores.update(error) for error in episode]
        for channel, values in maxima.items():
            values.append(max((step[channel] for step in steps if step[channel] == step[channel]), default=-math.inf))
    return maxima


def normalise(error: PredictionError, scales: Mapping[str, float]) -> PredictionError:
    """Raw errors in units of the median of good episodes."""
    return PredictionError(
        error.stamp,
        error.one_step / scales["one_step"],
        error.h_step / scales["h_step"],
        error.disagreement / scales["disagreement"],
        error.spread / scales.get("spread", 1.0),
    )


def _triangle(matrix: FloatArray) -> tuple[tuple[float, ...], ...]:
    """The rows of a lower triangle, six digits of each number."""
    return tuple(tuple(float(f"{value:.6g}") for value in row[: i + 1]) for i, row in enumerate(matrix))


def _column(episodes: Sequence[Sequence[PredictionError]], name: str) -> np.ndarray:
    return np.array([getattr(error, name) for episode in episodes for error in episode], np.float64)


def _median(values: np.ndarray) -> float:
    """The median of what is there; 1 where nothing is or all of it is 0 (a single-member ensemble never disagrees)."""
    there = values[~np.isnan(values)]
    return float(np.median(there)) or 1.0 if there.size else 1.0
