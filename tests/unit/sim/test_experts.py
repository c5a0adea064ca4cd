"""The scripted experts solve the task, and the random pushes touch the block."""

import itertools

import numpy as np
import pytest

from worldpilot.sim.experts import Expert, approach, gentle, random_pushes
from worldpilot.sim.push_t import PushT, clearance


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_expert_covers_the_goal(seed):
    world, rng = PushT(render_images=False), np.random.default_rng(seed)
    world.reset(seed=seed)
    for _, control in zip(range(world.budget), Expert().controls(world, rng), strict=False):
        world.drive(np.clip(control, -0.25, 0.25))
        if world.overlap() > 0.95:
            break
    assert world.overlap() > 0.9


def test_random_pushes_move_the_block_and_keep_it_in_reach():
    world, rng = PushT(render_images=False), np.random.default_rng(0)
    world.reset(seed=0)
    poses = [world.block()]
    for _, control in zip(range(200), random_pushes(world, rng), strict=False):
        world.drive(np.clip(control, -0.25, 0.25))
        poses.append(world.block())
    moved = np.linalg.norm(np.diff(np.array(poses)[:, :2], axis=0), axis=1) > 5e-4
    assert moved.mean() > 0.1
    assert np.abs(np.array(poses)[:, :2]).max() < 0.22


def test_gentle_behaviour_is_near_the_block_often_rests_and_moves_it_by_millimetres():
    world = PushT(render_images=False)
    moved, rests, near = [], [], []
    for seed in range(5):
        world.reset(seed=seed)
        for control in itertools.islice(gentle(world, np.random.default_rng(seed)), 100):
            before = world.block()
            world.drive(np.clip(control, -0.25, 0.25))
            moved.append(np.linalg.norm(world.block()[:2] - before[:2]))
            rests.append(not control.any())
            near.append(clearance(world.pusher(), world.block()) < 0.05)
    pushes = np.array(moved) > 2e-4
    assert 0.03 < pushes.mean() < 0.3
    assert np.median(np.array(moved)[pushes]) < 0.005
    assert np.mean(rests) > 0.1
    assert np.mean(near) > 0.6


def test_approach_does_not_cross_the_block():
    block = np.array([0.0, 0.0, 0.3])
    path = [np.array([-0.16, 0.0]), *approach(np.array([-0.16, 0.0]), np.array([0.16, 0.0]), block)]
    for a, b in itertools.pairwise(path):
        assert min(clearance(a + (b - a) * t, block) for t in np.linspace(0, 1, 20)) > 0
