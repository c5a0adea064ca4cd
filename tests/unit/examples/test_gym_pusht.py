"""gym-pusht as a task; runs where gym-pusht is installed, which is an environment of its own (see the tutorial)."""

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("gym_pusht", reason="gym-pusht lives in an environment of its own")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "examples" / "gym_pusht" / "worldpilot_gym_pusht.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def episode(example: ModuleType) -> tuple[list[np.ndarray], list[dict[str, float]]]:
    """100 controls of the behaviour and the signals around them."""
    world, rng = example.make_world(render_images=False), np.random.default_rng(3)
    world.reset(seed=3)
    controls, signals = [], [world.signals()]
    for control in itertools.islice(example.pushes(world, rng), 100):
        controls.append(np.clip(control, example.ACTION.low, example.ACTION.high))
        world.drive(controls[-1])
        signals.append(world.signals())
    return controls, signals


def test_replaying_seed_and_controls_gives_the_same_states(example: ModuleType, episode: tuple) -> None:
    controls, signals = episode
    world = example.make_world()
    world.reset(seed=8)
    world.drive(np.full(2, 0.05))
    world.reset(seed=3)
    for control, expected in zip(controls, signals[1:], strict=True):
        world.drive(control)
        assert world.signals() == expected
    assert world.observe().stamp == pytest.approx(10.0)


def test_the_behaviour_is_rich_in_contact(episode: tuple) -> None:
    _, signals = episode
    block = np.array([[s["block_x"], s["block_y"], s["block_yaw"]] for s in signals])
    assert np.linalg.norm(block[-1, :2] - block[0, :2]) > 0.02
    assert np.abs(np.diff(np.unwrap(block[:, 2]))).sum() > 0.3
    assert (block[:, :2] > 0).all()
    assert (block[:, :2] < 0.512).all()


def test_zero_stays_and_a_control_moves_the_agent_its_way(example: ModuleType) -> None:
    world = example.make_world(render_images=False)
    world.reset(seed=0)
    before = world.signals()
    world.drive(np.zeros(2))
    assert world.signals() == pytest.approx(before, abs=1e-6)
    world.drive(np.array([0.02, -0.01]))
    after = world.signals()
    assert after["pusher_x"] - before["pusher_x"] == pytest.approx(-2 * (after["pusher_y"] - before["pusher_y"]))
    assert 0 < after["pusher_x"] - before["pusher_x"] < 0.02


def test_the_agent_is_drawn_where_the_signals_say(example: ModuleType) -> None:
    world = example.make_world(image_size=128)
    world.reset(seed=0)
    where = world.signals()
    x, y = (int(where[name] / 0.512 * 128) for name in ("pusher_x", "pusher_y"))
    red, green, blue = world.observe().data[y, x].astype(int)
    assert blue > green + 100 > red + 100  # the agent is blue; the table white, the block grey, the goal green
