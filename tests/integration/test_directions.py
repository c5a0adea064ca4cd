"""The shipped model tells a robot on legs its left from its right, its front from its back, up from down."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from worldpilot.models.language.engine import Engine, EngineConfig
from worldpilot.planners.rewards.expression import compile_expression, parse_unit
from worldpilot.reasoning.evaluation import LegStage, Question
from worldpilot.reasoning.reasoner import Reasoner, Status
from worldpilot.reasoning.scene import Scene

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reasoner() -> Iterator[Reasoner]:
    with Engine(EngineConfig(target="reasoning", draft=None, method="ar", threads=1)) as engine:
        yield Reasoner(engine)


@pytest.fixture(scope="module")
def quadruped() -> Scene:
    with closing(LegStage("quadruped", 0)) as stage:
        return stage.scene(Question("quadruped", "", ({},), ()))


@pytest.mark.parametrize(
    ("say", "signal", "sign"),
    [
        ("turn right", "yaw_rate", -1),  # positive is to the left
        ("turn left", "yaw_rate", +1),
        ("walk backwards", "forward_velocity", -1),
        ("walk forward", "forward_velocity", +1),
        ("sidestep right", "lateral_velocity", -1),
        ("sidestep left", "lateral_velocity", +1),
        ("nose up", "pitch", -1),  # positive is nose down
        ("nose down", "pitch", +1),
        ("lean left", "roll", -1),
        ("lean right", "roll", +1),
    ],
)
def test_it_goes_the_way_it_is_told(reasoner: Reasoner, quadruped: Scene, say: str, signal: str, sign: int) -> None:
    outcome = reasoner.reason(say, quadruped)
    assert outcome.status is Status.REWARD
    assert outcome.spec is not None
    (term,) = outcome.spec.terms
    score = compile_expression(str(term.params["expression"]), {signal: parse_unit("1")}).function
    forth, still, back = (float(score({signal: np.array([way * 0.4])})[0]) for way in (sign, 0, -sign))
    assert back < still < forth
