"""From a stream at the control rate to the history a model conditions on."""

import math
from collections import deque

import numpy as np

from worldpilot.errors import InvalidInput, NotReady
from worldpilot.types import ActionSpec, FloatArray, History


class HistoryBuffer:
    """Keeps the latents and controls of the last `depth` model steps at the control rate.

    A model step is `spec.block` control steps, so `history(h)` takes every block-th latent back from the newest,
    and the controls between them. Before enough has been seen the first latent is repeated, with zero control.

    Args:
        spec: the action specification.
        depth: how many model steps back can be asked for (h - 1 for planning, H for the H-step error).
    """

    def __init__(self, spec: ActionSpec, depth: int) -> None:
        self._spec = spec
        self._latents: deque[FloatArray] = deque(maxlen=depth * spec.block + 1)
        self._controls: deque[FloatArray] = deque(maxlen=depth * spec.block)
        self._stamp = math.nan

    def __len__(self) -> int:
        """How many latents have been seen, up to what is kept."""
        return len(self._latents)

    def push(self, latent: FloatArray, previous_control: FloatArray, stamp: float | None = None) -> None:
        """Add the newest latent, of shape (D,), and the control in force since the one before, of shape (U,).

        Args:
            stamp: of the observation [s]. One that is not about one control step after the last starts over: what lies
                before an interruption is no history of what comes. None: the caller sees to that.

        Raises:
            InvalidInput: a latent or control that is not finite; nothing was added.
        """
        if not np.isfinite(latent).all() or not np.isfinite(previous_control).all():
            raise InvalidInput("history: latent and control must be finite; drop this observation and hold")
        if stamp is not None:
            if not 0.5 < (stamp - self._stamp) / self._spec.control_dt < 1.5:
                self.clear()
            self._stamp = stamp
        if self._latents:
            self._controls.append(np.asarray(previous_control, np.float32))
        self._latents.append(np.asarray(latent, np.float32))

    def clear(self) -> None:
        """Forget everything: the stream was interrupted."""
        self._latents.clear()
        self._controls.clear()
        self._stamp = math.nan

    def history(self, steps: int, before: int = 0) -> History:
        """The last `steps` latents, one model step apart, ending `before` control steps ago."""
        k = self._spec.block
        if len(self._latents) <= before:
            raise NotReady(f"history: {before + 1} latents are needed, {len(self._latents)} have been seen")
        newest = len(self._latents) - 1 - before
        latents = [self._latents[max(newest - i * k, 0)] for i in reversed(range(steps))]
        zero = np.zeros(self._spec.control_dim, np.float32)
        first = newest - (steps - 1) * k
        controls = [self._controls[i] if i >= 0 else zero for i in range(first, newest)]
        actions = np.asarray(controls, np.float32).reshape(steps - 1, self._spec.dim)
        return History(np.stack(latents), actions)

    def applied(self, steps: int) -> FloatArray:
        """The controls of the last `steps` model steps as actions of shape (steps, A)."""
        need = steps * self._spec.block
        if len(self._controls) < need:
            raise NotReady(f"history: {need} controls are needed, {len(self._controls)} have been seen")
        return np.asarray(list(self._controls)[-need:], np.float32).reshape(steps, self._spec.dim)
