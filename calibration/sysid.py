"""Physical parameters from recordings: the simulator started from recorded states, over and over, until it agrees.

Output error with multiple shooting: each segment of a recording begins with what was measured, then only its controls
are played, and what the simulator shows is compared with what was measured. Parameters are found by least squares on
quadratics around the last ones, in smaller and smaller steps: contacts make the residuals themselves too rough, and a
search along their gradient stops wherever one of them is in its way. The parameters' covariance comes from leaving out
a segment each (jackknife): segments are independent, errors within are not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from worldpilot.errors import InvalidInput

Array = npt.NDArray[np.float64]
Simulate = Callable[[Mapping[str, float]], list[Array]]  # parameters -> each segment's measurements, (T, C)

_ROBUST = 3.0  # residuals beyond so many standard deviations count less
_LOST = 2.0  # a segment whose residuals are beyond so many of them counts less: glancing contacts are chaotic
_MOVES = 8  # at most, with steps of one size
_CONSISTENT = 0.3  # share of the apparent information that derivatives over two distances must agree on


@dataclass(frozen=True)
class Parameter:
    """What is looked for, and where.

    Args:
        start: where the search begins.
        low, high: where it stays.
        scale: a change of this size is 100 % of it: its usual value.
        unit: of it.
    """

    name: str
    start: float
    low: float
    high: float
    scale: float
    unit: str = "1"

    def __post_init__(self) -> None:
        if not (self.low <= self.start <= self.high and self.low < self.high and self.scale > 0):
            raise InvalidInput(f"sysid: {self.name} must start within its bounds, with a positive scale, got {self}")


@dataclass(frozen=True)
class SysidConfig:
    """How parameters are found.

    Args:
        step: at the end, of the finite differences, as a share of a parameter's scale; contacts make small ones rough.
        tolerance: a parameter is identified if its standard error is at most this share of its scale.
        rounds: of steps of half the size of the ones before.
    """

    step: float = 0.04
    tolerance: float = 0.05
    rounds: int = 3

    def __post_init__(self) -> None:
        if not (0 < self.step < 0.5 and self.tolerance > 0 and self.rounds >= 1):
            raise InvalidInput("sysid: step must be in (0, 0.5), tolerance positive, rounds at least 1")


@dataclass(frozen=True)
class Identified:
    """Parameters, and how well they are known."""

    parameters: Mapping[str, float]
    std: Mapping[str, float]  # standard errors
    identified: tuple[str, ...]  # those that are known
    covariance: Array  # of the parameters in their order, in units of their scales, (P, P)
    condition: float  # of the covariance: the variance along its longest axis by that along its shortest
    errors: Mapping[str, float]  # standard deviation of the residuals, by channel
    explained: Mapping[str, float]  # share of the variance that the simulator explains, by channel
    segments: int
    remarks: tuple[str, ...] = ()  # what is not known, and what is known instead

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "parameters": {name: {"value": value, "std": self.std[name]} for name, value in self.parameters.items()},
            "identified": list(self.identified),
            "covariance": self.covariance.tolist(),
            "condition": self.condition,
            "errors": dict(self.errors),
            "explained": dict(self.explained),
            "segments": self.segments,
            "remarks": list(self.remarks),
        }


def fit(
    simulate: Simulate,
    measured: Sequence[Array],
    channels: Sequence[str],
    parameters: Sequence[Parameter],
    config: SysidConfig | None = None,
) -> Identified:
    """The parameters with which the simulator agrees best with what was measured.

    Args:
        measured: each segment's measurements, of shape (T, C), NaN where there is none; several recordings in one list
            are a bundle.
        channels: names of the C.

    Raises:
        InvalidInput: no channel or parameter, fewer than 6 segments, or segments of another shape than is simulated.
    """
    config = config or SysidConfig()
    if not parameters or not channels:
        raise InvalidInput("sysid: name at least one parameter and one channel")
    if len(measured) < 6:
        raise InvalidInput(
            f"sysid: {len(measured)} segments in which something moves, at least 6 are needed; record more, with "
            "`worldpilot collect TASK --excite N` in simulation"
        )
    problem = _Problem(simulate, measured, parameters)
    x = np.array([parameter.start / parameter.scale for parameter in parameters])
    for step in config.step * 2.0 ** np.arange(config.rounds - 1, -1, -1):
        for _ in range(_MOVES):
            problem.weigh(x)
            move = problem.near(x, step).best()
            x = x + move
            if (np.abs(move) < step).all():
                break
    problem.weigh(x)
    return _judge(problem, x, channels, config)


class _Problem:
    """Residuals of all segments in standard deviations of their channels, as a function of scaled parameters."""

    def __init__(self, simulate: Simulate, measured: Sequence[Array], parameters: Sequence[Parameter]) -> None:
        self.parameters, self.measured = parameters, measured
        self._simulate = simulate
        self._low, self._high = (np.array([getattr(p, side) / p.scale for p in parameters]) for side in ("low", "high"))
        self._seen: dict[bytes, list[Array]] = {}
        self.sigma = np.ones(measured[0].shape[1])

    def differences(self, x: Array) -> list[Array]:
        """Measured less simulated, (T, C) each."""
        if x.tobytes() not in self._seen:
            values = {p.name: float(value * p.scale) for p, value in zip(self.parameters, x, strict=True)}
            simulated = self._simulate(values)
            if [s.shape for s in simulated] != [m.shape for m in self.measured]:
                raise InvalidInput("sysid: what is simulated has another shape than what was measured")
            self._seen[x.tobytes()] = [m - s for m, s in zip(self.measured, simulated, strict=True)]
        return self._seen[x.tobytes()]

    def weigh(self, x: Array) -> None:
        """Take the channels' errors from what is left at `x`."""
        left, all_ = np.concatenate(self.differences(x)), np.concatenate(self.measured)
        self.sigma = np.maximum(1.4826 * np.nanmedian(np.abs(left), axis=0), 1e-3 * np.nanstd(all_))
        self.sigma = np.maximum(self.sigma, 1e-9)

    def split(self, x: Array) -> list[Array]:
        """Residuals, segment by segment, (T * C,) each; 0 where nothing was measured."""
        return [np.nan_to_num((difference / self.sigma).ravel()) for difference in self.differences(x)]

    def derivatives(self, x: Array, step: float) -> list[Array]:
        """Of each segment's residuals, (T * C, P), by differences over a step to each side. Of a segment that the
        simulator does not follow at all it does not count how far it strays."""
        columns = []
        for i in range(len(x)):
            up, down = x.copy(), x.copy()
            up[i], down[i] = min(x[i] + step, self._high[i]), max(x[i] - step, self._low[i])
            pairs = zip(self.split(up), self.split(down), strict=True)
            columns.append([(a - b) / (up[i] - down[i]) for a, b in pairs])
        shrunk = [_shrunk(residuals) for residuals in self.split(x)]
        return [factor * np.stack(parts, -1) for factor, parts in zip(shrunk, zip(*columns, strict=True), strict=True)]

    def near(self, x: Array, step: float) -> "_Near":
        """The residuals within two steps around `x`, smoothed, as contacts average out; and what they tell there.

        A derivative by differences is partly noise, as contacts come and go; counted as information it would make
        anything look identifiable. So information is the product of derivatives over two distances, whose noise is not
        the same.
        """
        information, apparent, factors = np.zeros((len(x), len(x))), np.zeros((len(x), len(x))), list[float]()
        derivatives = zip(self.derivatives(x, step), self.derivatives(x, 2 * step), strict=True)
        for residuals, (near, far) in zip(self.split(x), derivatives, strict=True):
            trust, shrunk = _trust(near, far), _shrunk(residuals)
            factors.append(trust**0.5 * shrunk)
            weight = trust * (1 + (shrunk * residuals / _ROBUST) ** 2) ** -0.5
            product = (near.T * weight) @ far
            information += (product + product.T) / 2
            apparent += (near.T * weight) @ near
        values, axes = np.linalg.eigh(information)
        told = (values > 1) & (values > _CONSISTENT * np.einsum("ij,ik,kj->j", axes, apparent, axes))
        basis = axes[:, told]

        offsets = np.concatenate([np.zeros((1, len(x))), *(k * np.eye(len(x)) for k in (-2, -1, 1, 2))]) * step
        points = np.clip(x + offsets, self._low, self._high)
        away = (points - x) / step
        solve = np.linalg.pinv(np.column_stack([np.ones(len(away)), away, away**2]))
        pieces = zip(factors, zip(*(self.split(point) for point in points), strict=True), strict=True)
        terms = [solve @ (factor * np.stack(rows)) for factor, rows in pieces]
        limits = (np.maximum(-2, (self._low - x) / step), np.minimum(2, (self._high - x) / step))
        return _Near(terms, limits, step, basis @ basis.T, (basis / values[told]) @ basis.T)


@dataclass(frozen=True)
class _Near:
    """Each segment's residuals as a quadratic of the parameters around a point, and which of their combinations they
    tell of there."""

    terms: Sequence[Array]  # of each segment (1 + 2 P, T * C): level, slopes, bends, by steps
    limits: tuple[Array, Array]  # steps to each side, (P,) each
    step: float
    known: Array  # projects on the combinations that the recordings tell of, (P, P)
    inverse: Array  # of the information about them, (P, P)

    def best(self, without: int | None = None) -> Array:
        """How far from the point the parameters are that fit best, (P,), along what is told; `without` a segment."""
        kept = [terms for i, terms in enumerate(self.terms) if i != without]
        level, *others = np.concatenate(kept, axis=1)
        count = len(others) // 2
        slopes, bends = np.array(others[:count]), np.array(others[count:])

        def jacobian(d: Array) -> Array:
            return (slopes + 2 * d[:, None] * bends).T

        slope: Any = jacobian  # scipy's stubs know of its name only
        move = least_squares(
            lambda d: level + d @ slopes + d**2 @ bends,
            np.zeros(count),
            slope,
            self.limits,
            loss="soft_l1",
            f_scale=_ROBUST,
        ).x
        return self.known @ (self.step * move)


def _shrunk(residuals: Array) -> float:
    """By which a segment's residuals are multiplied, so that their mean square m becomes m / (1 + m / c²)."""
    return float((1 + np.mean(residuals**2) / _LOST**2) ** -0.5)


def _trust(near: Array, far: Array) -> float:
    """How far a segment's derivatives over two distances agree, 0 to 1; where contacts are chaotic they do not."""
    return (max(float((near * far).sum()), 0.0) / max(float((near**2).sum()), float((far**2).sum()), 1e-12)) ** 2


def _judge(problem: _Problem, x: Array, channels: Sequence[str], config: SysidConfig) -> Identified:
    """The estimate's covariance: parameters are found anew without each segment. Where few segments tell most, a step
    along the gradient would say too little of what leaving one of these out does. Of a combination of parameters of
    which nothing is told, all that is known is the order of magnitude.
    """
    n, around = len(problem.measured), problem.near(x, config.step)
    moves = [around.best(without=i) for i in range(n)]
    spread = (n - 1) * np.cov(np.transpose(moves), bias=True).reshape(around.known.shape)
    covariance = spread + around.inverse + np.eye(len(x)) - around.known
    std = np.sqrt(np.diagonal(covariance))
    names = [parameter.name for parameter in problem.parameters]
    known = tuple(name for name, error in zip(names, std, strict=True) if error <= config.tolerance)
    scales = np.array([parameter.scale for parameter in problem.parameters])
    left, all_ = np.concatenate(problem.differences(x)), np.concatenate(problem.measured)
    explained = 1 - np.nanmean(left**2, axis=0) / np.maximum(np.nanvar(all_, axis=0), 1e-18)
    return Identified(
        parameters=dict(zip(names, (float(v) for v in x * scales), strict=True)),
        std=dict(zip(names, (float(v) for v in std * scales), strict=True)),
        identified=known,
        covariance=covariance,
        condition=float(np.linalg.cond(covariance)),
        errors=dict(zip(channels, (float(v) for v in np.nanstd(left, axis=0)), strict=True)),
        explained=dict(zip(channels, (float(v) for v in explained), strict=True)),
        segments=n,
        remarks=_remarks(problem.parameters, known, x, std, covariance, config),
    )


def _remarks(
    parameters: Sequence[Parameter], known: Sequence[str], x: Array, std: Array, covariance: Array, config: SysidConfig
) -> tuple[str, ...]:
    """Which parameters are not known, and which combination of them is."""
    remarks = [
        f"{parameter.name} is not identifiable from these recordings: {value * parameter.scale:.3g} {parameter.unit} "
        f"with a standard error of {error * parameter.scale:.2g}; it is left as it was"
        for parameter, value, error in zip(parameters, x, std, strict=True)
        if parameter.name not in known
    ]
    at_bound = [
        p.name for p, v in zip(parameters, x, strict=True) if min(v - p.low / p.scale, p.high / p.scale - v) < 1e-6
    ]
    remarks += [
        f"{name} ended at the bound of its search; the recording doesn't fit this simulator" for name in at_bound
    ]
    if len(x) > 1 and len(known) < len(x):
        values, axes = np.linalg.eigh(covariance)
        if np.sqrt(values[0]) <= config.tolerance:
            axis = axes[:, 0] * np.sign(axes[np.argmax(np.abs(axes[:, 0])), 0])
            terms = " ".join(f"{w:+.2f} {p.name}/{p.scale:g}" for w, p in zip(axis, parameters, strict=True))
            remarks.append(f"what is known is the combination {terms}, to {np.sqrt(values[0]):.1%}")
    return tuple(remarks)
