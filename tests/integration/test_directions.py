"""The shipped model tells a robot on legs its left from its right, its front from its back, up from down."""

from collections.abc import Iterator

import pytest

from worldpilot.models.language.engine import Engine, EngineConfig
from worldpilot.reasoning.evaluation import Prompter, Question
from worldpilot.reasoning.reasoner import Reasoner, Status
from worldpilot.reasoning.scene import Scene

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reasoner() -> Iterator[Reasoner]:
    with Engine(EngineConfig(target="reasoning", draft=None, method="ar", threads=1)) as engine:
        yield Reasoner(engine)


@pytest.fixture(scope="module")
def quadruped() -> Scene:
    return Prompter("quadruped").scene(Question("quadruped", "", ({},), ()))


@pytest.mark.parametrize(
    ("say", "signal", "bound"),
    [
        ("turn right", "yaw_rate", "upper"),  # positive is to the left
        ("turn left", "yaw_rate", "lower"),
        ("walk backwards", "forward_velocity", "upper"),
        ("walk forward", "forward_velocity", "lower"),
        ("sidestep right", "lateral_velocity", "upper"),
        ("sidestep left", "lateral_velocity", "lower"),
        ("nose up", "pitch", "upper"),  # positive is nose down
        ("nose down", "pitch", "lower"),
        ("lean left", "roll", "upper"),
        ("lean right", "roll", "lower"),
    ],
)
def test_it_goes_the_way_it_is_told(reasoner: Reasoner, quadruped: Scene, say: str, signal: str, bound: str) -> None:
    outcome = reasoner.reason(say, quadruped)
    assert outcome.status is Status.REWARD
    assert outcome.spec is not None
    (term,) = outcome.spec.terms
    assert term.params["signal"] == signal
    assert set(term.params) & {"lower", "upper"} == {bound}
    assert term.params[bound] < 0 if bound == "upper" else term.params[bound] > 0
