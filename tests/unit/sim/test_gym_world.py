"""Environments of others as worlds: images from three places, named signals, the same start from the same seed."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from worldpilot.cli.main import main
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.sim.gym_world import GymWorld, box_action, named
from worldpilot.types import ActionSpec


class Dot(gymnasium.Env[Any, Any]):
    """A bright dot on a line, moved by its velocity; it ends at the edge. `look`: where the image is."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, look: str = "dict", render_mode: str | None = None, discrete: bool = False) -> None:
        self.look, self.render_mode = look, render_mode
        pixels, vector = Box(0, 255, (32, 32, 3), np.uint8), Box(-1, 1, (1,), np.float64)
        spaces = {"dict": Dict({"pixels": pixels, "position": vector}), "image": pixels, "vector": vector}
        self.observation_space = spaces[look]
        self.action_space = Discrete(2) if discrete else Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = float(self.np_random.uniform(-0.5, 0.5))
        return self._seen(), {"speed": np.zeros(1)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at = float(np.clip(self.at + float(action[0]) / 20, -1, 1))
        return self._seen(), 0.0, abs(self.at) == 1, False, {"speed": np.asarray(action), "left": self.at < 0}

    def render(self) -> Any:
        return self._drawn() if self.render_mode == "rgb_array" else None

    def _drawn(self) -> np.ndarray:
        image = np.zeros((32, 32, 3), np.uint8)
        image[:, round((self.at + 1) * 15.5)] = 255
        return image

    def _seen(self) -> Any:
        vector = np.array([self.at])
        return {"dict": {"pixels": self._drawn(), "position": vector}, "image": self._drawn(), "vector": vector}[
            self.look
        ]


gymnasium.register("worldpilot_test/Dot-v0", lambda **options: Dot(**options))
PUSH_LEFT = """
import numpy as np

def push_left(world, rng):
    while True:
        yield np.full(1, -rng.uniform(0.5, 1.0))
"""


def make(look: str = "dict", **options: Any) -> GymWorld:
    env = Dot(look, render_mode="rgb_array")
    return GymWorld(env, box_action(env), signals=named({"speed": ["speed"]}), **options)


@pytest.mark.parametrize(("look", "key"), [("dict", "pixels"), ("image", None), ("vector", None)])
def test_the_image_is_found_and_resized(look: str, key: str | None) -> None:
    world = make(look, image_key=key, size=16)
    world.drive(np.zeros(1))
    seen = world.observe()
    column = int(np.argmax(seen.data[0, :, 0]))
    assert seen.data.shape == (16, 16, 3)
    assert seen.data[0, column, 0] in (127, 128)  # one of two columns
    assert seen.stamp == pytest.approx(0.05)
    assert world.render(32).shape == (32, 32, 3)


def test_seed_and_controls_lead_to_the_same_state() -> None:
    first, second = make(image_key="pixels"), make(image_key="pixels")
    first.reset(seed=9)
    for control in (0.3, -1.0, 0.5):
        first.drive(np.array([control]))
    second.reset(seed=1)
    second.drive(np.array([2.0]))
    second.reset(seed=9)
    for control in (0.3, -1.0, 0.5):
        second.step(np.array([control], np.float32))
    assert (first.observe().data == second.observe().data).all()
    assert first.signals() == second.signals() == {"speed": 0.5}
    assert first.outcome() == second.outcome()


def test_the_end_is_told_and_goes_by() -> None:
    world = make(image_key="pixels")
    for _ in range(30):
        world.drive(np.array([2.0]))
    assert world.ended
    assert world.outcome() == {"left": False, "ended": True}
    world.drive(np.array([-2.0]))
    assert not world.ended


def test_the_action_spec_is_the_environments() -> None:
    spec = box_action(Dot())
    assert (spec.low, spec.high, spec.control_dt, spec.max_rate) == ((-2.0,), (2.0,), 0.05, (80.0,))
    assert box_action(Dot(), control_dt=0.1).control_dt == 0.1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs a bounded Box of actions, this one has Discrete"):
        box_action(Dot(discrete=True))
    with pytest.raises(InvalidInput, match="gives no image"):
        GymWorld(Dot("vector"), box_action(Dot()))
    with pytest.raises(UnknownName, match=r"image key 'pixel'; valid names: pixels, position"):
        make("dict", image_key="pixel")
    two = ActionSpec(("a", "b"), ("1", "1"), (0.0, 0.0), (1.0, 1.0), (1.0, 1.0), 0.1, 5)
    with pytest.raises(InvalidInput, match="has 1 controls, the action spec 2"):
        GymWorld(Dot(), two)
    blind = Dot()
    blind.metadata = {}
    with pytest.raises(InvalidInput, match="give a control_dt"):
        box_action(blind)
    with pytest.raises(UnknownName, match="signal key 'height'; valid names: position, speed"):
        named({"height": ["z"]})({"position": 1}, {"speed": 2})
    with pytest.raises(InvalidInput, match="position has 2 numbers, the names are x"):
        named({"position": ["x"]})({"position": [1, 2]}, {})


@pytest.mark.parametrize("policy", ["random", "dot_behaviour:push_left"])
def test_the_command_line_collects_until_the_end(tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dot_behaviour.py").write_text(PUSH_LEFT)
    monkeypatch.syspath_prepend(tmp_path)
    command = ["collect-gym", "worldpilot_test/Dot-v0", "--out", str(tmp_path / "dot"), "--episodes", "3"]
    command += ["--image-key", "pixels", "--signal", "position=x", "--signal", "speed=speed", "--policy", policy]
    assert main([*command, "--seed", "5", "--size", "16", "--steps", "60", "--workers", "1"]) == 0
    store = EpisodeStore(tmp_path / "dot")
    assert store.meta["task"] == "dot"
    assert ActionSpec.from_dict(store.meta["action"]) == box_action(Dot())
    assert [meta["seed"] for meta in store.metas] == [5, 6, 7]
    assert {meta["behaviour"] for meta in store.metas} == {policy.rpartition(":")[2]}
    for episode in store:
        moved = np.diff(episode.signals["x"])
        inside = np.abs(episode.signals["x"][1:]) < 1
        assert moved[inside] == pytest.approx(episode.controls[inside, 0] / 20, abs=1e-5)
        assert inside[:-1].all()
        assert episode.signals["speed"][1:] == pytest.approx(episode.controls[:, 0])
        assert episode.meta["ended"] == (abs(episode.signals["x"][-1]) == 1)
        assert episode.meta["ended"] or len(episode) == 60


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (["--policy", "nowhere:policy"], "neither random nor MODULE:FUNCTION"),
        (["--signal", "height=z"], "unknown signal key 'height'"),
        (["--env-args", '{"colour": 1}'], "cannot be made"),
        (["--episodes", "0"], "at least 1"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, wrong: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["collect-gym", "worldpilot_test/Dot-v0", "--out", str(tmp_path), "--episodes", "1"]
    assert main([*command, "--image-key", "pixels", *wrong]) == 2
    assert text in capsys.readouterr().err
