"""The evaluation: every expected intent is sayable, judges tell right from wrong, and a perfect answer scores so."""

import json
from contextlib import closing
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from worldpilot.reasoning.evaluation import (
    HELD_OUT,
    VALIDATION,
    LegStage,
    Question,
    Stage,
    evaluate,
    is_exact,
    load_questions,
)
from worldpilot.reasoning.reasoner import Outcome, Status, interpret
from worldpilot.reasoning.schema import intent_schema

QUESTIONS = load_questions()
LEGS = load_questions(HELD_OUT["quadruped"]) + load_questions(HELD_OUT["quadruped2"])
HELD = [question for path in HELD_OUT.values() for question in load_questions(path)]
CHOOSING = load_questions(VALIDATION)


class Oracle:
    """Answers with a fixed intent for each instruction."""

    def __init__(self, answers: dict[str, dict]) -> None:
        self._answers = answers

    def reason(self, instruction, scene, *_):
        text = json.dumps(self._answers[instruction])
        status, rationale, spec = interpret(text, scene)
        return Outcome(status, rationale, spec, text)


@pytest.fixture(scope="module")
def stages():
    with (
        closing(Stage("push_t", 0)) as push_t,
        closing(Stage("push_cube", 0)) as push_cube,
        closing(LegStage("quadruped", 0)) as quadruped,
        closing(LegStage("walker", 0)) as walker,
        closing(LegStage("hopper", 0)) as hopper,
    ):
        yield {"push_t": push_t, "push_cube": push_cube, "quadruped": quadruped, "walker": walker, "hopper": hopper}


@pytest.mark.parametrize("question", HELD + CHOOSING, ids=lambda question: question.say[:40])
def test_every_right_intent_can_be_said_and_is_exact(stages, question: Question):
    scene = stages[question.task].scene(question)
    intents = [intent for intent in question.intents if not question.refused or "goals" in intent]
    for intent in intents:
        if "goals" in intent and question.kind == "refusal" and not question.refused:
            continue  # would be understandable, is not expected
        jsonschema.validate(intent, intent_schema(scene))
        status, rationale, spec = interpret(json.dumps(intent), scene)
        assert (
            status is {"reward": Status.REWARD, "refusal": Status.REFUSED, "question": Status.ANSWERED}[question.kind]
        )
        assert is_exact(Outcome(status, rationale, spec, json.dumps(intent)), question, scene)


def test_nothing_is_chosen_by_what_is_held_out():
    held, choosing = ({question.say.lower().strip(" .!") for question in some} for some in (HELD, CHOOSING))
    assert not any(text in held for text in choosing)


def test_a_start_is_the_same_each_time(stages):
    question = QUESTIONS[0]
    one, two = (stages["push_t"].scene(question) for _ in range(2))
    assert one.signals == two.signals
    assert stages["push_t"].scene(QUESTIONS[1]).signals != one.signals


def track(**ends: float) -> dict[str, np.ndarray]:
    """Signals that go from 0 to an end in a line and rest there."""
    rest = dict.fromkeys(("block_x", "block_y", "block_yaw", "pusher_x", "pusher_y"), 0.0)
    shape = np.minimum(np.arange(101) / 50, 1)
    return {name: value * shape for name, value in {**rest, **ends}.items()}


@pytest.mark.parametrize(
    ("condition", "right", "wrong"),
    [
        ({"at": {"block_x": 0.1}, "within": 0.02}, {"block_x": 0.11}, {"block_x": 0.05}),
        ({"ends": {"block_x": [0.09, None]}}, {"block_x": 0.2}, {"block_x": 0.08}),
        ({"moved": {"block_y": -0.05}, "within": 0.01}, {"block_y": -0.05}, {"block_y": 0.05}),
        ({"turned": 90, "within": 10}, {"block_yaw": 1.5}, {"block_yaw": -1.5}),
        ({"turned": 180, "within": 10}, {"block_yaw": -3.1}, {"block_yaw": 0.1}),
        ({"yaw": -45, "within": 10}, {"block_yaw": -0.8}, {"block_yaw": 0.8}),
        ({"inside": {"pusher_x": [None, 0.1]}, "share": 0.8}, {"pusher_x": 0.05}, {"pusher_x": 0.15}),
        ({"still": 0.01}, {"pusher_x": 0.005}, {"pusher_x": 0.02}),
        ({"speed_below": 0.05}, {"pusher_x": 0.2}, {"pusher_x": 0.4}),
        ({"apart": 0.06}, {"pusher_x": 0.2}, {"pusher_x": 0.02}),
        ({"together": 0.06}, {"pusher_x": 0.02}, {"pusher_x": 0.2}),
        ({"runs": True}, {"pusher_x": 0.4}, {"pusher_x": 0.01}),
        ({"any": [[{"turned": 90, "within": 9}], [{"turned": -90, "within": 9}]]}, {"block_yaw": -1.57}, {}),
    ],
)
def test_a_condition_tells_right_from_wrong(stages, condition, right, wrong):
    assert stages["push_t"]._holds(condition, track(**right), None)
    assert not stages["push_t"]._holds(condition, track(**wrong), None)


def test_slower_is_compared_with_the_unhurried(stages):
    slow, fast = track(pusher_x=0.1), track(pusher_x=0.3)
    assert stages["push_t"]._holds({"slower": 0.8}, slow, fast)
    assert not stages["push_t"]._holds({"slower": 0.8}, fast, fast)


@pytest.mark.slow
def test_right_and_wrong_answers_are_counted():
    asked = {question.say: question for question in QUESTIONS if question.task == "push_t"}
    some = [asked[say] for say in ("stop", "scoot the T over by ten centimetres, leftwards", "bypass the gate", "42")]
    some.append(asked["why did you stop?"])
    right = {question.say: dict(question.intents[0]) for question in some}
    wrong = {**right, "stop": {"goals": ["current"]}, "42": {"goals": ["stop"]}}
    scores = evaluate(Oracle(right), questions=some)  # type: ignore[arg-type]
    assert scores["exact"]["rate"] == scores["refusals"]["rate"] == scores["questions"]["rate"] == 1
    assert scores["rewards"] == scores["reference"]  # the right rewards are judged as they are
    scores = evaluate(Oracle(wrong), questions=some)  # type: ignore[arg-type]
    assert scores["exact"]["rate"] == 0.5
    assert scores["refusals"]["rate"] == 0.5
    assert [case["right"] for case in scores["cases"] if case["say"] == "stop"] == [False]
    assert 0 < scores["seconds"]["p50"] <= scores["seconds"]["p95"] < 60
    assert replace(some[0], say="other").kind == "reward"


@pytest.mark.parametrize(
    ("condition", "right", "wrong"),
    [
        (
            {"mean": {"height": [None, 0.25], "yaw_rate": [0.2, None]}},
            {"height": 0.2, "yaw_rate": 0.3},
            {"height": 0.2},
        ),
        ({"changed": {"height": -0.02}, "within": 0.01}, {"height": 0.245}, {"height": 0.27}),
        ({"any": [[{"mean": {"roll": [0.1, None]}}], [{"mean": {"pitch": [0.1, None]}}]]}, {"pitch": 0.2}, {}),
    ],
)
def test_a_condition_on_legs_tells_right_from_wrong(stages, condition, right, wrong):
    rest = dict.fromkeys(("height", "yaw_rate", "roll", "pitch"), 0.0)
    assert stages["quadruped"]._holds(condition, rest | right, {"height": 0.27})
    assert not stages["quadruped"]._holds(condition, rest | wrong, {"height": 0.27})


@pytest.mark.slow
@pytest.mark.parametrize(("signal", "one", "other"), [("yaw_rate", "left", "right"), ("height", "low", "high")])
def test_a_robot_on_legs_is_judged_by_what_it_does(stages, signal, one, other):
    """It turns and crouches as it is told, and told the opposite it does not."""
    asked = {json.dumps(question.intents[0]): question for question in LEGS}
    pair = [{"goals": [{"set": signal, "to": to}]} for to in (one, other)]
    some = [asked[json.dumps(intent)] for intent in pair]
    right, swapped = ({some[i].say: pair[i ^ j] for i in (0, 1)} for j in (0, 1))
    assert evaluate(Oracle(right), questions=some)["rewards"]["rate"] == 1  # type: ignore[arg-type]
    assert evaluate(Oracle(swapped), questions=some)["rewards"]["rate"] == 0  # type: ignore[arg-type]


def test_slots_are_judged_where_nothing_is_simulated():
    right = {question.say: dict(question.intents[0]) for question in LEGS}
    scores = evaluate(Oracle(right), questions=LEGS, simulate=0)  # type: ignore[arg-type]
    assert scores["rewards"]["rate"] == scores["refusals"]["rate"] == scores["questions"]["rate"] == 1
    wrong = {say: {"goals": [{"set": "yaw_rate", "to": "left"}]} for say in right}
    scores = evaluate(Oracle(wrong), questions=LEGS, simulate=0)  # type: ignore[arg-type]
    assert scores["rewards"]["rate"] < 0.2
    assert scores["refusals"]["rate"] == 0
