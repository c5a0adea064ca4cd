"""What is seen, as a latent and its signals; how wrong the last prediction was; what will happen."""

from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import Image
from worldpilot_msgs.msg import State
from worldpilot_msgs.srv import Imagine

from worldpilot.calibration.monitor import PredictionTracker
from worldpilot.calibration.thresholds import Thresholds
from worldpilot.errors import InvalidInput, NotReady, WorldpilotError
from worldpilot.imagination import imagine
from worldpilot.types import FloatArray, History, ImageArray, Observation, PredictionError
from worldpilot_nodes import convert, params
from worldpilot_nodes.base import PilotNode, run
from worldpilot_nodes.model import load


@dataclass(frozen=True)
class _Seen:
    observation: Observation
    taken: FloatArray | None  # (U,), the command of the last period, where the driver says so
    previous_control: FloatArray  # (U,), in force
    frame: str


@dataclass(frozen=True)
class _Understood:
    seen: _Seen
    latent: FloatArray  # (D,)
    signals: dict[str, float]


@dataclass(frozen=True)
class _Compared:
    error: PredictionError | None
    history: History
    imagined: ImageArray | None  # what was expected to be seen now


class WorldModelNode(PilotNode):
    """Image or state in; `Latent`, `PredictionError` and, for the eye, the image that had been expected, out.

    The planner waits for the latent, so that goes out before anything is compared with it.
    """

    def __init__(self) -> None:
        super().__init__("world_model", params.WORLD_MODEL)

    def configure(self) -> None:
        self._artifact = load(self)
        self._model, self._spec = self._artifact.world_model, self._artifact.spec
        thresholds = self._artifact.thresholds
        self._tracker = PredictionTracker(
            self._model, Thresholds.from_dict(thresholds) if thresholds else None, horizon=self._spec.horizon
        )
        self._history: History | None = None  # the newest, for what is asked between two images
        self._decodes = self._artifact.has_decoder and self.params.publish_imagined
        self._latents = self.publisher("latent")
        self._errors = self.publisher("prediction_error")
        self._imagined = self.publisher("imagined")
        self._worker = self.worker(self._understand, self._tell, self._refuse)
        self._comparer = self.worker(self._compare, self._tell_error, self._refuse_error)
        self._driver = self.driver(self._spec.action, self.params.delay)
        self.subscription(self._spec.observation, self._see)  # the topic "image" or "state"
        self.service(Imagine, "imagine", self._imagine)

    def _see(self, message: Image | State) -> None:
        observation = convert.observation(message, self._spec)
        taken = convert.taken(message, self._spec)
        in_force = self._driver(observation.stamp, taken)
        self._worker.submit(_Seen(observation, taken, in_force, message.header.frame_id))

    def _understand(self, seen: _Seen) -> _Understood:
        latent = self._model.encode(seen.observation.data[None])[0]
        return _Understood(seen, latent, {name: float(v) for name, v in self._model.signals(latent).items()})

    def _tell(self, seen: _Seen, understood: _Understood) -> None:
        latent, signals, stamp = understood.latent, understood.signals, seen.observation.stamp
        self._latents.publish(convert.latent_message(latent, signals, self._spec, stamp, seen.frame, seen.taken))
        self._comparer.submit(understood)

    def _compare(self, understood: _Understood) -> _Compared:
        seen = understood.seen
        error = self._tracker.update(seen.observation.stamp, understood.latent, seen.previous_control)
        expected = self._tracker.predicted
        image = self._artifact.decode(expected[None])[0] if self._decodes and expected is not None else None
        return _Compared(error, self._tracker.history(), image)

    def _tell_error(self, understood: _Understood, compared: _Compared) -> None:
        self._history = compared.history
        if compared.error is not None:
            self._errors.publish(convert.error_message(compared.error, self._spec))
        if compared.imagined is not None:
            seen = understood.seen
            self._imagined.publish(convert.image_message(compared.imagined, seen.observation.stamp, seen.frame))

    def _refuse(self, _: _Seen, error: WorldpilotError) -> None:
        self.get_logger().warning(f"no latent: {error}", throttle_duration_sec=1.0)

    def _refuse_error(self, _: _Understood, error: WorldpilotError) -> None:
        self.get_logger().warning(f"no prediction error: {error}", throttle_duration_sec=1.0)

    def _imagine(self, request: Imagine.Request, response: Imagine.Response) -> Imagine.Response:
        try:
            longest = self.params.max_imagine_horizon
            if not 1 <= request.horizon <= longest:
                raise InvalidInput(f"horizon must be between 1 and {longest} model steps, got {request.horizon}")
            actions = convert.flat_actions(request.actions, request.horizon, self._spec)
            if self._history is None:
                raise NotReady("nothing has been seen yet")
            latents = imagine(self._model, self._history, actions)  # (horizon, D)
        except WorldpilotError as error:
            response.message = str(error)
            return response
        now, step = self.now(), self._spec.action.control_dt * self._spec.action.block
        stamps = now + step * np.arange(1, request.horizon + 1)
        signals = self._model.signals(latents)
        response.latents = [
            convert.latent_message(latents[i], {name: v[i] for name, v in signals.items()}, self._spec, stamp, "")
            for i, stamp in enumerate(stamps)
        ]
        if self._artifact.has_decoder:
            frames = self._artifact.decode(latents)
            response.frames = [convert.image_message(f, s, "") for f, s in zip(frames, stamps, strict=True)]
        response.success = True
        return response


def main() -> None:
    """Run the node."""
    run(WorldModelNode)


if __name__ == "__main__":
    main()
