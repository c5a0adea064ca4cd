"""The cameras' benchmark: OpenCV's methods are called right, the field's error is one, the page says what was found."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from worldpilot.calibration.camera import Calibration
from worldpilot.calibration.intrinsics import Intrinsics
from worldpilot.cli.calibrate_practice import pattern
from worldpilot.sim.arm_view import scene

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))  # as a script has it
    spec = importlib.util.spec_from_file_location("camera_benchmark", FOLDER / "camera.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["camera_benchmark"] = module
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FOLDER))


@pytest.mark.parametrize("setup", ["eye-in-hand", "eye-to-hand"])
def test_opencvs_methods_find_the_truth_without_noise(bench: ModuleType, setup: Any) -> None:
    lens, sheet = bench.plumb_bob(np.random.default_rng(0)), pattern(bench.TARGETS["charuco"])
    held = scene(setup, lens, sheet, 10, np.random.default_rng(1), noise=(0.0, 0.0))
    for name, pose in bench.opencv_hand_eye(held.gripper, held.seen, setup).items():
        np.testing.assert_allclose(pose, held.camera, atol=1e-4, err_msg=name)


def test_lenses_see_the_middle_and_differ(bench: ModuleType) -> None:
    for make in bench.LENSES.values():
        one, other = make(np.random.default_rng(0)), make(np.random.default_rng(1))
        assert one.distortion != other.distortion
        assert np.isfinite(one.rays(np.array([[640.0, 360.0], [200.0, 150.0]]))).all()


def test_the_fields_error_is_that_of_the_camera_and_not_of_its_direction(bench: ModuleType) -> None:
    lens = bench.plumb_bob(np.random.default_rng(0))

    def error(**shift: float) -> float:
        values = {"fx": lens.fx, "fy": lens.fy, "cx": lens.cx, "cy": lens.cy}
        moved = {name: value + shift.get(name, 0.0) for name, value in values.items()}
        camera = Intrinsics(lens.size, lens.model, (*moved.values(), *lens.distortion))
        return bench.field_error(
            Calibration(camera, np.zeros(9), np.zeros((9, 9)), (), (), np.zeros((0, 6)), (), {}), lens
        )

    assert error() < 1e-4
    assert error(fx=5.0, fy=5.0) > 0.5
    assert error(cx=1.0) < 0.4  # a turn undoes most of it


def record(seed: int, lens: str, fresh: float) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    arm = {name: [float(rng.uniform(0.05, 0.1)), 0.01] for name in ("ours", "PARK")} | {"in_std": [0.5, 0.5, 3.0]}
    names = ("fx", "fy", "cx", "cy", "k1")
    return {
        "seed": seed, "target": "charuco", "lens": lens, "model": lens, "views": 24, "fresh_px": fresh,
        "fresh_left_out": 0.0, "held_out_px": 0.03, "fit_px": 0.03, "field_px": 0.05,
        "errors": dict.fromkeys(names, 0.1), "errors_in_std": dict.fromkeys(names, 1.0),
        "opencv": {"fresh_px": 0.03, "fx": 0.1, "cx": 0.1}, "eye-in-hand": arm, "eye-to-hand": arm,
    }  # fmt: skip


def test_the_page_says_what_was_met_and_what_was_not(bench: ModuleType) -> None:
    good = bench.summarise([record(seed, "plumb_bob", 0.04) for seed in range(4)])
    (group,) = good.values()
    assert group["within_2_std"]["value"] == 1
    assert group["eye-in-hand"]["within_2_std"]["value"] == pytest.approx(2 / 3)
    page = bench.markdown(good, "python benchmarks/camera.py")
    assert "fresh views ≤ 0.06 px met (100 %" in page
    assert "eye-to-hand: ≤ 0.15 mm met" in page
    bad = bench.markdown(bench.summarise([record(seed, "plumb_bob", 0.07) for seed in range(4)]), "x")
    assert "fresh views ≤ 0.06 px not met (0 %" in bad
