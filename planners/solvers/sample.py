"""No search: one of the proposals, drawn at random. A way out of where searching leads nowhere."""

import numpy as np

from worldpilot.errors import InvalidInput
from worldpilot.planners.solvers.base import Population, Problem, SamplingSolver
from worldpilot.types import FloatArray


class Sample(SamplingSolver):
    """Takes a proposal as it is, imagined and scored, so that status and markers say what the robot is doing.

    Raises:
        InvalidInput: from `solve`, without proposals.
    """

    def search(
        self, problem: Problem, start: FloatArray, proposals: FloatArray, rng: np.random.Generator
    ) -> tuple[Population, Population]:
        if not len(proposals):
            raise InvalidInput("solver: sample has no proposals to draw from; give it those of a prior")
        only = problem.imagine(proposals[rng.integers(len(proposals))][None])
        return only, only
