"""Episodes on disk: what a robot saw, did and measured, one folder a data set.

    data/push_t/
      dataset.json          what holds for every episode: format, task, control_dt, camera …
      shard-<hash>.npz      about 50 episodes each, arrays concatenated along time

A shard is named by its content and appears by an atomic rename, so that any number of processes may write into one
folder at once and a crash leaves no half shard. Order and hash of a data set depend on its episodes alone, not on who
wrote them into which shard.
"""

import hashlib
import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from worldpilot.errors import InvalidInput
from worldpilot.types import FloatArray

FORMAT = 1
DATASET_FILE = "dataset.json"
_KEPT_SHARDS = 4


@dataclass(frozen=True)
class Episode:
    """One episode of T controls and the T+1 observations around them.

    Raises:
        InvalidInput: ragged, non-finite, of another dtype, or without `seed` (int) and `behaviour` (str) in `meta`.
    """

    observations: npt.NDArray[Any]  # (T+1, H, W, 3) uint8 RGB, or (T+1, S) float32
    controls: FloatArray  # (T, U), control t is in force between observations t and t+1
    signals: Mapping[str, FloatArray]  # name -> (T+1,), ground truth in physical units
    meta: Mapping[str, Any] = field(default_factory=dict)  # JSON values: seed, behaviour, goal …

    def __post_init__(self) -> None:
        seed, behaviour = self.meta.get("seed"), self.meta.get("behaviour")
        if not isinstance(seed, int) or not isinstance(behaviour, str):
            raise InvalidInput(f"episode: meta needs seed (int) and behaviour (str), got {seed!r} and {behaviour!r}")
        name = f"episode (seed {seed}, {behaviour})"
        steps = len(self.observations)
        image = self.observations.ndim == 4 and self.observations.shape[-1] == 3 and self.observations.dtype == np.uint8
        state = self.observations.ndim == 2 and self.observations.dtype == np.float32
        if not image and not state:
            raise InvalidInput(
                f"{name}: observations must be (T+1, H, W, 3) uint8 or (T+1, S) float32, "
                f"got {self.observations.shape} {self.observations.dtype}"
            )
        if self.controls.ndim != 2 or self.controls.dtype != np.float32 or len(self.controls) != steps - 1 or steps < 2:
            raise InvalidInput(
                f"{name}: {steps} observations need controls of shape ({steps - 1}, U) float32, at least one, "
                f"got {self.controls.shape} {self.controls.dtype}"
            )
        for signal, values in self.signals.items():
            if values.shape != (steps,) or values.dtype != np.float32:
                raise InvalidInput(
                    f"{name}: signal {signal!r} must be of shape ({steps},) float32, got {values.shape} {values.dtype}"
                )
        for what, values in {"observations": self.observations, "controls": self.controls, **self.signals}.items():
            if values.dtype != np.uint8 and not np.isfinite(values).all():
                at = int(np.argwhere(~np.isfinite(values))[0, 0])
                raise InvalidInput(f"{name}: {what} is not finite at step {at}; leave this episode out")

    @staticmethod
    def stack(
        observations: Sequence[npt.NDArray[Any]],
        controls: Sequence[FloatArray],
        signals: Sequence[Mapping[str, float]],
        meta: Mapping[str, Any],
    ) -> "Episode":
        """From what was seen, done and measured, step by step: T+1 observations and signals, T controls."""
        columns = {name: np.array([values[name] for values in signals], np.float32) for name in signals[0]}
        return Episode(np.stack(observations), np.stack(controls), columns, meta)

    def __len__(self) -> int:
        """T, the number of controls."""
        return len(self.controls)

    def sha256(self) -> str:
        """Hash of the content: arrays and meta."""
        digest = hashlib.sha256(_canonical(self.meta))
        for name, array in _arrays(self).items():
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class EpisodeWriter:
    """Appends episodes to a data set; a context manager, or call `close()` to write the last shard.

    Args:
        path: the data set's folder; made if missing. Several writers may share it.
        meta: what holds for every episode (task, control_dt, control names …), JSON values. A folder that was begun
            with other values is refused.
        shard_episodes: how many episodes a shard holds; a crash loses at most that many.
    """

    def __init__(self, path: Path | str, meta: Mapping[str, Any], *, shard_episodes: int = 50) -> None:
        self._path = Path(path)
        self._path.mkdir(parents=True, exist_ok=True)
        self._shard_episodes = shard_episodes
        self._pending: list[Episode] = []
        _claim(self._path, {"format": FORMAT, "meta": json.loads(_canonical(meta))})

    def append(self, episode: Episode) -> None:
        """Add an episode; every `shard_episodes`-th call writes a shard."""
        if self._pending:
            _check_alike(_layout(self._pending[0]), _layout(episode), f"episode (seed {episode.meta['seed']})")
        self._pending.append(episode)
        if len(self._pending) >= self._shard_episodes:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as a shard of its own."""
        if self._pending:
            _write_shard(self._path, self._pending)
            self._pending = []

    close = flush

    def __enter__(self) -> "EpisodeWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()  # whole episodes are good data, whatever went wrong after them


class EpisodeStore(Sequence[Episode]):
    """The episodes of a data set, in the order of (behaviour, seed). Frames are read when asked for; the
    shards read last are kept, so that reading in order reads each shard once.

    Args:
        path: the data set's folder.

    Raises:
        InvalidInput: no data set there, a damaged shard, or shards whose episodes do not fit together.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        file = self.path / DATASET_FILE
        if not file.is_file():
            raise InvalidInput(f"{self.path} is no data set ({DATASET_FILE} is missing); make one with `collect`")
        self.meta: dict[str, Any] = _read_dataset(file)["meta"]
        shards = [_Shard(shard) for shard in sorted(self.path.glob("shard-*.npz"))]
        for shard in shards[1:]:
            _check_alike(shards[0].layout, shard.layout, str(shard.path))
        rows = [(shard, row) for shard in shards for row in range(len(shard.digests))]
        by_digest = {shard.digests[row]: (shard, row) for shard, row in rows}  # a repeated episode counts once
        self._rows = sorted(by_digest.values(), key=lambda at: at[0].key(at[1]))
        self._recent: list[_Shard] = []

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> list[Episode]: ...
    def __getitem__(self, index: int | slice) -> Episode | list[Episode]:
        """The index-th episode; its arrays are views of what the store keeps."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        shard, row = self._rows[index]
        if shard not in self._recent:
            self._recent.append(shard)
        if len(self._recent) > _KEPT_SHARDS:
            self._recent.pop(0).forget()
        return shard.episode(row)

    def __iter__(self) -> Iterator[Episode]:
        return (self[i] for i in range(len(self)))

    @property
    def metas(self) -> list[dict[str, Any]]:
        """The episodes' meta, without reading a frame."""
        return [shard.metas[row] for shard, row in self._rows]

    @property
    def lengths(self) -> list[int]:
        """The episodes' T, without reading a frame."""
        return [shard.lengths[row] for shard, row in self._rows]

    def select(self, **wanted: Any) -> "EpisodeStore":
        """The episodes whose meta has these values; a tuple means any of them: `select(behaviour=("expert", "mpc"))`.

        Raises:
            InvalidInput: no episode has them; the message lists the values there are.
        """
        chosen = EpisodeStore.__new__(EpisodeStore)
        chosen.path, chosen.meta, chosen._rows, chosen._recent = self.path, self.meta, self._rows, []
        for name, value in wanted.items():
            values = value if isinstance(value, tuple) else (value,)
            seen = sorted({json.dumps(shard.metas[row].get(name)) for shard, row in chosen._rows})
            chosen._rows = [(shard, row) for shard, row in chosen._rows if shard.metas[row].get(name) in values]
            if not chosen._rows:
                raise InvalidInput(f"{self.path}: no episode with {name} in {values}; there are {', '.join(seen[:20])}")
        return chosen

    def split(self, held_out: float = 0.1, seed: int = 0) -> tuple[list[int], list[int]]:
        """Indices of the training and of the held-out episodes.

        An episode's side follows from a hash of its own seed: adding episodes moves none across, and episodes of one
        seed (one start and one look of the scene, under several behaviours) are never on both sides. So the share is
        `held_out` only on average; if no episode falls below it, the one with the least hash is held out.
        """
        if not 0.0 < held_out < 1.0 or len(self) < 2:
            raise InvalidInput(f"split: needs 0 < held_out < 1 and 2 episodes, got {held_out} and {len(self)}")
        draws = [_uniform(f"{seed}:{meta['seed']}") for meta in self.metas]
        limit = max(held_out, np.nextafter(min(draws), 1.0))
        inside = [i for i, draw in enumerate(draws) if draw < limit]
        outside = [i for i, draw in enumerate(draws) if draw >= limit]
        if not outside:
            raise InvalidInput(f"split: all {len(self)} episodes share a side; give episodes different seeds")
        return outside, inside

    def sha256(self) -> str:
        """Hash of the episodes' content, whatever their shards."""
        digests = sorted(shard.digests[row] for shard, row in self._rows)
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()


class _Shard:
    """One file: its index is read at once, its arrays when an episode is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        index = json.loads(_read_member(path, "index").tobytes())
        self.metas: list[dict[str, Any]] = index["metas"]
        self.lengths: list[int] = index["lengths"]
        self.digests: list[str] = index["digests"]
        self.layout: dict[str, Any] = index["layout"]
        ends = np.cumsum(self.lengths)
        self._starts = ends - np.asarray(self.lengths)

    def forget(self) -> None:
        """Free the arrays; they are read again when an episode is asked for."""
        self.__dict__.pop("_arrays", None)

    def key(self, row: int) -> tuple[str, int, str]:
        return self.metas[row]["behaviour"], self.metas[row]["seed"], self.digests[row]

    def episode(self, row: int) -> Episode:
        start, steps = int(self._starts[row]), self.lengths[row]
        observed = slice(start + row, start + row + steps + 1)  # each episode before has one observation more
        arrays = self._arrays
        return Episode(
            observations=arrays["observations"][observed],
            controls=arrays["controls"][start : start + steps],
            signals={name: arrays[f"signals/{name}"][observed] for name in self.layout["signals"]},
            meta=self.metas[row],
        )

    @cached_property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        names = ["observations", "controls", *(f"signals/{name}" for name in self.layout["signals"])]
        arrays = {name: _read_member(self.path, name) for name in names}
        controls = sum(self.lengths)
        for name, array in arrays.items():
            expected = controls if name == "controls" else controls + len(self.lengths)
            if len(array) != expected:
                raise InvalidInput(f"{self.path}: {name} has {len(array)} rows, its index says {expected}; remove it")
        return arrays


def _write_shard(folder: Path, episodes: list[Episode]) -> None:
    digests = [episode.sha256() for episode in episodes]
    index = {
        "layout": _layout(episodes[0]),
        "lengths": [len(episode) for episode in episodes],
        "digests": digests,
        "metas": [dict(episode.meta) for episode in episodes],
    }
    columns = [_arrays(episode) for episode in episodes]
    arrays = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    name = hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".writing-", delete=False) as file:
        # Level 3 writes rendered frames 3 times as fast as numpy's level 6, half as large again.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            for member, array in {"index": np.frombuffer(_canonical(index), np.uint8), **arrays}.items():
                with archive.open(f"{member}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, folder / f"shard-{name}.npz")


def _read_member(path: Path, name: str) -> npt.NDArray[Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            return np.lib.format.read_array(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, OSError) as error:
        raise InvalidInput(f"{path}: {name} cannot be read ({error}); the shard is damaged, remove it") from error


def _claim(folder: Path, content: dict[str, Any]) -> None:
    """Write dataset.json unless it is there; whichever writer is first decides, the others must agree."""
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".writing-", delete=False) as file:
        json.dump(content, file, indent=2, sort_keys=True)
    os.chmod(file.name, 0o644)
    target = folder / DATASET_FILE
    try:
        os.link(file.name, target)  # unlike a rename, fails if another writer was first
    except FileExistsError:
        found = _read_dataset(target)
        if found != content:
            raise InvalidInput(
                f"{folder} was begun with meta {found['meta']}, this writer has {content['meta']}; use another folder"
            ) from None
    finally:
        os.unlink(file.name)


def _read_dataset(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
        found = content["format"]
        content["meta"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{file} cannot be read ({error!r})") from error
    if found != FORMAT:
        raise InvalidInput(f"{file}: format {found}, this version reads format {FORMAT}; collect the data again")
    return content


def _arrays(episode: Episode) -> dict[str, npt.NDArray[Any]]:
    signals = {f"signals/{name}": episode.signals[name] for name in sorted(episode.signals)}
    return {"observations": episode.observations, "controls": episode.controls, **signals}


def _layout(episode: Episode) -> dict[str, Any]:
    """What episodes of one data set have in common."""
    return {
        "observation": [*episode.observations.shape[1:]],
        "dtype": episode.observations.dtype.name,
        "controls": episode.controls.shape[1],
        "signals": sorted(episode.signals),
    }


def _check_alike(first: dict[str, Any], other: dict[str, Any], where: str) -> None:
    for what, expected in first.items():
        if other[what] != expected:
            raise InvalidInput(f"{where}: {what} is {other[what]}, the data set's other episodes have {expected}")


def _canonical(value: Any) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"meta must hold JSON values only: {error}") from error


def _plain(value: Any) -> Any:
    """Mappings and numpy values as JSON knows them."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on `text` alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2.0**64
