"""Sample, score, rank: imagine every proposal, then look around the best ones. The shipped solver."""

from dataclasses import dataclass

import numpy as np

from worldpilot.errors import InvalidInput
from worldpilot.planners.solvers.base import Population, Problem, SamplingSolver, half_range, noise, require
from worldpilot.types import FloatArray


@dataclass(frozen=True)
class SsrConfig:
    """Settings of `SampleScoreRank`; noise is in units of half the controls' range."""

    samples: int = 32  # new candidates a round
    refinements: int = 4  # rounds around the elites, after the first round
    elites: int = 8  # candidates that refinements start from
    noise: float = 0.5  # standard deviation in the first round
    shrink: float = 0.5  # of the noise, from round to round
    beta: float = 2.0  # correlation of the noise in time, see `noise`

    def __post_init__(self) -> None:
        require(self, samples=self.samples, elites=self.elites, noise=self.noise, shrink=self.shrink)
        if self.refinements < 0:
            raise InvalidInput(f"SsrConfig: refinements must be >= 0, got {self.refinements}")


class SampleScoreRank(SamplingSolver):
    """Ranks the last plan, standing still, the proposals and variations of the last plan; refines the best.

    The result is never worse than the best proposal. The last plan goes first and loses only to something strictly
    better, so that the robot does not dither between equals.
    """

    def __init__(self, config: SsrConfig | None = None) -> None:
        super().__init__()
        self.config = config or SsrConfig()

    def search(
        self, problem: Problem, start: FloatArray, proposals: FloatArray, rng: np.random.Generator
    ) -> tuple[Population, Population]:
        c = self.config
        scale = c.noise * half_range(problem.model.spec.action)
        shape = (c.samples, *start.shape)

        # Sample, score, rank.
        variations = start + scale * noise(rng, shape, c.beta)
        population = problem.imagine(np.concatenate([start[None], np.zeros_like(start)[None], proposals, variations]))
        elites = population.top(c.elites)

        # Look closer and closer around the best.
        for _ in range(c.refinements):
            scale = scale * c.shrink
            parents = elites.controls[rng.integers(len(elites.scores), size=c.samples)]
            population = problem.imagine(parents + scale * noise(rng, shape, c.beta))
            elites = elites.join(population).top(c.elites)
        return elites.top(1), population
