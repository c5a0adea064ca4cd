"""Improved CEM: coloured noise, elites kept, fewer samples as it narrows (Pinneri et al. 2020)."""

from dataclasses import dataclass

import numpy as np

from worldpilot.errors import InvalidInput
from worldpilot.planners.solvers.base import Population, Problem, SamplingSolver, half_range, noise, require, shift
from worldpilot.types import FloatArray


@dataclass(frozen=True)
class IcemConfig:
    """Settings of `Icem`; noise is in units of half the controls' range."""

    samples: int = 96  # candidates in the first iteration
    iterations: int = 4
    elites: int = 12
    noise: float = 0.7  # standard deviation in the first iteration
    momentum: float = 0.1  # share of the old mean and deviation that is kept
    beta: float = 2.0  # correlation of the noise in time, see `noise`
    decay: float = 1.25  # the number of samples shrinks by this from iteration to iteration
    keep: float = 0.3  # share of the elites that compete again

    def __post_init__(self) -> None:
        require(self, samples=self.samples, iterations=self.iterations, elites=self.elites, noise=self.noise)
        if not (0 <= self.momentum < 1 and 0 <= self.keep <= 1 and self.decay >= 1):
            raise InvalidInput("IcemConfig: momentum must be in [0, 1), keep in [0, 1], decay >= 1")


class Icem(SamplingSolver):
    """CEM for real-time control. Returns the best candidate."""

    def __init__(self, config: IcemConfig | None = None) -> None:
        super().__init__()
        self.config = config or IcemConfig()
        self._kept: FloatArray | None = None  # (n, T, U), elites of the last tick

    def search(
        self, problem: Problem, start: FloatArray, proposals: FloatArray, rng: np.random.Generator
    ) -> tuple[Population, Population]:
        c = self.config
        keep = int(np.ceil(c.keep * c.elites))
        mean, deviation = start, np.broadcast_to(c.noise * half_range(problem.model.spec.action), start.shape)
        kept = proposals[:0] if self._kept is None else self._kept

        # Sample, score, rank.
        samples = mean + deviation * noise(rng, (c.samples, *start.shape), c.beta)
        population = problem.imagine(np.concatenate([start[None], kept, proposals, samples]))
        elites = population.top(c.elites)

        for i in range(1, c.iterations):
            # Fit.
            mean = c.momentum * mean + (1 - c.momentum) * elites.controls.mean(axis=0)
            deviation = c.momentum * deviation + (1 - c.momentum) * elites.controls.std(axis=0)

            # Sample, score, rank against the elites that are kept; the mean competes too.
            n = max(int(c.samples * c.decay**-i), 2 * c.elites)
            samples = mean + deviation * noise(rng, (n, *start.shape), c.beta)
            population = problem.imagine(np.concatenate([mean[None], samples]))
            elites = elites.top(max(keep, 1)).join(population).top(c.elites)
        self._kept = elites.controls[:keep]
        return elites.top(1), population

    def advance(self, steps: int = 1) -> None:
        super().advance(steps)
        self._kept = None if self._kept is None else shift(self._kept, steps)

    def reset(self) -> None:
        super().reset()
        self._kept = None
