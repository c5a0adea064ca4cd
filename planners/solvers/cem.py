"""The cross-entropy method: fit a Gaussian to the elites, sample from it, repeat (Rubinstein & Kroese 2004)."""

from dataclasses import dataclass

import numpy as np

from worldpilot.errors import InvalidInput
from worldpilot.planners.solvers.base import Population, Problem, SamplingSolver, half_range, noise, require
from worldpilot.types import FloatArray


@dataclass(frozen=True)
class CemConfig:
    """Settings of `Cem`; noise is in units of half the controls' range."""

    samples: int = 96  # candidates an iteration
    iterations: int = 4
    elites: int = 12
    noise: float = 0.7  # standard deviation in the first iteration
    momentum: float = 0.1  # share of the old mean and deviation that is kept

    def __post_init__(self) -> None:
        require(self, samples=self.samples, iterations=self.iterations, elites=self.elites, noise=self.noise)
        if not 0 <= self.momentum < 1:
            raise InvalidInput(f"CemConfig: momentum must be in [0, 1), got {self.momentum}")


class Cem(SamplingSolver):
    """Independent Gaussians for every control; proposals compete in the first iteration. Returns the best candidate."""

    def __init__(self, config: CemConfig | None = None) -> None:
        super().__init__()
        self.config = config or CemConfig()

    def search(
        self, problem: Problem, start: FloatArray, proposals: FloatArray, rng: np.random.Generator
    ) -> tuple[Population, Population]:
        c = self.config
        shape = (c.samples, *start.shape)
        mean, deviation = start, np.broadcast_to(c.noise * half_range(problem.model.spec.action), start.shape)

        # Sample, score, rank.
        samples = mean + deviation * noise(rng, shape, beta=0.0)
        population = problem.imagine(np.concatenate([start[None], proposals, samples]))
        best = population.top(1)

        for _ in range(c.iterations - 1):
            # Fit.
            elites = population.top(c.elites).controls
            mean = c.momentum * mean + (1 - c.momentum) * elites.mean(axis=0)
            deviation = c.momentum * deviation + (1 - c.momentum) * elites.std(axis=0)

            # Sample, score, rank; the mean competes too.
            samples = mean + deviation * noise(rng, shape, beta=0.0)
            population = problem.imagine(np.concatenate([mean[None], samples]))
            best = best.join(population.top(1)).top(1)
        return best, population
