"""`worldpilot collect-gym`: behaviour data from any gymnasium environment with continuous actions."""

import argparse
import importlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from worldpilot.cli.arguments import json_object
from worldpilot.cli.collect import record
from worldpilot.errors import InvalidInput
from worldpilot.models.data.episodes import EpisodeWriter
from worldpilot.sim.gym_world import GymWorld, box_action, named
from worldpilot.sim.tasks import Controls

_CHUNK = 25  # episodes a job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("env", help="e.g. Pendulum-v1; PACKAGE:ID imports the package that registers it first")
    parser.add_argument("--out", type=Path, required=True, help="folder of the store; shards are added to it")
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--task", help="a name for what is done; default: the name of the folder")
    parser.add_argument("--env-args", type=json_object, default={}, help='JSON object, e.g. {"obs_type": "pixels"}')
    parser.add_argument(
        "--policy",
        default="random",
        help="random (held for a model step), or MODULE:FUNCTION, (world, rng) -> controls",
    )
    parser.add_argument("--steps", type=int, default=100, help="longest episode [control steps]")
    parser.add_argument("--image-key", help="of a dictionary observation; without an image it is rendered")
    parser.add_argument(
        "--signal",
        type=_signal,
        action="append",
        default=[],
        metavar="KEY=NAME,NAME…",
        help="entry of the observation or info that is ground truth, its numbers' names; repeatable",
    )
    parser.add_argument("--control-dt", type=float, help="[s]; default: from the environment's render_fps")
    parser.add_argument("--block", type=int, default=5, help="control steps in a model step")
    parser.add_argument("--size", type=int, default=64, help="side of the stored images [px]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)


def run(args: argparse.Namespace) -> int:
    if args.episodes < 1 or args.steps < 1:
        raise InvalidInput("collect-gym: episodes and steps must be at least 1")
    _policy(args.policy)  # what is wrong with it or with the environment is said before any process starts
    world = _world(args)
    world.signals()
    meta = {"task": args.task or args.out.resolve().name, "action": world.action.to_dict()}
    world.close()
    end = args.seed + args.episodes
    jobs = [(first, min(first + _CHUNK, end)) for first in range(args.seed, end, _CHUNK)]
    with ProcessPoolExecutor(args.workers) as pool, tqdm(total=args.episodes, unit="episode") as bar:
        for future in as_completed([pool.submit(_collect, args, meta, *job) for job in jobs]):
            bar.update(future.result())
    return 0


def until_ended(world: GymWorld, controls: Controls) -> Controls:
    """The controls, until the environment calls the episode ended."""
    for control in controls:
        yield control
        if world.ended:
            return


def random(world: GymWorld, rng: np.random.Generator) -> Controls:
    """Uniform controls, each held for a model step."""
    while True:
        control = rng.uniform(world.action.low, world.action.high)
        for _ in range(world.action.block):
            yield control


def _collect(args: argparse.Namespace, meta: dict[str, Any], first: int, end: int) -> int:
    world, policy = _world(args), _policy(args.policy)
    with EpisodeWriter(args.out, meta) as writer:
        for seed in range(first, end):
            rng = np.random.default_rng(seed)
            world.reset(seed=int(rng.integers(2**31)))
            of_episode = {"seed": seed, "behaviour": args.policy.rpartition(":")[2]}
            writer.append(record(world, until_ended(world, policy(world, rng)), args.steps, of_episode))
    world.close()
    return end - first


def _world(args: argparse.Namespace) -> GymWorld:
    try:
        env = gymnasium.make(args.env, max_episode_steps=-1, **{"render_mode": "rgb_array", **args.env_args})
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise InvalidInput(f"collect-gym: {args.env} cannot be made: {error}") from error
    action = box_action(env, args.control_dt, args.block)
    return GymWorld(env, action, signals=named(dict(args.signal)), image_key=args.image_key, size=args.size)


def _policy(name: str) -> Callable[[GymWorld, np.random.Generator], Controls]:
    if name == "random":
        return random
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(f"collect-gym: policy {name!r} is neither random nor MODULE:FUNCTION ({error})") from error


def _signal(text: str) -> tuple[str, tuple[str, ...]]:
    key, equals, names = text.partition("=")
    if not (key and equals and names):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=NAME or KEY=NAME,NAME")
    return key, tuple(names.split(","))
