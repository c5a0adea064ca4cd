"""A camera's intrinsics: how it projects, and ROS's camera_info files.

Pixels: (0, 0) is the centre of the upper left one. Camera frame: x right, y down, z ahead (REP-103's optical frame).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from worldpilot.errors import InvalidInput, UnknownName

Floats = npt.NDArray[np.float64]

# ROS's name -> names of the coefficients
MODELS = {
    "plumb_bob": ("k1", "k2", "p1", "p2", "k3"),
    "rational_polynomial": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "equidistant": ("k1", "k2", "k3", "k4"),
}
_LINEAR = ("fx", "fy", "cx", "cy")


@dataclass(frozen=True)
class Intrinsics:
    """A camera model with its parameters.

    Args:
        size: width and height of its images [px].
        model: one of `MODELS`: pinhole with radial and tangential distortion (Brown-Conrady), the same with a rational
            radial part, or an equidistant fisheye (Kannala-Brandt).
        parameters: fx, fy, cx, cy [px], then the model's coefficients.
    """

    size: tuple[int, int]
    model: str
    parameters: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise UnknownName("camera model", self.model, MODELS)
        if len(self.parameters) != len(self.names) or not np.isfinite(self.parameters).all():
            raise InvalidInput(f"camera: {self.model} has {len(self.names)} finite parameters, got {self.parameters}")
        if min(self.size) < 1 or min(self.parameters[:2]) <= 0:
            raise InvalidInput(f"camera: size and focal lengths are above 0, got {self.size}, {self.parameters[:2]}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters, in their order."""
        return _LINEAR + MODELS[self.model]

    @property
    def matrix(self) -> Floats:
        """(3, 3)."""
        fx, fy, cx, cy = self.parameters[:4]
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])

    @property
    def distortion(self) -> Floats:
        """The coefficients, in ROS's and OpenCV's order."""
        return np.array(self.parameters[4:])

    def project(self, points: Floats, pose: Floats) -> Floats:
        """Pixels (n, 2) of points (n, 3) [m], whose frame has `pose` (6,), a rotation vector and a place, in ours."""
        return self.jacobian(points, pose)[0]

    def jacobian(self, points: Floats, pose: Floats) -> tuple[Floats, Floats, Floats]:
        """Pixels (n, 2), their derivatives (2n, P) by the parameters and (2n, 6) by the pose."""
        where = np.ascontiguousarray(points, np.float64).reshape(-1, 1, 3)
        turn, place = pose[:3].reshape(3, 1), pose[3:].reshape(3, 1)
        if self.model == "equidistant":
            return self._equidistant(where.reshape(-1, 3), turn, place)
        pixels, full = cv2.projectPoints(where, turn, place, self.matrix, self.distortion)
        slopes = np.asarray(full, np.float64)[:, : 10 + len(self.distortion)]
        return np.asarray(pixels, np.float64).reshape(-1, 2), slopes[:, 6:], slopes[:, :6]

    def _equidistant(self, points: Floats, turn: Floats, place: Floats) -> tuple[Floats, Floats, Floats]:
        """As `jacobian`; OpenCV's own mirrors what is more than 90 degrees off the axis."""
        n, (fx, fy, cx, cy) = len(points), self.parameters[:4]
        matrix, by_turn = cv2.Rodrigues(turn)
        seen = points @ matrix.T + place.T
        across = np.hypot(seen[:, 0], seen[:, 1]).clip(1e-12)
        side, z = seen[:, :2] / across[:, None], seen[:, 2]
        angle = np.arctan2(across, z)
        powers = angle[:, None] ** np.arange(3, 10, 2)
        bent = angle + powers @ self.distortion
        slope = 1 + (powers / angle[:, None] * [3, 5, 7, 9]) @ self.distortion
        pixels = side * bent[:, None] * [fx, fy] + [cx, cy]

        by_angle = np.column_stack([side * z[:, None], -across]) / (across**2 + z**2)[:, None]  # (n, 3): of the angle
        outward = np.einsum("ni,nj->nij", side, side)
        by_seen = np.zeros((n, 2, 3))
        by_seen[:, :, :2] = (np.eye(2) - outward) * (bent / across)[:, None, None]
        by_seen += side[:, :, None] * (slope[:, None] * by_angle)[:, None]
        by_seen *= np.array([fx, fy])[:, None]
        moved = np.einsum("kij,nj->nik", np.asarray(by_turn).reshape(3, 3, 3), points)  # (n, 3, turn)
        by_pose = np.concatenate([by_seen @ moved, by_seen], 2).reshape(2 * n, 6)
        by_parameters = np.zeros((n, 2, 8))
        by_parameters[:, [0, 1], [0, 1]] = side * bent[:, None]
        by_parameters[:, [0, 1], [2, 3]] = 1
        by_parameters[:, :, 4:] = side[:, :, None] * powers[:, None] * np.array([fx, fy])[:, None]
        return pixels, by_parameters.reshape(2 * n, 8), by_pose

    def normalise(self, pixels: Floats) -> Floats:
        """What an ideal pinhole would see (n, 2): x / z and y / z of the rays; NaN where no ray comes from."""
        bent = (np.asarray(pixels, np.float64) - self.parameters[2:4]) / self.parameters[:2]
        radius = np.linalg.norm(bent, axis=1, keepdims=True)
        straight = bent.copy()
        if self.model == "equidistant":
            straight *= np.tan(radius.clip(0, 1.4)) / np.maximum(radius, 1e-12)
        ideal = Intrinsics(self.size, self.model, (1.0, 1.0, 0.0, 0.0, *self.parameters[4:]))
        none = np.zeros(6)
        for _ in range(30):
            seen = [
                ideal.project(np.column_stack([straight + shift, np.ones(len(straight))]), none)
                for shift in ([0, 0], [1e-6, 0], [0, 1e-6])
            ]
            slope = np.stack([(seen[1] - seen[0]) / 1e-6, (seen[2] - seen[0]) / 1e-6], -1)  # (n, 2, 2)
            good = np.abs(np.linalg.det(slope)) > 1e-9
            step = np.zeros_like(straight)
            step[good] = np.linalg.solve(slope[good], (bent - seen[0])[good][..., None])[..., 0]
            limit = 0.3 * (1 + np.linalg.norm(straight, axis=1, keepdims=True))
            straight += step.clip(-limit, limit)
            if np.abs(step).max(initial=0) < 1e-11:
                break
        missed = np.linalg.norm(ideal.project(np.column_stack([straight, np.ones(len(straight))]), none) - bent, axis=1)
        straight[~(missed < 1e-6)] = np.nan
        return straight

    def replaced(self, parameters: Floats) -> "Intrinsics":
        """The same model with other parameters."""
        return Intrinsics(self.size, self.model, tuple(float(value) for value in parameters))

    def camera_info(self, name: str = "camera") -> str:
        """What ROS's camera_calibration and camera_info_manager write and read: YAML."""
        fx, fy, cx, cy = self.parameters[:4]

        def table(rows: int, columns: int, values: Any) -> dict[str, Any]:
            return {"rows": rows, "cols": columns, "data": [float(value) for value in values]}

        data = {
            "image_width": self.size[0],
            "image_height": self.size[1],
            "camera_name": name,
            "camera_matrix": table(3, 3, self.matrix.ravel()),
            "distortion_model": self.model,
            "distortion_coefficients": table(1, len(self.distortion), self.distortion),
            "rectification_matrix": table(3, 3, np.eye(3).ravel()),
            "projection_matrix": table(3, 4, [fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0]),
        }
        return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120)


def read_camera_info(path: Path) -> Intrinsics:
    """The intrinsics in a camera_info file of ROS.

    Raises:
        InvalidInput: it can't be read, lacks something, or has a distortion model that we don't know.
    """
    try:
        data = yaml.safe_load(path.read_text())
        matrix = np.array(data["camera_matrix"]["data"], np.float64).reshape(3, 3)
        size = (int(data["image_width"]), int(data["image_height"]))
        model = str(data["distortion_model"])
        given = [float(value) for value in data["distortion_coefficients"]["data"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"camera: {path} is no camera_info file of ROS: {error!r}") from error
    if model not in MODELS:
        raise InvalidInput(f"camera: {path} has distortion model {model!r}; known: {', '.join(MODELS)}")
    count = len(MODELS[model])
    if len(given) > count and any(given[count:]):
        raise InvalidInput(f"camera: {path}: {model} has {count} coefficients, {len(given)} are given")
    if abs(matrix[0, 1]) > 1e-9:
        raise InvalidInput(f"camera: {path} has skew {matrix[0, 1]}; cameras here have none")
    distortion = (given + [0.0] * count)[:count]
    return Intrinsics(size, model, (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], *distortion))
