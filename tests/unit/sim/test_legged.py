"""Legged worlds: named state and signals, determinism, falls, faults."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.sim.faults import LEGGED_FAULTS
from worldpilot.sim.quadruped import ROBOT, STANCE, Quadruped

STAND = np.zeros(12)
FIXED = {"offsets": STAND, "friction": 0.9}

ROLLOUT = """
import hashlib, numpy as np
from worldpilot.sim.quadruped import Quadruped
world, digest = Quadruped(), hashlib.sha256()
world.reset(seed=11)
rng = np.random.default_rng(0)
for _ in range(40):
    state, *_ = world.step(rng.normal(0, 0.2, 12).astype(np.float32))
    digest.update(state.tobytes())
print("HASH", digest.hexdigest())
"""


@pytest.fixture(scope="module")
def made() -> Iterator[Quadruped]:
    world = Quadruped()
    yield world
    world.close()


@pytest.fixture
def world(made: Quadruped) -> Quadruped:
    made.reset(seed=3, options=FIXED)
    return made


def drive(world: Quadruped, control: np.ndarray, steps: int) -> None:
    for _ in range(steps):
        world.drive(control)


def state(world: Quadruped) -> dict[str, float]:
    return dict(zip(world.state_names, map(float, world.observe().data), strict=True))


def test_the_state_is_named_and_meets_the_declared_space(world: Quadruped) -> None:
    observed, info = world.reset(seed=1)
    assert world.observation_space.contains(observed)
    assert len(world.state_names) == len(set(world.state_names)) == len(world.state_units) == len(observed)
    assert list(info["signals"]) == list(ROBOT.signals)
    assert not any(name in {"x", "y"} or name.endswith("yaw") for name in world.state_names)


def test_every_signal_but_the_fall_is_a_component_of_the_state(world: Quadruped) -> None:
    drive(world, np.random.default_rng(0).normal(0, 0.3, 12), 7)
    signals, components = world.signals(), state(world)
    assert signals.pop("fallen") == 0
    assert signals == pytest.approx({name: components[name] for name in signals}, abs=1e-6)


def test_it_stands_at_control_zero(world: Quadruped) -> None:
    drive(world, STAND, 50)
    signals = world.signals()
    assert 0.24 < signals["height"] < 0.28
    assert [signals[f"contact_{leg}"] for leg in ("fl", "fr", "rl", "rr")] == [1, 1, 1, 1]
    assert abs(signals["roll"]) < 0.02
    assert abs(signals["pitch"]) < 0.05
    assert not world.ended


def test_joints_reach_their_targets(world: Quadruped) -> None:
    control = np.tile([0.05, 0.2, -0.3], 4)
    drive(world, control, 50)
    components = state(world)
    reached = [components[f"q_{joint}"] for joint in world.action.names]
    assert reached == pytest.approx(np.tile(STANCE, 4) + control, abs=0.1)
    assert [components[f"control_{joint}"] for joint in world.action.names] == pytest.approx(control)


def test_signs_follow_rep_103(world: Quadruped) -> None:
    crouched = np.array([0, 0.3, -0.6])
    drive(world, np.concatenate([crouched, crouched, np.zeros(6)]), 40)  # front legs short
    assert world.signals()["pitch"] > 0.1  # nose down
    drive(world, np.concatenate([np.zeros(3), crouched, np.zeros(3), crouched]), 40)  # right legs short
    assert world.signals()["roll"] > 0.1  # right side down
    drive(world, STAND, 40)
    world.inject("push", vx=0.0, vy=0.6)
    drive(world, STAND, 1)
    assert world.signals()["lateral_velocity"] > 0.3  # to its left


def test_velocities_are_those_of_the_heading(world: Quadruped) -> None:
    """Pushed forwards, it moves forwards whichever way it faces."""
    turned = [0, 0, np.sin(0.7), np.cos(0.7)]
    world._client.resetBasePositionAndOrientation(world._body_id, world._position, turned)
    drive(world, STAND, 30)
    world.inject("push", vx=0.8, vy=0.0)
    before = world._position.copy()
    drive(world, STAND, 2)
    signals, moved = world.signals(), world._position - before
    assert signals["forward_velocity"] > 4 * abs(signals["lateral_velocity"])
    assert np.arctan2(moved[1], moved[0]) == pytest.approx(1.4, abs=0.2)


def test_same_seed_same_hash_in_another_process() -> None:
    outs = [subprocess.run([sys.executable, "-c", ROLLOUT], capture_output=True, text=True, check=True) for _ in "ab"]
    assert len({next(line for line in out.stdout.splitlines() if line.startswith("HASH")) for out in outs}) == 1


def test_a_reset_forgets_the_episode_before(world: Quadruped) -> None:
    def run() -> bytes:
        world.reset(seed=5)
        drive(world, np.full(12, 0.2), 15)
        return world.observe().data.tobytes()

    first = run()
    world.inject("weak_joint", joint=4, fraction=0.0)
    world.inject("locked_joint", joint=7)
    world.inject("payload", mass=3.0)
    drive(world, np.full(12, -0.4), 30)
    assert run() == first


def test_resets_differ_by_seed_only_if_randomised(world: Quadruped) -> None:
    def start(world: Quadruped, seed: int) -> np.ndarray:
        return world.reset(seed=seed)[0]

    assert np.abs(start(world, 1) - start(world, 2)).max() > 0.01
    plain = Quadruped(randomise=False)
    assert (start(plain, 1) == start(plain, 2)).all()
    plain.close()


def test_a_fall_ends_the_episode_and_stays_one(world: Quadruped) -> None:
    world.inject("push", vx=0.0, vy=4.0)
    drive(world, STAND, 60)
    assert world.ended
    assert world.signals()["fallen"] == 1
    assert world.outcome()["fallen"]
    assert world.step(STAND.astype(np.float32))[2]
    world.reset(seed=0)
    assert not world.ended


def test_the_outcome_tells_how_far_it_came(world: Quadruped) -> None:
    world.inject("push", vx=1.0, vy=0.0)
    drive(world, STAND, 25)
    outcome = world.outcome()
    assert outcome["steps"] == 25
    assert 0.02 < outcome["distance"] < 0.5
    assert outcome["apex"] >= world.signals()["height"]


@pytest.mark.parametrize("bad", [np.full(12, np.nan), np.full(12, np.inf), np.zeros(11)])
def test_bad_controls_are_refused(world: Quadruped, bad: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="12 finite joint offsets"):
        world.drive(bad)


def test_a_weak_joint_gives_way_and_recovers(world: Quadruped) -> None:
    stance = state(world)["q_fl_knee"]
    world.inject("weak_joint", joint=2, fraction=0.05)
    drive(world, STAND, 50)
    assert state(world)["q_fl_knee"] < stance - 0.05
    world.clear_faults()
    drive(world, STAND, 50)
    assert state(world)["q_fl_knee"] == pytest.approx(stance, abs=0.02)


def test_a_locked_joint_stays_and_is_freed(world: Quadruped) -> None:
    before = state(world)["q_rl_thigh"]
    world.inject("locked_joint", joint=7)
    drive(world, np.full(12, 0.2), 20)
    assert state(world)["q_rl_thigh"] == pytest.approx(before, abs=0.01)
    assert state(world)["q_fl_thigh"] > before + 0.1
    world.clear_faults()
    drive(world, np.full(12, 0.2), 20)
    assert state(world)["q_rl_thigh"] > before + 0.1


def test_a_payload_weighs_and_is_taken_off(world: Quadruped) -> None:
    drive(world, STAND, 50)
    height = world.signals()["height"]
    world.inject("payload", mass=6.0)
    drive(world, STAND, 50)
    assert world.signals()["height"] < height - 0.004
    world.clear_faults()
    drive(world, STAND, 50)
    assert world.signals()["height"] == pytest.approx(height, abs=1e-3)


def test_on_ice_a_push_takes_it_farther(world: Quadruped) -> None:
    def pushed(**friction: float) -> float:
        world.reset(seed=3, options=FIXED)
        if friction:
            world.inject("friction", **friction)
        world.inject("push", vx=0.7, vy=0.0)
        drive(world, STAND, 40)
        return world.outcome()["distance"]

    assert pushed(value=0.05) > 2 * pushed()


def test_delay_holds_controls_back(world: Quadruped) -> None:
    before = state(world)
    world.inject("delay", seconds=0.06)
    drive(world, np.full(12, 0.3), 3)
    assert state(world)["control_fl_knee"] == 0
    assert state(world)["q_fl_knee"] == pytest.approx(before["q_fl_knee"], abs=0.02)
    drive(world, np.full(12, 0.3), 1)
    assert state(world)["control_fl_knee"] == pytest.approx(0.3)


def test_unknown_faults_and_impossible_parameters_are_refused(world: Quadruped) -> None:
    with pytest.raises(UnknownName, match="weak_joint"):
        world.inject("teleport")
    with pytest.raises(UnknownName, match="fraction"):
        world.inject("weak_joint", share=0.5)
    for fault, params, why in [
        ("weak_joint", {"joint": 12}, "0 to 11"),
        ("locked_joint", {"joint": 0.5}, "0 to 11"),
        ("weak_joint", {"fraction": 1.5}, "fraction"),
        ("payload", {"mass": -1.0}, "at least 0 kg"),
        ("friction", {"value": -0.1}, "at least 0"),
        ("push", {"vx": float("nan")}, "finite"),
    ]:
        with pytest.raises(InvalidInput, match=why):
            world.inject(fault, **params)
    assert set(LEGGED_FAULTS) == {
        "weak_joint",
        "locked_joint",
        "payload",
        "friction",
        "push",
        "delay",
        "delay_observation",
    }


def test_the_picture_shows_robot_and_contacts(world: Quadruped) -> None:
    image = world.render(128)
    assert image.shape == (128, 128, 3)
    assert image.dtype == np.uint8
    orange = (image[..., 0] > 150) & (image[..., 2] < 90)
    assert orange.mean() > 0.02
