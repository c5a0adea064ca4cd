"""What a calibration leaves for people, a page of HTML, and for programs, a JSON object."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from worldpilot.calibration import plots
from worldpilot.calibration.camera import Calibration, projection_std, root_mean_square
from worldpilot.calibration.coverage import Coverage
from worldpilot.calibration.hand_eye import HandEye, quaternion
from worldpilot.calibration.robot_poses import Pairs
from worldpilot.calibration.targets import Target

_DPI = 90
_MANY = 0.2  # share of the views, from which on dropping them is worth a warning


@dataclass(frozen=True)
class Picture:
    """A plot with its words."""

    name: str
    title: str
    text: str
    figure: Figure


def camera_figures(result: Calibration, target: Target, covered: Coverage) -> dict[str, Any]:
    """The figures of a camera's calibration."""
    camera = result.intrinsics
    width, height = camera.size
    u, v = np.meshgrid(np.linspace(0, width - 1, 16), np.linspace(0, height - 1, 9))
    spread = projection_std(camera, result.covariance, np.stack([u.ravel(), v.ravel()], 1))
    return {
        "target": target.to_dict(),
        "model": camera.model,
        "size": list(camera.size),
        "parameters": dict(zip(camera.names, camera.parameters, strict=True)),
        "std": dict(zip(camera.names, result.std.tolist(), strict=True)),
        "covariance": result.covariance.tolist(),
        "views": {
            view.name: {
                "corners": len(view.detection.ids),
                "rms_px": root_mean_square([result.residuals[i]]),
                "held_out_px": root_mean_square([result.held_out[i]]),
                "blur_px": view.blur,
            }
            for i, view in enumerate(result.views)
        },
        "rms_px": result.rms,
        "held_out_px": result.held_out_rms,
        "held_out_px_by_model": result.held_out_by_model,
        "projection_std_px": {"mean": float(np.nanmean(spread)), "max": float(np.nanmax(spread))},
        "dropped": result.dropped,
        "removed_corners": result.removed,
        "coverage": {"share": covered.share, "advice": list(covered.advice)},
    }


def camera_page(result: Calibration, figures: Mapping[str, Any], yaml_text: str) -> str:
    """The page of a camera's calibration."""
    tried = ", ".join(f"{name} {error:.3f}" for name, error in result.held_out_by_model.items())
    spread = figures["projection_std_px"]
    summary = [
        ("Model", f"{result.intrinsics.model} (held-out error of what was tried [px]: {tried})"),
        ("Error, views held out", f"{result.held_out_rms:.3f} px, root mean square over corners, 5 folds"),
        ("Error, in the fit", f"{result.rms:.3f} px"),
        ("Uncertainty of a projection", f"{spread['mean']:.3f} px on average, {spread['max']:.3f} px at most"),
        ("Views", f"{len(result.views)} used, {len(result.dropped)} dropped"),
        ("Corners", f"{sum(len(r) for r in result.residuals)} used, {sum(result.removed.values())} of them left out"),
    ]
    camera = result.intrinsics
    rows = [
        (n, f"{value:.6g}", f"{std:.2g}")
        for n, value, std in zip(camera.names, camera.parameters, result.std, strict=True)
    ]
    views = [
        (name, view["corners"], f"{view['rms_px']:.3f}", f"{view['held_out_px']:.3f}", f"{view['blur_px']:.2f}")
        for name, view in figures["views"].items()
    ]
    return _render(
        title="Camera calibration",
        subtitle=f"{camera.size[0]} x {camera.size[1]} px",
        summary=summary,
        warnings=camera_warnings(result, figures),
        pictures=camera_pictures(result),
        tables=[
            ("Parameters", ("name", "value", "standard deviation"), rows),
            ("Dropped views", ("view", "why"), list(result.dropped.items())),
            ("Views that were used", ("view", "corners", "in the fit [px]", "held out [px]", "blur [px]"), views),
        ],
        file={"name": "camera_info", "text": yaml_text},
    )


def camera_pictures(result: Calibration) -> list[Picture]:
    """The plots of a camera's calibration."""
    return [
        Picture("corners", "Where the corners were", "Colour: how far off the prediction is.", plots.corners(result)),
        Picture(
            "residuals",
            "Residuals",
            "Arrows that agree with their neighbours: the model lacks something.",
            plots.residuals(result),
        ),
        Picture(
            "views",
            "Views",
            "One that is much worse held out than in the fit has no like.",
            plots.errors_by_view(result),
        ),
        Picture(
            "uncertainty",
            "Uncertainty",
            "Of where a far point is seen, from the parameters' covariance; a turn of the camera is taken out.",
            plots.uncertainty(result),
        ),
        Picture(
            "distortion",
            "Distortion",
            "From where a pinhole sees a point to where this lens does.",
            plots.distortion(result.intrinsics),
        ),
    ]


def camera_warnings(result: Calibration, figures: Mapping[str, Any]) -> list[str]:
    """What to do better next time."""
    warnings = [
        f"Coverage is {figures['coverage']['share']:.0%}: {text}." for text in figures["coverage"]["advice"][:3]
    ]
    total = len(result.views) + len(result.dropped)
    if len(result.dropped) > _MANY * total:
        warnings.append(f"{len(result.dropped)} of {total} views were dropped.")
    if figures["projection_std_px"]["max"] > 1:
        warnings.append(
            f"Somewhere in the image a projection is uncertain by {figures['projection_std_px']['max']:.1f} px."
        )
    return warnings


def hand_eye_figures(result: HandEye, pairs: Pairs, target: Target) -> dict[str, Any]:
    """The figures of a hand-eye calibration."""
    names, std, rms = _frames(result), result.std, result.rms

    def placed(pose: Any, parent: str, part: slice) -> dict[str, Any]:
        place, turn = std[part][:3], std[part][3:]
        return {
            "parent": parent,
            "translation_m": pose[:3, 3].tolist(),
            "quaternion_xyzw": quaternion(pose),
            "matrix": pose.tolist(),
            "std_translation_m": place.tolist(),
            "std_rotation_rad": turn.tolist(),
        }

    return {
        "setup": result.setup,
        "target_board": target.to_dict(),
        "camera": placed(result.camera, names[0], slice(0, 6)),
        "target": placed(result.target, names[1], slice(6, 12)),
        "covariance": result.covariance.tolist(),
        "residual_rms": {"translation_m": rms[0], "rotation_rad": rms[1]},
        "robot_noise": {"translation_m": result.robot_noise[0], "rotation_rad": result.robot_noise[1]},
        "reprojection_px": root_mean_square(pairs.residuals),
        "poses": [pairs.names[i] for i in result.used],
        "dropped": pairs.dropped | {pairs.names[i]: reason for i, reason in result.dropped.items()},
    }


def hand_eye_page(result: HandEye, pairs: Pairs, figures: Mapping[str, Any]) -> str:
    """The page of a hand-eye calibration."""
    used = [pairs.names[i] for i in result.used]
    rows = []
    for name in ("camera", "target"):
        pose = figures[name]
        place = ", ".join(f"{1e3 * value:.2f} ± {1e3 * s:.2f}" for value, s in _zip(pose, "translation_m"))
        turn = ", ".join(f"{value:.5f}" for value in pose["quaternion_xyzw"])
        spread = ", ".join(f"{np.degrees(s):.3f}" for s in pose["std_rotation_rad"])
        rows.append((f"{name} in the frame of the {pose['parent']}", place, turn, spread))
    rms, noise = result.rms, result.robot_noise
    summary = [
        ("Set-up", result.setup),
        ("Poses", f"{len(used)} used, {len(figures['dropped'])} dropped"),
        ("Residuals of the gripper", f"{1e3 * rms[0]:.3f} mm, {np.degrees(rms[1]):.4f} degrees, root mean square"),
        ("Robot's noise, estimated", f"{1e3 * noise[0]:.3f} mm, {np.degrees(noise[1]):.4f} degrees a coordinate"),
        ("Reprojection error", f"{figures['reprojection_px']:.3f} px"),
    ]
    return _render(
        title=f"Hand-eye calibration, {result.setup}",
        subtitle="poses take the child's frame to the parent's",
        summary=summary,
        warnings=[],
        pictures=hand_eye_pictures(result, pairs),
        tables=[
            ("Result", ("pose", "x, y, z [mm] ± standard deviation", "quaternion x, y, z, w", "± [degrees]"), rows),
            ("Dropped", ("image", "why"), list(figures["dropped"].items())),
        ],
        file=None,
    )


def hand_eye_pictures(result: HandEye, pairs: Pairs) -> list[Picture]:
    """The plots of a hand-eye calibration."""
    used = list(result.used)
    return [
        Picture(
            "gripper",
            "Residuals",
            "Implied minus reported pose of the gripper; grey: a standard deviation of the robot's noise.",
            plots.gripper_residuals(result, [pairs.names[i] for i in used]),
        ),
        Picture(
            "arrangement", "Arrangement", "x red, y green, z blue.", plots.arrangement(result, pairs.gripper[used])
        ),
    ]


def save(pictures: Sequence[Picture], folder: Path) -> None:
    """Write plots as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        picture.figure.savefig(folder / f"{picture.name}.png", dpi=_DPI)


def static_transform(result: HandEye) -> str:
    """The arguments of ROS's static_transform_publisher for the camera."""
    x, y, z = result.camera[:3, 3]
    qx, qy, qz, qw = quaternion(result.camera)
    place = f"--x {x:.6f} --y {y:.6f} --z {z:.6f} --qx {qx:.8f} --qy {qy:.8f} --qz {qz:.8f} --qw {qw:.8f}"
    return f"{place} --frame-id {_frames(result)[0]} --child-frame-id camera_optical_frame"


def _frames(result: HandEye) -> tuple[str, str]:
    """The frames in which camera and target are given."""
    return ("gripper", "base") if result.setup == "eye-in-hand" else ("base", "gripper")


def _zip(pose: Mapping[str, Any], name: str) -> Sequence[tuple[float, float]]:
    return list(zip(pose[name], pose[f"std_{name}"], strict=True))


def _render(
    *,
    pictures: Sequence[Picture],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Any]]],
    **values: Any,
) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("worldpilot.calibration") / "report.html.j2").read_text("utf-8"))
    shown = [{"title": p.title, "text": p.text, "source": _inline(p.figure)} for p in pictures]
    filled = [{"title": title, "columns": columns, "rows": rows} for title, columns, rows in tables if rows]
    return template.render(pictures=shown, tables=filled, **values)


def _inline(figure: Figure) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_DPI)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
