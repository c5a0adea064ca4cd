"""Arithmetic means what it says, units are checked, everything else is refused with a reason."""

from dataclasses import replace

import numpy as np
import pytest

from worldpilot.contracts import WorldModel
from worldpilot.errors import RewardError, UnknownName
from worldpilot.planners.rewards.base import RewardContext
from worldpilot.planners.rewards.expression import Environment, Expression, compile_expression, parse_unit, units
from worldpilot.planners.rewards.registry import build, parse_spec
from worldpilot.types import Rollouts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-(block_x - 0.1)**2", lambda x, y, yaw: -((x - 0.1) ** 2)),
        ("block_x / block_y % 2", lambda x, y, yaw: (x / y) % 2),
        ("2**-3 + 1e-3 + .5", lambda x, y, yaw: 0.626),
        ("min(block_x, block_y, 0) + max(block_x, 1)", lambda x, y, yaw: np.minimum(np.minimum(x, y), 0) + 1),
        ("clip(block_x, -0.1, 0.1) + abs(block_y)", lambda x, y, yaw: np.clip(x, -0.1, 0.1) + np.abs(y)),
        ("hypot(block_x, block_y)", lambda x, y, yaw: np.hypot(x, y)),
        ("sqrt(block_x**2 + block_y**2)", lambda x, y, yaw: np.hypot(x, y)),
        ("exp(-block_x / 0.1) + log(2) + tanh(1)", lambda x, y, yaw: np.exp(-x / 0.1) + np.log(2) + np.tanh(1)),
        ("sin(block_yaw) + cos(pi / 3)", lambda x, y, yaw: np.sin(yaw) + 0.5),
        ("abs(angle_diff(block_yaw, deg(90)))", lambda x, y, yaw: np.abs(yaw - np.pi / 2)),
        ("block_x > 0 and not block_y > 0 or 0 > 1", lambda x, y, yaw: (x > 0) & (y <= 0)),
        ("-1 < block_x < 0.05 <= 0.05", lambda x, y, yaw: (x > -1) & (x < 0.05)),
        ("block_x if block_x > block_y else block_y", lambda x, y, yaw: np.maximum(x, y)),
        ("where(block_x != block_y, 1, 2)", lambda x, y, yaw: 1.0),
        ("(block_x > 0) * 2 + (block_y == block_y)", lambda x, y, yaw: (x > 0) * 2 + 1),
        ("1 +\n  1", lambda x, y, yaw: 2.0),
    ],
)  # fmt: skip
def test_means_what_it_says(text: str, value, point: WorldModel, rollouts: Rollouts) -> None:
    names = Environment(rollouts)
    expected = value(names["block_x"], names["block_y"], names["block_yaw"])
    found = compile_expression(text, units(point.spec)).function(names)
    np.testing.assert_allclose(np.broadcast_to(found, (16, 4)), np.broadcast_to(expected, (16, 4)), rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "wants"),
    [
        ("-abs(block_x - 0.1)", {"block_x": 0.1}),
        ("-(0.1 - block_x)**2 - 3 * (block_y + 0.2)**2", {"block_x": 0.1, "block_y": -0.2}),
        ("2 - hypot(block_x, block_y - 0.1) / 4", {"block_x": 0.0, "block_y": 0.1}),
        ("-0.01 * angle_diff(block_yaw, pi / 4)**2", {"block_yaw": np.pi / 4}),
        ("-abs(angle_diff(deg(90), block_yaw))", {"block_yaw": np.pi / 2}),
        ("exp(-(10 * (block_x - 0.1))**2) - sqrt(block_y**2)", {"block_x": 0.1, "block_y": 0.0}),
        ("-(abs(block_x) * -2) * -1", {"block_x": 0.0}),
        ("-abs(block_x - 0.1) + 0.5 * block_y", {"block_x": 0.1}),
        ("abs(block_x - 0.1) - -abs(block_y)", {}),  # away from it
        ("0 * abs(block_x) - abs(block_x - block_y)", {}),
        ("-abs(block_x - 0.1) - abs(block_x + 0.1)", {}),  # at two values
        ("-abs(block_x - 1 / 0) - max(abs(block_y) - 0.1, 0)", {}),
        ("-block_y**3", {}),
        ("-abs(vx - 0.1)", {}),  # no signal
        ("min(block_x, 0.1)", {}),
    ],
)
def test_it_tells_what_it_wants_at_a_value(text: str, wants: dict[str, float], point: WorldModel) -> None:
    found = Expression(text).bind(RewardContext(point.spec)).target()
    assert found.keys() == wants.keys()
    assert [found[name] for name in wants] == pytest.approx(list(wants.values()))


def test_what_a_term_of_negative_weight_wants_is_no_target(point: WorldModel) -> None:
    terms = [
        {"plugin": "expression", "weight": w, "params": {"expression": f"-abs(block_{n})"}}
        for w, n in ((-1, "x"), (2, "y"))
    ]
    assert build(parse_spec({"terms": terms}), RewardContext(point.spec)).target == {"block_y": 0.0}


def test_controls_speed_and_time(point: WorldModel, rollouts: Rollouts) -> None:
    actions = np.tile(np.array([0.03, 0.04], np.float32), (1, 4, 5))
    one = replace(rollouts, actions=actions, signals={}, disagreement=np.zeros((1, 4), np.float32))
    for text, expected in {"vx": [0.03] * 4, "vy": [0.04] * 4, "speed": [0.05] * 4, "time": [0.5, 1, 1.5, 2]}.items():
        values = compile_expression(text, units(point.spec)).function(Environment(one))
        np.testing.assert_allclose(np.broadcast_to(values, (1, 4))[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("block_x + block_yaw", "m with rad"),
        ("min(block_x, block_yaw)", "min combines m with rad"),
        ("block_x < block_yaw", "< combines m with rad"),
        ("block_x**2 + block_x", r"m\^2 with m"),
        ("vx + block_x", r"m\*s\^-1 with m"),
        ("block_x if block_x > 0 else block_yaw", "m with rad"),
        ("exp(block_x)", "without unit"),
        ("sin(block_x)", "angle"),
        ("angle_diff(block_x, 1)", "angle"),
    ],
)
def test_units_must_fit(text: str, says: str, point: WorldModel) -> None:
    with pytest.raises(RewardError, match=says):
        compile_expression(text, units(point.spec))


@pytest.mark.parametrize(
    "text",
    [
        "block_x + 0.1 * block_yaw",
        "block_x + 1",
        "block_x / block_y + disagreement",
        "speed * time + block_x",
        "sqrt(block_x * block_y) - block_x",
        "exp(block_x / 0.2)",
        "sin(1) * block_x + block_y",
        "-(block_x - 0.1)**2 - 0.01 * angle_diff(block_yaw, deg(90))**2",
    ],
)
def test_numbers_take_the_unit_that_fits(text: str, point: WorldModel) -> None:
    compile_expression(text, units(point.spec))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("().__class__", "number"),
        ("block_x.real", "Attribute"),
        ("__import__('os')", "character"),
        ("block_x[0]", "character"),
        ("lambda: 1", "character"),
        ("(block_x := 1)", "character"),
        ("block\N{LATIN SMALL LETTER E WITH ACUTE}", "character"),
        ("\N{CYRILLIC SMALL LETTER A} + 1", "character"),
        ("1\x00", "character|printable"),
        ("9**9**9", "exponent"),
        ("((9**9)**9)**9", "exponent"),
        ("2**block_x", "exponent"),
        ("1j", "decimal"),
        ("0x10", "decimal"),
        ("1_000", "decimal"),
        ("1if 1 else 2", "decimal"),
        ("9" * 900, "too large"),
        ("1e999", "too large"),
        ("True", "not a number"),
        ("(1)(2)", "plain name"),
        ("abs(x=1)", "plain name"),
        ("abs(*block_x)", "Starred"),
        ("abs(1, 2)", "takes 1 arguments, got 2"),
        ("clip(1)", "takes 3"),
        ("min(" + "1," * 9 + "1)", "2 to 8"),
        ("1 is 1", "Is is not"),
        ("block_x and block_y", "condition"),
        ("1, 2", "Tuple"),
        ("1 +", "not arithmetic"),
        (" ", "not arithmetic"),
        ("(" * 250 + "1" + ")" * 250, "not arithmetic|nested"),
        ("-" * 500 + "1", "deep"),
        ("1" + "+1" * 400, "nodes|deep"),
        ("max(" * 40 + "1" + ",1)" * 40, "deep"),
    ],
)
def test_everything_else_is_refused(text: str, says: str) -> None:
    with pytest.raises(RewardError, match=says):
        Expression(expression=text)


def test_too_long_is_refused_in_a_short_message() -> None:
    with pytest.raises(RewardError) as refusal:
        Expression(expression="x" * 1_000_000)
    assert len(str(refusal.value)) < 500


def test_unknown_names_list_the_known_ones(point: WorldModel) -> None:
    with pytest.raises(UnknownName, match="block_x, block_y, block_yaw, disagreement, pi, speed, time, vx, vy"):
        Expression(expression="height").bind(RewardContext(point.spec))
    with pytest.raises(UnknownName, match="abs, angle_diff, clip"):
        Expression(expression="eval(1)")


def test_a_constant_has_a_score_for_every_plan(point: WorldModel, rollouts: Rollouts) -> None:
    scores = Expression(expression="1/4").bind(RewardContext(point.spec)).score(rollouts)
    np.testing.assert_array_equal(scores, np.full(16, 0.25, np.float32))


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("1", ()),
        ("m", (("m", 1),)),
        ("m/s", (("m", 1), ("s", -1))),
        ("kg*m/s^2", (("kg", 1), ("m", 1), ("s", -2))),
        ("m/m", ()),
    ],
)
def test_parse_unit(text: str, unit: tuple) -> None:
    assert parse_unit(text) == unit
