"""Speculation never changes what is said: the law of the text is the target's own, whatever is drafted, and when."""

from collections import defaultdict
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from worldpilot.models.language.base import Request
from worldpilot.models.language.decoders import Serial, Silent, SpeculativeDecoder
from worldpilot.models.language.speculation import Draft, DraftConfig, Speculation

REQUEST = Request(prompt=(0, 1), max_tokens=3, temperature=0.8)
ALL = 99  # steps: the whole tree


def enumerate_law(tiny: ModuleType, target: Any, draft: Any, config: DraftConfig, steps: int, request: Request) -> Any:
    """The law of the text over every path of the randomness, and which kinds of rounds there were."""
    law: dict[tuple[int, ...], float] = defaultdict(float)
    rounds: set[bool | None] = set()

    def run(noise: Any) -> tuple[int, ...]:
        shared = lambda seed, length: noise  # noqa: E731
        speculator = tiny.EagerTree(Draft(draft, config, 64), steps, shared)
        generation = SpeculativeDecoder(target, speculator, noise=shared).generate(request)
        rounds.update(generation.stats.hits)
        return generation.tokens

    for text, probability in tiny.paths(run):
        law[text] += probability
    return dict(law), rounds


def assert_same_law(law: dict[tuple[int, ...], float], expected: dict[tuple[int, ...], float]) -> None:
    assert abs(sum(law.values()) - 1) < 1e-12
    assert set(law) == set(expected)
    assert max(abs(law[text] - expected[text]) for text in expected) < 1e-12


@pytest.mark.parametrize(
    ("steps", "budget", "scale", "kinds"),
    [
        pytest.param(0, 0, 1.0, {None}, id="SD"),
        pytest.param(0, 0, 0.3, {None}, id="SD, C < 1"),
        pytest.param(ALL, 2, 1.0, {None, True, False}, id="SSD, hits and misses"),
        pytest.param(ALL, 2, 0.3, {None, True, False}, id="SSD, C < 1"),
        pytest.param(ALL, 2, 0.0, {None, True, False}, id="SSD, C = 0"),
        pytest.param(2, 3, 0.5, {None, True, False}, id="SSD, tree left half built"),
    ],
)
def test_the_law_of_the_text_is_the_targets(
    tiny_language: ModuleType, steps: int, budget: int, scale: float, kinds: set[bool | None]
) -> None:
    target, draft = tiny_language.table_pair(3, seed=0)
    config = DraftConfig(lookahead=1, budget=budget, scale=scale, top=1)
    law, rounds = enumerate_law(tiny_language, target, draft, config, steps, REQUEST)
    assert rounds == kinds
    assert_same_law(law, tiny_language.exact_law(target, REQUEST))
