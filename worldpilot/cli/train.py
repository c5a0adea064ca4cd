"""`worldpilot train world-model|action-prior`: long jobs with checkpoints; run again to resume."""

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from worldpilot.errors import InvalidInput
from worldpilot.types import ActionSpec

if TYPE_CHECKING:
    from worldpilot.models.data.episodes import EpisodeStore

Config = TypeVar("Config", bound=Any)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from worldpilot.models.action_prior.train import PriorTrainConfig
    from worldpilot.models.world_model.train import TRAIN_PRESETS, TrainConfig

    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, config in (("world-model", TrainConfig), ("action-prior", PriorTrainConfig)):
        sub = kinds.add_parser(kind)
        sub.add_argument("--data", type=Path, required=True, help="folder of episodes (see `worldpilot collect`)")
        sub.add_argument("--out", type=Path, required=True, help="folder of checkpoints and metrics")
        sub.add_argument("--threads", type=int, default=None, help="torch threads")
        if kind == "action-prior":
            sub.add_argument("--world-model", type=Path, required=True, help="its trained checkpoints")
        else:
            sub.add_argument(
                "--preset",
                choices=list(TRAIN_PRESETS),
                default="small",
                help="networks and settings: small trains on a CPU; paper is LeWorldModel's, for images of 224 px",
            )
        for field in fields(config):
            default = f"default: {field.default}" if kind == "action-prior" else f"small: {field.default}"
            sub.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=None, help=default)


def run(args: argparse.Namespace) -> int:
    import torch

    from worldpilot.models.action_prior.train import PriorTrainConfig, train_prior
    from worldpilot.models.data.episodes import EpisodeStore
    from worldpilot.models.world_model.networks import preset
    from worldpilot.models.world_model.train import train, train_preset

    if args.threads:
        torch.set_num_threads(args.threads)
    store = EpisodeStore(args.data)
    if "action" not in store.meta:
        raise InvalidInput(f"{args.data}: dataset.json says nothing of the action; collect or import the data anew")
    spec = ActionSpec.from_dict(store.meta["action"])
    if args.kind == "world-model":
        model = replace(preset(args.preset, spec.dim), image_size=_image_size(store))
        train(store, spec, args.out, model, _given(args, train_preset(args.preset)))
    else:
        train_prior(store, spec, args.world_model, args.out, _given(args, PriorTrainConfig()))
    return 0


def _given(args: argparse.Namespace, config: Config) -> Config:
    """A configuration with what the command line says otherwise."""
    given = {field.name: getattr(args, field.name) for field in fields(config)}
    return replace(config, **{name: value for name, value in given.items() if value is not None})


def _image_size(store: "EpisodeStore") -> int:
    """The side of a store's images [px]."""
    if not len(store):
        raise InvalidInput(f"{store.path} holds no episode; collect or import some")
    shape = store[0].observations.shape[1:]
    if len(shape) != 3 or shape[0] != shape[1]:
        raise InvalidInput(f"{store.path}: a world model is trained on square images, these observations are {shape}")
    return shape[0]
