"""The surprise benchmark: faults do what they say, pairs differ by the fault alone, the page says what was found."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.scripts import benchmark
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.sim.push_t import Appearance, PushT, clearance


@pytest.fixture(scope="module")
def surprise() -> ModuleType:
    return benchmark("surprise")


@pytest.fixture(scope="module")
def bench(surprise: ModuleType) -> Any:
    return surprise.Bench(Artifact.load(zoo_path("push_t")))


class Canvas(PushT):
    """Remembers how its block was painted."""

    painted: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def recolour(self, colour: tuple[float, float, float]) -> None:
        super().recolour(colour)
        self.painted = colour


@pytest.mark.parametrize("distance", [0.005, 0.04, 0.16, 0.32])
def test_a_shift_is_as_long_as_it_says_and_touches_nothing(surprise: ModuleType, distance: float) -> None:
    world, rng, done = PushT(render_images=False), np.random.default_rng(0), 0
    for seed in range(20):
        world.reset(seed=seed)
        before = world.block()
        if surprise.shift(distance)(world, 0.5, rng):
            done += 1
            after = world.block()
            assert np.hypot(*(after - before)[:2]) == pytest.approx(distance, abs=1e-6)
            assert after[2] == pytest.approx(before[2], abs=1e-6)
            assert np.abs(after[:2]).max() <= 0.16 + 1e-9
            assert clearance(world.pusher(), after) > 0
        else:
            np.testing.assert_array_equal(world.block(), before)
    assert done >= 8


def test_there_is_no_room_for_a_jump_across_the_whole_table(surprise: ModuleType) -> None:
    world = PushT(render_images=False)
    world.reset(seed=0, options={"block": [0.0, 0.0, 0.0], "pusher": [0.2, 0.2]})
    assert not surprise.shift(0.32)(world, 0.5, np.random.default_rng(0))


@pytest.mark.parametrize("outside", [False, True])
def test_paint_lies_within_the_training_randomisation_or_outside(surprise: ModuleType, outside: bool) -> None:
    world, rng = Canvas(render_images=False), np.random.default_rng(0)
    colours = []
    for _ in range(50):
        surprise.paint(outside)(world, 0.5, rng)
        colours.append(world.painted)
    far = np.abs(np.array(colours) - Appearance().block).max(axis=1)
    assert (far.min() >= 0.3) if outside else (far.max() <= 0.15)
    assert len(set(colours)) == 50


def test_an_episode_is_the_same_when_it_is_run_again(surprise: ModuleType, bench: Any) -> None:
    good = bench.good(surprise.FIRST_SEED, "random_push")
    assert good.errors.shape == (surprise.STEPS + 1, 2)
    assert good.at >= 30
    again = bench.faulty(good, surprise.Fault("nothing"), np.random.default_rng(0))
    np.testing.assert_allclose(again, good.errors[good.at + 1 : good.at + 1 + bench.window], rtol=1e-3, atol=1e-6)
    dead = bench.faulty(good, surprise.FAULTS["dead"], np.random.default_rng(0))
    assert dead[:, 0].max() > 3 * again[:, 0].max()


@pytest.mark.slow
def test_teleports_are_found_and_the_page_says_so(surprise: ModuleType, bench: Any) -> None:
    names = (surprise.TARGET, *surprise.QUIET)
    faults = {name: surprise.FAULTS[name] for name in names}
    result = surprise.measure(bench.artifact, 8, ["random_push"], 1, alpha=0.3, faults=faults)
    assert result["episodes"] == {"calibration": 4, "test": 4, "behaviours": ["random_push"]}
    assert set(result["faults"]) == set(names)
    found = result["faults"][surprise.TARGET]["surprise"]
    assert found["auroc"]["value"] == 1.0
    assert found["median_delay_s"] == pytest.approx(0.1)
    page = surprise.markdown(result, "the command")
    assert f"| block jumps 32 cm (2 block lengths) | {found['auroc']['n']} | 1.000 [1.000, 1.000] | 100.0 %" in page
    assert "are **met**" in page
