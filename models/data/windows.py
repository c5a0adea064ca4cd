"""Episodes laid end to end, and windows of model steps drawn from them: what the trainers read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput
from worldpilot.models.data.episodes import EpisodeStore
from worldpilot.types import ActionSpec, FloatArray, Symmetry


def signal_names(measured: Sequence[str]) -> tuple[str, ...]:
    """Names of the readout's outputs: an angle (named *yaw) is read as its sine and cosine."""
    names: list[str] = []
    for name in measured:
        names += [f"{name}_sin", f"{name}_cos"] if name.endswith("yaw") else [name]
    return tuple(names)


@dataclass(frozen=True)
class Frames:
    """F frames of several episodes, one after another."""

    observations: npt.NDArray[Any]  # (F, ...)
    controls: FloatArray  # (F, U) physical units; the control after each frame, 0 after an episode's last
    signals: FloatArray  # (F, S), in the order of `names`
    names: tuple[str, ...]
    starts: npt.NDArray[np.int64]  # (n_episodes + 1,), first frame of each episode, and F
    symmetries: tuple[Symmetry, ...] = ()  # of the world: each of them is a view; empty: there is one view, view 0

    @property
    def views(self) -> int:
        """How many views of each frame there are; view 0 is the frame itself."""
        return max(1, len(self.symmetries))

    def draw_views(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """A view for each frame, the same in all of an episode, several times: of shape (at most `count`, F).

        Row 0 is 0 throughout: the episodes as they are. An episode's views differ from row to row.
        """
        episodes = len(self.starts) - 1
        others = np.stack([rng.permutation(self.views - 1) + 1 for _ in range(episodes)], 1)[: count - 1]
        drawn = np.concatenate([np.zeros((1, episodes), np.int64), others])
        return np.repeat(drawn, np.diff(self.starts), axis=1)

    @staticmethod
    def load(store: EpisodeStore, indices: Sequence[int], before: int = 0) -> "Frames":
        """Read the episodes at `indices` of a store into memory.

        Args:
            store: has them.
            indices: which of them.
            before: how often the first frame of each is repeated before it, with zero control: the history that there
                is at run time when an episode begins.
        """
        lengths = [before + store.lengths[i] + 1 for i in indices]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        first = store[indices[0]]
        measured = sorted(first.signals)
        names = signal_names(measured)
        observations = np.empty((starts[-1], *first.observations.shape[1:]), first.observations.dtype)
        controls = np.zeros((starts[-1], first.controls.shape[1]), np.float32)
        signals = np.empty((starts[-1], len(names)), np.float32)
        for index, start in zip(indices, starts, strict=False):
            episode, column = store[index], 0
            frames = slice(start, start + before + len(episode.observations))
            observations[frames] = np.concatenate([episode.observations[:1].repeat(before, 0), episode.observations])
            controls[start + before : start + before + len(episode)] = episode.controls
            for name in measured:
                value = np.concatenate([episode.signals[name][:1].repeat(before, 0), episode.signals[name]])
                for part in (np.sin(value), np.cos(value)) if name.endswith("yaw") else (value,):
                    signals[frames, column] = part
                    column += 1
        symmetries = tuple(Symmetry.from_dict(values) for values in store.meta.get("symmetries", ()))
        return Frames(observations, controls, signals, names, starts, symmetries)

    def in_every_view(self, state: Sequence[str]) -> "Frames":
        """The episodes in all views, of states whose numbers are named `state`; the first of them as they are."""
        if not self.symmetries:
            return self
        observations, controls, signals = [], [], []
        for symmetry in self.symmetries:
            observations.append(self.observations @ symmetry.matrix(tuple(state)).T)
            controls.append(self.controls @ np.array(symmetry.controls, np.float32).T)
            signals.append(self.signals @ symmetry.matrix(self.names).T)
        starts = np.concatenate([self.starts[:-1] + i * self.starts[-1] for i in range(self.views)])
        return Frames(
            np.concatenate(observations),
            np.concatenate(controls),
            np.concatenate(signals),
            self.names,
            np.append(starts, self.views * self.starts[-1]),
        )

    def windows(self, model_steps: int, block: int) -> npt.NDArray[np.int64]:
        """First frames of all windows that span `model_steps` model steps within one episode."""
        span = model_steps * block
        ranges = [np.arange(a, b - span) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]
        windows = np.concatenate(ranges)
        if not len(windows):
            raise InvalidInput(f"no episode is as long as a window of {span} control steps; collect longer episodes")
        return windows

    def images(self, frames: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Observations of shape (B, T, ...) of frames (B, T), each row in its view (B,)."""
        images = self.observations[frames]
        for view in np.unique(views) if self.symmetries else ():
            rows = views == view
            images[rows] = self.symmetries[view].images(images[rows])
        return images

    def measured(self, frames: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> FloatArray:
        """Signals of shape (B, T, S) of frames (B, T), each row in its view (B,)."""
        signals = self.signals[frames]
        if not self.symmetries:
            return signals
        matrices = np.stack([symmetry.matrix(self.names) for symmetry in self.symmetries])
        return np.einsum("bij,btj->bti", matrices[views], signals)

    def actions(
        self, first: npt.NDArray[np.int64], model_steps: int, spec: ActionSpec, views: npt.NDArray[np.int64]
    ) -> FloatArray:
        """Actions of shape (B, model_steps, A), normalised to [-1, 1], that follow the frames `first` in their views,
        both of shape (B,)."""
        controls = self.controls[first[:, None] + np.arange(model_steps * spec.block)]
        if self.symmetries:
            matrices = np.array([symmetry.controls for symmetry in self.symmetries], np.float32)
            controls = np.einsum("bij,btj->bti", matrices[views], controls)
        low, high = np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32)
        return spec.actions(((controls - low) / (high - low) * 2 - 1).astype(np.float32))
