"""Worlds whose controls and observations are late by any share of a control period."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.sim.delays import ControlLine, ObservationLine
from worldpilot.sim.push_cube import PushCube
from worldpilot.sim.push_t import PushT
from worldpilot.sim.quadruped import Quadruped
from worldpilot.system import System

FAR = {"block": [0.1, 0.1, 0.0], "pusher": [-0.2, -0.2]}


@pytest.mark.parametrize(("seconds", "whole", "share"), [(0.0, 0, 0.0), (0.3, 3, 0.0), (0.25, 2, 0.5), (0.04, 0, 0.4)])
def test_controls_arrive_after_whole_periods_and_a_share(seconds: float, whole: int, share: float) -> None:
    line = ControlLine(0.1, np.zeros(1))
    line.delay(seconds)
    sent = [np.zeros(1)] * (whole + 1) + [np.array([i]) for i in range(1, 6)]
    for step in range(5):
        before, after, found = line.arriving(sent[whole + 1 + step])
        assert (before, after, found) == (sent[step], sent[step + 1], pytest.approx(share))


def test_observations_are_those_of_a_moment_ago() -> None:
    line = ObservationLine(0.1, 10)
    line.delay(0.13)
    substeps, seen = [0], []

    def look() -> int:
        return substeps[0]

    for _ in range(5):
        seen.append(line.deliver(look))
        for substep in range(1, 11):
            substeps[0] += 1
            line.expose(substep, look)
    assert seen == [0, 0, 7, 17, 27]


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), 11.0])
def test_what_is_no_delay_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidInput, match="between 0 and 10"):
        ControlLine(0.1, np.zeros(1)).delay(seconds)
    with pytest.raises(InvalidInput, match="between 0 and 10"):
        ObservationLine(0.1, 10).delay(seconds)


def path(world: PushT, delay: float, controls: np.ndarray) -> np.ndarray:
    world.reset(seed=0, options=FAR)
    world.inject("delay", seconds=delay)
    positions = [world.pusher()]
    for control in controls:
        world.drive(control)
        positions.append(world.pusher())
    return np.array(positions)


def test_a_push_late_by_a_share_of_a_period_comes_that_much_later() -> None:
    with closing(PushT(randomise=False, render_images=False)) as world:
        controls = np.repeat([[0.2, 0.1]], 8, 0)
        prompt, late = path(world, 0.0, controls), path(world, 0.14, controls)
    # at full speed it is 0.14 s times the velocity behind
    assert prompt[-1] - late[-1] == pytest.approx([0.028, 0.014], abs=2e-4)
    assert late[1] == pytest.approx(prompt[0], abs=1e-6)


def test_whole_periods_are_the_controls_shifted() -> None:
    rng = np.random.default_rng(0)
    controls = rng.uniform(-0.2, 0.2, (12, 2))
    with closing(PushT(randomise=False, render_images=False)) as world:
        late = path(world, 0.2, controls)
        shifted = path(world, 0.0, np.concatenate([np.zeros((2, 2)), controls[:-2]]))
    assert np.array_equal(late, shifted)


def test_a_late_image_is_the_one_taken_then() -> None:
    controls = np.random.default_rng(1).uniform(-0.25, 0.25, (6, 2))

    def frames(system: System) -> list[np.ndarray]:
        with closing(PushT(randomise=False, system=system)) as world:
            world.reset(seed=3)
            seen = [world.observe().data]
            for control in controls:
                world.drive(control)
                seen.append(world.observe().data)
            return seen

    prompt, late = frames(System("push_t")), frames(System("push_t", camera_delay=0.2))
    assert all(np.array_equal(late[i + 2], prompt[i]) for i in range(5))
    between = frames(System("push_t", camera_delay=0.05))
    assert not any(np.array_equal(between[3], frame) for frame in prompt[2:4])


@pytest.fixture
def robot() -> Iterator[Quadruped]:
    world = Quadruped(randomise=False, system=System("quadruped", 0.03, 0.05, {"payload": 3.0, "friction": 0.5}))
    yield world
    world.close()


def test_a_system_is_there_from_the_start_and_after_a_fault(robot: Quadruped) -> None:
    def first_motion() -> list[int]:
        robot.reset(seed=0)
        rest = robot.observe().data
        moved = [0, 0]
        names = [i for i, name in enumerate(robot.state_names) if name.startswith("q_")]
        for step in range(1, 8):
            robot.drive(np.full(12, 0.3))
            true, seen = robot._state(), robot.observe().data
            moved = [
                at or step * (np.abs(state - rest)[names].max() > 0.02)
                for at, state in zip(moved, (true, seen), strict=True)
            ]
        return moved

    assert first_motion() == [2, 5]  # after 0.03 s; seen 0.05 s later
    robot.inject("delay", seconds=0.2)
    robot.inject("payload", mass=9.0)
    robot.clear_faults()
    mass = robot._client.getDynamicsInfo(robot._body_id, robot._trunk)[0]
    with closing(Quadruped(randomise=False)) as bare:
        assert mass == pytest.approx(bare._client.getDynamicsInfo(bare._body_id, bare._trunk)[0] + 3.0)
    assert first_motion() == [2, 5]


def test_a_moment_of_a_late_world_can_be_brought_back(robot: Quadruped) -> None:
    rng = np.random.default_rng(0)
    first, controls = rng.normal(0, 0.1, (5, 12)), rng.normal(0, 0.1, (6, 12))

    def go() -> list[np.ndarray]:
        seen = []
        for control in controls:
            robot.drive(control)
            seen.append(robot.observe().data)
        return seen

    robot.reset(seed=0)
    for control in first:
        robot.drive(control)
        robot.observe()
    moment = robot.snapshot()
    once = go()
    robot.restore(moment)
    assert np.array_equal(once, go())


@pytest.mark.parametrize("world", [PushT, PushCube])
def test_a_measured_friction_is_not_drawn_and_unknown_parameters_are_refused(world: type[PushT | PushCube]) -> None:
    with closing(world(render_images=False, system=System("x", parameters={"friction": 0.31, "mass": 0.4}))) as made:
        made.reset(seed=5)
        body = made._block if isinstance(made, PushT) else made._cube
        assert made._client.getDynamicsInfo(body, -1)[:2] == pytest.approx([0.4, 0.31])
    with pytest.raises(UnknownName, match="friction, mass"):
        world(render_images=False, system=System("x", parameters={"colour": 0.31}))
