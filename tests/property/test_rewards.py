"""Laws of rewards: specifications survive the wire, junk does not, sums are sums, tolerance falls away from 1."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldpilot.errors import WorldpilotError
from worldpilot.planners.rewards import registry
from worldpilot.planners.rewards.base import RewardContext, reduce
from worldpilot.planners.rewards.goal import GoalPose
from worldpilot.planners.rewards.tolerance import AT_MARGIN, tolerance
from worldpilot.types import ActionSpec, ModelSpec, RewardSpec, RewardTerm, Rollouts, SignalSpec

ACTION = ActionSpec(("vx",), ("m/s",), (-1.0,), (1.0,), (5.0,), control_dt=0.1, block=2)
SIGNALS = (SignalSpec("block_x", "m", 1), SignalSpec("block_y", "m", 1), SignalSpec("block_yaw", "rad", 1))
SPEC = ModelSpec("test", "test", 3, 2, 4, 1, "state", (3,), ACTION, SIGNALS)

small = st.floats(-10, 10, allow_subnormal=False)
weights = st.floats(-100, 100, allow_subnormal=False)
when = st.sampled_from(["best", "last", "mean"])


def terms_of(plugin: str, params: st.SearchStrategy[dict]) -> st.SearchStrategy[RewardTerm]:
    return st.builds(RewardTerm, st.just(plugin), weights, params)


intervals = st.tuples(small, small).map(sorted)
terms = st.one_of(
    terms_of("smoothness", st.just({})),
    terms_of("goal_pose", st.fixed_dictionaries({"x": small, "y": small, "when": when})),
    terms_of("tolerance", intervals.map(lambda ends: {"signal": "block_x", "lower": ends[0], "upper": ends[1]})),
    terms_of("expression", st.floats(0, 9).map(lambda factor: {"expression": f"block_x * {factor!r}"})),
)
specs = st.builds(RewardSpec, st.lists(terms, min_size=1, max_size=6).map(tuple), st.text("abc é", max_size=9))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=9), inner, max_size=4)),
    max_leaves=12,
)


def rollouts(seed: int, n: int = 5) -> Rollouts:
    rng = np.random.default_rng(seed)
    signals = {s.name: rng.normal(size=(n, 4)).astype(np.float32) for s in SIGNALS}
    latents = rng.normal(size=(n, 4, 3)).astype(np.float32)
    actions = rng.uniform(-1, 1, (n, 4, 2)).astype(np.float32)
    return Rollouts(latents, actions, signals, np.zeros((n, 4), np.float32), ACTION, np.zeros(1, np.float32))


@settings(deadline=None)
@given(specs)
def test_specifications_survive_the_wire(spec: RewardSpec) -> None:
    assert registry.parse_spec(json.dumps(registry.to_dict(spec))) == spec


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200), json_values.map(json.dumps)))
def test_junk_is_refused_with_a_reason(junk: str | bytes) -> None:
    with pytest.raises(WorldpilotError) as refusal:
        registry.parse_spec(junk)
    assert 10 < len(str(refusal.value)) < 1000


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["goal_pose", "goal_latent", "smoothness", "tolerance", "expression"]), json_values, json_values)
def test_junk_in_the_right_place_is_refused_or_scores(plugin: str, params: object, weight: object) -> None:
    try:
        spec = registry.parse_spec({"terms": [{"plugin": plugin, "weight": weight, "params": params}]})
        reward = registry.build(spec, RewardContext(SPEC, np.zeros(3, np.float32)))
    except WorldpilotError:
        return
    assert reward.score(rollouts(0)).shape == (5,)


@settings(deadline=None)
@given(specs, st.integers(0, 99))
def test_the_score_is_linear_in_the_weights(spec: RewardSpec, seed: int) -> None:
    future, context = rollouts(seed), RewardContext(SPEC)
    whole = registry.build(spec, context).score(future)
    alone = [
        registry.build(RewardSpec((RewardTerm(t.plugin, 1.0, t.params),)), context).score(future) for t in spec.terms
    ]
    expected = sum(t.weight * np.float64(score) for t, score in zip(spec.terms, alone, strict=True))
    scale = sum(abs(t.weight) * np.abs(score) for t, score in zip(spec.terms, alone, strict=True)) + 1
    assert np.all(np.abs(whole - expected) <= 1e-5 * scale)


@settings(deadline=None)
@given(st.integers(0, 99), st.floats(-3, 3), st.integers(-3, 3))
def test_a_goal_angle_does_not_count_turns(seed: int, yaw: float, turns: int) -> None:
    future = rollouts(seed)
    once, more = (GoalPose(x=0, y=0, yaw=angle).score(future) for angle in (yaw, yaw + 2 * np.pi * turns))
    np.testing.assert_allclose(once, more, atol=1e-4)


@given(st.integers(0, 999), when, st.floats(0, 1))
def test_a_step_that_gets_better_never_lowers_the_score(seed: int, when, discount: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(1, 5)).astype(np.float32)
    better = values.copy()
    better[0, rng.integers(5)] += np.float32(rng.uniform(0, 2))
    assert reduce(better, when, discount)[0] >= reduce(values, when, discount)[0] - 1e-5


sigmoid = st.sampled_from(["gaussian", "hyperbolic", "long_tail", "linear", "quadratic", "cosine"])


@given(st.lists(small, min_size=2, max_size=9), small, small, st.floats(0.01, 5), sigmoid)
def test_tolerance_falls_from_one_with_distance(xs, a: float, b: float, margin: float, kind) -> None:
    lower, upper = min(a, b), max(a, b)
    x = np.asarray(xs, np.float32)
    values = tolerance(x, lower, upper, margin, kind)
    distance = np.maximum(np.maximum(lower - x, x - upper), 0)
    assert ((values >= 0) & (values <= 1)).all()
    assert (values[distance == 0] == 1).all()
    assert (values[distance > margin * 1.001] <= AT_MARGIN).all()
    order = np.argsort(distance)
    assert (np.diff(values[order]) <= 1e-6).all()


exact = st.integers(-5120, 5120).map(lambda i: i / 1024)  # sums of these are exact, in float32 too


@given(st.lists(exact, min_size=1, max_size=9), exact, exact.map(abs), st.floats(0, 5), sigmoid, exact)
def test_tolerance_moves_with_its_bounds(xs, lower: float, width: float, margin: float, kind, shift: float) -> None:
    x = np.asarray(xs, np.float32)
    margin += 0.01
    here = tolerance(x, lower, lower + width, margin, kind)
    there = tolerance(x + shift, lower + shift, lower + width + shift, margin, kind)
    np.testing.assert_allclose(here, there, atol=1e-6)
