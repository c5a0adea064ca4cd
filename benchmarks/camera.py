"""How well do `worldpilot calibrate camera` and `hand-eye` do on rendered images, of which the truth is known?

    python benchmarks/camera.py --json docs/results/camera.json --markdown docs/results/camera.md

For each seed a lens, a light and the poses are drawn; 24 views are calibrated on, 8 fresh ones are told with the
result. Then a robot with noise of 0.1 mm and 0.02 degrees on each coordinate shows the target 20 times, camera on the
gripper and camera beside it; OpenCV's methods get the same poses and the same corners. A run that is stopped goes on
where it was.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from camera_page import HELD_OUT, markdown
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from worldpilot.calibration import hand_eye
from worldpilot.calibration.camera import Calibration, calibrate, locate
from worldpilot.calibration.hand_eye import Setup
from worldpilot.calibration.intervals import bootstrap_mean, wilson
from worldpilot.calibration.intrinsics import Floats
from worldpilot.calibration.robot_poses import pair
from worldpilot.calibration.targets import AprilGrid, Charuco, Target
from worldpilot.calibration.views import View, look, sight
from worldpilot.cli.calibrate_practice import pattern
from worldpilot.sim.arm_view import scene
from worldpilot.sim.board_view import Light, Pattern, Studio, poses
from worldpilot.sim.lens import Lens

SIZE = (1280, 720)  # [px]
VIEWS, FRESH, ARM = 24, 8, 20
SETUPS: tuple[Setup, ...] = ("eye-in-hand", "eye-to-hand")
NOISE = (1e-4, float(np.deg2rad(0.02)))  # [m], [rad], of the robot
TARGETS: Mapping[str, Target] = {"charuco": Charuco(), "aprilgrid": AprilGrid()}
_METHODS = ("TSAI", "PARK", "HORAUD", "ANDREFF", "DANIILIDIS")
_HAND_EYE = {name: getattr(cv2, f"CALIB_HAND_EYE_{name}") for name in _METHODS}
_ROBOT_WORLD = {"SHAH": cv2.CALIB_ROBOT_WORLD_HAND_EYE_SHAH, "LI": cv2.CALIB_ROBOT_WORLD_HAND_EYE_LI}


def plumb_bob(rng: np.random.Generator) -> Lens:
    """From a slight pincushion to a strong barrel."""
    focal, k1 = rng.uniform(650, 1100), rng.uniform(-0.35, 0.1)
    k2 = -0.6 * k1 * abs(k1) + rng.uniform(0.02, 0.05) if k1 < 0 else rng.uniform(-0.1, 0.0)
    return _lens(rng, focal, "plumb_bob", (k1, k2, *rng.uniform(-1e-3, 1e-3, 2), rng.uniform(-0.01, 0.0)))


def rational_polynomial(rng: np.random.Generator) -> Lens:
    """A wide lens of about 130 degrees."""
    k4 = rng.uniform(1.2, 1.7)
    radial = k4 - rng.uniform(0.35, 0.45), 0.3 * k4 - rng.uniform(0.1, 0.2)
    return _lens(
        rng,
        rng.uniform(560, 640),
        "rational_polynomial",
        (*radial, *rng.uniform(-5e-4, 5e-4, 2), 0.01, k4, 0.4 * k4, 0.04),
    )


def equidistant(rng: np.random.Generator) -> Lens:
    """A fisheye of about 160 degrees."""
    return _lens(rng, rng.uniform(480, 560), "equidistant", tuple(rng.uniform(-1, 1, 4) * [0.04, 0.02, 0.01, 0.002]))


LENSES: Mapping[str, Callable[[np.random.Generator], Lens]] = {
    "plumb_bob": plumb_bob,
    "rational_polynomial": rational_polynomial,
    "equidistant": equidistant,
}


def _lens(rng: np.random.Generator, focal: float, model: str, distortion: Sequence[float]) -> Lens:
    fy = focal * (1 + rng.normal(0, 0.003))
    cx, cy = rng.normal([(SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2], 12)
    return Lens(SIZE, focal, fy, cx, cy, model, tuple(float(value) for value in distortion))


def measure(seed: int, target_name: str, lens_name: str, setups: Sequence[Setup]) -> dict[str, Any]:
    """The figures of one seed."""
    rng, target = np.random.default_rng([seed, len(target_name), len(lens_name)]), TARGETS[target_name]
    lens, sheet = LENSES[lens_name](rng), pattern(target)
    light = Light(blur=rng.uniform(0.4, 1.0), noise=rng.uniform(1, 3), gradient=rng.uniform(0, 0.4))
    studio, waved = Studio(lens, light), poses(lens, sheet, rng)
    views = _look(target, studio, sheet, (next(waved) for _ in range(VIEWS + FRESH)), rng)
    result = calibrate(views[:VIEWS], target)
    fresh = [found[1] for view in views[VIEWS:] if (found := locate(view, target, result.intrinsics))]
    corners = sum(len(view.detection.ids) for view in views[VIEWS:])
    figures: dict[str, Any] = {
        "seed": seed,
        "target": target_name,
        "lens": lens_name,
        "model": result.intrinsics.model,
        "views": len(result.views),
        "fresh_views": len(fresh),
        "fresh_px": _rms(np.concatenate(fresh)),
        "fresh_left_out": 1 - sum(map(len, fresh)) / corners,
        "held_out_px": result.held_out_rms,
        "fit_px": result.rms,
        "field_px": field_error(result, lens),
    }
    if result.intrinsics.model == lens.model:
        errors = np.array(result.intrinsics.parameters) - [lens.fx, lens.fy, lens.cx, lens.cy, *lens.distortion]
        figures["errors"] = dict(zip(result.intrinsics.names, errors.tolist(), strict=True))
        figures["errors_in_std"] = dict(zip(result.intrinsics.names, (errors / result.std).tolist(), strict=True))
    if lens_name == "plumb_bob":
        figures["opencv"] = opencv_camera(views, target, lens)
    for setup in setups:
        held = scene(setup, lens, sheet, ARM, rng, noise=NOISE)
        seen = _look(target, studio, sheet, held.seen, rng)
        reported = {view.name: pose for view, pose in zip(seen, held.reported, strict=True)}
        pairs = pair(reported, seen, target, result.intrinsics)
        solved = hand_eye.solve(pairs.gripper, pairs.seen, setup, seen_covariance=pairs.covariance)
        theirs = opencv_hand_eye(pairs.gripper, pairs.seen, setup)
        figures[setup] = {
            "ours": _off(solved.camera, held.camera),
            "in_std": ((solved.camera[:3, 3] - held.camera[:3, 3]) / solved.std[:3]).tolist(),
            **{name: _off(pose, held.camera) for name, pose in theirs.items()},
        }
    return figures


def _look(target: Target, studio: Studio, sheet: Pattern, at: Iterable[Floats], rng: np.random.Generator) -> list[View]:
    return [look(f"{i:03d}", studio.picture(sheet, pose, rng), target) for i, pose in enumerate(at)]


def field_error(result: Calibration, lens: Lens) -> float:
    """Root mean square [px] over the image between where both cameras see a ray, turned so that they agree best."""
    u, v = np.meshgrid(np.linspace(0, SIZE[0] - 1, 33), np.linspace(0, SIZE[1] - 1, 19))
    pixels = np.stack([u.ravel(), v.ravel()], 1)
    rays, ours = lens.rays(pixels), result.intrinsics.normalise(pixels)
    good = np.isfinite(rays).all(1) & np.isfinite(ours).all(1)
    mine = np.column_stack([ours[good], np.ones(good.sum())])
    turn = Rotation.align_vectors(rays[good], mine / np.linalg.norm(mine, axis=1, keepdims=True))[0]
    return _rms(lens.project(turn.apply(mine)) - pixels[good])


def opencv_camera(views: Sequence[View], target: Target, lens: Lens) -> dict[str, float]:
    """`cv2.calibrateCamera` on the same corners, none left out."""
    sights = [sight(view, target) for view in views if len(view.detection.ids) >= 8]
    points = [p.astype(np.float32) for p, _ in sights[:VIEWS]]
    corners = [c.astype(np.float32) for _, c in sights[:VIEWS]]
    _, matrix, distortion, *_ = cv2.calibrateCamera(points, corners, SIZE, np.eye(3), np.zeros(5))
    missed = []
    for p, c in sights[VIEWS:]:
        _, turn, place = cv2.solvePnP(p, c, matrix, distortion)
        turn, place = cv2.solvePnPRefineLM(p, c, matrix, distortion, turn, place)
        missed.append(cv2.projectPoints(p, turn, place, matrix, distortion)[0].reshape(-1, 2) - c)
    off = matrix - lens.matrix
    return {"fresh_px": _rms(np.concatenate(missed)), "fx": float(off[0, 0]), "cx": float(off[0, 2])}


def opencv_hand_eye(gripper: Floats, seen: Floats, setup: Setup) -> dict[str, Floats]:
    """The camera's pose by each of OpenCV's methods."""
    forward = gripper if setup == "eye-in-hand" else np.linalg.inv(gripper)
    back, found = np.linalg.inv(forward), {}

    def split(poses: Any) -> tuple[list[Floats], list[Floats]]:
        return list(poses[:, :3, :3]), list(poses[:, :3, 3])

    for name, method in _HAND_EYE.items():
        found[name] = _pose(*cv2.calibrateHandEye(*split(forward), *split(seen), method=method))
    for name, method in _ROBOT_WORLD.items():
        solution = cv2.calibrateRobotWorldHandEye(*split(seen), *split(back), method=method)
        found[name] = np.linalg.inv(_pose(*solution[2:]))
    return found


def _pose(turn: Any, place: Any) -> Floats:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, np.ravel(place)
    return pose


def _off(pose: Floats, truth: Floats) -> list[float]:
    """[mm], [degrees] between two poses."""
    turn = Rotation.from_matrix(pose[:3, :3].T @ truth[:3, :3]).magnitude()
    return [1e3 * float(np.linalg.norm(pose[:3, 3] - truth[:3, 3])), float(np.degrees(turn))]


def _rms(residuals: Any) -> float:
    return float(np.sqrt((residuals**2).sum(1).mean()))


def summarise(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means with bootstrap intervals over seeds."""
    groups: dict[str, Any] = {}
    for lens, target in dict.fromkeys((r["lens"], r["target"]) for r in records):
        own = [r for r in records if (r["lens"], r["target"]) == (lens, target)]
        right = [r for r in own if "errors" in r]
        group: dict[str, Any] = {
            "n": len(own),
            "model_found": _share(len(right), len(own)),
            **{
                key: _mean([r[key] for r in own])
                for key in ("fresh_px", "fresh_left_out", "held_out_px", "fit_px", "field_px")
            },
            "fresh_px_worst": max(r["fresh_px"] for r in own),
            "below_aim": _share(sum(r["fresh_px"] <= HELD_OUT for r in own), len(own)),
        }
        if len(right) > 1 and lens != "rational_polynomial":  # whose coefficients trade with one another
            names = list(right[0]["errors"])
            group["absolute_errors"] = {n: _mean([abs(r["errors"][n]) for r in right]) for n in names}
            z = np.array([[r["errors_in_std"][n] for n in names] for r in right])
            group["within_2_std"] = {
                **_share(int((np.abs(z) <= 2).sum()), z.size),
                "per_parameter": dict(zip(names, (np.abs(z) <= 2).mean(0).tolist(), strict=True)),
            }
        if all("opencv" in r for r in own):
            group["opencv"] = {
                "fresh_px": _mean([r["opencv"]["fresh_px"] for r in own]),
                "fx": _mean([abs(r["opencv"]["fx"]) for r in own]),
                "cx": _mean([abs(r["opencv"]["cx"]) for r in own]),
            }
        for setup in SETUPS:
            if all(setup in r for r in own):
                methods = [name for name in own[0][setup] if name != "in_std"]
                group[setup] = {
                    m: {"mm": _mean([r[setup][m][0] for r in own]), "degrees": _mean([r[setup][m][1] for r in own])}
                    for m in methods
                }
                inside = np.abs([r[setup]["in_std"] for r in own]) <= 2
                group[setup]["within_2_std"] = _share(int(inside.sum()), inside.size)
        groups[f"{lens}, {target}"] = group
    return groups


def _mean(values: Sequence[float]) -> dict[str, Any]:
    return {"value": float(np.mean(values)), "n": len(values), "ci": list(bootstrap_mean(values))}


def _share(count: int, n: int) -> dict[str, Any]:
    return {"value": count / n, "n": n, "ci": list(wilson(count, n))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="of the common lens, with both targets and both set-ups")
    parser.add_argument("--others", type=int, default=8, help="seeds of the other lenses, intrinsics alone")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--log", type=Path, default=Path("runs/camera.jsonl"), help="finished seeds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    jobs = [(s, t, "plumb_bob", SETUPS) for s in range(args.seed, args.seed + args.seeds) for t in TARGETS]
    others = [name for name in LENSES if name != "plumb_bob"]
    jobs += [(s, t, lens, ()) for lens in others for s in range(args.seed, args.seed + args.others) for t in TARGETS]
    args.log.parent.mkdir(parents=True, exist_ok=True)
    done = {}
    if args.log.exists():
        read = [json.loads(line) for line in args.log.read_text().splitlines()]
        done = {(r["seed"], r["target"], r["lens"]): r for r in read}
    for job in tqdm(jobs):
        if job[:3] not in done:
            done[job[:3]] = measure(*job)
            with args.log.open("a") as file:
                file.write(json.dumps(done[job[:3]]) + "\n")
    if min(args.seeds, args.others) < 2:
        return
    groups = summarise([done[job[:3]] for job in jobs])
    command = f"python benchmarks/camera.py --seeds {args.seeds} --others {args.others} --seed {args.seed}"
    page = markdown(groups, command)
    print(page)
    if args.json:
        args.json.write_text(json.dumps({"seed": args.seed, "groups": groups}, indent=2) + "\n")
    if args.markdown:
        args.markdown.write_text(page)


if __name__ == "__main__":
    main()
