"""`worldpilot rewards`: what rewards can be made of, and whether a specification would be accepted."""

import argparse
import json
from pathlib import Path

import numpy as np
import yaml

from worldpilot.errors import InvalidInput
from worldpilot.planners.rewards import registry
from worldpilot.planners.rewards.base import RewardContext


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--schema", action="store_true", help="print the JSON schema of a reward specification")
    what.add_argument("--check", type=Path, metavar="FILE", help="check a specification, JSON or YAML")
    parser.add_argument("--task", help="check the specification's names and units against this task's model too")


def run(args: argparse.Namespace) -> int:
    if args.schema:
        print(json.dumps(registry.schema(), indent=2))
    elif args.check:
        _check(args.check, args.task)
    else:
        plugins = registry.available()
        width = max(map(len, plugins), default=0)
        for name, plugin in sorted(plugins.items()):
            print(f"{name:<{width}}  {registry.summary(plugin)}")
    return 0


def _check(path: Path, task: str | None) -> None:
    """Parse the file and, with a task, build the reward on its model.

    Raises:
        RewardError, UnknownName: it would be refused.
        InvalidInput: the file can't be read.
    """
    try:
        data = path.read_bytes()
        source = yaml.safe_load(data) if path.suffix in (".yaml", ".yml") else data
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path}: {error}") from error
    if not isinstance(source, dict | bytes):
        raise InvalidInput(f"{path}: a reward specification is a mapping with `terms`, got {type(source).__name__}")
    spec = registry.parse_spec(source)
    if task is not None:
        from worldpilot.models.artifact import Artifact, zoo_path  # loads onnxruntime: only when it is needed

        model_spec = Artifact.load(zoo_path(task)).spec
        any_goal = np.zeros(model_spec.latent_dim, np.float32)  # goal images come at run time
        registry.build(spec, RewardContext(model_spec, any_goal))
    print(f"{path}: accepted: {', '.join(term.plugin for term in spec.terms)}; id {registry.reward_id(spec)}")
