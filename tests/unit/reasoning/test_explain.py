"""Answers are made of the figures, and of nothing else."""

from dataclasses import replace

import pytest

from worldpilot.calibration.thresholds import CHANNELS
from worldpilot.reasoning import explain
from worldpilot.reasoning.expand import expand
from worldpilot.reasoning.schema import QUESTIONS
from worldpilot.types import Alert, AlertLevel

HOLD = Alert(12.5, AlertLevel.HOLD, "surprise", 90.0, 60.0, 11.9, "hold: surprise")


def test_a_hold_is_explained_by_its_alert(scene):
    answer = explain.why_stopped(replace(scene, alert=HOLD))
    for part in ("holds the robot", "surprise", "score is 90", "threshold 60", "1.5 times", "crossed 0.60 s before"):
        assert part in answer


def test_a_caution_is_not_called_a_hold(scene):
    answer = explain.why_stopped(replace(scene, alert=replace(HOLD, level=AlertLevel.CAUTION, channel="drift")))
    assert "slowed the robot down because of drift: predictions had been worse than usual" in answer
    assert set(explain.CHANNELS) == set(CHANNELS)


def test_figures_that_are_missing_are_not_made_up(scene):
    alert = replace(HOLD, channel="a plugin's", score=float("nan"), threshold=float("nan"), since=99.0)
    assert explain.why_stopped(replace(scene, alert=alert)) == "The monitor holds the robot because of a plugin's."


def test_without_an_alert_the_reward_explains(scene):
    assert "may move" in explain.why_stopped(scene)
    assert "no reward is active" in explain.why_stopped(replace(scene, reward=None))
    stop = expand({"goals": ["stop"]}, scene)[0]
    assert "asks for it" in explain.why_stopped(replace(scene, reward=stop))


def test_an_alert_that_is_over_is_told_after_what_is_the_case_now(scene):
    stop = expand({"goals": ["stop"]}, scene)[0]
    answer = explain.why_stopped(replace(scene, alert=HOLD, alert_age=3.25, reward=stop))
    assert answer.index("asks for it") < answer.index("held the robot because of surprise")
    assert "score was 90" in answer
    assert answer.endswith("it ended 3.2 s ago.")


def test_the_planners_own_reason_to_hold_is_given(scene):
    answer = explain.why_stopped(replace(scene, hold="no latent from the world model for 0.40 s"))
    assert "the planner holds the robot: no latent from the world model for 0.40 s." in answer


def test_the_state_is_where_things_are(scene):
    answer = explain.state(scene)
    assert "block is at x = 2.0 cm, y = -4.0 cm, yaw = 29°" in answer
    assert "gripper is at x = 10.0 cm, y = 10.0 cm, z = 5.0 cm" in answer
    assert "pitch is 0.1 rad" in answer
    assert "flow" not in answer  # not heard


def test_the_reward_is_named_with_its_terms(scene):
    assert explain.reward(scene) == "Centre it. The reward in force has the terms goal_pose (1), smoothness (1)."


def test_abilities_are_those_of_the_scene(scene):
    assert "move or turn the block; move the gripper" in explain.abilities(scene)
    assert "block" not in explain.abilities(replace(scene, plugins=frozenset()))
    assert "goal image" in explain.abilities(replace(scene, has_goal=True))


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_has_an_answer(scene, question):
    assert explain.answer(question, scene).endswith(".")
