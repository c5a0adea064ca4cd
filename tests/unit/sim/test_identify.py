"""Driving that tells a robot's parameters, and playing what was recorded again."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import numpy as np
import pytest

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.sim.identify import PushTReplay, QuadrupedReplay, Segment, hits, stances
from worldpilot.sim.planar import Walker
from worldpilot.sim.push_t import ACTION, PushT
from worldpilot.sim.quadruped import Quadruped
from worldpilot.system import System

Recording = tuple[np.ndarray, dict[str, np.ndarray]]
BLOCK = {"mass": 0.3, "friction": 0.4}


def push(parameters: dict[str, float], steps: int, delay: float = 0.0) -> Recording:
    """Controls (T, 2) and signals of a block that is hit."""
    with closing(PushT(render_images=False, system=System("push_t", delay, parameters=parameters))) as world:
        world.reset(seed=4)
        world.senses = True
        controls, rows = [], [{**world.signals(), **world.sensors()}]
        for control in islice(hits(world, np.random.default_rng(0)), steps):
            controls.append(np.clip(control, ACTION.low, ACTION.high))
            world.drive(controls[-1])
            rows.append({**world.signals(), **world.sensors()})
    return np.array(controls), {name: np.array([row[name] for row in rows]) for name in rows[0]}


def differences(replay: PushTReplay | QuadrupedReplay, found: dict[str, float], cut: list[Segment], names: list[str]):
    played = replay.play(found, cut, names)
    return np.concatenate([p - s.measured for p, s in zip(played, cut, strict=True)])


@pytest.fixture(scope="module")
def recording() -> Recording:
    return push(BLOCK, 250)


@pytest.fixture
def replay() -> Iterator[PushTReplay]:
    with closing(PushTReplay()) as replay:
        yield replay


def test_the_block_is_hit_and_left_alone_in_turn(recording: Recording, replay: PushTReplay) -> None:
    controls, signals = recording
    segments, names = replay.cut(controls, signals, None)
    assert names == ["block_x", "block_y", "block_yaw", "force_x", "force_y"]
    assert len(segments) >= 6
    for segment in segments:
        assert np.abs(np.diff(segment.measured[:, :2], axis=0)).max() > 1e-3  # the block moves
        assert segment.controls[-1] == pytest.approx(0)  # and rests in the end
        rests = segment.measured[len(segment.controls) :]
        assert np.isnan(rests[:, 3:]).all()
        assert not len(rests) or np.ptp(rests[:, :2], axis=0).max() < 1e-3
    assert np.abs([signals["block_x"], signals["block_y"]]).max() < 0.2


@pytest.mark.parametrize("delay", [0.0, 0.07])
def test_a_block_played_again_moves_as_it_did_with_its_own_parameters_only(delay: float) -> None:
    controls, signals = push(BLOCK, 160, delay)
    with closing(PushTReplay(System("push_t", delay))) as replay:
        segments, names = replay.cut(controls, signals, None)
        right = differences(replay, BLOCK, segments, names)
        for wrong in ({"mass": 0.2, "friction": 0.4}, {"mass": 0.3, "friction": 0.6}):
            other = differences(replay, wrong, segments, names)
            assert np.nanstd(other[:, 3:]) > 5 * np.nanstd(right[:, 3:])
    assert np.median(np.abs(right[:, :2])) < 2e-4


def test_where_a_block_lies_is_known_better_than_it_is_measured(recording: Recording, replay: PushTReplay) -> None:
    controls, signals = recording
    rng, errors = np.random.default_rng(0), []
    poses = ("block_x", "block_y")
    noisy = signals | {name: signals[name] + rng.normal(0, 3e-4, len(controls) + 1) for name in poses}
    for segment in replay.cut(controls, noisy, None)[0]:
        n = len(segment.controls)
        begin = next(i for i in range(len(controls)) if np.array_equal(controls[i : i + n], segment.controls))
        errors.append([segment.state["block"][i] - signals[name][begin] for i, name in enumerate(poses)])
    assert len(errors) >= 5
    assert np.std(errors) < 1.5e-4  # 2.1e-4 from two observations


def test_without_force_only_poses_are_measured_and_without_poses_it_is_refused(
    recording: Recording, replay: PushTReplay
) -> None:
    controls, signals = recording
    poses = {name: values for name, values in signals.items() if not name.startswith("force")}
    assert replay.cut(controls, poses, None)[1] == ["block_x", "block_y", "block_yaw"]
    with pytest.raises(InvalidInput, match="block_yaw"):
        replay.cut(controls, {name: v for name, v in signals.items() if name != "block_yaw"}, None)
    with pytest.raises(UnknownName, match="friction, mass"):
        replay.play({"colour": 1.0}, [], [])


@pytest.fixture(scope="module")
def walk() -> tuple[np.ndarray, np.ndarray]:
    """Controls (T, 12) and states (T+1, S) of a loaded robot whose controls are late."""
    system = System("quadruped", 0.013, parameters={"payload": 2.5, "friction": 0.6})
    with closing(Quadruped(system=system)) as world:
        world.reset(seed=1)
        controls, states = [], [world.observe().data]
        for control in islice(stances(world, np.random.default_rng(1)), 90):
            controls.append(np.clip(control, world.action.low, world.action.high))
            world.drive(controls[-1])
            states.append(world.observe().data)
        assert not world.ended
    return np.array(controls), np.array(states)


def test_a_robot_played_again_moves_as_it_did_with_its_own_parameters_only(walk: tuple[np.ndarray, np.ndarray]) -> None:
    true = {"payload": 2.5, "friction": 0.6, "control_delay": 0.013}
    with closing(QuadrupedReplay()) as replay:
        segments, names = replay.cut(walk[0], {}, walk[1])
        assert len(segments) >= 4
        joints = [i for i, name in enumerate(names) if name.startswith("q_")]
        right = differences(replay, true, segments, names)[:, joints]
        for wrong in ({"payload": 0.5}, {"friction": 0.9}, {"control_delay": 0.0}):
            other = differences(replay, {**true, **wrong}, segments, names)[:, joints]
            assert np.median(np.abs(other)) > 2 * np.median(np.abs(right))


def test_feet_on_the_ground_tell_the_trunks_height_and_tilt(walk: tuple[np.ndarray, np.ndarray]) -> None:
    controls, states = walk
    rng, errors = np.random.default_rng(0), []
    with closing(QuadrupedReplay()) as replay:
        names = list(Quadruped(randomise=False).state_names)
        trunk = [names.index(name) for name in ("height", "roll", "pitch")]
        feet = [i for i, name in enumerate(names) if name.startswith("contact_")]
        noisy = states.copy()
        noisy[:, trunk] += rng.normal(0, 2e-3, (len(states), 3))
        for true, measured in zip(*(replay.cut(controls, {}, s)[0] for s in (states, noisy)), strict=True):
            if true.state["observed"][feet].sum() >= 3:
                errors.append((measured.state["observed"] - true.state["observed"])[trunk])
    assert len(errors) >= 3
    assert np.abs(errors).max() < 1e-3


def test_what_follows_a_fall_tells_nothing_and_states_are_needed(walk: tuple[np.ndarray, np.ndarray]) -> None:
    controls, states = walk
    fallen = states.copy()
    fallen[40:, list(Quadruped(randomise=False).state_names).index("height")] = 0.05
    with closing(QuadrupedReplay()) as replay:
        assert len(replay.cut(controls, {}, fallen)[0]) == 2
        with pytest.raises(InvalidInput, match="states of"):
            replay.cut(controls, {}, None)


def test_a_robot_is_placed_in_an_observed_state(walk: tuple[np.ndarray, np.ndarray]) -> None:
    with closing(Quadruped(randomise=False)) as world:
        kept = [i for i, name in enumerate(world.state_names) if not name.startswith("contact")]
        for state in walk[1][[20, 55]]:
            world.place(state)
            np.testing.assert_allclose(world.observe().data[kept], state[kept], atol=2e-5)
        with pytest.raises(InvalidInput, match="finite numbers"):
            world.place(np.zeros(3))
    with closing(Walker()) as planar, pytest.raises(InvalidInput, match="yaw"):
        planar.place(planar.observe().data)
