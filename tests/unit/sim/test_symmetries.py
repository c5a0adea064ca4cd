"""A symmetry of a task: what its episodes look like in another view is what the simulation gives there."""

import numpy as np
import pytest

from worldpilot.models.data.windows import signal_names
from worldpilot.sim.push_t import PushT
from worldpilot.sim.quadruped import ROBOT, Quadruped
from worldpilot.sim.quadruped import SYMMETRIES as SIDES
from worldpilot.sim.tasks import store_meta, task
from worldpilot.types import Symmetry

SYMMETRIES = task("push_t").symmetries
START = np.array([0.03, -0.05, 0.7])  # block
PUSHER = np.array([-0.02, -0.19])
CONTROLS = np.array([[0.1, 0.15]] * 7, np.float32)
NAMES = signal_names(sorted(PushT(render_images=False).signals()))


def columns(signals: dict[str, float]) -> np.ndarray:
    """Signals in the order of NAMES."""
    values = []
    for name in sorted(signals):
        values += [np.sin(signals[name]), np.cos(signals[name])] if name.endswith("yaw") else [signals[name]]
    return np.array(values, np.float32)


def play(block: np.ndarray, pusher: np.ndarray, controls: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last image, and the last signals."""
    world = PushT(randomise=False)
    world.reset(options={"block": block, "pusher": pusher})
    first = world.observe().data
    for control in controls:
        world.drive(control)
    last, signals = world.observe().data, columns(world.signals())
    world.close()
    return first, last, signals


@pytest.fixture(scope="module")
def original() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The episode as it is."""
    return play(START, PUSHER, CONTROLS)


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=lambda s: f"{s.quarter_turns}{'m' if s.mirrored else ''}")
def test_push_t_goes_on_alike_in_every_view(symmetry: Symmetry, original: tuple[np.ndarray, np.ndarray, np.ndarray]):
    start = symmetry.matrix(NAMES) @ columns(
        {"block_x": START[0], "block_y": START[1], "block_yaw": START[2], "pusher_x": PUSHER[0], "pusher_y": PUSHER[1]}
    )
    there = dict(zip(NAMES, start, strict=True))
    block = np.array([there["block_x"], there["block_y"], np.arctan2(there["block_yaw_sin"], there["block_yaw_cos"])])
    pusher = np.array([there["pusher_x"], there["pusher_y"]])
    first, last, signals = play(block, pusher, CONTROLS @ np.array(symmetry.controls, np.float32).T)
    turned = np.abs(original[2][NAMES.index("block_yaw_sin")] - np.sin(START[2]))
    assert turned > 0.05  # the push did push
    # The solver takes contacts in an order that depends on where they lie: millimetres a model step.
    np.testing.assert_allclose(signals, symmetry.matrix(NAMES) @ original[2], atol=0.015)
    for seen, was in ((first, original[0]), (last, original[1])):
        difference = np.abs(seen.astype(int) - symmetry.images(was).astype(int)).max(-1)
        assert (difference > 60).mean() < 0.02  # edges and shading; the light stays where it is


def test_the_first_view_changes_nothing(original: tuple[np.ndarray, np.ndarray, np.ndarray]):
    assert (SYMMETRIES[0].images(original[0]) == original[0]).all()
    assert (SYMMETRIES[0].matrix(NAMES) == np.eye(len(NAMES))).all()
    assert SYMMETRIES[0].controls == ((1, 0), (0, 1))


def test_symmetries_survive_the_data_sets_file():
    found = [Symmetry.from_dict(values) for values in store_meta("push_t")["symmetries"]]
    assert found == list(SYMMETRIES)
    assert "symmetries" not in store_meta("push_cube")


def test_a_quadruped_in_the_mirror_goes_on_alike():
    mirror = SIDES[1]
    state, controls = mirror.matrix(tuple(ROBOT.state)), np.array(mirror.controls, np.float32)
    assert (state @ state == np.eye(len(state))).all()
    leg = np.array([0.3, -0.3, 0.2])  # of the front left one, hip, thigh, knee: it leans to one side
    played = np.concatenate([np.tile(leg * share, (5, 1)) for share in (0.3, 0.6, 1.0, 0.2)])
    played = np.pad(played, ((0, 0), (0, 9))).astype(np.float32)
    seen = []
    for sequence in (played, played @ controls.T):
        world = Quadruped(randomise=False)
        world.reset(seed=0)
        for control in sequence:
            world.drive(control)
        seen.append((world.observe().data, columns(world.signals())))
        world.close()
    names = tuple(sorted(ROBOT.signals))
    there, signals = dict(zip(ROBOT.state, seen[0][0], strict=True)), seen[0][1]
    assert abs(there["yaw_rate"]) > 0.15  # it did lean
    np.testing.assert_allclose(seen[1][0], state @ seen[0][0], atol=0.06)  # of rates [rad/s]; the rest is far nearer
    np.testing.assert_allclose(seen[1][1], mirror.matrix(names) @ signals, atol=0.06)
