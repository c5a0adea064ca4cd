"""`worldpilot calibrate target|capture|camera|hand-eye|practice`: cameras, and where they sit on a robot.

Libraries are imported when a command runs: `worldpilot calibrate monitor` must do without OpenCV.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldpilot.errors import InvalidInput

if TYPE_CHECKING:
    from worldpilot.calibration.targets import Target
    from worldpilot.calibration.views import View

_TARGET = "the target's YAML (`calibrate target` writes it; Kalibr's works), or that text in braces"


def add_kinds(kinds: Any) -> None:
    """The subcommands."""
    target = kinds.add_parser("target", help="a target to print: PDF at true scale, and its YAML beside")
    target.add_argument("type", choices=["charuco", "aprilgrid"])
    target.add_argument("--out", type=Path, required=True, help="the PDF")
    target.add_argument("--paper", default="a4", help="a4, a3 or letter")
    target.add_argument("--columns", type=int, help="squares of a charuco (9), tags of an aprilgrid (6)")
    target.add_argument("--rows", type=int, help="likewise (6; 6)")
    target.add_argument("--square", type=float, help="charuco: side of a square [m] (0.028)")
    target.add_argument("--marker", type=float, help="charuco: side of a marker [m] (3/4 of the square)")
    target.add_argument("--dictionary", help="charuco: OpenCV's name of the markers' dictionary (5x5_100)")
    target.add_argument("--tag", type=float, help="aprilgrid: side of a tag [m] (0.024)")
    target.add_argument("--spacing", type=float, help="aprilgrid: gap between tags, as a share of a tag (0.3)")
    target.set_defaults(calibrate=make_target)

    capture = kinds.add_parser("capture", help="live guidance: what is missing, what to do next; keeps good frames")
    source = capture.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, help="a folder: says what its images still lack")
    source.add_argument("--device", help="number of a camera, or a video file")
    source.add_argument("--topic", help="a ROS image topic, rgb8, bgr8 or mono8")
    capture.add_argument("--target", required=True, help=_TARGET)
    capture.add_argument("--out", type=Path, help="folder for the frames of a camera or topic that are kept")
    capture.add_argument("--seconds", type=float, default=600.0, help="give up after this")
    capture.add_argument("--json", type=Path, help="write what is covered and what is missing here")
    capture.set_defaults(calibrate=capture_views)

    camera = kinds.add_parser("camera", help="intrinsics from images of a target")
    camera.add_argument("--images", type=Path, required=True, help="folder of images of one size")
    camera.add_argument("--target", required=True, help=_TARGET)
    camera.add_argument(
        "--model", default="auto", help="plumb_bob, rational_polynomial, equidistant (fisheye); auto: which tells best"
    )
    camera.add_argument("--out", type=Path, required=True, help="ROS's camera_info YAML")
    camera.add_argument("--name", default="camera", help="the camera's name in it")
    camera.add_argument("--report", type=Path, help="write a page of HTML here")
    camera.add_argument("--plots", type=Path, help="write its plots as PNG into this folder")
    camera.add_argument("--json", type=Path, help="write the result here")
    camera.set_defaults(calibrate=calibrate_camera)

    hand_eye = kinds.add_parser("hand-eye", help="where the camera sits on the robot, or beside it")
    hand_eye.add_argument("--images", type=Path, required=True, help="folder of images")
    hand_eye.add_argument(
        "--poses", type=Path, required=True, help="CSV or YAML: name, x, y, z [m], qx, qy, qz, qw; gripper in base"
    )
    hand_eye.add_argument("--target", required=True, help=_TARGET)
    hand_eye.add_argument("--camera", type=Path, required=True, help="camera_info YAML of the camera")
    hand_eye.add_argument("--setup", choices=["eye-in-hand", "eye-to-hand"], default="eye-in-hand")
    hand_eye.add_argument("--out", type=Path, required=True, help="YAML with both poses and their uncertainty")
    hand_eye.add_argument("--report", type=Path, help="write a page of HTML here")
    hand_eye.add_argument("--plots", type=Path, help="write its plots as PNG into this folder")
    hand_eye.add_argument("--json", type=Path, help="write the result here")
    hand_eye.set_defaults(calibrate=calibrate_hand_eye)

    practice = kinds.add_parser("practice", help="rendered images with a known truth, to try the other commands on")
    practice.add_argument("--target", required=True, help=_TARGET)
    practice.add_argument("--out", type=Path, required=True, help="folder: images/, arm/, poses.csv, truth.json")
    practice.add_argument("--views", type=int, default=24, help="images for the intrinsics")
    practice.add_argument("--poses", type=int, default=20, help="images of the arm")
    practice.add_argument("--setup", choices=["eye-in-hand", "eye-to-hand"], default="eye-in-hand")
    practice.add_argument("--camera", type=Path, help="camera_info YAML of the lens; default: one with a wide lens")
    practice.add_argument("--seed", type=int, default=0)
    practice.set_defaults(calibrate=make_practice)


def make_target(args: argparse.Namespace) -> int:
    import yaml

    from worldpilot.calibration import printing, targets

    given = {"columns": args.columns, "rows": args.rows}
    if args.type == "charuco":
        square = args.square or targets.Charuco.square
        dictionary = targets.dictionary_name(args.dictionary or targets.Charuco.dictionary)
        given |= {"square": square, "marker": args.marker or round(0.75 * square, 6), "dictionary": dictionary}
        cls: Any = targets.Charuco
    else:
        given |= {"tag": args.tag, "spacing": args.spacing}
        cls = targets.AprilGrid
    foreign = ("tag", "spacing") if args.type == "charuco" else ("square", "marker", "dictionary")
    if wrong := [f"--{name}" for name in foreign if getattr(args, name) is not None]:
        raise InvalidInput(f"target: a {args.type} has no {', '.join(wrong)}")
    target = cls(**{name: value for name, value in given.items() if value is not None})
    sheet = printing.pdf(target, args.paper)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(sheet)
    described = args.out.with_suffix(".yaml")
    described.write_text(yaml.safe_dump(target.to_dict(), sort_keys=False))
    print(f"{target}, on {args.paper}: {args.out}; described in {described}")
    print("print at 100 %, glue it on something flat, measure the bar; if it isn't 100 mm, scale the sides in the YAML")
    return 0


def capture_views(args: argparse.Namespace) -> int:
    import cv2

    from worldpilot.calibration.coverage import Guide, coverage
    from worldpilot.calibration.targets import load
    from worldpilot.calibration.views import look, look_at, sort_out

    target = load(args.target)
    if args.images:
        from worldpilot.calibration.views import image_files

        views, dropped = sort_out(look_at(image_files(args.images), target), target)
        for name, reason in dropped.items():
            print(f"{name}: {reason}")
        covered = coverage(views, target)
    else:
        if args.out is None:
            raise InvalidInput("capture: --out names the folder for the frames that are kept")
        args.out.mkdir(parents=True, exist_ok=True)
        guide, said, count = Guide(target), "", len(list(args.out.glob("view_*.png")))
        for frame in _frames(args):
            taken, words = guide.consider(look("frame", frame, target))
            if taken:
                cv2.imwrite(str(args.out / f"view_{count:03d}.png"), frame)
                count += 1
            if taken or words != said:
                print(f"{guide.covered.share:4.0%}  {len(guide.views)} views  {words}", flush=True)
                said = words
            if guide.complete:
                break
        covered = guide.covered
    print(f"covered: {covered.share:.0%}, {covered.counts['views']} views")
    for text in covered.advice:
        print(f"  {text}")
    if args.json:
        _write(args.json, {"share": covered.share, "counts": dict(covered.counts), "advice": list(covered.advice)})
    return 0


def calibrate_camera(args: argparse.Namespace) -> int:
    from worldpilot.calibration import report
    from worldpilot.calibration.camera import calibrate
    from worldpilot.calibration.coverage import coverage
    from worldpilot.calibration.targets import load

    target = load(args.target)
    result = calibrate(_look(args.images, target), target, args.model)
    covered = coverage(result.views, target, result.intrinsics)
    figures = report.camera_figures(result, target, covered)
    text = result.intrinsics.camera_info(args.name)
    _write(args.out, text)
    for name, reason in result.dropped.items():
        print(f"dropped {name}: {reason}")
    if result.removed:
        print(f"corners left out: {', '.join(f'{name} {count}' for name, count in result.removed.items())}")
    camera = result.intrinsics
    print(f"{camera.model}, {len(result.views)} views, {sum(map(len, result.residuals))} corners")
    for name, value, std in zip(camera.names, camera.parameters, result.std, strict=True):
        print(f"  {name:3} {value:12.5f} ± {std:.5f}")
    print(f"reprojection error: {result.held_out_rms:.4f} px on views held out, {result.rms:.4f} px in the fit")
    for warning in report.camera_warnings(result, figures):
        print(warning)
    if args.report:
        _write(args.report, report.camera_page(result, figures, text))
    if args.plots:
        report.save(report.camera_pictures(result), args.plots)
    if args.json:
        _write(args.json, figures)
    print(f"written to {args.out}")
    return 0


def calibrate_hand_eye(args: argparse.Namespace) -> int:
    import yaml

    from worldpilot.calibration import hand_eye, report, robot_poses
    from worldpilot.calibration.intrinsics import read_camera_info
    from worldpilot.calibration.targets import load

    target, camera = load(args.target), read_camera_info(args.camera)
    poses = robot_poses.read_poses(args.poses)
    pairs = robot_poses.pair(poses, _look(args.images, target), target, camera)
    result = hand_eye.solve(pairs.gripper, pairs.seen, args.setup, seen_covariance=pairs.covariance)
    figures = report.hand_eye_figures(result, pairs, target)
    kept = {name: figures[name] for name in ("setup", "camera", "target", "residual_rms", "robot_noise")}
    _write(args.out, yaml.safe_dump(kept, sort_keys=False, default_flow_style=None, width=120))
    for name, reason in figures["dropped"].items():
        print(f"dropped {name}: {reason}")
    for name in ("camera", "target"):
        pose = figures[name]
        place = ", ".join(f"{1e3 * value:.2f}" for value in pose["translation_m"])
        spread = ", ".join(f"{1e3 * value:.2f}" for value in pose["std_translation_m"])
        turn = ", ".join(f"{value:.5f}" for value in pose["quaternion_xyzw"])
        turned = ", ".join(f"{np.degrees(value):.3f}" for value in pose["std_rotation_rad"])
        print(f"{name} in {pose['parent']}: {place} mm (± {spread}), xyzw {turn} (± {turned} degrees)")
    rms = result.rms
    print(
        f"residuals of the gripper: {1e3 * rms[0]:.3f} mm, {np.degrees(rms[1]):.4f} degrees; {len(result.used)} poses"
    )
    print(f"ros2 run tf2_ros static_transform_publisher {report.static_transform(result)}")
    if args.report:
        _write(args.report, report.hand_eye_page(result, pairs, figures))
    if args.plots:
        report.save(report.hand_eye_pictures(result, pairs), args.plots)
    if args.json:
        _write(args.json, figures)
    print(f"written to {args.out}")
    return 0


def make_practice(args: argparse.Namespace) -> int:
    from worldpilot.calibration.intrinsics import read_camera_info
    from worldpilot.calibration.targets import load
    from worldpilot.cli.calibrate_practice import write
    from worldpilot.sim.lens import Lens

    if args.views < 0 or args.poses < 0:
        raise InvalidInput(f"practice: numbers of images are 0 or more, got {args.views}, {args.poses}")
    lens = Lens((1280, 720), 905.0, 903.0, 651.0, 348.0, "plumb_bob", (-0.28, 0.09, 0.0006, -0.0004, -0.01))
    if args.camera:
        camera = read_camera_info(args.camera)
        fx, fy, cx, cy, *distortion = camera.parameters
        lens = Lens(camera.size, fx, fy, cx, cy, camera.model, tuple(distortion))
    write(args.out, load(args.target), lens, args.views, args.poses, args.setup, args.seed)
    print(f"{args.views} images in {args.out / 'images'}, {args.poses} of a robot in {args.out / 'arm'}, {args.setup}")
    return 0


def _look(folder: Path, target: "Target") -> list["View"]:
    from worldpilot.calibration.views import image_files, look_at

    return look_at(image_files(folder), target)


def _frames(args: argparse.Namespace) -> Iterator[Any]:
    """Grey frames of a camera, a video or a topic, for at most `args.seconds`."""
    import time

    from worldpilot.calibration.views import grey

    end = time.monotonic() + args.seconds
    source = _topic_frames(args.topic) if args.topic else _device_frames(args.device)
    for frame in source:
        if time.monotonic() > end:
            return
        yield grey(frame)


def _device_frames(device: str) -> Iterator[Any]:
    import cv2

    source = cv2.VideoCapture(int(device) if device.isdigit() else device)
    if not source.isOpened():
        raise InvalidInput(f"capture: {device} is neither a camera nor a video that OpenCV can open")
    try:
        while True:
            read, frame = source.read()
            if not read:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        source.release()


def _topic_frames(topic: str) -> Iterator[Any]:
    from worldpilot.cli import ros

    ros.enter()
    from worldpilot_nodes.frames import frames

    yield from frames(topic)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2) + "\n")
