"""Starts and goals: repeatable, reachable, and none that is solved before it begins."""

import numpy as np
import pytest

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.evaluation.cases import GOAL_AHEAD, GOAL_BUDGET, Case, make_cases
from worldpilot.sim.tasks import task


@pytest.fixture(scope="module")
def images() -> list[Case]:
    return make_cases("push_t", "goal-image", "novel", 6, seed=3)


@pytest.fixture(scope="module")
def world():
    world = task("push_t").world()
    yield world
    world.close()


def test_the_same_seed_gives_the_same_cases(images):
    again = make_cases("push_t", "goal-image", "novel", 3, seed=3)
    for a, b in zip(images, again, strict=False):
        assert (a.seed, a.goal_signals) == (b.seed, b.goal_signals)
        np.testing.assert_array_equal(a.prefix, b.prefix)
        np.testing.assert_array_equal(a.goal_image, b.goal_image)
    other = make_cases("push_t", "goal-image", "novel", 1, seed=4)
    assert other[0].goal_signals != images[0].goal_signals


def test_no_start_counts_as_its_goal(images, world):
    for case in images:
        case.reset(world)
        assert not case.reached(world)
        assert case.budget == GOAL_BUDGET


def test_a_start_is_bit_for_bit_the_same_whatever_ran_before(images, world):
    case = images[2]
    case.reset(world)
    first, image = world.signals(), world.observe().data
    for other in images[:2]:
        other.reset(world)
    case.reset(world)
    assert world.signals() == first
    np.testing.assert_array_equal(world.observe().data, image)


def test_the_goal_is_what_the_behaviour_reached(world):
    """The controls of the episode itself, 25 of them, solve its case."""
    from worldpilot.evaluation import cases

    entry = task("push_t")
    rng = np.random.default_rng([3, 0, cases._HELD_OUT])
    first = next(name for name in entry.behaviours if name != "expert")
    world.reset(seed=int(rng.integers(2**31)))
    controls, made = entry.behaviours[first].make()(world, rng), []
    for _, control in zip(range(entry.behaviours[first].steps), controls, strict=False):
        made.append(np.clip(control, entry.action.low, entry.action.high))
        world.drive(made[-1].astype(np.float32))
    case = make_cases("push_t", "goal-image", "novel", 1, seed=3)[0]
    case.reset(world)
    assert case.prefix is not None
    for control in made[len(case.prefix) : len(case.prefix) + GOAL_AHEAD]:
        world.drive(control.astype(np.float32))
    assert case.reached(world)
    assert case.progress(world) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("name", "signals"), [("push_t", None), ("push_cube", "cube_x,cube_y")])
def test_the_objects_signals_are_asked_for_where_the_robot_does_not_count(name, signals):
    (term,) = make_cases(name, "goal-image", "novel", 1, seed=3)[0].reward.terms
    assert (term.plugin, term.params.get("signals")) == ("goal_latent", signals)


def test_task_cases_have_goals_of_their_own_or_the_trained_one(world):
    novel = make_cases("push_t", "task", "novel", 2, seed=0)
    trained = make_cases("push_t", "task", "trained", 2, seed=0)
    assert (novel[0].options["goal"] != novel[1].options["goal"]).any()
    assert (trained[0].options["goal"] == trained[1].options["goal"]).all()
    assert novel[0].seed == trained[0].seed
    novel[0].reset(world)
    assert 0 <= novel[0].progress(world) < 0.9


@pytest.mark.parametrize(
    ("protocol", "goals", "episodes", "error"),
    [
        ("images", "novel", 1, UnknownName),
        ("task", "old", 1, UnknownName),
        ("task", "novel", 0, InvalidInput),
    ],
)
def test_what_makes_no_sense_is_refused(protocol, goals, episodes, error):
    with pytest.raises(error):
        make_cases("push_t", protocol, goals, episodes, seed=0)


def test_goals_are_of_behaviours_that_move_the_object():
    """What was added for training only must not make the protocol easier."""
    behaviours = task("push_t").behaviours
    assert {name for name in behaviours if behaviours[name].goals} == {"noisy_expert", "random_push"}
