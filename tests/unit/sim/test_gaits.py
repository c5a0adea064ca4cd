"""The quadruped's gaits: kinematics, what they do, what they are recorded as."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from worldpilot.cli.main import main
from worldpilot.models.data.episodes import Episode, EpisodeStore
from worldpilot.sim import gaits
from worldpilot.sim.quadruped import ACTION, HIP, LEGS, SHANK, STANCE, THIGH, Quadruped

CLEAN = gaits.Exploration(clean=1.0)


@pytest.fixture(scope="module")
def world() -> Iterator[Quadruped]:
    world = Quadruped()
    yield world
    world.close()


def foot(angles: np.ndarray, left: float) -> np.ndarray:
    """Where a leg's foot is from its hip's axis, (3,) [m], by the joints' rotations one after the other."""
    hip, thigh, knee = angles
    x = -THIGH * np.sin(thigh) - SHANK * np.sin(thigh + knee)
    down = THIGH * np.cos(thigh) + SHANK * np.cos(thigh + knee)
    side = left * HIP
    return np.array([x, side * np.cos(hip) + down * np.sin(hip), side * np.sin(hip) - down * np.cos(hip)])


def test_inverse_kinematics_puts_the_feet_where_they_shall_be() -> None:
    x, y, length = (
        np.array([0.05, -0.06, 0.02, 0]),
        np.array([0.03, -0.02, 0, -0.04]),
        np.array([0.25, 0.2, 0.29, 0.22]),
    )
    angles = (gaits.joints(x, y, length) + np.tile(STANCE, 4)).reshape(4, 3)
    for i, left in enumerate((1, -1, 1, -1)):
        assert foot(angles[i], left) == pytest.approx([x[i], left * HIP + y[i], -length[i]], abs=1e-6)


def test_standing_is_control_zero() -> None:
    assert gaits.joints(np.zeros(4), np.zeros(4), np.full(4, gaits.HEIGHT)) == pytest.approx(np.zeros(12), abs=1e-9)


def test_out_of_reach_is_as_far_as_the_joints_go() -> None:
    control = gaits.joints(np.full(4, 0.5), np.full(4, 0.4), np.full(4, 1.0))
    assert np.isfinite(control).all()
    assert (control >= ACTION.low).all()
    assert (control <= ACTION.high).all()


def record(world: Quadruped, gait: gaits.Run | gaits.Jump, seed: int, steps: int = 200) -> dict[str, np.ndarray]:
    """An episode without noise: signals by name, over time."""
    rng = np.random.default_rng(seed)
    world.reset(seed=seed)
    seen = []
    for _, control in zip(range(steps), gaits.behave(gait, CLEAN)(world, rng), strict=False):
        world.drive(control)
        seen.append(world.signals())
    return {name: np.array([signals[name] for signals in seen]) for name in seen[0]}


def test_run_trots_straight_ahead(world: Quadruped) -> None:
    signals = record(world, gaits.RUN, 1)
    steady = {name: values[60:] for name, values in signals.items()}
    assert not world.ended
    assert 0.4 < steady["forward_velocity"].mean() < 1.1
    assert abs(steady["lateral_velocity"].mean()) < 0.1
    assert abs(steady["yaw_rate"].mean()) < 0.25
    together = np.corrcoef([steady[f"contact_{leg}"] for leg in LEGS])  # fl, fr, rl, rr
    assert min(together[0, 3], together[1, 2]) > 0.2  # diagonals
    assert max(together[0, 2], together[1, 3], together[2, 3]) < 0  # sides, and rear legs


def test_jump_leaves_the_ground_again_and_again(world: Quadruped) -> None:
    signals = record(world, gaits.JUMP, 1)
    assert not world.ended
    airborne = np.sum([signals[f"contact_{leg}"] for leg in LEGS], axis=0) == 0
    takeoffs = int((airborne[1:] & ~airborne[:-1]).sum())
    assert takeoffs >= 2
    assert signals["height"][airborne].max() > 0.26 + 0.05
    assert abs(signals["forward_velocity"].mean()) < 0.4


def test_controls_change_no_faster_than_they_may(world: Quadruped) -> None:
    rng = np.random.default_rng(0)
    world.reset(seed=0)
    wild = gaits.Exploration(amplitude=(0.5, 0.5), correlation=(0.02, 0.021), clean=0.0)
    controls = [np.zeros(12)]
    for _, control in zip(range(30), gaits.behave(gaits.JUMP, wild)(world, rng), strict=False):
        controls.append(control)
        world.drive(control)
    fastest = np.abs(np.diff(controls, axis=0)).max() / ACTION.control_dt
    assert fastest == pytest.approx(max(ACTION.max_rate))


def test_noise_has_the_amplitude_and_the_correlation_asked_for() -> None:
    exploration = gaits.Exploration(amplitude=(0.1, 0.1), correlation=(0.2, 0.2), clean=0.0)
    source = exploration.start(np.random.default_rng(0))
    noise = np.stack([next(source) for _ in range(4000)])[200:]
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    after = 10  # steps, which is 0.2 s
    assert (noise[after:] * noise[:-after]).mean() / noise.var() == pytest.approx(np.exp(-1), abs=0.08)
    clean = gaits.Exploration(clean=1.0).start(np.random.default_rng(0))
    assert all((next(clean) == 0).all() for _ in range(5))


def test_an_episode_ends_shortly_after_a_fall(world: Quadruped) -> None:
    world.reset(seed=0)
    controls = gaits.behave(gaits.RUN, CLEAN)(world, np.random.default_rng(0))
    for _ in range(10):
        world.drive(next(controls))
    world.inject("push", vx=0.0, vy=6.0)
    ended = []
    for control in controls:
        world.drive(control)
        ended.append(world.ended)
    assert sum(ended) == 1 + gaits.AFTER_FALL  # the step it fell in, and those after


def test_collect_records_states_with_names_and_units(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "a"), "--workers", "1", "--steps", "30", "--seed", "7"]
    assert main(["collect", "quadruped", "--behaviour", "run", "--episodes", "1", *out]) == 0
    assert main(["collect", "quadruped", "--jump", "1", *out]) == 0
    store = EpisodeStore(tmp_path / "a")
    assert [meta["behaviour"] for meta in store.metas] == ["jump", "run"]
    names, units = store.meta["state"]["names"], store.meta["state"]["units"]
    assert store[0].observations.shape == (31, len(names))
    assert len(units) == len(names)
    assert store.meta["units"]["fallen"] == "1"
    assert set(store.meta["units"]) == set(store[0].signals)
    assert (store[0].observations[:, names.index("height")] == store[0].signals["height"]).all()
    again = ["collect", "quadruped", "--run", "1", "--out", str(tmp_path / "b"), *out[2:]]
    assert main(again) == 0
    assert same(EpisodeStore(tmp_path / "b")[0], store[1])


def same(a: Episode, b: Episode) -> bool:
    return a.sha256() == b.sha256()
