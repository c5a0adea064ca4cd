"""How far a motion is from all the motions of a data set, in units of how far those are from one another.

A motion is a window of a second. Two descriptions of it: where it lies in (speed, height, yaw rate), and how its feet
touch the ground, as the share of time of each pattern of contacts. Its novelty is the distance to the nearest window of
the data. What counts as far is read from the data itself: of each of its windows, the distance to the nearest window of
*another* episode (leave one out); beyond the 99th percentile of those, a motion has no neighbour.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput
from worldpilot.types import FloatArray

REGION = ("forward_velocity", "height", "yaw_rate")
FAR = 0.99  # quantile of the data's own distances
_ROWS = 128  # of a distance matrix at a time


@dataclass(frozen=True)
class Motions:
    """W windows of several episodes."""

    region: FloatArray  # (W, 3), means of `REGION`
    pattern: FloatArray  # (W, 2**F), share of time of each combination of F feet on the ground
    episodes: npt.NDArray[np.int64]  # (W,), which episode each is from
    steps: int  # of a window

    @staticmethod
    def of(episodes: Iterable[Mapping[str, FloatArray]], steps: int) -> "Motions":
        """Windows of `steps` control steps, one after another, up to a fall.

        Args:
            episodes: signals, name -> (T,), with contacts `contact_*`.

        Raises:
            InvalidInput: no episode is as long as a window.
        """
        regions, patterns, owners = list[FloatArray](), list[FloatArray](), list[int]()
        for index, signals in enumerate(episodes):
            feet = np.stack([signals[name] > 0.5 for name in sorted(signals) if name.startswith("contact_")], -1)
            codes = feet @ (1 << np.arange(feet.shape[1]))
            standing = int(np.argmax(signals["fallen"] > 0)) if signals["fallen"].any() else len(codes)
            for first in range(0, standing - steps + 1, steps):
                window = slice(first, first + steps)
                regions.append(np.array([signals[name][window].mean() for name in REGION], np.float32))
                counts = np.bincount(codes[window], minlength=2 ** feet.shape[1])
                patterns.append((counts / steps).astype(np.float32))
                owners.append(index)
        if not owners:
            raise InvalidInput(f"novelty: no episode stands for a window of {steps} control steps")
        return Motions(np.stack(regions), np.stack(patterns), np.array(owners), steps)


@dataclass(frozen=True)
class Yardstick:
    """Distances to a data set's motions, 1 where they are far."""

    data: Motions
    scale: FloatArray  # (3,), spread of the data's regions
    far_region: float
    far_pattern: float

    @staticmethod
    def of(data: Motions) -> "Yardstick":
        """Read from the data itself what is far.

        Raises:
            InvalidInput: fewer than two episodes.
        """
        if len(np.unique(data.episodes)) < 2:
            raise InvalidInput("novelty: the data needs at least two episodes, to leave one out")
        scale = np.maximum(data.region.std(axis=0), 1e-6)
        regions = _nearest(data.region / scale, data.region / scale, "euclidean", (data.episodes, data.episodes))
        patterns = _nearest(data.pattern, data.pattern, "variation", (data.episodes, data.episodes))
        far_region, far_pattern = float(np.quantile(regions, FAR)), float(np.quantile(patterns, FAR))
        return Yardstick(data, scale, max(far_region, 1e-6), max(far_pattern, 1 / data.steps))  # a step is no novelty

    def region(self, motions: Motions) -> FloatArray:
        """Of each window (W,): how far it is from the data in (speed, height, yaw rate)."""
        return _nearest(motions.region / self.scale, self.data.region / self.scale, "euclidean") / self.far_region

    def pattern(self, motions: Motions) -> FloatArray:
        """Of each window (W,): how far it is from the data in its contacts (total variation)."""
        return _nearest(motions.pattern, self.data.pattern, "variation") / self.far_pattern


def beyond(distances: FloatArray, motions: Motions) -> FloatArray:
    """Of each episode: the share of its windows that are far from all of the data."""
    return np.array([(distances[motions.episodes == e] > 1).mean() for e in np.unique(motions.episodes)], np.float32)


def duty(signals: Mapping[str, FloatArray], feet: Sequence[str]) -> dict[str, float]:
    """The share of time that each foot is on the ground."""
    return {foot: float((signals[f"contact_{foot}"] > 0.5).mean()) for foot in feet}


def _nearest(
    queries: FloatArray,
    data: FloatArray,
    metric: str,
    owners: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None,
) -> FloatArray:
    """Distance of each query (Q, K) to the nearest of the data (W, K), of another owner if those are given."""
    found = np.empty(len(queries), np.float32)
    for first in range(0, len(queries), _ROWS):
        rows = slice(first, first + _ROWS)
        apart = queries[rows, None] - data[None]
        far = np.abs(apart).sum(-1) / 2 if metric == "variation" else np.sqrt(np.square(apart).sum(-1))
        if owners is not None:
            far[owners[0][rows, None] == owners[1][None]] = np.inf
        found[rows] = far.min(axis=1)
    return found
