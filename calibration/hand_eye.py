"""Where a camera sits on a robot: Park's closed form to start from, least squares on the gripper's poses to finish.

Both set-ups obey one equation: G X C = Z. X is the camera's pose and Z the target's, both unknown, C the target's pose
in the camera. Eye in hand: G is the gripper's pose in the base. Eye to hand: G is its inverse. Errors are those of the
gripper's pose that X, Z and C imply, against the one that the robot reported.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from worldpilot.calibration.intrinsics import Floats
from worldpilot.errors import InvalidInput, UnknownName

Setup = Literal["eye-in-hand", "eye-to-hand"]
SETUPS: tuple[str, ...] = get_args(Setup)
FEWEST_POSES = 5

_LEAST_TURN = np.deg2rad(15)  # of the gripper, between two poses
_LEAST_ASIDE = np.deg2rad(10)  # and about an axis across the main one
_OUTLIER = 5.0  # times the median residual, in standard deviations
_MOST_DROPPED = 0.3  # of the poses
_FLOOR = np.array([1e-6, 1e-6])  # [m], [rad], below which no robot's noise is estimated
_MISMATCH = np.deg2rad(1.0)  # between the angles that gripper and camera turned by
_HOPELESS = np.array([0.01, np.deg2rad(1.0)])  # [m], [rad], residuals of poses that don't belong to the images
_ROUNDS = 4  # in which the robot's noise settles
_OTHER_SETUP = 0.2  # of the residuals, if the other set-up's are below


@dataclass(frozen=True)
class HandEye:
    """A solution.

    Args:
        setup: "eye-in-hand" or "eye-to-hand".
        camera: (4, 4), pose of the camera in the gripper's frame (eye in hand) or the base's (eye to hand).
        target: (4, 4), pose of the target in the base's frame (eye in hand) or the gripper's (eye to hand).
        covariance: (12, 12), of place [m] and rotation vector [rad] of `camera`, then of `target`; the rotation vector
            is in the frame that the pose is given in.
        residuals: (n, 6), place [m] and rotation vector [rad] of the gripper, implied minus reported.
        used: (n,) indices of the poses that were used.
        robot_noise: standard deviations of a reported place's coordinate [m] and of a rotation's [rad], estimated.
        dropped: index of a pose that was not used, and why.
    """

    setup: Setup
    camera: Floats
    target: Floats
    covariance: Floats
    residuals: Floats
    used: tuple[int, ...]
    robot_noise: tuple[float, float]
    dropped: dict[int, str] = field(default_factory=dict)

    @property
    def std(self) -> Floats:
        """(12,), of place [m] and rotation [rad] of the camera, then of the target."""
        return np.sqrt(np.diag(self.covariance).clip(0))

    @property
    def rms(self) -> tuple[float, float]:
        """Root mean square length of the residuals: of place [m] and rotation [rad]."""
        squares = self.residuals**2
        return float(np.sqrt(squares[:, :3].sum(1).mean())), float(np.sqrt(squares[:, 3:].sum(1).mean()))


def solve(
    gripper: Floats,
    seen: Floats,
    setup: Setup,
    *,
    seen_covariance: Floats | None = None,
    robot_noise: tuple[float, float] = (1e-4, float(np.deg2rad(0.02))),
) -> HandEye:
    """The camera's pose on the robot, or beside it.

    Args:
        gripper: (n, 4, 4), the gripper's poses in the base's frame as the robot reported them.
        seen: (n, 4, 4), the target's poses in the camera's frame.
        setup: "eye-in-hand": the camera moves, the target rests; "eye-to-hand": the other way round.
        seen_covariance: (n, 6, 6), of rotation vector [rad] and place [m] of `seen`, as cv2's; None: they are exact.
        robot_noise: a guess of the robot's standard deviations [m], [rad]; they are then estimated.

    Raises:
        UnknownName: of a set-up.
        InvalidInput: too few poses, motions that leave the solution open, or poses that don't belong together; it says
            what to do.
    """
    if setup not in SETUPS:
        raise UnknownName("set-up", setup, SETUPS)
    gripper, seen = np.asarray(gripper, np.float64), np.asarray(seen, np.float64)
    if gripper.shape != seen.shape or gripper.shape[1:] != (4, 4):
        raise InvalidInput(f"hand-eye: needs poses (n, 4, 4) of both, got {gripper.shape} and {seen.shape}")
    noise = np.zeros((len(seen), 6, 6)) if seen_covariance is None else _place_first(seen_covariance, seen)
    used = list(range(len(gripper)))
    dropped = _mismatched(gripper, seen)
    used = [i for i in used if i not in dropped]
    check_motions(gripper[used])
    while True:
        g, c, n = gripper[used], seen[used], noise[used]
        rough = _refine(g, c, n, closed_form(g, c, setup), setup, np.array(robot_noise), robust=True)
        usual, bad = float(np.median(rough.distances)), int(np.argmax(rough.distances))
        if rough.distances[bad] <= max(_OUTLIER * usual, 1e-3) or len(dropped) >= _MOST_DROPPED * len(gripper):
            break
        off = np.sqrt((rough.residuals[bad] ** 2).reshape(2, 3).sum(1))
        dropped[used[bad]] = (
            f"off by {1e3 * off[0]:.2f} mm and {np.degrees(off[1]):.3f} degrees from what the others imply, "
            f"{rough.distances[bad] / usual:.0f} times as far as usual"
        )
        used.pop(bad)
        check_motions(gripper[used])
    fit = _refine(g, c, n, (rough.camera, rough.target), setup, np.array(robot_noise), robust=False)
    result = HandEye(
        setup, fit.camera, fit.target, fit.covariance, fit.residuals, tuple(used), fit.robot_noise, dropped
    )
    _check_plausible(result, g, c)
    return result


def check_motions(gripper: Floats) -> None:
    """Whether poses (n, 4, 4) of the gripper determine a hand-eye calibration.

    Raises:
        InvalidInput: they don't; it says which motions are missing.
    """
    if len(gripper) < FEWEST_POSES:
        raise InvalidInput(f"hand-eye: {len(gripper)} poses are of use, {FEWEST_POSES} are needed, 15 are better")
    turns = _pair_turns(gripper)
    most = float(np.linalg.norm(turns, axis=1).max())
    if most < _LEAST_TURN:
        raise InvalidInput(
            f"hand-eye: the gripper turned by {np.degrees(most):.1f} degrees at most; add poses that differ by 30 to "
            "60 degrees, about at least two axes"
        )
    axes = np.linalg.svd(turns, full_matrices=False)[2]
    aside = float(np.linalg.norm(turns - np.outer(turns @ axes[0], axes[0]), axis=1).max())
    if aside < _LEAST_ASIDE:
        axis = ", ".join(f"{value:.2f}" for value in axes[0])
        raise InvalidInput(
            f"hand-eye: all rotations are about one axis of the gripper ({axis}), about any other "
            f"{np.degrees(aside):.1f} degrees at most; the camera's place along that axis stays open. Add poses turned "
            "by 30 degrees or more about an axis across it"
        )


def closed_form(gripper: Floats, seen: Floats, setup: Setup) -> tuple[Floats, Floats]:
    """Camera and target (4, 4) by Park and Martin (1994), from all pairs of poses."""
    forward = gripper if setup == "eye-in-hand" else np.linalg.inv(gripper)
    moved, watched = [], []
    for i, j in itertools.combinations(range(len(forward)), 2):
        moved.append(np.linalg.inv(forward[j]) @ forward[i])  # A X = X B
        watched.append(seen[j] @ np.linalg.inv(seen[i]))
    a, b = np.array(moved), np.array(watched)
    alpha, beta = _logarithm(a[:, :3, :3]), _logarithm(b[:, :3, :3])
    u, _, vt = np.linalg.svd(alpha.T @ beta)  # the rotation nearest to all alpha = R beta
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    left = (a[:, :3, :3] - np.eye(3)).reshape(-1, 3)
    right = (b[:, :3, 3] @ turn.T - a[:, :3, 3]).ravel()
    camera = _pose(turn, np.linalg.lstsq(left, right, rcond=None)[0])
    target = forward @ camera @ seen
    return camera, _pose(Rotation.from_matrix(target[:, :3, :3]).mean().as_matrix(), target[:, :3, 3].mean(0))


def implied(camera: Floats, target: Floats, seen: Floats, setup: Setup) -> Floats:
    """The gripper's poses (n, 4, 4) that follow from camera, target and what was seen."""
    if setup == "eye-in-hand":
        return target @ np.linalg.inv(seen) @ np.linalg.inv(camera)
    return camera @ seen @ np.linalg.inv(target)


@dataclass(frozen=True)
class _Fit:
    camera: Floats
    target: Floats
    distances: Floats  # (n,) of each pose [standard deviations]
    residuals: Floats  # (n, 6)
    covariance: Floats  # (12, 12)
    robot_noise: tuple[float, float]


def _refine(
    gripper: Floats,
    seen: Floats,
    noise: Floats,
    start: tuple[Floats, Floats],
    setup: Setup,
    sigmas: Floats,
    robust: bool,
    rounds: int = _ROUNDS,
) -> _Fit:
    """Least squares from a start. A pose's error is the robot's and, through X, the camera's; each time around, the
    robot's is estimated as what the camera's leaves.
    """
    spread = _through(noise, *start, seen, setup)
    whiten: Floats = np.linalg.inv(np.linalg.cholesky(spread + np.diag(np.repeat(sigmas**2, 3)))).astype(np.float64)

    def residual(step: Floats) -> Floats:
        errors = _errors(gripper, implied(_moved(start[0], step[:6]), _moved(start[1], step[6:]), seen, setup))
        return np.einsum("nij,nj->ni", whiten, errors).ravel()

    scale = np.tile(np.repeat(sigmas, 3), 2)
    if robust:
        found = least_squares(
            residual, np.zeros(12), x_scale=scale, method="trf", loss="soft_l1", f_scale=2.0, max_nfev=30
        )
    else:
        found = least_squares(residual, np.zeros(12), x_scale=scale, method="lm")
    whitened, slope = residual(found.x).reshape(-1, 6), found.jac
    x, z = _moved(start[0], found.x[:6]), _moved(start[1], found.x[6:])
    errors = _errors(gripper, implied(x, z, seen, setup))
    left = (errors**2).reshape(-1, 2, 3) - np.diagonal(spread, axis1=1, axis2=2).reshape(-1, 2, 3)
    middle = np.median(left, axis=(0, 2)) / 0.455 if robust else left.mean((0, 2))  # 0.455: median of chi-square 1
    freedom = errors.size / max(errors.size - 12, 1)
    sigmas = np.sqrt(np.maximum(middle * freedom, _FLOOR**2))
    if rounds > 1:
        return _refine(gripper, seen, noise, (x, z), setup, sigmas, robust, rounds - 1)
    excess = float((whitened**2).sum()) / max(whitened.size - 12, 1)
    covariance = np.linalg.pinv(slope.T @ slope, hermitian=True) * excess
    distances = np.linalg.norm(whitened, axis=1)
    return _Fit(x, z, distances, errors, covariance, (float(sigmas[0]), float(sigmas[1])))


def _errors(gripper: Floats, implied_poses: Floats) -> Floats:
    """(n, 6): place [m] in the base's frame and rotation vector [rad], implied minus reported."""
    turn = np.swapaxes(gripper[:, :3, :3], 1, 2) @ implied_poses[:, :3, :3]
    return np.concatenate([implied_poses[:, :3, 3] - gripper[:, :3, 3], _logarithm(turn)], 1)


def _through(noise: Floats, camera: Floats, target: Floats, seen: Floats, setup: Setup) -> Floats:
    """(n, 6, 6): what the noise (n, 6, 6) of what was seen makes of the implied gripper's poses."""
    if not noise.any():
        return noise
    base = implied(camera, target, seen, setup)
    step, columns = 1e-6, []
    for k in range(6):
        change = np.zeros(6)
        change[k] = step
        columns.append(
            _errors(base, implied(camera, target, np.array([_moved(c, change) for c in seen]), setup)) / step
        )
    slope = np.stack(columns, 2)
    return slope @ noise @ np.swapaxes(slope, 1, 2)


def _place_first(covariance: Floats, seen: Floats) -> Floats:
    """Covariances of cv2's (rotation vector, place) as those of our steps: place, then a rotation on the left."""
    swapped = []
    for matrix, pose in zip(np.asarray(covariance, np.float64), seen, strict=True):
        vector = _logarithm(pose[None, :3, :3])[0]
        angle = max(float(np.linalg.norm(vector)), 1e-9)
        k = np.cross(np.eye(3), vector / angle)  # [axis]x
        left = np.eye(3) + (1 - np.cos(angle)) / angle * k + (1 - np.sin(angle) / angle) * k @ k  # left Jacobian
        turn = np.zeros((6, 6))
        turn[:3, 3:], turn[3:, :3] = np.eye(3), left
        swapped.append(turn @ matrix @ turn.T)
    return np.array(swapped)


def _mismatched(gripper: Floats, seen: Floats) -> dict[int, str]:
    """Poses whose turns differ from what the camera saw, while those of the others don't.

    Gripper and camera turn by the same angle between two poses, however the camera is mounted.

    Raises:
        InvalidInput: they differ for most poses.
    """
    if len(gripper) < FEWEST_POSES:
        return {}
    n = len(gripper)
    difference = np.zeros((n, n))
    for i, j in itertools.combinations(range(n), 2):
        angles = [float(np.linalg.norm(_logarithm((p[j, :3, :3].T @ p[i, :3, :3])[None]))) for p in (gripper, seen)]
        difference[i, j] = difference[j, i] = abs(angles[0] - angles[1])
    off_diagonal = difference[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    typical = np.median(off_diagonal, axis=1)
    if float(np.median(typical)) > _MISMATCH:
        raise InvalidInput(
            f"hand-eye: between two images the robot's turns and the camera's differ by "
            f"{np.degrees(np.median(typical)):.1f} degrees (median). Do names and poses belong together, are "
            "quaternions x, y, z, w, do poses take the gripper's frame to the base's?"
        )
    limit = max(_MISMATCH, 5 * float(np.median(typical)))
    return {
        int(i): f"the robot turned by {np.degrees(typical[i]):.1f} degrees more or less than the camera saw"
        for i in np.flatnonzero(typical > limit)
    }


def _check_plausible(result: HandEye, gripper: Floats, seen: Floats) -> None:
    rms = np.array(result.rms)
    if (rms < _HOPELESS / 5).all():
        return
    other: Setup = "eye-to-hand" if result.setup == "eye-in-hand" else "eye-in-hand"
    x, z = closed_form(gripper, seen, other)
    errors = _errors(gripper, implied(x, z, seen, other))
    theirs = np.sqrt((errors**2).reshape(-1, 2, 3).sum(2).mean(0))
    words = f"{1e3 * rms[0]:.1f} mm and {np.degrees(rms[1]):.2f} degrees"
    if (theirs < _OTHER_SETUP * rms).any() and (theirs < rms).all():
        raise InvalidInput(
            f"hand-eye: as {result.setup} the poses are off by {words}, as {other} by {1e3 * theirs[0]:.1f} mm and "
            f"{np.degrees(theirs[1]):.2f} degrees: it is {other}"
        )
    if (rms > _HOPELESS).any():
        raise InvalidInput(
            f"hand-eye: poses and images are off by {words}. Are lengths metres, quaternions x, y, z, w, do poses take "
            "the gripper's frame to the base's, and did the robot stand still for each image?"
        )


def _pair_turns(poses: Floats) -> Floats:
    """(m, 3): rotation vectors between all pairs of poses, in the frame of the first of each."""
    pairs = np.array(list(itertools.combinations(range(len(poses)), 2)))
    first, second = poses[pairs[:, 0], :3, :3], poses[pairs[:, 1], :3, :3]
    return _logarithm(np.swapaxes(first, 1, 2) @ second)


def _logarithm(turns: Floats) -> Floats:
    """(n, 3) rotation vectors of (n, 3, 3)."""
    return Rotation.from_matrix(turns).as_rotvec()


def _moved(pose: Floats, step: Floats) -> Floats:
    """A pose (4, 4) moved by a place [m] and turned by a rotation vector [rad], in the frame that it is given in."""
    return _pose(Rotation.from_rotvec(step[3:]).as_matrix() @ pose[:3, :3], pose[:3, 3] + step[:3])


def _pose(turn: npt.NDArray[Any], place: npt.NDArray[Any]) -> Floats:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, place
    return pose


def quaternion(pose: Floats) -> Sequence[float]:
    """x, y, z, w of a pose (4, 4)."""
    return [float(value) for value in Rotation.from_matrix(pose[:3, :3]).as_quat(canonical=True)]
