"""Pictures of a calibration: where corners were, how they were missed, what stays uncertain."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worldpilot.calibration.camera import Calibration, projection_std, root_mean_square
from worldpilot.calibration.coverage import GRID
from worldpilot.calibration.hand_eye import HandEye
from worldpilot.calibration.intrinsics import Floats, Intrinsics

_GOOD, _BAD, _QUIET = "#2563a8", "#c0392b", "#8a8a8a"


def corners(calibration: Calibration) -> Figure:
    """Where corners were seen, and by how much they were missed; the grid is the guidance's."""
    figure, axes = _canvas(calibration.intrinsics.size)
    seen = np.concatenate([view.detection.corners for view in calibration.views])
    missed = np.linalg.norm(np.concatenate(calibration.residuals), axis=1)
    dots = axes.scatter(*seen.T, c=missed, s=7, cmap="viridis", vmax=np.quantile(missed, 0.98))
    for side, n, line in zip(calibration.intrinsics.size, GRID, (axes.axvline, axes.axhline), strict=True):
        for cut in np.linspace(0, side, n + 1)[1:-1]:
            line(cut, color=_QUIET, lw=0.5)
    figure.colorbar(dots, ax=axes, label="missed by [px]", shrink=0.8)
    return figure


def residuals(calibration: Calibration) -> Figure:
    """Residuals as arrows in the image, and as a cloud."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    field, cloud = figure.subplots(1, 2, width_ratios=(1.7, 1))
    seen = np.concatenate([view.detection.corners for view in calibration.views])
    missed = np.concatenate(calibration.residuals)
    width, height = calibration.intrinsics.size
    scale = 0.02 * width / max(float(np.quantile(np.abs(missed), 0.95)), 1e-9)
    field.quiver(*seen.T, *(missed.T * scale), angles="xy", scale_units="xy", scale=1, width=0.0012, color=_GOOD)
    field.set(
        xlim=(0, width), ylim=(height, 0), aspect="equal", title=f"predicted minus seen, {scale:.0f} times as long"
    )
    cloud.scatter(*missed.T, s=4, alpha=0.4, color=_GOOD, lw=0)
    spread = float(np.sqrt((missed**2).mean()))
    for radius in (1, 2, 3):
        angle = np.linspace(0, 2 * np.pi, 200)
        cloud.plot(radius * spread * np.cos(angle), radius * spread * np.sin(angle), lw=0.8, color=_QUIET)
    cloud.set(aspect="equal", xlabel="u [px]", ylabel="v [px]", title=f"circles: 1, 2, 3 times {spread:.3f} px")
    cloud.grid(alpha=0.25)
    return figure


def errors_by_view(calibration: Calibration) -> Figure:
    """Each view's error in the fit, and told by intrinsics that were fitted without it."""
    names = [view.name for view in calibration.views]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes, at = figure.subplots(), np.arange(len(names))
    for shift, sets, colour, label in (
        (-0.2, calibration.residuals, _GOOD, "in the fit"),
        (0.2, calibration.held_out, "#e08a1e", "held out"),
    ):
        axes.bar(at + shift, [root_mean_square([r]) for r in sets], 0.4, color=colour, label=label)
    axes.axhline(calibration.held_out_rms, color=_QUIET, ls="--", lw=1)
    axes.set_xticks(at, names, rotation=90, fontsize=6 if len(names) > 40 else 8)
    axes.set_ylabel("reprojection error [px]")
    axes.legend(fontsize=8)
    return figure


def uncertainty(calibration: Calibration) -> Figure:
    """What the covariance leaves open of the projection, over the image."""
    camera = calibration.intrinsics
    figure, axes = _canvas(camera.size)
    u, v = np.meshgrid(np.linspace(0, camera.size[0] - 1, 40), np.linspace(0, camera.size[1] - 1, 24))
    values = projection_std(camera, calibration.covariance, np.stack([u.ravel(), v.ravel()], 1)).reshape(u.shape)
    lines = axes.contourf(u, v, np.ma.masked_invalid(values), levels=12, cmap="magma_r")
    figure.colorbar(lines, ax=axes, label="standard deviation [px]", shrink=0.8)
    return figure


def distortion(camera: Intrinsics) -> Figure:
    """How far the lens moves a point from where a pinhole would have it."""
    figure, axes = _canvas(camera.size)
    u, v = np.meshgrid(np.linspace(0, camera.size[0] - 1, 24), np.linspace(0, camera.size[1] - 1, 15))
    pixels = np.stack([u.ravel(), v.ravel()], 1)
    ideal = camera.normalise(pixels) * camera.parameters[:2] + camera.parameters[2:4]
    moved = pixels - ideal
    near = np.linalg.norm(moved, axis=1) < camera.size[0]
    axes.quiver(*ideal[near].T, *moved[near].T, angles="xy", scale_units="xy", scale=1, width=0.0015, color=_GOOD)
    axes.plot(*camera.parameters[2:4], "+", color=_BAD, ms=12, label="principal point")
    axes.legend(fontsize=8, loc="upper right")
    return figure


def gripper_residuals(result: HandEye, names: list[str]) -> Figure:
    """How far each reported pose is from what camera and target imply."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    places, turns = figure.subplots(2, 1, sharex=True)
    at, colours = np.arange(len(names)), ("#c0392b", "#2a7f4f", "#2563a8")
    for k, colour in enumerate(colours):
        places.bar(at + 0.25 * (k - 1), 1e3 * result.residuals[:, k], 0.25, color=colour, label="xyz"[k])
        turns.bar(at + 0.25 * (k - 1), np.degrees(result.residuals[:, 3 + k]), 0.25, color=colour)
    for axes, value in ((places, 1e3 * result.robot_noise[0]), (turns, np.degrees(result.robot_noise[1]))):
        axes.axhspan(-value, value, color=_QUIET, alpha=0.15, lw=0)
        axes.grid(alpha=0.25)
    places.set_ylabel("place [mm]")
    turns.set_ylabel("rotation [degrees]")
    turns.set_xticks(at, names, rotation=90, fontsize=6 if len(names) > 40 else 8)
    places.legend(fontsize=8, ncols=3)
    return figure


def arrangement(result: HandEye, gripper: Floats) -> Figure:
    """Base, gripper's poses, camera and target in space."""
    figure = Figure(figsize=(8, 7))
    axes = figure.add_subplot(projection="3d")
    in_hand = result.setup == "eye-in-hand"
    cameras = gripper @ result.camera if in_hand else result.camera[None]
    targets = result.target[None] if in_hand else gripper @ result.target
    for poses, length, colour, label in (
        (np.eye(4)[None], 0.15, "#222222", "base"),
        (gripper, 0.03, _QUIET, "gripper"),
        (cameras, 0.05, _GOOD, "camera"),
        (targets, 0.08, _BAD, "target"),
    ):
        axes.scatter(*poses[:, :3, 3].T, color=colour, s=14, label=label)
        for k, axis in enumerate(("#c0392b", "#2a7f4f", "#2563a8")):
            axes.quiver(*poses[:, :3, 3].T, *(length * poses[:, :3, k].T), color=axis, lw=0.8, arrow_length_ratio=0)
    points = np.concatenate([gripper[:, :3, 3], cameras[:, :3, 3], targets[:, :3, 3], np.zeros((1, 3))])
    middle, reach = (points.max(0) + points.min(0)) / 2, float(np.ptp(points, axis=0).max()) / 2 + 0.05
    axes.set(
        **{f"{name}lim": (m - reach, m + reach) for name, m in zip("xyz", middle, strict=True)},
        **{f"{name}label": f"{name} [m]" for name in "xyz"},
    )
    axes.legend(fontsize=8)
    return figure


def _canvas(size: tuple[int, int]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 8.2 * size[1] / size[0]), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="equal", xlabel="u [px]", ylabel="v [px]")
    return figure, axes
