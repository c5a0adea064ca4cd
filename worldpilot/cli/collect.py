"""`worldpilot collect`: behaviour data from simulation, several processes writing shards of one store."""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from worldpilot.errors import InvalidInput
from worldpilot.models.data.episodes import Episode, EpisodeWriter
from worldpilot.sim.push_t import PushT
from worldpilot.sim.tasks import Behaviour, Controls, World, available, store_meta, task
from worldpilot.system import System

EXCITE = "excite"  # beside the behaviours: what tells delays and parameters

_CHUNK = 25  # episodes a job
_FLAG = "episodes_of_"  # a behaviour may be called as another option is, or as the command's own function


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=list(available()))
    parser.add_argument("--out", type=Path, required=True, help="folder of the store; shards are added to it")
    for behaviour in _behaviours():
        flag = f"--{behaviour.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=0, dest=_FLAG + behaviour, metavar="N", help="episodes")
    parser.add_argument("--behaviour", choices=_behaviours(), help="one by its name; with --episodes")
    parser.add_argument("--episodes", type=int, default=0, metavar="N", help="of --behaviour")
    parser.add_argument(
        "--excite", type=int, default=0, metavar="N", help="episodes for `calibrate latency` or `system`"
    )
    parser.add_argument("--system", type=Path, help="the world is made like this (see `calibrate latency`, `system`)")
    parser.add_argument("--steps", type=int, help="longest episode [control steps]; default: as the behaviour has it")
    parser.add_argument("--size", type=int, default=64, help="side of the images [px], of tasks that have images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)


def run(args: argparse.Namespace) -> int:
    known = task(args.task).behaviours
    asked = {name: getattr(args, _FLAG + name) for name in _behaviours()}
    if args.behaviour:
        asked[args.behaviour] += args.episodes
    asked[EXCITE] = args.excite
    asked = {name: count for name, count in asked.items() if count}
    if args.excite and task(args.task).excitation is None:
        raise InvalidInput(f"collect {args.task}: there is nothing that tells its delays and parameters")
    if not asked or set(asked) - {*known, EXCITE}:
        raise InvalidInput(
            f"collect {args.task}: give a number of episodes for some of {', '.join(known)}, or --excite"
        )
    system = System.load(args.system, args.task) if args.system else None
    jobs = [
        (
            args.task,
            str(args.out),
            behaviour,
            args.seed + first,
            min(_CHUNK, count - first),
            args.steps,
            args.size,
            system,
        )
        for behaviour, count in asked.items()
        for first in range(0, count, _CHUNK)
    ]
    with ProcessPoolExecutor(args.workers) as pool, tqdm(total=sum(asked.values()), unit="episode") as bar:
        for future in as_completed([pool.submit(_collect, *job) for job in jobs]):
            bar.update(future.result())
    return 0


def _behaviours() -> list[str]:
    """Those of all tasks."""
    return sorted({name for entry in available().values() for name in entry.behaviours})


def record(world: World, controls: Controls, steps: int, meta: dict[str, Any], *, sensors: bool = False) -> Episode:
    """Drive the world by `controls` for at most `steps`, and keep what was seen, done and measured.

    Args:
        sensors: keep what else the robot can measure, where it can, among the signals.
    """
    low, high = np.asarray((world.action.low, world.action.high), np.float32)
    sensing = world if sensors and isinstance(world, PushT) else None
    if sensing is not None:
        sensing.senses = True

    def measured() -> dict[str, float]:
        return {**world.signals(), **(sensing.sensors() if sensing else {})}

    observations, applied, signals = [world.observe().data], [], [measured()]
    for _, control in zip(range(steps), controls, strict=False):
        applied.append(np.clip(control, low, high).astype(np.float32))
        world.drive(applied[-1])
        observations.append(world.observe().data)
        signals.append(measured())
    return Episode.stack(observations, applied, signals, {**meta, **world.outcome()})


def behave(
    name: str, behaviour: str, controls: Callable[[Any, np.random.Generator], Controls], world: World, seed: int
) -> Controls:
    """Reset the world for episode `seed` of a behaviour; returns its controls, for `record` or to be replayed."""
    number = 1000 if behaviour == EXCITE else list(task(name).behaviours).index(behaviour)
    rng = np.random.default_rng([number, seed])
    world.reset(seed=int(rng.integers(2**31)))
    return controls(world, rng)


def source(name: str, behaviour: str) -> Behaviour:
    """A task's behaviour, or what excites it."""
    entry = task(name)
    if behaviour != EXCITE:
        return entry.behaviours[behaviour]
    assert entry.excitation is not None
    return entry.excitation


def _collect(
    name: str,
    out: str,
    behaviour: str,
    first_seed: int,
    episodes: int,
    steps: int | None,
    size: int,
    system: System | None,
) -> int:
    found, images = source(name, behaviour), not task(name).state
    made = {} if system is None else {"system": system}
    world, controls = task(name).world(**made, **({"image_size": size} if images else {})), found.make()
    with EpisodeWriter(Path(out), store_meta(name)) as writer:
        for seed in range(first_seed, first_seed + episodes):
            meta = {"seed": seed, "behaviour": behaviour}
            drive, longest = behave(name, behaviour, controls, world, seed), steps or found.steps
            writer.append(record(world, drive, longest, meta, sensors=behaviour == EXCITE))
    world.close()
    return episodes
