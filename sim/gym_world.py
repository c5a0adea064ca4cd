"""Any gymnasium environment with continuous actions as a world: for data, and for planning in it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import gymnasium
import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.types import ActionSpec, ImageArray, Observation

Signals = Callable[[Any, Mapping[str, Any]], Mapping[str, float]]  # (observation, info) -> name -> value


class GymWorld:
    """A `World` (see `worldpilot.sim.tasks`) around an environment, which goes on past its end: planners have a budget.

    Its images are the observation, an entry of a dictionary observation, or else what the environment renders.

    Args:
        env: with a bounded Box of actions; made with `max_episode_steps=-1`, so that no wrapper ends it.
        action: names, units and rates of its controls (see `box_action`).
        budget: control steps of an episode.
        signals: named ground truth from an observation and its info (see `named`).
        image_key: the image's, in a dictionary observation.
        size: side of the observed image [px]; an image of another size is resized by averaging.
        looks: False skips the image (observations are then zeros).

    Raises:
        InvalidInput: there is no image, or the controls don't fit the environment's actions.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        action: ActionSpec,
        *,
        budget: int = 300,
        signals: Signals = lambda observation, info: {},
        image_key: str | None = None,
        size: int = 64,
        looks: bool = True,
    ) -> None:
        self.env, self.action, self.budget = env, action, budget
        self.ended = False  # the environment said so, terminated or truncated
        self._space = _box(env)
        if self._space.low.size != action.control_dim:
            raise InvalidInput(
                f"{_name(env)} has {self._space.low.size} controls, the action spec {action.control_dim}"
            )
        self._signals, self._key, self._size, self._looks = signals, image_key, size, looks
        self._steps = 0
        self.reset(seed=0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ImageArray, dict[str, Any]]:
        """Start an episode; the options are the environment's own."""
        self._observation, self._info = self.env.reset(seed=seed, options=options or None)
        self._steps, self.ended = 0, False
        return self.observe().data, self._info

    def step(self, action: npt.NDArray[np.float32]) -> tuple[ImageArray, float, bool, bool, dict[str, Any]]:
        """One control step, as gymnasium has it; the observation is that of `observe`."""
        reward, terminated, truncated = self._advance(action)
        return self.observe().data, reward, terminated, truncated, self._info

    def drive(self, control: npt.NDArray[np.floating[Any]]) -> None:
        """Advance by one control step without looking."""
        self._advance(control)

    def observe(self) -> Observation:
        """The image of shape (size, size, 3), stamped with the time in the episode [s]."""
        image = self._picture(self._size) if self._looks else np.zeros((self._size, self._size, 3), np.uint8)
        return Observation(self._steps * self.action.control_dt, image)

    def render(self, size: int = 256) -> ImageArray:
        """The same image, larger."""
        return self._picture(size)

    def signals(self) -> Mapping[str, float]:
        """Ground truth by name."""
        return self._signals(self._observation, self._info)

    def outcome(self) -> dict[str, Any]:
        """Whether the environment called it an end, and those of its infos that are a number or a truth."""
        plain = {k: np.asarray(v).item() for k, v in self._info.items() if np.ndim(v) == 0 and _is_number(v)}
        return {**plain, "ended": self.ended}

    def close(self) -> None:
        self.env.close()

    def _advance(self, control: npt.NDArray[np.floating[Any]]) -> tuple[float, bool, bool]:
        action = np.asarray(control, self._space.dtype).reshape(self._space.shape)
        self._observation, reward, terminated, truncated, self._info = self.env.step(action)
        self._steps += 1
        self.ended = bool(terminated or truncated)
        return float(reward), bool(terminated), bool(truncated)

    def _picture(self, size: int) -> ImageArray:
        image = self._observation
        if self._key is not None:
            if not isinstance(image, Mapping) or self._key not in image:
                raise UnknownName("image key", self._key, image if isinstance(image, Mapping) else ())
            image = image[self._key]
        if not _is_image(image):
            image = self.env.render()
        if not _is_image(image):
            raise InvalidInput(
                f"{_name(self.env)} gives no image of shape (H, W, 3) uint8: name an image key of its observations, or "
                "make it with render_mode='rgb_array'"
            )
        image = np.asarray(image)
        return image.copy() if image.shape[:2] == (size, size) else _resized(image, size)


def box_action(env: gymnasium.Env[Any, Any], control_dt: float | None = None, block: int = 5) -> ActionSpec:
    """The action spec of an environment: bounds from its Box, no limit on rates, unnamed units.

    Args:
        control_dt: [s]; None takes it from the environment's `render_fps`.

    Raises:
        InvalidInput: its actions are no bounded Box, or its rate is unknown.
    """
    space, rate = _box(env), env.metadata.get("render_fps")
    if control_dt is None and not rate:
        raise InvalidInput(f"{_name(env)} does not tell its rate (metadata render_fps); give a control_dt")
    dt = control_dt or 1.0 / float(rate or 1.0)
    low, high = (tuple(float(x) for x in bound.ravel()) for bound in (space.low, space.high))
    names = tuple(f"action_{i}" for i in range(len(low)))
    rates = tuple((hi - lo) / dt for lo, hi in zip(low, high, strict=True))
    return ActionSpec(names, ("1",) * len(names), low, high, rates, dt, block)


def named(keys: Mapping[str, Sequence[str]]) -> Signals:
    """Signals from entries of the observation or the info: key -> the names of its numbers.

    The key "observation" is the whole observation, where that is a vector.
    """

    def signals(observation: Any, info: Mapping[str, Any]) -> dict[str, float]:
        entries = {**info, **(observation if isinstance(observation, Mapping) else {"observation": observation})}
        values: dict[str, float] = {}
        for key, names in keys.items():
            if key not in entries:
                raise UnknownName("signal key", key, entries)
            numbers = np.ravel(entries[key])
            if len(numbers) != len(names):
                raise InvalidInput(f"signals: {key} has {len(numbers)} numbers, the names are {', '.join(names)}")
            values |= {name: float(number) for name, number in zip(names, numbers, strict=True)}
        return values

    return signals


def _box(env: gymnasium.Env[Any, Any]) -> gymnasium.spaces.Box:
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or not space.is_bounded():
        raise InvalidInput(f"{_name(env)}: a model of controls needs a bounded Box of actions, this one has {space}")
    return space


def _name(env: gymnasium.Env[Any, Any]) -> str:
    return env.spec.id if env.spec else type(env).__name__


def _is_image(value: Any) -> bool:
    array = np.asarray(value) if not isinstance(value, Mapping) else np.zeros(0)
    return array.ndim == 3 and array.shape[-1] == 3 and array.dtype == np.uint8


def _is_number(value: Any) -> bool:
    return bool(np.issubdtype(np.asarray(value).dtype, np.number) or np.asarray(value).dtype == np.bool_)


def _resized(image: npt.NDArray[Any], size: int) -> ImageArray:
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
