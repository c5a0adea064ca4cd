"""The push-cube world: arm, physics, camera, determinism, faults; and its behaviours."""

import hashlib
import subprocess
import sys

import numpy as np
import pybullet
import pytest

from worldpilot.errors import InvalidInput
from worldpilot.sim.cube_experts import expert, presses, random_pushes
from worldpilot.sim.push_cube import CUBE, HIGH, LOW, REACHED, PushCube

FRONT = {"cube": [0.0, 0.0, 0.0], "tip": [-0.06, 0.0, 0.02]}

ROLLOUT = """
import hashlib, numpy as np
from worldpilot.sim.push_cube import PushCube
world, digest = PushCube(), hashlib.sha256()
world.reset(seed=11, options={"cube": [0, 0, .3], "tip": [-.06, 0, .02]})
rng = np.random.default_rng(0)
for _ in range(20):
    image, *_ = world.step(rng.uniform([0, -.1, -.1], [.25, .1, .1]).astype(np.float32))
    digest.update(image.tobytes()); digest.update(np.asarray(list(world.signals().values())).tobytes())
assert world.signals()["cube_x"] > .01
print("HASH", digest.hexdigest())
"""


@pytest.fixture
def world():
    world = PushCube()
    yield world
    world.close()


def drive(world, control, steps):
    for _ in range(steps):
        world.drive(np.asarray(control, np.float32))


def test_observation_meets_the_declared_space(world):
    image, info = world.reset(seed=1)
    assert world.observation_space.contains(image)
    assert set(info["signals"]) == {"gripper_x", "gripper_y", "gripper_z", "cube_x", "cube_y", "cube_yaw"}
    assert info["distance"] == pytest.approx(world.outcome()["distance"])


def test_the_tip_follows_its_target(world):
    world.reset(seed=0, options={"cube": [0.1, 0.1, 0.0], "tip": [-0.1, -0.1, 0.1]})
    drive(world, [0.1, 0.05, -0.05], 10)
    assert world.tip() == pytest.approx([0.0, -0.05, 0.05], abs=2e-3)
    drive(world, [0, 0, 0], 3)
    assert world.tip() == pytest.approx([0.0, -0.05, 0.05], abs=5e-4)


@pytest.mark.parametrize("corner", [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
def test_the_tip_stops_at_the_workspace_and_joints_keep_their_limits(world, corner):
    world.reset(seed=0, options={"cube": [0.0, 0.0, 0.0], "tip": [0.0, 0.06, 0.1]})
    drive(world, 0.25 * np.array([0, 0, 1]), 2)
    drive(world, 0.25 * np.array(corner), 14)
    drive(world, 0.25 * np.array(corner), 2)
    assert world.tip() == pytest.approx(np.where(np.array(corner) > 0, HIGH, LOW), abs=1e-3)
    for joint in range(7):
        low, high = world._client.getJointInfo(world._robot, joint)[8:10]
        assert low < world._client.getJointState(world._robot, joint)[0] < high


def test_pressed_on_the_cube_the_arm_stops_and_can_leave(world):
    world.reset(seed=0, options={"cube": [0.0, 0.0, 0.0], "tip": [0.005, 0.005, 0.1]})
    drive(world, [0, 0, -0.25], 5)
    drive(world, [0.05, 0.05, -0.25], 3)
    assert world.stopped
    assert world.tip()[2] == pytest.approx(CUBE, abs=2e-3)
    assert np.abs(world.block()[:2]).max() < 0.01
    drive(world, [0, 0, 0.25], 2)
    assert not world.stopped
    assert world.tip()[2] == pytest.approx(CUBE + 0.05, abs=3e-3)


def test_pushing_moves_the_cube_and_standing_does_not(world):
    world.reset(seed=0, options=FRONT)
    before = world.block()
    drive(world, [0, 0, 0], 5)
    assert world.block() == pytest.approx(before, abs=1e-4)
    drive(world, [0.2, 0, 0], 5)
    assert world.block()[0] > before[0] + 0.04


def test_the_reward_is_minus_the_distance_and_success_ends_the_episode(world):
    world.reset(seed=0, options={**FRONT, "goal": [0.05, 0.0]})
    for _ in range(10):
        _, reward, ended, _, info = world.step(np.array([0.15, 0, 0], np.float32))
        assert reward == -info["distance"]
        assert ended == (info["distance"] < REACHED)
        if ended:
            return
    raise AssertionError("the cube was not pushed to the goal")


def test_same_seed_same_hash_in_another_process():
    outs = [subprocess.run([sys.executable, "-c", ROLLOUT], capture_output=True, text=True, check=True) for _ in "ab"]
    hashes = {next(line for line in out.stdout.splitlines() if line.startswith("HASH")) for out in outs}
    assert len(hashes) == 1


def test_a_reset_forgets_the_episodes_before(world):
    def run():
        digest = hashlib.sha256(world.reset(seed=5, options=FRONT)[0].tobytes())
        for _ in range(10):
            digest.update(world.step(np.array([0.2, 0.05, 0.02], np.float32))[0].tobytes())
            digest.update(np.asarray(list(world.signals().values())).tobytes())
        return digest.hexdigest()

    first = run()
    for seed in (6, 7):
        world.reset(seed=seed)
        world.inject("friction", value=1.0)
        drive(world, [0.1, 0.1, -0.2], 5)
    assert run() == first


@pytest.mark.parametrize(("x", "y"), [(0, 0), (0.1, 0.15), (0.1, -0.15), (-0.1, 0.15), (-0.1, -0.15)])
def test_the_camera_sees_the_cube_its_yaw_and_the_peg(x, y):
    world = PushCube(randomise=False)

    def seen(cube, tip):
        return world.reset(seed=0, options={"cube": cube, "tip": tip})[0].astype(int)

    away = [-0.14 if x > 0 else 0.14, -0.18 if y > 0 else 0.18, 0.05]
    here = seen([x, y, 0.0], away)
    for other in ([x, y, np.pi], [x + 0.02, y, 0.0]):  # turned half around; shifted by less than half its edge
        assert (np.abs(here - seen(other, away)).sum(-1) > 60).sum() >= 15
    in_front = seen([x, y, 0.0], [x + CUBE, y, 0.02])
    red = (in_front[..., 0] > 90) & (in_front[..., 0] > 2 * in_front[..., 1])
    cube = in_front[..., 1:].max(-1) > 1.3 * in_front[..., 0]  # blue or green
    assert red.sum() >= 8
    assert cube.sum() >= 12
    world.close()


@pytest.mark.parametrize("bad", [[np.nan, 0.0, 0.0], [np.inf, 0.0, 0.0], [0.0, 0.0]])
def test_bad_controls_are_refused(world, bad):
    with pytest.raises(InvalidInput, match="3 finite velocities"):
        world.step(np.asarray(bad, np.float32))


def test_faults(world):
    image, _ = world.reset(seed=2, options=FRONT)
    before = world.block()
    world.inject("recolour")
    assert np.abs(world.observe().data.astype(int) - image).max() > 50
    world.inject("teleport", dx=0.1)
    assert np.hypot(*(world.block() - before)[:2]) == pytest.approx(0.1, abs=1e-6)
    world.inject("delay", seconds=0.2)
    start = world.tip()
    drive(world, [0.0, 0.2, 0.0], 2)
    assert world.tip() == pytest.approx(start, abs=1e-3)
    drive(world, [0.0, 0.2, 0.0], 1)
    assert world.tip()[1] > start[1] + 0.01
    world.inject("freeze_camera", seconds=0.2)
    images = [world.step(np.array([0.0, 0.2, 0.0], np.float32))[0] for _ in range(3)]
    assert (images[0] == images[1]).all()
    assert (images[1] != images[2]).any()


def test_random_pushes_move_the_cube_and_keep_it_upright_in_reach():
    world, rng = PushCube(render_images=False), np.random.default_rng(0)
    world.reset(seed=0)
    poses = [world.block()]
    for _, control in zip(range(200), random_pushes(world, rng), strict=False):
        world.drive(np.clip(control, -0.25, 0.25))
        poses.append(world.block())
        quaternion = world._client.getBasePositionAndOrientation(world._cube)[1]
        assert pybullet.getMatrixFromQuaternion(quaternion)[8] > 0.95
    xy = np.array(poses)[:, :2]
    assert (np.linalg.norm(xy[25:] - xy[:-25], axis=1) > 0.025).mean() > 0.4
    assert (np.abs(xy) < HIGH[:2]).all()


def test_presses_meet_the_reflex_often_and_leave_the_cube_upright():
    world, stopped = PushCube(render_images=False), []
    for seed in range(4):
        world.reset(seed=seed)
        for _, control in zip(range(100), presses(world, np.random.default_rng(seed)), strict=False):
            world.drive(np.clip(control, -0.25, 0.25))
            stopped.append(world.stopped)
            quaternion = world._client.getBasePositionAndOrientation(world._cube)[1]
            assert pybullet.getMatrixFromQuaternion(quaternion)[8] > 0.9
    assert len(stopped) > 300
    assert np.mean(stopped) > 0.1
    world.close()


@pytest.mark.parametrize("seed", range(4))
def test_expert_brings_the_cube_to_the_goal(seed):
    world, rng = PushCube(render_images=False), np.random.default_rng(seed)
    world.reset(seed=seed)
    for _, control in zip(range(world.budget), expert(world, rng), strict=False):
        world.drive(np.clip(control, -0.25, 0.25))
    assert world.distance() < 0.01
    world.close()
