"""`worldpilot practise`: a robot on legs is asked for one thing after another in simulation; episodes to learn from."""

import argparse
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from worldpilot.cli.arguments import json_object
from worldpilot.errors import InvalidInput
from worldpilot.evaluation.controllers import Planning
from worldpilot.evaluation.practice import practise
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.data.episodes import EpisodeWriter
from worldpilot.sim.legged import BUDGET, LeggedWorld
from worldpilot.sim.tasks import store_meta, task

_CHUNK = 10  # episodes a job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", help="quadruped, walker …")
    parser.add_argument("--artifact", type=Path, help="folder of the artifact that plans; default: the shipped one")
    parser.add_argument("--out", type=Path, required=True, help="folder of the store; shards are added to it")
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--steps", type=int, default=BUDGET, help="of an episode [control steps], unless it falls")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode, the next ones follow")
    parser.add_argument("--solver", type=json_object, default={}, help="solver's settings as JSON, for the graph's")
    parser.add_argument(
        "--weights",
        type=json_object,
        default={},
        help="of the standing reward's terms, times what they are: JSON, a word of their expressions to a factor",
    )
    parser.add_argument("--workers", type=int, default=2)


def run(args: argparse.Namespace) -> int:
    artifact = args.artifact or zoo_path(args.task)
    Artifact.load(artifact)  # refused here, not in every process
    with closing(task(args.task).world()) as world:
        if not isinstance(world, LeggedWorld):
            raise InvalidInput(f"practise: {args.task} has no robot on legs; collect behaviours of it instead")
    planning = Planning.of(args.task).searching(args.solver, args.weights)
    jobs = [
        (args.task, artifact, planning, args.out, args.seed + first, min(_CHUNK, args.episodes - first), args.steps)
        for first in range(0, args.episodes, _CHUNK)
    ]
    with ProcessPoolExecutor(args.workers) as pool, tqdm(total=args.episodes, unit="episode") as bar:
        for future in as_completed([pool.submit(_practise, *job) for job in jobs]):
            bar.update(future.result())
    return 0


def _practise(
    name: str, folder: Path, planning: Planning, out: Path, first_seed: int, episodes: int, steps: int
) -> int:
    artifact, world = Artifact.load(folder), task(name).world()
    assert isinstance(world, LeggedWorld)
    with closing(world), EpisodeWriter(out, store_meta(name)) as writer:
        for seed in range(first_seed, first_seed + episodes):
            writer.append(practise(artifact, world, planning, seed, steps))
    return episodes
