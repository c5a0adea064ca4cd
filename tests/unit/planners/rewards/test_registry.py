"""From data to a reward: everything hostile or mistaken is refused with a reason."""

import importlib.metadata
import json
import time
from dataclasses import dataclass, replace
from typing import Any, Self

import jsonschema
import numpy as np
import pytest

from worldpilot.contracts import WorldModel
from worldpilot.errors import RewardError, UnknownName
from worldpilot.planners.rewards import registry
from worldpilot.planners.rewards.base import RewardContext, RewardPlugin, param
from worldpilot.planners.rewards.composite import CompositeReward
from worldpilot.types import FloatArray, RewardSpec, RewardTerm, Rollouts

POSE = {"plugin": "goal_pose", "params": {"x": 0.1, "y": 0}}


def spec(*terms: dict[str, Any], **more: Any) -> str:
    return json.dumps({"terms": list(terms), **more})


def test_the_shipped_plugins_are_found() -> None:
    assert {"expression", "goal_latent", "goal_pose", "smoothness", "tolerance"} <= set(registry.available())


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "not JSON"),
        ("[]", "is not of type 'object'"),
        ("null", "is not of type 'object'"),
        ("{}", "'terms' is a required property"),
        (b"\xff\xfe", "UTF-8"),
        ("[" * 5000, "nested"),
        ('{"terms": ' + "[" * 500 + "]" * 500 + "}", "nested deeper"),
        (spec(), "should be non-empty|too short"),
        (spec(*[POSE] * 33), "too long"),
        (" " * (64 * 1024 + 1), "65536 bytes"),
        ('{"terms": [{"plugin": "goal_latent", "weight": NaN}]}', "finite, got NaN"),
        ('{"terms": [{"plugin": "goal_latent", "weight": -Infinity}]}', "finite, got -Infinity"),
        ('{"terms": [{"plugin": "goal_latent", "weight": 1e999}]}', "finite, got inf"),
        ('{"terms": [{"plugin": "goal_latent", "weight": 1' + "0" * 400 + "}]}", "maximum"),
        ('{"terms": [{"plugin": "goal_latent", "weight": 1' + "0" * 5000 + "}]}", "not JSON|digits"),
        ('{"terms": [], "terms": []}', "'terms' comes twice"),
        (spec({"plugin": "goal_latent", "weight": True}), "True is not of type 'number'"),
        (spec({"plugin": "goal_latent", "weight": "2"}), "'2' is not of type 'number'"),
        (spec({"plugin": "goal_latent", "colour": 1}), "'colour' was unexpected"),
        (spec({"plugin": "goal_pose", "params": {"x": 0}}), "'y' is a required property"),
        (spec({"plugin": "goal_pose", "params": {"x": 0, "y": 0, "z": 0}}), "'z' was unexpected"),
        (spec({"plugin": "goal_pose", "params": {"x": "0", "y": 0}}), "GoalPose.x: '0' is not of type 'number'"),
        (spec({"plugin": "goal_pose", "params": {"x": 1e6, "y": 0}}), "maximum of 100"),
        (spec({"plugin": "goal_pose", "params": {"x": 0, "y": 0, "discount": -1}}), "minimum of 0"),
        (spec({"plugin": "goal_pose", "params": {"x": 0, "y": 0, "when": "now"}}), "'best', 'last', 'mean'"),
        (spec({"plugin": "goal_latent", "params": {"goal": [0, 0]}}), "'goal' was unexpected"),
        (spec(POSE, name="a\u0000b"), "printable"),
        (spec(POSE, name="\ud800"), "printable"),
        (spec(POSE, name="n" * 129), "too long"),
    ],
)
def test_refusals_say_why(source: str | bytes, says: str) -> None:
    with pytest.raises(RewardError, match=says) as refusal:
        registry.parse_spec(source)
    assert len(str(refusal.value)) < 500


def test_an_unknown_plugin_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownName, match="expression, goal_latent, goal_pose, smoothness, tolerance"):
        registry.parse_spec(spec({"plugin": "os.system"}))


def test_non_finite_numbers_in_mappings_are_refused_too() -> None:
    with pytest.raises(RewardError, match="finite"):
        registry.parse_spec({"terms": [{"plugin": "goal_pose", "params": {"x": float("nan"), "y": 0}}]})


def test_defaults_and_round_trip() -> None:
    parsed = registry.parse_spec(spec(POSE, {"plugin": "smoothness", "weight": 0.5}, name="there"))
    smooth = RewardTerm("smoothness", 0.5, {})
    assert parsed == RewardSpec((RewardTerm("goal_pose", 1.0, {"x": 0.1, "y": 0}), smooth), "there")
    assert registry.parse_spec(json.dumps(registry.to_dict(parsed))) == parsed


def test_ids_tell_rewards_apart() -> None:
    one, other = registry.parse_spec(spec(POSE)), registry.parse_spec(spec({**POSE, "weight": 2}))
    assert registry.reward_id(one) != registry.reward_id(other)
    assert registry.reward_id(one) == registry.reward_id(registry.parse_spec(registry.to_dict(one)))


def test_a_family_is_what_a_reward_reads_whatever_its_numbers() -> None:
    def family(*terms: dict[str, Any]) -> str:
        return registry.family(registry.parse_spec(spec(*terms)))

    fast, slow = (
        {"plugin": "expression", "weight": w, "params": {"expression": f"-abs(speed - {v} * pi) + min(yaw_rate, {v})"}}
        for w, v in ((1.0, 2.0), (5.0, 0.1))
    )
    assert family(fast) == family(slow) == family(slow, fast) == "expression(speed, yaw_rate)"
    assert family(POSE, {"plugin": "goal_latent"}) == "goal_latent + goal_pose(block_x, block_y)"
    assert family(POSE) != family({"plugin": "goal_pose", "params": {"x": 0.1, "y": 0, "yaw": 1}})


def test_the_schema_accepts_and_refuses_what_parsing_does() -> None:
    schema = registry.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(json.loads(spec(POSE, {"plugin": "smoothness"})))
    for bad in ({"plugin": "nope"}, {"plugin": "goal_pose"}, {"plugin": "goal_pose", "params": {"x": 0, "y": 1000}}):
        assert not validator.is_valid(json.loads(spec(bad)))
    pose = next(t for t in schema["properties"]["terms"]["items"]["oneOf"] if t["title"] == "goal_pose")
    assert pose["properties"]["params"]["properties"]["yaw"]["type"] == ["number", "null"]
    assert "[m]" in pose["properties"]["params"]["properties"]["x"]["description"]


class TestBuildAndDryRun:
    def test_scores_are_the_weighted_sum_of_the_terms(self, point: WorldModel, rollouts: Rollouts) -> None:
        parsed = registry.parse_spec(spec(POSE, {"plugin": "smoothness", "weight": 0.5}, POSE))
        reward = registry.build(parsed, RewardContext(point.spec))
        terms = reward.terms(rollouts)
        assert list(terms) == ["goal_pose", "smoothness", "goal_pose_2"]
        assert all(values.shape == (16,) for values in terms.values())
        np.testing.assert_allclose(reward.score(rollouts), sum(terms.values()), rtol=1e-6)
        assert registry.dry_run(reward, rollouts, budget_s=1.0) < 1.0

    def test_not_finite(self, point: WorldModel, rollouts: Rollouts) -> None:
        term = {"plugin": "expression", "params": {"expression": "1 / (block_x - block_x)"}}
        reward = registry.build(registry.parse_spec(spec(term)), RewardContext(point.spec))
        with pytest.raises(RewardError, match="16 of 16 scores"):
            registry.dry_run(reward, rollouts, budget_s=1.0)

    def test_too_slow(self, rollouts: Rollouts) -> None:
        class Slow:
            def score(self, rollouts: Rollouts) -> FloatArray:
                time.sleep(0.02)
                return np.zeros(len(rollouts), np.float32)

        with pytest.raises(RewardError, match=r"budget is 5.0 ms"):
            registry.dry_run(Slow(), rollouts, budget_s=0.005)

    def test_wrong_shape(self, rollouts: Rollouts) -> None:
        class Scalar:
            def score(self, rollouts: Rollouts) -> FloatArray:
                return np.zeros((), np.float32)

        with pytest.raises(RewardError, match=r"shape \(16,\), got \(\)"):
            registry.dry_run(Scalar(), rollouts, budget_s=1.0)
        reward = CompositeReward(RewardSpec((RewardTerm("scalar"),)), (Scalar(),))
        with pytest.raises(RewardError, match=r"scalar must return .* got \(\)"):
            reward.score(rollouts)

    def test_a_plugin_that_raises(self, rollouts: Rollouts) -> None:
        class Broken:
            def score(self, rollouts: Rollouts) -> FloatArray:
                return rollouts.signals["no such signal"]

        reward = CompositeReward(RewardSpec((RewardTerm("broken"),)), (Broken(),))
        with pytest.raises(RewardError, match="broken failed: KeyError"):
            registry.dry_run(reward, rollouts, budget_s=1.0)


@dataclass(frozen=True)
class StayLeft(RewardPlugin):
    """Keep the block left of a line."""

    x: float = param(0.0, low=-1, high=1, help="where the line is [m]")
    strict: bool = param(False, help="no credit beyond the line")
    times: int = param(1, low=1, high=3, help="how often it counts")

    def needs(self) -> tuple[str, ...]:
        return ("block_x",)

    def bind(self, context: RewardContext) -> Self:
        if self.strict:
            raise KeyError("strict")  # a mistake in a plugin
        return super().bind(context)

    def score(self, rollouts: Rollouts) -> FloatArray:
        return self.times * np.minimum(self.x - rollouts.signals["block_x"], 0)


class TestOnesOwnPlugin:
    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch: pytest.MonkeyPatch):
        """As if two packages with entry points were installed, one of them broken."""
        entries = [
            importlib.metadata.EntryPoint("stay_left", f"{__name__}:StayLeft", registry.GROUP),
            importlib.metadata.EntryPoint("broken", "worldpilot.no_such_module:Nothing", registry.GROUP),
        ]
        monkeypatch.setattr(registry, "entry_points", lambda group: entries)
        registry.available.cache_clear()
        yield
        registry.available.cache_clear()

    def test_is_found_checked_and_scored(self, point: WorldModel, rollouts: Rollouts) -> None:
        assert set(registry.available()) == {"stay_left"}
        term = {"plugin": "stay_left", "params": {"x": 0, "times": 2}}
        reward = registry.build(registry.parse_spec(spec(term)), RewardContext(point.spec))
        expected = 2 * np.minimum(-rollouts.signals["block_x"], 0).mean(axis=1)
        np.testing.assert_allclose(reward.score(rollouts), expected, rtol=1e-6)

    @pytest.mark.parametrize("params", [{"x": 2}, {"times": 1.5}, {"times": 4}, {"strict": 1}])
    def test_its_parameters_are_checked_from_its_fields(self, params: dict[str, Any]) -> None:
        with pytest.raises(RewardError, match="StayLeft"):
            registry.parse_spec(spec({"plugin": "stay_left", "params": params}))
        with pytest.raises(RewardError, match="StayLeft"):
            StayLeft(**params)

    def test_its_mistakes_are_refusals(self, point: WorldModel) -> None:
        parsed = registry.parse_spec(spec({"plugin": "stay_left", "params": {"strict": True}}))
        with pytest.raises(RewardError, match="stay_left can't be made: KeyError"):
            registry.build(parsed, RewardContext(point.spec))


def test_plugins_check_their_parameters_when_made() -> None:
    with pytest.raises(RewardError, match="x"):
        replace(StayLeft(), x=5)
