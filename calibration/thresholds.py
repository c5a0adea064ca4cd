"""Thresholds of the monitor: how large a prediction error may be in an episode that goes well.

A channel turns the stream of prediction errors into a score. Guarantees for independent errors are void here, because
errors of neighbouring steps resemble one another; so each channel is thresholded on its *episode maximum* over good
episodes, which are independent of one another. With n episodes and C channels the threshold is the maximum of rank
ceil((n + 1)(1 - alpha/C)): an exchangeable new episode raises any alarm with probability at most alpha (split conformal
prediction with a union bound over the channels; FIPER, arXiv 2510.09459; FAIL-Detect, arXiv 2503.08558).
That holds for the model and the behaviour it was fitted on, and for no other: both are stored beside it.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.types import AlertLevel, PredictionError

ERRORS = ("one_step", "h_step", "disagreement")
CHANNELS: Mapping[str, AlertLevel] = {
    "surprise": AlertLevel.HOLD,  # the newest one-step error
    "drift": AlertLevel.CAUTION,  # evidence accumulated over many of them
    "h_step": AlertLevel.CAUTION,
    "disagreement": AlertLevel.CAUTION,
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

    def __post_init__(self) -> None:
        for channel in self.limits:
            if channel not in CHANNELS:
                raise UnknownName("monitor channel", channel, CHANNELS)
        values = [self.alpha, *self.scales.values(), *self.limits.values(), *self.quantiles]
        if not np.isfinite(values).all():
            raise InvalidInput("thresholds: every number must be finite; calibrate again")
        if set(self.scales) != set(ERRORS) or min(self.scales.values()) <= 0:
            raise InvalidInput(
                f"thresholds: scales must be positive, one for each of {ERRORS}, got {dict(self.scales)}"
            )
        if not self.limits or not self.quantiles or list(self.quantiles) != sorted(self.quantiles):
            raise InvalidInput("thresholds: needs at least one limit, and quantiles in ascending order")
        if not 0.0 < self.alpha < 1.0 or self.episodes < 1:
            raise InvalidInput(f"thresholds: needs 0 < alpha < 1 and episodes >= 1, got {self.alpha}, {self.episodes}")

    def to_dict(self) -> dict[str, Any]:
        """As stored in a manifest."""
        return {**asdict(self), "behaviours": list(self.behaviours), "quantiles": list(self.quantiles)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Thresholds":
        """What `to_dict` gave.

        Raises:
            InvalidInput: a field is missing or unknown, or a value is out of range.
        """
        try:
            values = {**content, "behaviours": tuple(content["behaviours"]), "quantiles": tuple(content["quantiles"])}
            return cls(**values)
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
        }


def fit(
    episodes: Sequence[Sequence[PredictionError]],
    *,
    model_id: str,
    behaviours: Sequence[str],
    alpha: float = 0.05,
    channels: Sequence[str] = DEFAULT_CHANNELS,
    scales: Mapping[str, float] | None = None,
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

    Raises:
        InvalidInput: too few episodes for alpha, an episode without errors, or errors that are not finite.
        UnknownName: no such channel.
    """
    for channel in channels:
        if channel not in CHANNELS:
            raise UnknownName("monitor channel", channel, CHANNELS)
    if not 0.0 < alpha < 1.0 or not channels:
        raise InvalidInput(f"thresholds: needs 0 < alpha < 1 and a channel, got {alpha} and {list(channels)}")
    n = len(episodes)
    rank = math.ceil(round((n + 1) * (1.0 - alpha / len(channels)), 9))
    if rank > n:
        raise InvalidInput(
            f"thresholds: {n} good episodes are too few for alpha {alpha} over {len(channels)} channels, "
            f"{episodes_needed(alpha, len(channels))} are needed; collect more or raise alpha"
        )
    raw = {name: _column(episodes, name) for name in ERRORS}
    if min(map(len, episodes)) == 0 or not np.isfinite(raw["one_step"]).all():
        raise InvalidInput("thresholds: every good episode needs prediction errors, all finite; leave the others out")

    units: dict[str, float] = {name: 1.0 if scales is not None else _median(raw[name]) for name in ERRORS}
    normalised = [[normalise(error, units) for error in episode] for episode in episodes]
    levels = np.linspace(0.0, 1.0, N_QUANTILES)
    quantiles = tuple(np.quantile(raw["one_step"] / units["one_step"], levels).tolist())
    maxima = {channel: sorted(values) for channel, values in episode_maxima(normalised, quantiles).items()}
    limits = {channel: maxima[channel][rank - 1] for channel in channels}
    if not np.isfinite(list(limits.values())).all():
        raise InvalidInput(f"thresholds: limits {limits} are not finite; a channel has no scores in these episodes")
    return Thresholds(model_id, tuple(behaviours), alpha, n, dict(scales or units), limits, quantiles)


def recalibrate(stream: Sequence[PredictionError], current: Thresholds, *, segment_s: float = 5.0) -> Thresholds:
    """Thresholds from the recent past of a running robot, which must have been good operation.

    The stream, normalised by `current`, is cut into segments of `segment_s` that stand for episodes: the bound alpha
    then holds for a segment, and only as far as neighbouring segments are independent. The units stay as they are.

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
    return fit(
        whole,
        model_id=current.model_id,
        behaviours=current.behaviours,
        alpha=current.alpha,
        channels=list(current.limits),
        scales=current.scales,
    )


def episodes_needed(alpha: float, channels: int = len(DEFAULT_CHANNELS)) -> int:
    """The least n for which the rank ceil((n + 1)(1 - alpha/C)) exists: 39 for alpha = .05 and two channels."""
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
    )


def _column(episodes: Sequence[Sequence[PredictionError]], name: str) -> np.ndarray:
    return np.array([getattr(error, name) for episode in episodes for error in episode], np.float64)


def _median(values: np.ndarray) -> float:
    """The median of what is there; 1 where nothing is or all of it is 0 (a single-member ensemble never disagrees)."""
    there = values[~np.isnan(values)]
    return float(np.median(there)) or 1.0 if there.size else 1.0
