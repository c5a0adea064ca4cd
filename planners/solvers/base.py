"""What solvers share: candidates that a robot can follow, imagining and scoring them, the warm start.

Solvers work on controls of shape (N, T, U) at the control rate, T = H*k: noise, rate limits and the warm start's shift
mean the same whatever the action block is.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.contracts import Reward, WorldModel
from worldpilot.errors import InvalidInput
from worldpilot.types import ActionSpec, FloatArray, History, Plan, RewardSpec, Rollouts

Floats = npt.NDArray[np.floating[Any]]  # before it is made feasible, and float32


@dataclass(frozen=True)
class Population:
    """N candidates, where they lead and how well."""

    controls: FloatArray  # (N, T, U)
    rollouts: Rollouts
    scores: FloatArray  # (N,), -inf for a candidate whose score is not finite

    def top(self, n: int) -> "Population":
        """The n best, best first; of equals the earlier candidate."""
        return self.take(np.argsort(-self.scores, kind="stable")[:n])

    def take(self, index: np.ndarray) -> "Population":
        """The candidates at these indices."""
        r = self.rollouts
        rollouts = Rollouts(
            latents=r.latents[index],
            actions=r.actions[index],
            signals={name: values[index] for name, values in r.signals.items()},
            disagreement=r.disagreement[index],
            action_spec=r.action_spec,
            previous_control=r.previous_control,
            current_signals=r.current_signals,
        )
        return Population(self.controls[index], rollouts, self.scores[index])

    def join(self, other: "Population") -> "Population":
        """These candidates, then the other's."""
        a, b = self.rollouts, other.rollouts
        rollouts = Rollouts(
            latents=np.concatenate([a.latents, b.latents]),
            actions=np.concatenate([a.actions, b.actions]),
            signals={name: np.concatenate([values, b.signals[name]]) for name, values in a.signals.items()},
            disagreement=np.concatenate([a.disagreement, b.disagreement]),
            action_spec=a.action_spec,
            previous_control=a.previous_control,
            current_signals=a.current_signals,
        )
        controls = np.concatenate([self.controls, other.controls])
        return Population(controls, rollouts, np.concatenate([self.scores, other.scores]))


@dataclass(frozen=True)
class Problem:
    """One tick's question: from here, which controls score best?"""

    model: WorldModel
    history: History
    reward: Reward
    previous_control: FloatArray  # (U,)

    def imagine(self, controls: Floats) -> Population:
        """Make controls of shape (N, T, U) feasible, imagine where they lead, score.

        Raises:
            InvalidInput: no candidate has a finite score.
        """
        action = self.model.spec.action
        feasible = project(controls, action, self.previous_control)
        rollouts = self.model.rollout(self.history, action.actions(feasible), self.previous_control)
        scores = np.asarray(self.reward.score(rollouts), np.float32)
        scores = scores.mean(axis=1) if scores.ndim == 2 else scores
        scores = np.where(np.isfinite(scores), scores, -np.inf).astype(np.float32)
        if np.isneginf(scores).all():
            raise InvalidInput(
                "solver: no candidate has a finite score; the reward or the model's prediction overflows"
            )
        return Population(feasible, rollouts, scores)


class SamplingSolver(ABC):
    """Base of the solvers: a warm start in, a plan out. Implements `contracts.Solver`."""

    def __init__(self) -> None:
        self._warm: FloatArray | None = None  # (T, U), what is left of the last plan

    def solve(
        self,
        model: WorldModel,
        history: History,
        proposals: FloatArray,
        reward: Reward,
        previous_control: FloatArray,
        rng: np.random.Generator,
        steps: int | None = None,
    ) -> Plan:
        """The best plan found, starting from `proposals` of shape (N, H, A), N may be 0, and the last plan.

        Args:
            steps: model steps of the plan, at most H, which is the default.

        Raises:
            InvalidInput: proposals of the wrong shape, or no candidate has a finite score.
        """
        spec = model.spec
        if proposals.ndim != 3 or proposals.shape[1:] != (spec.horizon, spec.action.dim):
            raise InvalidInput(
                f"solver: proposals must have shape (N, {spec.horizon}, {spec.action.dim}), got {proposals.shape}"
            )
        steps = spec.horizon if steps is None else steps
        finite = proposals[np.isfinite(proposals).all(axis=(1, 2)), :steps]
        length = steps * spec.action.block
        if self._warm is None or len(self._warm) < length:
            start = np.zeros((length, spec.action.control_dim), np.float32)
        else:
            start = self._warm[:length]
        problem = Problem(model, history, reward, np.asarray(previous_control, np.float32))
        best, last = self.search(problem, start, spec.action.controls(finite.astype(np.float32)), rng)
        self._warm = best.controls[0]
        return Plan(best.rollouts.actions[0], float(best.scores[0]), best.rollouts, last.scores)

    def accept(self, reward: RewardSpec) -> None:  # noqa: B027  (a solver that searches refuses none)
        """Any reward will do."""

    @abstractmethod
    def search(
        self, problem: Problem, start: FloatArray, proposals: FloatArray, rng: np.random.Generator
    ) -> tuple[Population, Population]:
        """The chosen plan, as a population of one, and the last population.

        Args:
            problem: imagines and scores.
            start: the warm start, of shape (T, U); zeros if there is none.
            proposals: of shape (N, T, U); N may be 0.
            rng: the only source of randomness.
        """

    def advance(self, steps: int = 1) -> None:
        """`steps` control steps have passed: drop them from the warm start and repeat its last control."""
        if self._warm is not None:
            self._warm = shift(self._warm, steps)

    def reset(self) -> None:
        """Forget the warm start."""
        self._warm = None


def shift(controls: FloatArray, steps: int) -> FloatArray:
    """Controls of shape (..., T, U) without the first `steps`, the last repeated."""
    length = controls.shape[-2]
    return controls[..., np.minimum(np.arange(length) + steps, length - 1), :]


def project(controls: Floats, spec: ActionSpec, previous: FloatArray) -> FloatArray:
    """The nearest controls, of shape (N, T, U), in bounds and reachable from `previous` at the rate limits.

    Nearest step by step: each control is clipped to what can be reached from the one before it.
    """
    low, high = np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32)
    largest = np.asarray(spec.max_rate, np.float32) * np.float32(spec.control_dt)
    result = np.clip(controls, low, high, dtype=np.float32)
    if (largest >= high - low).all():  # everything in bounds can be reached
        return result
    return limit_rates(result, largest, np.clip(previous, low, high, dtype=np.float32))


def limit_rates(controls: FloatArray, largest: FloatArray, previous: FloatArray) -> FloatArray:
    """Clip each of controls of shape (..., T, U), in place, to what can be reached from the one before it.

    Args:
        controls: one after another.
        largest: change from one to the next, of shape (U,).
        previous: the one before the first, of shape (U,).
    """
    before = previous
    for t in range(controls.shape[-2]):
        now = controls[..., t, :]
        np.minimum(np.maximum(now, before - largest, out=now), before + largest, out=now)
        before = now
    return controls


def noise(rng: np.random.Generator, shape: tuple[int, int, int], beta: float) -> FloatArray:
    """Gaussian noise of shape (N, T, U) and unit variance, with a power spectrum ∝ 1/f^beta along T.

    beta = 0 is white; at 1–2 neighbouring controls are alike and candidates explore instead of trembling
    (Timmer & König 1995; in planning: Pinneri et al. 2020).
    """
    n, steps, dim = shape
    amplitude = _amplitude(steps, beta)
    spectrum = np.empty((n, dim, len(amplitude)), np.complex128)
    spectrum.real, spectrum.imag = rng.standard_normal(spectrum.shape), rng.standard_normal(spectrum.shape)
    real = _real(steps)
    spectrum[..., real] = np.sqrt(2) * spectrum[..., real].real
    series = np.fft.irfft(spectrum * amplitude, n=steps, axis=-1)
    return np.moveaxis(series, -1, 1).astype(np.float32)


@lru_cache(maxsize=64)
def _amplitude(steps: int, beta: float) -> npt.NDArray[np.float64]:
    """Of each frequency, for series of unit variance."""
    amplitude = np.maximum(np.fft.rfftfreq(steps), 1 / steps) ** (-beta / 2)
    variance = (4 * np.square(amplitude).sum() - 2 * np.square(amplitude[_real(steps)]).sum()) / steps**2
    return amplitude / np.sqrt(variance)


def _real(steps: int) -> list[int]:
    """Frequencies that have no phase: the constant and, where there is one, the highest."""
    return [0, -1] if steps % 2 == 0 else [0]


def require(config: object, **positive: float) -> None:
    """Refuse settings that are not positive.

    Raises:
        InvalidInput: names the setting.
    """
    for name, value in positive.items():
        if not value > 0:
            raise InvalidInput(f"{type(config).__name__}: {name} must be positive, got {value}")


def half_range(spec: ActionSpec) -> FloatArray:
    """Half the width of the bounds, of shape (U,): the unit in which solvers measure noise."""
    return np.asarray(np.subtract(spec.high, spec.low) / 2, np.float32)
