"""Rendered views of both targets, once for all tests here."""

from collections.abc import Callable

import numpy as np
import pytest

from worldpilot.calibration.markers import Detection
from worldpilot.calibration.targets import AprilGrid, Charuco, Target
from worldpilot.calibration.views import View
from worldpilot.cli.calibrate_practice import pattern
from worldpilot.sim.board_view import Studio, poses
from worldpilot.sim.lens import Lens

LENS = Lens((960, 600), 700.0, 702.0, 483.0, 295.0, "plumb_bob", (-0.28, 0.09, 0.0006, -0.0004, -0.01))


@pytest.fixture(scope="session")
def lens() -> Lens:
    """A barrel."""
    return LENS


@pytest.fixture(scope="session")
def studio() -> Studio:
    """With that lens, in ordinary light."""
    return Studio(LENS)


@pytest.fixture(scope="session", params=["charuco", "aprilgrid"])
def target(request: pytest.FixtureRequest) -> Target:
    """Each of both."""
    return Charuco() if request.param == "charuco" else AprilGrid(columns=5, rows=4, tag=0.03)


@pytest.fixture(scope="session")
def make_views() -> Callable[..., list[View]]:
    """Views as if the target had been found with noise, without rendering."""

    def make(
        target: Target, lens: Lens, n: int, *, noise: float = 0.03, seed: int = 0, tilt: float = 50.0
    ) -> list[View]:
        rng, sheet = np.random.default_rng(seed), pattern(target)
        waved = poses(lens, sheet, rng, tilt=tilt)
        views = []
        for i in range(n):
            pose = next(waved)
            pixels = lens.project(target.points @ pose[:3, :3].T + pose[:3, 3])
            inside = ((pixels > 0) & (pixels < np.array(lens.size) - 1)).all(1)
            ids = np.flatnonzero(inside)
            corners = pixels[ids] + noise * rng.standard_normal((len(ids), 2))
            views.append(View(f"view_{i:02d}.png", lens.size, Detection(ids, corners), 0.8))
        return views

    return make
