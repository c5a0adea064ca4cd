"""Between messages and `worldpilot.types`: what comes in is checked, what is refused says why."""

import importlib
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from worldpilot_msgs.msg import ActionProposals, Latent, Signal, SignalSpec, State
from worldpilot_msgs.msg import Alert as AlertMsg
from worldpilot_msgs.msg import PredictionError as PredictionErrorMsg

from worldpilot.errors import InvalidInput
from worldpilot.types import Alert, AlertLevel, FloatArray, ImageArray, ModelSpec, Observation, PredictionError


def message_class(name: str) -> Any:
    """The class of "package/msg/Name" (or srv, action)."""
    package, kind, cls = name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), cls)


def time(seconds: float) -> Time:
    """Seconds as a ROS time."""
    nanoseconds = round(seconds * 1e9)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def seconds(stamp: Time | Duration) -> float:
    """A ROS time or duration as seconds."""
    return stamp.sec + stamp.nanosec * 1e-9


def header(stamp: float, frame: str = "") -> Header:
    """A header of `stamp` [s]."""
    return Header(stamp=time(stamp), frame_id=frame)


def image_message(image: ImageArray, stamp: float, frame: str) -> Image:
    """An image of shape (H, W, 3) as rgb8."""
    message = Image(header=header(stamp, frame), encoding="rgb8", height=image.shape[0], width=image.shape[1])
    message.step = 3 * image.shape[1]
    message.data = array("B", np.ascontiguousarray(image).tobytes())
    return message


def image(message: Image) -> ImageArray:
    """An rgb8 message as an image of shape (H, W, 3); rows may be padded."""
    if message.encoding != "rgb8":
        raise InvalidInput(f"image: encoding must be rgb8, got {message.encoding!r}; convert it before this node")
    h, w, step, size = message.height, message.width, message.step, len(message.data)
    if h == 0 or w == 0 or step < 3 * w or size != step * h:
        raise InvalidInput(f"image: {h} rows of {step} bytes must hold {w} rgb8 pixels each, got {size} bytes")
    rows = np.frombuffer(message.data, np.uint8).reshape(h, step)
    return rows[:, : 3 * w].reshape(h, w, 3)


def state_message(
    values: FloatArray, names: Sequence[str], stamp: float, frame: str, control: FloatArray | None = None
) -> State:
    """A state of shape (S,), and the control of shape (U,) that the driver took before it, if that is known."""
    message = State(header=header(stamp, frame), names=names)
    message.values = floats(values)
    if control is not None:
        message.control = floats(control)
    return message


def taken(message: Image | State | Latent, spec: ModelSpec) -> FloatArray | None:
    """The control that the driver says it took before what it sensed, of shape (U,), finite; None if it doesn't say."""
    control = np.asarray(getattr(message, "control", ()), np.float32)
    if not control.size:
        return None
    if control.shape != (spec.action.control_dim,) or not np.isfinite(control).all():
        expected = f"{spec.action.control_dim} finite numbers, or none,"
        raise InvalidInput(f"control that was taken: {expected} are expected, got {control.tolist()}")
    return control


def observation(message: Image | State, spec: ModelSpec) -> Observation:
    """What the model can take in: an image with some content, or a state, finite, of the names it was trained on."""
    return seen(message, spec) if isinstance(message, Image) else sensed(message, spec)


def sensed(message: State, spec: ModelSpec) -> Observation:
    """A state of shape (S,), its numbers those that the model knows, in its order."""
    names, expected = list(message.names), list(spec.observation_names)
    if names != expected:
        missing, unknown = (", ".join(sorted(set(a) - set(b))) for a, b in ((expected, names), (names, expected)))
        differs = f"missing: {missing or 'none'}; unknown: {unknown or 'none'}"
        if set(names) == set(expected):
            differs = f"got {', '.join(names)}"
        raise InvalidInput(f"state: model {spec.model_id} takes, in this order, {', '.join(expected)}; {differs}")
    values = np.asarray(message.values, np.float32)
    if values.shape != spec.observation_shape:
        raise InvalidInput(f"state: {len(names)} names, {values.size} values")
    if not np.isfinite(values).all():
        wrong = ", ".join(name for name, value in zip(names, values, strict=True) if not np.isfinite(value))
        raise InvalidInput(f"state: not finite: {wrong}")
    return Observation(seconds(message.header.stamp), values)


def seen(message: Image, spec: ModelSpec) -> Observation:
    """An image of the size that the model sees; one without any content is refused."""
    pixels = image(message)
    if pixels.shape != spec.observation_shape:
        raise InvalidInput(f"image: model {spec.model_id} sees {spec.observation_shape}, got {pixels.shape}")
    if pixels.min() == pixels.max():
        raise InvalidInput("image: blank, every pixel is the same; is the camera covered or off?")
    return Observation(seconds(message.header.stamp), pixels)


def signals_message(values: Mapping[str, float], units: Mapping[str, str]) -> list[Signal]:
    """Signals by name with their units."""
    return [Signal(name=name, unit=units.get(name, ""), value=float(value)) for name, value in values.items()]


def signal_values(signals: Iterable[Signal]) -> dict[str, float]:
    """Values of signals by name."""
    return {signal.name: signal.value for signal in signals}


def signal_specs(spec: ModelSpec) -> list[SignalSpec]:
    """The signals of a model."""
    return [SignalSpec(name=s.name, unit=s.unit, description=s.description, r2=float(s.r2)) for s in spec.signals]


def latent_message(
    z: FloatArray,
    signals: Mapping[str, float],
    spec: ModelSpec,
    stamp: float,
    frame: str,
    control: FloatArray | None = None,
) -> Latent:
    """A latent of shape (D,), what was read from it, and the control that the driver took before it, if it said so."""
    units = {signal.name: signal.unit for signal in spec.signals}
    message = Latent(header=header(stamp, frame), model_id=spec.model_id, signals=signals_message(signals, units))
    message.z = floats(z)
    if control is not None:
        message.control = floats(control)
    return message


def latent(message: Latent, spec: ModelSpec) -> FloatArray:
    """A latent of this model, of shape (D,), finite."""
    _same_model(message.model_id, spec)
    z = np.asarray(message.z, np.float32)
    if z.shape != (spec.latent_dim,):
        raise InvalidInput(f"latent: model {spec.model_id} has {spec.latent_dim} dimensions, got {z.shape[0]}")
    if not np.isfinite(z).all():
        raise InvalidInput(f"latent: {np.count_nonzero(~np.isfinite(z))} of {z.size} values are not finite")
    return z


def proposals_message(actions: FloatArray, spec: ModelSpec, stamp: float) -> ActionProposals:
    """Proposals of shape (N, H, A)."""
    n, h, a = actions.shape
    message = ActionProposals(header=header(stamp), model_id=spec.model_id, count=n, horizon=h, action_dim=a)
    message.actions = floats(actions)
    return message


def proposals(message: ActionProposals, spec: ModelSpec) -> FloatArray:
    """Proposals for this model, of shape (N, H, A), finite."""
    _same_model(message.model_id, spec)
    shape = (message.count, message.horizon, message.action_dim)
    expected = (message.count, spec.horizon, spec.action.dim)
    actions = np.asarray(message.actions, np.float32)
    if shape != expected or message.count == 0 or actions.size != np.prod(shape):
        raise InvalidInput(
            f"proposals: expected (N >= 1, {expected[1]}, {expected[2]}), got {shape} with {actions.size} values"
        )
    if not np.isfinite(actions).all():
        raise InvalidInput("proposals: not all values are finite")
    return actions.reshape(shape)


def error_message(error: PredictionError, spec: ModelSpec) -> PredictionErrorMsg:
    """A prediction error."""
    return PredictionErrorMsg(
        header=header(error.stamp),
        model_id=spec.model_id,
        one_step=float(error.one_step),
        h_step=float(error.h_step),
        disagreement=float(error.disagreement),
    )


def prediction_error(message: PredictionErrorMsg, spec: ModelSpec) -> PredictionError:
    """A prediction error of this model; only the H-step error may be NaN."""
    _same_model(message.model_id, spec)
    if not np.isfinite([message.one_step, message.disagreement]).all():
        raise InvalidInput("prediction error: one_step and disagreement must be finite")
    return PredictionError(seconds(message.header.stamp), message.one_step, message.h_step, message.disagreement)


def alert_message(alert: Alert, stamp: float) -> AlertMsg:
    """An alert, sent at `stamp` [s]."""
    return AlertMsg(
        header=header(stamp),
        level=int(alert.level),
        channel=alert.channel,
        score=float(alert.score),
        threshold=float(alert.threshold),
        since=time(alert.since),
        message=alert.message,
    )


def alert(message: AlertMsg) -> Alert:
    """An alert, its stamp that of the message."""
    return Alert(
        seconds(message.header.stamp),
        alert_level(message),
        message.channel,
        message.score,
        message.threshold,
        seconds(message.since),
        message.message,
    )


def alert_level(message: AlertMsg) -> AlertLevel:
    """The level of an alert."""
    try:
        return AlertLevel(message.level)
    except ValueError:
        raise InvalidInput(f"alert: level must be 0, 1 or 2, got {message.level}") from None


def floats(values: FloatArray) -> "array[float]":
    """Any shape as a flat float32[] field; rclpy takes a list only after looking at each of its elements."""
    return array("f", np.ascontiguousarray(values, np.float32).tobytes())


def points(xs: FloatArray, ys: FloatArray) -> list[Point]:
    """Positions in the plane, of shape (H,) each [m], as points."""
    return [Point(x=float(x), y=float(y)) for x, y in zip(xs, ys, strict=True)]


def settings(text: str) -> dict[str, float]:
    """A JSON object of named values, as parameters and services carry them; empty text: none."""
    try:
        values = json.loads(text or "{}")
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InvalidInput(f'a JSON object like {{"seconds": 2.0}} is needed, got {text[:80]!r}')
    return values


def flat_actions(values: npt.ArrayLike, horizon: int, spec: ModelSpec) -> FloatArray:
    """A flattened action sequence as (H, A), finite; empty means zero control."""
    actions = np.asarray(values, np.float32)
    if actions.size == 0:
        return np.zeros((horizon, spec.action.dim), np.float32)
    if actions.size != horizon * spec.action.dim or not np.isfinite(actions).all():
        raise InvalidInput(f"actions: {horizon} x {spec.action.dim} finite values are needed, got {actions.size}")
    return actions.reshape(horizon, spec.action.dim)


def _same_model(model_id: str, spec: ModelSpec) -> None:
    if model_id != spec.model_id:
        raise InvalidInput(
            f"made by model {model_id!r}, this node runs {spec.model_id!r}: load the same artifact in both"
        )
