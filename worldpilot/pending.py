"""Controls that were sent and are not in force yet: what a planner must reckon with where a loop is late."""

from collections import deque

import numpy as np

from worldpilot.errors import InvalidInput
from worldpilot.types import ActionSpec, FloatArray

_LONGEST = 2.0  # [s]


class PendingControls:
    """The newest controls of a loop that is late, one a control period.

    Controls count from the moment that an observation shows. A control that answers it takes effect `delay` later: by
    m whole control periods and a share s of one, so that in the period after that moment the mean control in force is
    (1 - s) times the one sent m periods before and s times the one before that.

    Args:
        spec: of the controls.
        delay: from what an observation shows until the control that answers it takes effect [s].

    Raises:
        InvalidInput: a delay that is negative, not finite or longer than 2 s.
    """

    def __init__(self, spec: ActionSpec, delay: float) -> None:
        if not 0 <= delay <= _LONGEST:
            raise InvalidInput(f"delay must be between 0 and {_LONGEST:g} s, got {delay}")
        self.delay, self.control_dim, self._spec = delay, spec.control_dim, spec
        periods = delay / spec.control_dt
        self._whole = int(periods + 1e-6)
        share = periods - self._whole if periods - self._whole > 1e-6 else 0.0
        self._mix: FloatArray = np.array([share, 1 - share], np.float32)  # of a control and the one after it
        self.periods = self._whole + (share > 0)  # control periods that a control is late, rounded up
        self.clear()

    def clear(self) -> None:
        """Nothing is on its way: the loop was interrupted."""
        zero = np.zeros(self.control_dim, np.float32)
        self._sent: deque[FloatArray] = deque([zero] * (self._whole + 2), maxlen=self._whole + 2)

    def send(self, control: FloatArray) -> FloatArray:
        """`control` of shape (U,) was sent for the last control period. Returns the mean control that was in force in
        the period before the moment that the newest observation shows, of shape (U,)."""
        self._sent.append(np.asarray(control, np.float32))
        return self._sent[0] * self._mix[0] + self._sent[1] * self._mix[1]

    def effect(self, actions: FloatArray) -> FloatArray:
        """What plans of shape (N, H, A) do when they are sent from now on: the actions in force from the moment that
        the newest observation shows, of the same shape. First comes what is on its way; the plan's end comes too late.
        """
        if not self.delay:
            return actions
        sent = self._spec.controls(actions)
        before = np.broadcast_to(np.asarray(self._sent)[1:], (len(sent), self._whole + 1, sent.shape[-1]))
        line = np.concatenate([before, sent], axis=1)[:, : sent.shape[1] + 1]
        return self._spec.actions(line[:, :-1] * self._mix[0] + line[:, 1:] * self._mix[1])

    def ahead(self, actions: FloatArray) -> FloatArray:
        """Plans to send from now on for what is wanted from the moment that the newest observation shows, both of shape
        (N, H, A). What would have had to be sent before is left out; the last control is repeated."""
        if not self.delay:
            return actions
        wanted = self._spec.controls(actions)
        steps, last = np.arange(wanted.shape[1]) + self._whole, wanted.shape[1] - 1
        early, late = (wanted[:, np.minimum(steps + i, last)] for i in (0, 1))
        return self._spec.actions(early * self._mix[1] + late * self._mix[0])
