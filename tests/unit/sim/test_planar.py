"""The planar robots and their gaits: they stay in their plane, walk or hop, stand, and a weak joint shows."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from worldpilot.cli.main import main
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.sim import planar_gaits
from worldpilot.sim.legged import LeggedWorld
from worldpilot.sim.planar import Hopper, Walker
from worldpilot.sim.tasks import task

GAITS: dict[str, planar_gaits.Gait] = {"walker": planar_gaits.WALK, "hopper": planar_gaits.HOP}


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[str, LeggedWorld]]:
    made: dict[str, LeggedWorld] = {"walker": Walker(), "hopper": Hopper()}
    yield made
    for world in made.values():
        world.close()


def record(
    world: LeggedWorld, noise: float, seed: int, steps: int = 250, gait: planar_gaits.Gait | None = None
) -> dict[str, np.ndarray]:
    """Signals by name, over time, of an episode of a gait, by default the world's."""
    world.reset(seed=seed)
    behave = planar_gaits.behave(gait or GAITS[world.robot.name], noise)
    seen = [world.signals()]
    for _, control in zip(range(steps), behave(world, np.random.default_rng(seed)), strict=False):
        world.drive(control)
        seen.append(world.signals())
    return {name: np.array([signals[name] for signals in seen]) for name in seen[0]}


@pytest.mark.parametrize("name", GAITS)
def test_the_state_knows_of_no_third_dimension(worlds: dict[str, LeggedWorld], name: str) -> None:
    world = worlds[name]
    observed, info = world.reset(seed=1)
    assert world.observation_space.contains(observed)
    assert len(world.state_names) == len(world.state_units) == len(observed)
    assert not {"roll", "roll_rate", "lateral_velocity", "yaw_rate"} & {*world.state_names, *info["signals"]}


@pytest.mark.parametrize("name", GAITS)
def test_in_the_stance_they_stand_on_their_feet(worlds: dict[str, LeggedWorld], name: str) -> None:
    world = worlds[name]
    world.reset(seed=0, options={"offsets": np.zeros(world.action.control_dim), "friction": 0.9})
    for _ in range(15):
        world.drive(np.zeros(world.action.control_dim))
    signals = world.signals()
    assert not world.ended
    assert signals["height"] > world.robot.fallen_height + 0.1
    assert abs(signals["pitch"]) < 0.1
    assert all(signals[f"contact_{foot}"] for foot in world.robot.feet)


def test_halting_holds_the_stance_and_walks_in_turns(worlds: dict[str, LeggedWorld]) -> None:
    world = worlds["walker"]
    world.reset(seed=2, options={"offsets": np.zeros(6)})
    controls = planar_gaits.behave(planar_gaits.HALTING, 0.0)(world, np.random.default_rng(0))
    held = []
    for _, control in zip(range(250), controls, strict=False):
        world.drive(control)
        held.append(not control.any())
    turns = np.flatnonzero(np.diff(held))
    assert held[0]
    assert len(turns) >= 2
    assert 10 <= turns[0] + 1 <= 76  # 0.2 to 1.5 s


def test_a_walker_at_any_pace_stands_when_it_stops(worlds: dict[str, LeggedWorld]) -> None:
    """From its walk it comes to a stand on both feet, and stays there."""
    pacing = replace(
        planar_gaits.WALK_PACING, shares=(1.0, 1.0), leans=(0.0, 0.0), kept=(1.0, 1.0), change=1.6, stops=1.0
    )
    for seed in range(4):
        signals = record(worlds["walker"], 0.0, seed, gait=pacing)
        assert not worlds["walker"].ended
        assert signals["forward_velocity"][30:50].mean() > 0.6
        end = {name: values[-25:] for name, values in signals.items()}
        assert np.abs(end["forward_velocity"]).max() < 0.05
        assert (end["contact_left"] * end["contact_right"]).all()


@pytest.mark.parametrize("name", GAITS)
def test_a_pace_between_slow_and_fast_is_between_their_speeds(worlds: dict[str, LeggedWorld], name: str) -> None:
    pacing = {"walker": planar_gaits.WALK_PACING, "hopper": planar_gaits.HOP_PACING}[name]
    speeds = []
    for share in (0.0, 0.5, 1.0):
        steady = replace(pacing, shares=(share, share), leans=(0.0, 0.0), stops=0.0)
        speeds.append(record(worlds[name], 0.0, 1, gait=steady)["forward_velocity"][100:].mean())
    assert len(set(speeds)) == 3
    assert speeds == sorted(speeds)
    assert speeds[0] < 0.15
    assert speeds[-1] > 0.4


def test_paces_are_drawn_anew(worlds: dict[str, LeggedWorld]) -> None:
    """Over some episodes the walker is slow and fast, without falling in most."""
    tracks, falls = [], 0
    for seed in range(8):
        tracks.append(record(worlds["walker"], 0.0, seed, gait=planar_gaits.WALK_PACING))
        falls += worlds["walker"].ended
    smooth = np.concatenate([np.convolve(track["forward_velocity"], np.ones(25) / 25, "valid") for track in tracks])
    assert falls <= 2
    assert np.percentile(smooth, 10) < 0.2
    assert np.percentile(smooth, 90) > 0.7


def test_the_walker_steps_with_one_foot_after_the_other(worlds: dict[str, LeggedWorld]) -> None:
    signals = record(worlds["walker"], 0.0, 1)
    assert not worlds["walker"].ended
    steady = {name: values[50:] for name, values in signals.items()}
    assert 0.6 < steady["forward_velocity"].mean() < 1.1
    left, right = steady["contact_left"], steady["contact_right"]
    assert np.corrcoef(left, right)[0, 1] < -0.3
    assert (left + right > 0).mean() > 0.9  # it walks, it does not run
    assert np.abs(steady["pitch"]).max() < 0.4


def test_the_hopper_hops_forwards(worlds: dict[str, LeggedWorld]) -> None:
    signals = record(worlds["hopper"], 0.0, 1)
    assert not worlds["hopper"].ended
    steady = {name: values[50:] for name, values in signals.items()}
    assert 0.2 < steady["forward_velocity"].mean() < 0.8
    airborne = steady["contact_foot"] == 0
    assert int((airborne[1:] & ~airborne[:-1]).sum()) >= 5
    assert 0.2 < airborne.mean() < 0.9


def test_noise_is_white_and_drawn_up_to_the_largest(worlds: dict[str, LeggedWorld]) -> None:
    """The noise of a control is what differs from the gait's own, where neither rate nor bounds cut it."""

    class Standing:
        def start(self, rng: np.random.Generator) -> planar_gaits.Controller:
            return self

        def control(self, now: planar_gaits.State) -> planar_gaits.Array:
            return np.zeros(6)

    world, strengths, correlations = worlds["walker"], [], []
    for seed in range(12):
        world.reset(seed=seed)
        controls = planar_gaits.behave(Standing(), 0.08)(world, np.random.default_rng(seed))
        noise = np.stack([next(controls) for _ in range(300)])
        strengths.append(noise.std())
        correlations.append(float((noise[1:] * noise[:-1]).mean() / noise.var()))
    assert max(strengths) < 0.085
    assert min(strengths) < 0.03
    assert np.mean(strengths) == pytest.approx(0.04, abs=0.02)
    assert max(np.abs(correlations)) < 0.1


@pytest.mark.parametrize("name", GAITS)
def test_controls_change_no_faster_than_they_may(worlds: dict[str, LeggedWorld], name: str) -> None:
    world = worlds[name]
    world.reset(seed=0)
    controls = [np.zeros(world.action.control_dim)]
    for _, control in zip(
        range(60), planar_gaits.behave(GAITS[name], 3.0)(world, np.random.default_rng(2)), strict=False
    ):
        controls.append(control)
        world.drive(control)
    stacked = np.array(controls)
    assert np.abs(np.diff(stacked, axis=0)).max() <= max(world.action.max_rate) * world.action.control_dt + 1e-9
    assert (stacked >= world.action.low).all()
    assert (stacked <= world.action.high).all()


@pytest.mark.parametrize(("name", "joint"), [("walker", 0), ("hopper", 1)])
def test_without_a_joint_the_gait_fails_soon(worlds: dict[str, LeggedWorld], name: str, joint: int) -> None:
    world = worlds[name]
    world.reset(seed=1)
    controls = planar_gaits.behave(GAITS[name], 0.0)(world, np.random.default_rng(1))
    for _ in range(100):
        world.drive(next(controls))
    assert not world.ended
    world.inject("weak_joint", joint=joint, fraction=0.0)
    driven = sum(1 for _ in zip(map(world.drive, controls), range(400), strict=False))
    assert world.ended
    assert driven < 150


@pytest.mark.parametrize(("name", "behaviour"), [("walker", "walk"), ("hopper", "hop")])
def test_collect_records_them(name: str, behaviour: str, tmp_path: object) -> None:
    out = f"{tmp_path}/data"
    command = ["collect", name, f"--{behaviour}", "2", "--out", out, "--workers", "1", "--steps", "60", "--seed", "3"]
    assert main(command) == 0
    store = EpisodeStore(out)
    assert [meta["behaviour"] for meta in store.metas] == [behaviour] * 2
    assert tuple(store.meta["state"]["names"]) == tuple(task(name).state)
    assert store.meta["units"] == dict(task(name).signals)
