"""Episodes on disk: what is written is what is read, and bad data is refused with the reason."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldpilot.errors import InvalidInput
from worldpilot.models.data.episodes import Episode, EpisodeStore, EpisodeWriter


def make_episode(seed: int, behaviour: str = "expert", steps: int = 7, state: bool = False) -> Episode:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 255, (steps + 1, 8, 8, 3), dtype=np.uint8)
    return Episode(
        observations=rng.normal(size=(steps + 1, 4)).astype(np.float32) if state else frames,
        controls=rng.normal(size=(steps, 2)).astype(np.float32),
        signals={name: rng.normal(size=steps + 1).astype(np.float32) for name in ("block_x", "block_y")},
        meta={"seed": seed, "behaviour": behaviour, "goal": [0.1, 0.2, 0.3]},
    )


def write(path: Path, episodes: list[Episode], **options: int) -> EpisodeStore:
    with EpisodeWriter(path, {"task": "push_t"}, **options) as writer:
        for episode in episodes:
            writer.append(episode)
    return EpisodeStore(path)


@pytest.mark.parametrize("state", [False, True])
def test_what_is_written_is_what_is_read(tmp_path: Path, state: bool) -> None:
    episodes = [make_episode(seed, steps=3 + seed, state=state) for seed in range(7)]
    store = write(tmp_path, episodes, shard_episodes=3)
    assert store.meta == {"task": "push_t"}
    assert len(store) == 7
    assert store.lengths == [3 + seed for seed in range(7)]
    for read, written in zip(store, episodes, strict=True):
        np.testing.assert_array_equal(read.observations, written.observations)
        np.testing.assert_array_equal(read.controls, written.controls)
        assert read.signals.keys() == written.signals.keys()
        for name, values in written.signals.items():
            np.testing.assert_array_equal(read.signals[name], values)
        assert read.meta == written.meta
        assert read.sha256() == written.sha256()


def test_order_and_hash_do_not_depend_on_who_wrote_what(tmp_path: Path) -> None:
    episodes = [make_episode(seed) for seed in range(12)]
    one = write(tmp_path / "one", episodes)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda part: write(tmp_path / "many", episodes[part::4], shard_episodes=2), range(4)))
    many = EpisodeStore(tmp_path / "many")
    assert [meta["seed"] for meta in many.metas] == [meta["seed"] for meta in one.metas]
    assert many.sha256() == one.sha256()
    other = write(tmp_path / "other", episodes[:-1])
    assert other.sha256() != one.sha256()


def test_an_episode_written_twice_counts_once(tmp_path: Path) -> None:
    write(tmp_path, [make_episode(0), make_episode(1)])
    assert len(write(tmp_path, [make_episode(1), make_episode(2)])) == 3


def test_split_is_by_seed_and_does_not_move_when_episodes_are_added(tmp_path: Path) -> None:
    first = [make_episode(seed, behaviour) for seed in range(60) for behaviour in ("expert", "noisy_expert")]
    store = write(tmp_path, first)
    train, held_out = store.split(0.2, seed=3)
    assert sorted(train + held_out) == list(range(len(store)))
    held_seeds = {store.metas[i]["seed"] for i in held_out}
    assert held_seeds.isdisjoint({store.metas[i]["seed"] for i in train})
    assert 0.05 < len(held_out) / len(store) < 0.4
    larger = write(tmp_path, [make_episode(seed) for seed in range(60, 90)])
    _, held_later = larger.split(0.2, seed=3)
    assert {larger.metas[i]["seed"] for i in held_later} & set(range(60)) == held_seeds
    assert store.split(0.2, seed=4) != (train, held_out)


def test_a_tiny_data_set_still_has_a_held_out_episode(tmp_path: Path) -> None:
    train, held_out = write(tmp_path, [make_episode(seed) for seed in (5, 6)]).split(1e-9)
    assert (len(train), len(held_out)) == (1, 1)


def test_select_by_meta(tmp_path: Path) -> None:
    store = write(tmp_path, [make_episode(i, ("expert", "mpc", "random_push")[i % 3]) for i in range(9)])
    assert {episode.meta["behaviour"] for episode in store.select(behaviour="mpc")} == {"mpc"}
    assert len(store.select(behaviour=("expert", "mpc"))) == 6
    assert len(store.select(behaviour="mpc", seed=4)) == 1
    with pytest.raises(InvalidInput, match=r"no episode with behaviour.*\"expert\", \"mpc\", \"random_push\""):
        store.select(behaviour="experts")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"controls": np.zeros((6, 2), np.float32)}, r"8 observations need controls of shape \(7, U\)"),
        ({"controls": np.zeros((7, 2))}, "float32"),
        ({"controls": np.full((7, 2), np.nan, np.float32)}, "controls is not finite at step 0"),
        ({"observations": np.zeros((8, 8, 8, 3))}, "observations must be"),
        ({"signals": {"block_x": np.zeros(7, np.float32)}}, "signal 'block_x' must be of shape"),
        (
            {"signals": {"block_x": np.array([0, 0, np.inf, 0, 0, 0, 0, 0], np.float32)}},
            "block_x is not finite at step 2",
        ),
        ({"meta": {"seed": 1}}, "meta needs seed"),
    ],
)
def test_bad_episodes_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        replace(make_episode(0), **change)


def test_other_meta_or_another_layout_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [make_episode(0)])
    with pytest.raises(InvalidInput, match="use another folder"):
        EpisodeWriter(tmp_path, {"task": "hopper"})
    with pytest.raises(InvalidInput, match="JSON values only"):
        EpisodeWriter(tmp_path, {"task": object()})
    with pytest.raises(InvalidInput, match="the data set's other episodes have"):
        write(tmp_path, [make_episode(1, state=True)])


def test_damaged_and_missing_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no data set"):
        EpisodeStore(tmp_path)
    write(tmp_path, [make_episode(seed) for seed in range(5)])
    (shard,) = tmp_path.glob("shard-*.npz")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match="damaged, remove it"):
        EpisodeStore(tmp_path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    shard.write_bytes(bytes(flipped))
    with pytest.raises(InvalidInput, match="damaged, remove it"):
        list(EpisodeStore(tmp_path))
    dataset = tmp_path / "dataset.json"
    dataset.write_text(json.dumps({"format": 99, "meta": {}}))
    with pytest.raises(InvalidInput, match="format 99"):
        EpisodeStore(tmp_path)


def test_a_crash_while_writing_leaves_whole_shards_only(tmp_path: Path) -> None:
    store = write(tmp_path, [make_episode(seed) for seed in range(3)])
    (tmp_path / ".writing-leftover").write_bytes(b"half a shard")
    assert EpisodeStore(tmp_path).sha256() == store.sha256()
