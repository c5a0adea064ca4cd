"""The Push-T world: physics, camera, overlap, determinism, faults."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.sim import geometry, make
from worldpilot.sim.faults import PUSH_FAULTS
from worldpilot.sim.push_t import PushT

FRONT = {"block": [0.0, 0.0, 0.0], "pusher": [-0.15, 0.043]}

ROLLOUT = """
import hashlib, numpy as np
from worldpilot.sim.push_t import PushT
world, digest = PushT(), hashlib.sha256()
world.reset(seed=11)
rng = np.random.default_rng(0)
for _ in range(30):
    image, *_ = world.step(rng.uniform(-0.25, 0.25, 2).astype(np.float32))
    digest.update(image.tobytes()); digest.update(np.asarray(list(world.signals().values())).tobytes())
print("HASH", digest.hexdigest())
"""


@pytest.fixture
def world():
    world = PushT()
    yield world
    world.close()


def test_make_names_the_tasks_there_are():
    with pytest.raises(UnknownName, match="push_t"):
        make("push_u")


def test_observation_meets_the_declared_space(world):
    image, info = world.reset(seed=1)
    assert world.observation_space.contains(image)
    assert image.std() > 5  # there is something to see
    assert 0 <= info["overlap"] <= 1


def test_pusher_follows_velocity_control(world):
    world.reset(seed=0, options={"block": [0.1, 0.1, 0.0], "pusher": [-0.2, -0.2]})
    for _ in range(5):
        world.step(np.array([0.2, 0.1], np.float32))
    assert world.pusher() == pytest.approx([-0.1, -0.15], abs=1e-2)  # half a step behind


def test_pushing_moves_the_block_and_standing_does_not(world):
    world.reset(seed=0, options=FRONT)
    before = world.block()
    for _ in range(5):
        world.step(np.zeros(2, np.float32))
    assert world.block() == pytest.approx(before, abs=1e-4)
    for _ in range(8):
        world.step(np.array([0.2, 0.0], np.float32))
    assert world.block()[0] > before[0] + 0.02


def test_same_seed_same_hash_in_another_process():
    outs = [subprocess.run([sys.executable, "-c", ROLLOUT], capture_output=True, text=True, check=True) for _ in "ab"]
    hashes = {next(line for line in out.stdout.splitlines() if line.startswith("HASH")) for out in outs}
    assert len(hashes) == 1


def test_a_reset_forgets_the_episode_before(world):
    def run():
        digest = hashlib.sha256(world.reset(seed=5)[0].tobytes())
        for _ in range(20):
            digest.update(world.step(np.array([0.2, 0.05], np.float32))[0].tobytes())
        return digest.hexdigest()

    first = run()
    world.reset(seed=6)
    assert run() == first


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [np.inf, 0.0], [0.0, 0.0, 0.0]])
def test_bad_controls_are_refused(world, bad):
    with pytest.raises(InvalidInput, match="control must be"):
        world.step(np.asarray(bad, np.float32))


def test_overlap_is_one_on_the_goal_and_falls_with_distance():
    goal = np.array([0.02, -0.03, 0.7])
    shifts = [geometry.overlap(goal + np.array([d, 0, 0]), goal) for d in (0.0, 0.005, 0.02, 0.05, 0.4)]
    assert shifts[0] == 1.0
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[-1] == 0.0
    assert geometry.overlap(goal + np.array([0, 0, 2 * np.pi]), goal) == 1.0


def test_world_and_block_frames_are_inverse():
    pose, points = np.array([0.1, -0.2, 2.1]), np.random.default_rng(0).normal(size=(10, 2))
    assert geometry.to_block(geometry.to_world(points, pose), pose) == pytest.approx(points)


def test_teleport_moves_and_recolour_paints(world):
    before_image, _ = world.reset(seed=2, options=FRONT)
    before = world.block()
    world.inject("recolour")
    assert np.abs(world.observe().data.astype(int) - before_image).max() > 50
    world.inject("teleport", dx=0.1)
    assert np.hypot(*(world.block() - before)[:2]) == pytest.approx(0.1, abs=1e-6)


def test_frozen_camera_stands_still_and_thaws(world):
    world.reset(seed=3, options=FRONT)
    world.inject("freeze_camera", seconds=0.5)
    images = [world.step(np.array([0.2, 0.0], np.float32))[0] for _ in range(7)]
    assert all((images[i] == images[0]).all() for i in range(5))
    assert (images[6] != images[0]).any()


def test_delay_holds_controls_back(world):
    world.reset(seed=3, options=FRONT)
    world.inject("delay", seconds=0.3)
    start = world.pusher()
    for _ in range(3):
        world.step(np.array([0.0, 0.2], np.float32))
    assert world.pusher() == pytest.approx(start, abs=1e-3)
    world.step(np.array([0.0, 0.2], np.float32))
    assert world.pusher()[1] > start[1] + 0.01


def test_friction_changes_and_comes_back(world):
    def friction_of_block():
        return world._client.getDynamicsInfo(world._block, -1)[1]

    world.reset(seed=3, options=FRONT)
    base = friction_of_block()
    world.inject("friction", value=1.2)
    assert friction_of_block() == pytest.approx(1.2)
    world.clear_faults()
    assert friction_of_block() == pytest.approx(base)


def test_unknown_faults_and_parameters_are_refused_with_the_valid_names(world):
    with pytest.raises(UnknownName, match="teleport"):
        world.inject("earthquake")
    with pytest.raises(UnknownName, match="dyaw"):
        world.inject("teleport", dz=1.0)
    with pytest.raises(InvalidInput, match="finite"):
        world.inject("teleport", dx=float("nan"))
    assert set(PUSH_FAULTS) == {"teleport", "recolour", "friction", "freeze_camera", "delay", "delay_observation"}
