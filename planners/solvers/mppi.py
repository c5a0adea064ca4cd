"""Model predictive path integral control: average candidates by their scores' exponential (Williams et al. 2017)."""

from dataclasses import dataclass

import numpy as np

from worldpilot.planners.solvers.base import Population, Problem, SamplingSolver, half_range, noise, require
from worldpilot.types import FloatArray


@dataclass(frozen=True)
class MppiConfig:
    """Settings of `Mppi`; noise is in units of half the controls' range."""

    samples: int = 128  # candidates an iteration
    iterations: int = 2
    noise: float = 0.5  # standard deviation
    temperature: float = 0.1  # in standard deviations of the scores: a reward's scale does not matter
    beta: float = 1.0  # correlation of the noise in time, see `noise`

    def __post_init__(self) -> None:
        require(self, samples=self.samples, iterations=self.iterations, noise=self.noise, temperature=self.temperature)


class Mppi(SamplingSolver):
    """Returns the weighted mean of the candidates, which include the proposals in the first iteration."""

    def __init__(self, config: MppiConfig | None = None) -> None:
        super().__init__()
        self.config = config or MppiConfig()

    def search(
        self, problem: Problem, start: FloatArray, proposals: FloatArray, rng: np.random.Generator
    ) -> tuple[Population, Population]:
        c = self.config
        scale = c.noise * half_range(problem.model.spec.action)
        shape = (c.samples, *start.shape)
        samples = start + scale * noise(rng, shape, c.beta)
        population = problem.imagine(np.concatenate([start[None], proposals, samples]))
        for _ in range(c.iterations - 1):
            mean = self._mean(population)
            samples = mean + scale * noise(rng, shape, c.beta)
            population = problem.imagine(np.concatenate([mean[None], samples]))
        return problem.imagine(self._mean(population)[None]), population

    def _mean(self, population: Population) -> FloatArray:
        """The candidates' mean, of shape (T, U), with weights ∝ exp(score / temperature)."""
        finite = population.scores[np.isfinite(population.scores)]
        spread = max(float(finite.std()), 1e-12)
        weights = np.exp((population.scores - finite.max()) / (self.config.temperature * spread))
        return np.tensordot(weights / weights.sum(), population.controls, axes=1).astype(np.float32)
