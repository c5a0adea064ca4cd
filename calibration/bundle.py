"""Least squares over a camera's intrinsics and the poses of a flat target: Levenberg-Marquardt on the Schur complement.

The poses are eliminated from the normal equations, so a step costs what the few intrinsics cost, however many views
there are. What is left of a view's equations says what leaving it out would change, and so how sure the solution is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from worldpilot.calibration.intrinsics import MODELS, Intrinsics

Floats = npt.NDArray[np.float64]
Sight = tuple[Floats, Floats]  # points (n, 3) [m] of a target and where they are seen (n, 2) [px]

_TURNS = 60  # most iterations
_SETTLED = 1e-7  # of the cost, by which a step must lower it
_FOCALS = np.geomspace(0.2, 8.0, 32)  # of an image's width, tried for a start
_HUBER = 2.5  # of the residuals' spread, beyond which one counts less


@dataclass(frozen=True)
class Bundle:
    """A solution.

    Args:
        intrinsics: of the camera.
        poses: (V, 6), rotation vector and place [m] of the target in each view.
        residuals: a view each, (n, 2) [px], predicted minus seen.
        covariance: (P, P) of the intrinsics' parameters, by leaving out each view (jackknife): corners of one view err
            alike, those of small and slanted views by more than others.
        sigma: that spread, of one coordinate [px].
    """

    intrinsics: Intrinsics
    poses: Floats
    residuals: tuple[Floats, ...]
    covariance: Floats
    sigma: float


def solve(start: Intrinsics, poses: Floats, sights: Sequence[Sight], *, robust: bool = True) -> Bundle:
    """The best intrinsics and poses from a start.

    Args:
        robust: residuals beyond 2.5 times their spread count less (Huber).
    """
    camera, poses, damping = start, poses.copy(), 1e-3
    delta = np.inf
    equations = _normal_equations(camera, poses, sights, delta)
    for turn in range(_TURNS):
        step = _step(camera, poses, equations, damping)
        if step is None:
            damping *= 10
            continue
        parameters, moved = step
        candidate = camera.replaced(parameters) if (parameters[:2] > 0).all() else None
        new = None if candidate is None else _normal_equations(candidate, moved, sights, delta)
        if candidate is None or new is None or not new.cost < equations.cost:
            damping *= 10
            if damping > 1e12:
                break
            continue
        gain = (equations.cost - new.cost) / max(equations.cost, 1e-300)
        camera, poses, equations, damping = candidate, moved, new, max(damping / 10, 1e-12)
        if gain < _SETTLED or turn % 8 == 7:
            tighter = _HUBER * spread(equations.residuals) if robust else np.inf
            settled = gain < _SETTLED and (tighter == delta or abs(tighter - delta) < 1e-3 * tighter)
            delta, equations = tighter, _normal_equations(camera, poses, sights, tighter)
            if settled:
                break
    sigma = spread(equations.residuals)
    return Bundle(camera, poses, equations.residuals, _jackknife(equations), sigma)


def start(model: str, size: tuple[int, int], sights: Sequence[Sight]) -> tuple[Intrinsics, Floats]:
    """Intrinsics without distortion, and poses (V, 6): the focal length under which the views look most like planes."""
    best: tuple[float, Intrinsics, Floats] | None = None
    for focal in _FOCALS * size[0]:
        linear = (focal, focal, (size[0] - 1) / 2, (size[1] - 1) / 2)
        camera = Intrinsics(size, model, (*linear, *(0.0 for _ in MODELS[model])))
        poses = [pose_from_plane(camera, sight) for sight in sights]
        if any(pose is None for pose in poses):
            continue
        stacked = np.array(poses)
        errors = [
            np.median(np.linalg.norm(camera.project(sight[0], pose) - sight[1], axis=1))
            for sight, pose in zip(sights, stacked, strict=True)
        ]
        error = float(np.median(errors))
        if np.isfinite(error) and (best is None or error < best[0]):
            best = error, camera, stacked
    if best is None:
        raise ArithmeticError
    return best[1], best[2]


def pose_from_plane(camera: Intrinsics, sight: Sight) -> Floats | None:
    """The pose (6,) of a flat target, to start from; None if the rays can't have come from it."""
    points, corners = sight
    rays = camera.normalise(corners)
    good = np.isfinite(rays).all(1) & (np.linalg.norm(rays, axis=1) < 6)
    if good.sum() < 4:
        return None
    try:
        found, turn, place = cv2.solvePnP(
            points[good].reshape(-1, 1, 3), rays[good].reshape(-1, 1, 2), np.eye(3), None, flags=cv2.SOLVEPNP_IPPE
        )
    except cv2.error:
        return None
    if not found:
        return None
    pose = np.concatenate([turn.ravel(), place.ravel()]).astype(np.float64)
    return pose if np.isfinite(pose).all() and pose[5] > 0 else None


def refine_pose(camera: Intrinsics, pose: Floats, sight: Sight) -> tuple[Floats, Floats, Floats]:
    """The best pose (6,) of one view under known intrinsics, its residuals (n, 2) [px], and its (6, 6) JᵀJ [1/px²]."""
    points, corners = sight
    damping, last = 1e-6, np.inf
    pixels, _, slope = camera.jacobian(points, pose)
    for _ in range(50):
        residual = (pixels - corners).ravel()
        normal = slope.T @ slope
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope.T @ residual)
        moved = camera.jacobian(points, pose + step)
        cost = float(((moved[0] - corners) ** 2).sum())
        if not cost < float(residual @ residual):
            damping *= 10
            if damping > 1e6:
                break
            continue
        pose, damping = pose + step, max(damping / 10, 1e-12)
        pixels, _, slope = moved
        if last - cost < 1e-10 * cost:
            break
        last = cost
    return pose, pixels - corners, slope.T @ slope


@dataclass(frozen=True)
class _Equations:
    """Normal equations, a view's block each."""

    a: Floats  # (V, P, P)
    b: Floats  # (V, P, 6)
    c: Floats  # (V, 6, 6)
    g: Floats  # (V, P)
    h: Floats  # (V, 6)
    cost: float
    residuals: tuple[Floats, ...]

    def reduced(self, damping: float) -> tuple[Floats, Floats, Floats]:
        """The intrinsics' matrices (V, P, P) and right sides (V, P) without the poses, and C⁻¹ (V, 6, 6)."""
        inverse = np.linalg.inv(self.c + damping * self.c * np.eye(6)).astype(np.float64)
        through = self.b @ inverse
        matrices = self.a + damping * self.a * np.eye(self.a.shape[1]) - through @ self.b.swapaxes(1, 2)
        return matrices, self.g - np.einsum("vpi,vi->vp", through, self.h), inverse


def _normal_equations(camera: Intrinsics, poses: Floats, sights: Sequence[Sight], delta: float) -> _Equations:
    free = len(camera.parameters)
    n, cost, residuals = len(sights), 0.0, []
    a, b, c = np.empty((n, free, free)), np.empty((n, free, 6)), np.empty((n, 6, 6))
    g, h = np.empty((n, free)), np.empty((n, 6))
    for v, (points, corners) in enumerate(sights):
        pixels, by_parameters, by_pose = camera.jacobian(points, poses[v])
        residual = pixels - corners
        residuals.append(residual)
        length = np.linalg.norm(residual, axis=1)
        weight = np.minimum(1.0, delta / np.maximum(length, 1e-300))
        cost += float((weight * length * (length - 0.5 * weight * length)).sum())  # Huber's, of any delta
        root = np.repeat(np.sqrt(weight), 2)
        r, jp, jx = residual.ravel() * root, by_parameters * root[:, None], by_pose * root[:, None]
        a[v], b[v], c[v] = jp.T @ jp, jp.T @ jx, jx.T @ jx
        g[v], h[v] = -jp.T @ r, -jx.T @ r
    return _Equations(a, b, c, g, h, cost if np.isfinite(cost) else np.inf, tuple(residuals))


def _step(camera: Intrinsics, poses: Floats, equations: _Equations, damping: float) -> tuple[Floats, Floats] | None:
    try:
        matrices, rights, inverse = equations.reduced(damping)
        change = np.linalg.solve(matrices.sum(0), rights.sum(0))
    except np.linalg.LinAlgError:
        return None
    moved = poses + np.einsum("vij,vj->vi", inverse, equations.h - np.einsum("vpi,p->vi", equations.b, change))
    parameters = (np.array(camera.parameters) + change).astype(np.float64)
    return (parameters, moved) if np.isfinite(parameters).all() and np.isfinite(moved).all() else None


def _jackknife(equations: _Equations) -> Floats:
    """(P, P): the spread of the solutions that leave out a view each, in one step from the one that has all."""
    matrices, rights, _ = equations.reduced(0.0)
    whole, n = matrices.sum(0), len(matrices)
    scale = 1 / np.sqrt(np.diag(whole))  # pixels and coefficients of the ninth power stand side by side
    rest, own = (whole - matrices) * scale[:, None] * scale, rights * scale
    moves = scale * np.array([np.linalg.pinv(m, hermitian=True) @ r for m, r in zip(rest, own, strict=True)])
    moves -= moves.mean(0)
    return (n - 1) / n * moves.T @ moves


def spread(residuals: Sequence[Floats]) -> float:
    """Of one coordinate, from the median length of the residuals (Rayleigh's is 1.177 sigma) [px]."""
    return float(np.median(np.linalg.norm(np.concatenate(residuals), axis=1)) / 1.1774)
