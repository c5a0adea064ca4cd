"""`worldpilot train world-model|action-prior`: long jobs with checkpoints; run again to resume."""

import argparse
from dataclasses import fields
from pathlib import Path

from worldpilot.errors import InvalidInput
from worldpilot.types import ActionSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from worldpilot.models.action_prior.train import PriorTrainConfig
    from worldpilot.models.world_model.train import TrainConfig

    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, config in (("world-model", TrainConfig), ("action-prior", PriorTrainConfig)):
        sub = kinds.add_parser(kind)
        sub.add_argument("--data", type=Path, required=True, help="folder of episodes (see `worldpilot collect`)")
        sub.add_argument("--out", type=Path, required=True, help="folder of checkpoints and metrics")
        sub.add_argument("--threads", type=int, default=None, help="torch threads")
        if kind == "action-prior":
            sub.add_argument("--world-model", type=Path, required=True, help="its trained checkpoints")
        for field in fields(config):
            kind_of = type(field.default)
            sub.add_argument(f"--{field.name.replace('_', '-')}", type=kind_of, default=field.default)


def run(args: argparse.Namespace) -> int:
    import torch

    from worldpilot.models.action_prior.train import PriorTrainConfig, train_prior
    from worldpilot.models.data.episodes import EpisodeStore
    from worldpilot.models.world_model.networks import WorldModelConfig
    from worldpilot.models.world_model.train import TrainConfig, train

    if args.threads:
        torch.set_num_threads(args.threads)
    store = EpisodeStore(args.data)
    if "action" not in store.meta:
        raise InvalidInput(f"{args.data}: dataset.json says nothing of the action; collect or import the data anew")
    spec = ActionSpec.from_dict(store.meta["action"])
    if args.kind == "world-model":
        config = TrainConfig(**{f.name: getattr(args, f.name) for f in fields(TrainConfig)})
        train(store, spec, args.out, WorldModelConfig(action_dim=spec.dim), config)
    else:
        prior = PriorTrainConfig(**{f.name: getattr(args, f.name) for f in fields(PriorTrainConfig)})
        train_prior(store, spec, args.world_model, args.out, prior)
    return 0
