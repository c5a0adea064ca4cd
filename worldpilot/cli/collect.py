"""`worldpilot collect`: behaviour data from simulation, several processes writing shards of one store."""

import argparse
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from worldpilot.models.data.episodes import Episode, EpisodeWriter
from worldpilot.sim.experts import Expert, random_pushes
from worldpilot.sim.push_t import PushT

BEHAVIOURS = ("expert", "noisy_expert", "random_push")
_CHUNK = 25  # episodes a job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=["push_t"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the store; shards are added to it")
    for behaviour in BEHAVIOURS:
        parser.add_argument(f"--{behaviour.replace('_', '-')}", type=int, default=0, metavar="N", help="episodes")
    parser.add_argument("--steps", type=int, default=100, help="control steps of a random_push episode")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)


def run(args: argparse.Namespace) -> int:
    jobs = [
        (str(args.out), behaviour, args.seed + first, min(_CHUNK, getattr(args, behaviour) - first), args.steps)
        for behaviour in BEHAVIOURS
        for first in range(0, getattr(args, behaviour), _CHUNK)
    ]
    total = sum(job[3] for job in jobs)
    with ProcessPoolExecutor(args.workers) as pool, tqdm(total=total, unit="episode") as bar:
        for future in as_completed([pool.submit(_collect, *job) for job in jobs]):
            bar.update(future.result())
    return 0


def _collect(out: str, behaviour: str, first_seed: int, episodes: int, steps: int) -> int:
    world = PushT()
    experts = {"expert": {}, "noisy_expert": {"noise": 0.03, "randomness": 0.3}}
    expert = Expert(**experts[behaviour]) if behaviour in experts else None
    with EpisodeWriter(Path(out), {"task": "push_t"}) as writer:
        for seed in range(first_seed, first_seed + episodes):
            rng = np.random.default_rng([BEHAVIOURS.index(behaviour), seed])
            world.reset(seed=int(rng.integers(2**31)))
            if expert is None:
                source, limit = random_pushes(world, rng), steps
            else:
                source, limit = expert.controls(world, rng), world.budget
            writer.append(_record(world, source, limit, {"seed": seed, "behaviour": behaviour}))
    world.close()
    return episodes


def _record(world: PushT, source: Iterable[npt.NDArray[np.floating]], limit: int, meta: dict[str, Any]) -> Episode:
    low, high = np.asarray((world.action.low, world.action.high), np.float32)
    observations, controls, signals = [world.observe().data], [], [world.signals()]
    overlap, settled = world.overlap(), 0
    for _, control in zip(range(limit), source, strict=False):
        applied = np.clip(control, low, high).astype(np.float32)
        world.drive(applied)
        controls.append(applied)
        observations.append(world.observe().data)
        signals.append(world.signals())
        overlap = world.overlap()
        settled = settled + 1 if overlap > 0.95 else 0
        if settled > 3 and meta["behaviour"] != "random_push":
            break
    return Episode(
        observations=np.stack(observations),
        controls=np.stack(controls),
        signals={name: np.array([s[name] for s in signals], np.float32) for name in signals[0]},
        meta={**meta, "goal": [float(x) for x in world.goal], "overlap": overlap},
    )
