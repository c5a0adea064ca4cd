"""Online: compare what the model predicted with what came, and say when its predictions cannot be trusted.

`PredictionTracker` makes prediction errors, `Monitor` makes alerts of them. Both are pure: the nodes and the
calibration run the same code.
"""

import math
from collections.abc import Mapping

import numpy as np

from worldpilot.calibration.thresholds import CHANNELS, Scores, Thresholds, normalise
from worldpilot.contracts import WorldModel
from worldpilot.errors import InvalidInput
from worldpilot.history import HistoryBuffer
from worldpilot.types import ActionSpec, Alert, AlertLevel, FloatArray, History, PredictionError

_MEANING = {
    "surprise": "what came is not what was predicted",
    "drift": "predictions have been worse than usual for some time",
    "h_step": "predictions some steps ahead are worse than usual",
    "disagreement": "the ensemble's members disagree about what comes next",
    "spread": "the prior's proposals lie further apart than usual",
}


class PredictionTracker:
    """Predicts the present from the past, with the controls that were really applied, and compares.

    The error is the mean over the latent's dimensions of the squared difference to the ensemble's mean (LeWorldModel,
    arXiv 2603.19312: "surprise"), in units of the median of good episodes once there are thresholds. With a whitening
    the one-step error is that of the whitened difference, a Mahalanobis distance.

    Args:
        model: the world model.
        thresholds: give the units and the whitening; None for raw errors, as `thresholds.fit` takes them.
        horizon: H of the H-step error; None leaves it out (NaN) and saves its prediction.
        whitening: of raw errors, of shape (D, D), see `thresholds.whiten`; None: they are plain.
    """

    def __init__(
        self,
        model: WorldModel,
        thresholds: Thresholds | None = None,
        *,
        horizon: int | None = None,
        whitening: FloatArray | None = None,
    ) -> None:
        if thresholds is not None and thresholds.model_id != model.spec.model_id:
            raise InvalidInput(
                f"monitor: thresholds are valid for model {thresholds.model_id}, this is {model.spec.model_id}; "
                "calibrate again"
            )
        self._model, self._horizon = model, horizon
        self._scales = thresholds.scales if thresholds is not None else None
        self._whitening = whitening
        if thresholds is not None and thresholds.whitening:
            self._whitening = thresholds.whitening_matrix()
        self._h, self._block = model.spec.history, model.spec.action.block
        self._buffer = HistoryBuffer(model.spec.action, depth=self._h - 1 + (horizon or 1))
        self.reset()

    def reset(self) -> None:
        """Forget the past: a new episode begins."""
        self._buffer.clear()
        self.predicted: FloatArray | None = None  # (D,), what was expected of the newest latent; None if nothing was

    def history(self) -> History:
        """What a prediction from the newest latent starts from."""
        return self._buffer.history(self._h)

    def update(self, stamp: float, latent: FloatArray, previous_control: FloatArray) -> PredictionError | None:
        """The error about the latent seen at `stamp` [s]; None until a whole history lies before it.

        Args:
            stamp: of the observation; one that is not about one control step after the last starts over.
            latent: of shape (D,).
            previous_control: of shape (U,), in force since the last observation.
        """
        self._buffer.push(latent, previous_control, stamp)
        one_step = self._predict(1)
        if one_step is None:
            self.predicted = None
            return None
        self.predicted = mean = one_step.mean(axis=0)
        far = self._predict(self._horizon) if self._horizon is not None else None
        difference = latent - mean if self._whitening is None else self._whitening @ (latent - mean)
        error = PredictionError(
            stamp=stamp,
            one_step=float(np.square(difference).mean()),
            h_step=float(np.square(far.mean(axis=0) - latent).mean()) if far is not None else math.nan,
            disagreement=float(np.sqrt(np.square(one_step - mean).mean())),
        )
        return error if self._scales is None else normalise(error, self._scales)

    def _predict(self, steps: int) -> FloatArray | None:
        """The members' predictions, of shape (E, D), made `steps` model steps ago; None if the past is too short."""
        if len(self._buffer) <= (self._h - 1 + steps) * self._block:
            return None
        past = self._buffer.history(self._h, before=steps * self._block)
        return self._model.predict(past, self._buffer.applied(steps)[None])[:, 0, -1]


def proposal_spread(proposals: FloatArray, spec: ActionSpec) -> float:
    """Of proposals of shape (N, H, A): their standard deviation over N, as a share of the controls' range."""
    return float((proposals.std(axis=0) / (spec.action_high - spec.action_low)).mean())


class Monitor:
    """Raises an alert when a channel's score exceeds its threshold, and withdraws it `clear_s` after it has ended.

    Args:
        thresholds: fitted for the model and the policy that is running.
        clear_s: how long every score must stay at or below its threshold before the alert is withdrawn [s].
    """

    def __init__(self, thresholds: Thresholds, *, clear_s: float = 1.0) -> None:
        if clear_s < 0:
            raise InvalidInput(f"monitor: clear_s must be >= 0, got {clear_s}")
        self.thresholds = thresholds
        self._clear_s = clear_s
        self._scores = Scores(thresholds.quantiles, thresholds.limits.get("drift"))
        self._limits = sorted(thresholds.limits.items(), key=lambda item: -CHANNELS[item[0]])  # gravest first
        self.reset()

    def reset(self) -> None:
        """A new stream begins, at nominal."""
        self._forget()
        self.level = AlertLevel.NOMINAL

    def update(self, error: PredictionError) -> Alert | None:
        """Take in a prediction error; an alert if the level changes, else None. A stamp that goes back starts over."""
        if error.stamp < self._stamp:
            self._forget()
        self._stamp = error.stamp
        self.scores = self._scores.update(error)
        for channel, limit in self._limits:
            if self.scores[channel] > limit:
                self._since.setdefault(channel, error.stamp)
                self._last_above[channel] = error.stamp
            elif channel in self._since and error.stamp - self._last_above[channel] >= self._clear_s:
                del self._since[channel]

        raised = next((channel for channel, _ in self._limits if channel in self._since), None)
        level = AlertLevel.NOMINAL if raised is None else CHANNELS[raised]
        if level == self.level:
            return None
        self.level = level
        if raised is None:
            channel, since, text = self._channel, error.stamp, f"{self._channel} is back below its threshold"
        else:
            channel, since = raised, self._since[raised]
            text = f"{_MEANING[raised]}: {raised} {self.scores[raised]:.3g}, threshold {self._threshold(raised):.3g}"
            if since < error.stamp:
                text += f", for {error.stamp - since:.2f} s"
            others = [name for name, _ in self._limits if name in self._since and name != raised]
            if others:
                text += f"; {', '.join(others)} too"
        self._channel = channel
        return Alert(
            stamp=error.stamp,
            level=level,
            channel=channel,
            score=self.scores[channel],
            threshold=self._threshold(channel),
            since=since,
            message=f"{level.name.lower()}: {text}",
        )

    def _threshold(self, channel: str) -> float:
        return self.thresholds.limits[channel]

    def _forget(self) -> None:
        self._scores.reset()
        self._stamp = -math.inf
        self._since: dict[str, float] = {}  # channel -> when it crossed [s]; absent while it is clear
        self._last_above: dict[str, float] = {}  # [s]
        self._channel = self._limits[0][0]  # which spoke last
        self.scores: Mapping[str, float] = {}  # the newest, for display
