"""Intrinsics from views of a target: fit, throw out what doesn't belong, say how well other views are told."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from worldpilot.calibration import bundle
from worldpilot.calibration.bundle import Bundle, Sight
from worldpilot.calibration.intrinsics import MODELS, Intrinsics
from worldpilot.calibration.markers import Floats
from worldpilot.calibration.targets import Target
from worldpilot.calibration.views import FEWEST_CORNERS, View, nothing_seen, sight, sort_out
from worldpilot.errors import InvalidInput, UnknownName

FEWEST_VIEWS = 6
AUTO = "auto"
_BY_NEED = ("plumb_bob", "equidistant", "rational_polynomial")  # a later one must earn it
_BETTER = 0.95  # of the held-out error of a simpler model, for a larger one to be taken
_CORNER = 6.0  # standard deviations, beyond which a corner was misdetected
_CORNER_LEAST = 0.3  # [px], never one below
_LOST = 0.25  # share of a view's corners that may go
_VIEW = 3.0  # times the median view's error, beyond which a view is bad
_VIEW_LEAST = 0.15  # [px], never one below
_VAGUE = 0.03  # of the focal length, its standard deviation
_SHARE = 0.8  # of the views that another model can tell, without which a model is not considered
_HOPELESS = 1.5  # times the error of another model's fit, beyond which a model is not considered
_FOLDS = 5
_ROUNDS = 12


@dataclass(frozen=True)
class Calibration:
    """A calibrated camera, and what to think of it.

    Args:
        intrinsics: of the camera.
        std: standard deviations of its parameters, in their order.
        covariance: (P, P) of them.
        views: those that were used, with the corners that were.
        residuals: a view each, (n, 2) [px], predicted minus seen.
        poses: (V, 6), rotation vector and place [m] of the target.
        held_out: a view each, (n, 2) [px], residuals under intrinsics fitted without that view.
        dropped: views that were not used, and why.
        removed: corners that were not used of the others, by view.
        held_out_by_model: error of each model that was tried [px].
    """

    intrinsics: Intrinsics
    std: Floats
    covariance: Floats
    views: tuple[View, ...]
    residuals: tuple[Floats, ...]
    poses: Floats
    held_out: tuple[Floats, ...]
    dropped: dict[str, str]
    removed: dict[str, int] = field(default_factory=dict)
    held_out_by_model: dict[str, float] = field(default_factory=dict)

    @property
    def rms(self) -> float:
        """Root mean square distance between a corner and its prediction, of the views used in the fit [px]."""
        return root_mean_square(self.residuals)

    @property
    def held_out_rms(self) -> float:
        """The same, each view told by intrinsics that were fitted without it [px]."""
        return root_mean_square(self.held_out)


def calibrate(views: Sequence[View], target: Target, model: str = AUTO) -> Calibration:
    """The intrinsics of the camera that took these views.

    Args:
        views: of one size.
        model: one of `MODELS`, or "auto": the one that tells views best that it has not been fitted to.

    Raises:
        UnknownName: of a model.
        InvalidInput: too few views are of use, or they don't determine the parameters; it says what to do.
    """
    if model != AUTO and model not in MODELS:
        raise UnknownName("camera model", model, [AUTO, *MODELS])
    useful, dropped = sort_out(views, target)
    if len(useful) < FEWEST_VIEWS:
        raise InvalidInput(f"camera: {nothing_seen(views, target, dropped)}; {FEWEST_VIEWS} are needed, 20 are better")
    names = _BY_NEED if model == AUTO else [model]
    fits = {name: fit for name in names if (fit := _fit(useful, target, name)) is not None}
    if not fits:
        raise InvalidInput(f"camera: no {' or '.join(names)} explains these views: are target and sides right?")
    most = max(len(fit[1]) for fit in fits.values())
    least = min(root_mean_square(fit[0].residuals) for fit in fits.values() if len(fit[1]) >= _SHARE * most)
    fits = {
        name: fit
        for name, fit in fits.items()
        if len(fit[1]) >= _SHARE * most and root_mean_square(fit[0].residuals) <= _HOPELESS * least
    }
    told = {name: _held_out(fit[0], [sight(view, target) for view in fit[1]]) for name, fit in fits.items()}
    scores = {name: root_mean_square(residuals) for name, residuals in told.items()}
    chosen = next(name for name in scores if scores[name] * _BETTER <= min(scores.values()))
    solved, kept, reasons, removed = fits[chosen]
    result = Calibration(
        intrinsics=solved.intrinsics,
        std=np.sqrt(np.diag(solved.covariance).clip(0)),
        covariance=solved.covariance,
        views=tuple(kept),
        residuals=solved.residuals,
        poses=solved.poses,
        held_out=tuple(told[chosen]),
        dropped=dropped | reasons,
        removed=removed,
        held_out_by_model=scores,
    )
    focal, std = solved.intrinsics.parameters[0], result.std[0]
    if not std < _VAGUE * focal:
        raise InvalidInput(
            f"camera: these views leave the focal length open ({focal:.0f} ± {std:.0f} px): add views with the target "
            "tilted by 30 to 45 degrees about both axes, and some that fill the image"
        )
    return result


def locate(view: View, target: Target, camera: Intrinsics) -> tuple[Floats, Floats, Floats] | None:
    """Where the target is in a view: its pose (6,), residuals (n, 2) [px] and covariance (6, 6); None if it isn't seen.

    Corners that stand out are left out. The covariance is that of the corners' noise, as far as the residuals show it;
    intrinsics are taken as exact.
    """
    points, corners = sight(view, target)
    for _ in range(_ROUNDS):
        begin = bundle.pose_from_plane(camera, (points, corners)) if len(points) >= FEWEST_CORNERS else None
        if begin is None:
            return None
        pose, residuals, information = bundle.refine_pose(camera, begin, (points, corners))
        good = np.linalg.norm(residuals, axis=1) <= max(_CORNER * bundle.spread([residuals]), _CORNER_LEAST)
        if good.all():
            degrees = max(residuals.size - 6, 1)
            return pose, residuals, np.linalg.pinv(information) * float((residuals**2).sum()) / degrees
        points, corners = points[good], corners[good]
    return None


def projection_std(camera: Intrinsics, covariance: Floats, pixels: Floats) -> Floats:
    """Standard deviation (n,) of where rays are seen [px], far away, beyond what turning the camera would undo.

    Args:
        covariance: (P, P) of the camera's parameters.
        pixels: (n, 2), where the rays are seen now; NaN where no ray comes from.
    """
    rays = camera.normalise(pixels)
    seen = np.isfinite(rays).all(1)
    ahead = np.column_stack([rays[seen], np.ones(seen.sum())])
    _, by_parameters, by_pose = camera.jacobian(ahead, np.zeros(6))
    turns = by_pose[:, :3]
    left = by_parameters - turns @ np.linalg.lstsq(turns, by_parameters, rcond=None)[0]
    variances = np.einsum("ni,ij,nj->n", left, covariance, left).reshape(-1, 2)
    result = np.full(len(pixels), np.nan)
    result[seen] = np.sqrt(variances.sum(1))
    return result


def _fit(
    views: Sequence[View], target: Target, model: str
) -> tuple[Bundle, list[View], dict[str, str], dict[str, int]] | None:
    """Fit, drop what stands out, fit again, until nothing does."""
    kept, dropped, counts = list(views), dict[str, str](), {view.name: len(view.detection.ids) for view in views}
    try:
        camera, poses = _start(model, kept, target)
    except ArithmeticError:
        return None
    for _ in range(_ROUNDS):
        solved = bundle.solve(camera, poses, [sight(view, target) for view in kept])
        bad = _bad_views(solved, kept, target) or _lost(kept, counts)
        trimmed = kept if bad else _trimmed(solved, kept)
        if not bad and all(one is other for one, other in zip(trimmed, kept, strict=True)):
            lost = {view.name: counts[view.name] - len(view.detection.ids) for view in kept}
            return solved, kept, dropped, {name: count for name, count in lost.items() if count}
        dropped |= bad
        stay = [i for i, view in enumerate(kept) if view.name not in bad]
        kept, poses, camera = [trimmed[i] for i in stay], solved.poses[stay], solved.intrinsics
        if len(kept) < FEWEST_VIEWS:
            return None
    return None


def _start(model: str, views: Sequence[View], target: Target) -> tuple[Intrinsics, Floats]:
    return bundle.start(model, views[0].size, [sight(view, target) for view in views])


def _bad_views(solved: Bundle, views: Sequence[View], target: Target) -> dict[str, str]:
    """Views that the fit can't tell, the worst half of them: the others may come right without these."""
    errors = np.array([float(np.sqrt(np.median((r**2).sum(1)))) for r in solved.residuals])
    usual = float(np.median(errors))
    over = [i for i in np.argsort(-errors) if errors[i] > max(_VIEW * usual, _VIEW_LEAST)]
    return {
        views[i].name: f"reprojection error {errors[i]:.2f} px, of the others {usual:.2f}: moved, bent or misdetected"
        for i in over[: (len(over) + 1) // 2]
    }


def _trimmed(solved: Bundle, views: Sequence[View]) -> list[View]:
    """The views without the corners that stand out."""
    limit = max(_CORNER * solved.sigma, _CORNER_LEAST)
    trimmed = []
    for view, residuals in zip(views, solved.residuals, strict=True):
        good = np.linalg.norm(residuals, axis=1) <= limit
        seen = view.detection
        trimmed.append(
            view
            if good.all()
            else replace(view, detection=replace(seen, ids=seen.ids[good], corners=seen.corners[good]))
        )
    return trimmed


def _lost(views: Sequence[View], counts: dict[str, int]) -> dict[str, str]:
    reasons = {}
    for view in views:
        left, had = len(view.detection.ids), counts[view.name]
        if left < FEWEST_CORNERS or had - left > _LOST * had:
            reasons[view.name] = f"{had - left} of {had} corners are misdetected"
    return reasons


def _held_out(solved: Bundle, sights: Sequence[Sight]) -> list[Floats]:
    """Residuals of each view under intrinsics that were fitted without it and its fold."""
    told: list[Floats] = [np.empty((0, 2))] * len(sights)
    folds = min(_FOLDS, len(sights))
    for fold in range(folds):
        rest = [i for i in range(len(sights)) if i % folds != fold]
        without = bundle.solve(solved.intrinsics, solved.poses[rest], [sights[i] for i in rest])
        for i in range(fold, len(sights), folds):
            told[i] = bundle.refine_pose(without.intrinsics, solved.poses[i], sights[i])[1]
    return told


def root_mean_square(residuals: Sequence[Floats]) -> float:
    """Root mean square length of residuals (n, 2), of several views."""
    return float(np.sqrt((np.concatenate(residuals) ** 2).sum(1).mean()))
