"""`worldpilot train world-model|dynamics|action-prior|language-draft`: long jobs; run again to resume."""

import argparse
import json
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from worldpilot.errors import InvalidInput
from worldpilot.types import ActionSpec

if TYPE_CHECKING:
    from worldpilot.models.data.episodes import EpisodeStore

Config = TypeVar("Config", bound=Any)

DRAFT_SETTINGS = {
    "steps": int,
    "batch": int,
    "layers": int,
    "hidden_size": int,
    "heads": int,
    "kv_heads": int,
    "intermediate_size": int,
    "head_size": int,
    "target_layers": int,
    "learning_rate": float,
    "weight_decay": float,
    "evaluate_every": int,
    "seed": int,
}


SIZES = ("history", "horizon", "members", "hidden", "layers", "sampler_steps")  # of dynamics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from worldpilot.models.action_prior.train import PriorTrainConfig
    from worldpilot.models.dynamics.networks import KINDS, SIZED
    from worldpilot.models.dynamics.train import DynamicsTrainConfig
    from worldpilot.models.recipe.train import RECIPES
    from worldpilot.models.world_model.train import TRAIN_PRESETS, TrainConfig

    models = parser.add_subparsers(dest="model", required=True)
    configs = {"world-model": TrainConfig, "dynamics": DynamicsTrainConfig, "action-prior": PriorTrainConfig}
    for model, config in configs.items():
        sub = models.add_parser(model)
        sub.add_argument("--data", type=Path, required=True, help="folder of episodes (see `worldpilot collect`)")
        sub.add_argument("--out", type=Path, required=True, help="folder of checkpoints and metrics")
        sub.add_argument("--threads", type=int, default=None, help="torch threads")
        if model == "action-prior":
            sub.add_argument(
                "--world-model", type=Path, required=True, help="trained checkpoints of a world model, or of dynamics"
            )
            sub.add_argument(
                "--behaviours", help="of the data, those to propose from, separated by commas; default: all"
            )
        elif model == "dynamics":
            sub.add_argument("--kind", choices=list(KINDS), default="step", help="see models/dynamics/networks.py")
            for name in SIZES:
                sizes = ", ".join(f"{kind} {getattr(size, name)}" for kind, size in SIZED.items())
                sub.add_argument(f"--{name.replace('_', '-')}", type=int, default=None, help=f"default: {sizes}")
            sub.add_argument("--recipe", choices=RECIPES, help="where data are few: docs/tutorials/scarce_data.md")
            sub.add_argument("--found", type=Path, help="recipe.json of settings that a search found; default: search")
        else:
            sub.add_argument(
                "--preset",
                choices=list(TRAIN_PRESETS),
                default="small",
                help="networks and settings: small trains on a CPU; paper is LeWorldModel's, for images of 224 px",
            )
            sub.add_argument(
                "--start", type=Path, help="checkpoints to go on from: latents stay, dynamics learn on (default: none)"
            )
        for field in fields(config):
            default = f"small: {field.default}" if model == "world-model" else f"default: {field.default}"
            sub.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=None, help=default)
    _add_draft(models.add_parser("language-draft"))


def _add_draft(sub: argparse.ArgumentParser) -> None:
    """Options of a draft's distillation, without its imports: world models are trained without the extra `language`."""
    sub.add_argument("--target", default="reasoning", help="the language model it drafts for: a name or a path")
    sub.add_argument("--out", type=Path, required=True, help="folder of the target's texts, checkpoint and log")
    sub.add_argument("--artifact", type=Path, required=True, help="folder that gets the draft")
    sub.add_argument("--instructions", type=int, default=2500, help="answered under the reasoning service's grammar")
    sub.add_argument("--questions", type=int, default=60, help="answered freely")
    sub.add_argument("--device", default="cpu", help="cpu or cuda:N (default: cpu)")
    sub.add_argument("--threads", type=int, default=None, help="torch threads")
    sub.add_argument(
        "--part", help="I/N: only the I-th of N parts of the target's texts, to be joined as texts.jsonl in --out"
    )
    for name, kind in DRAFT_SETTINGS.items():
        sub.add_argument(f"--{name.replace('_', '-')}", type=kind, default=None, help="see models/language/distil.py")


def run(args: argparse.Namespace) -> int:
    import torch

    from worldpilot.models.action_prior.train import for_latents, train_prior
    from worldpilot.models.data.episodes import EpisodeStore
    from worldpilot.models.dynamics.train import DynamicsTrainConfig, train_dynamics
    from worldpilot.models.recipe.train import train_recipe
    from worldpilot.models.world_model.networks import preset
    from worldpilot.models.world_model.train import train, train_preset

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.model == "language-draft":
        return _run_draft(args)
    store = EpisodeStore(args.data)
    if "action" not in store.meta:
        raise InvalidInput(f"{args.data}: dataset.json says nothing of the action; collect or import the data anew")
    spec = ActionSpec.from_dict(store.meta["action"])
    if args.model == "world-model":
        model = replace(preset(args.preset, spec.dim), image_size=_image_size(store))
        train(store, spec, args.out, model, _given(args, train_preset(args.preset)), args.start)
    elif args.model == "dynamics":
        sizes = {name: getattr(args, name) for name in SIZES if getattr(args, name) is not None}
        config = _given(args, DynamicsTrainConfig())
        if args.recipe:
            train_recipe(store, spec, args.out, config, args.recipe, args.kind, args.found, **sizes)
        else:
            train_dynamics(store, spec, args.out, config, args.kind, **sizes)
    else:
        if args.behaviours:
            store = store.select(behaviour=tuple(args.behaviours.split(",")))
        train_prior(store, spec, args.world_model, args.out, _given(args, for_latents(args.world_model)))
    return 0


def _run_draft(args: argparse.Namespace) -> int:
    # Texts have many lengths, and oneDNN compiles products for each: keep them. It reads this at its first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")
    from worldpilot.models.language.distil import DraftConfig
    from worldpilot.reasoning.draft import make_draft, make_texts

    config = DraftConfig(**{name: given for name in DRAFT_SETTINGS if (given := getattr(args, name)) is not None})
    if args.part:
        index, slash, parts = args.part.partition("/")
        if not (slash and index.isdecimal() and parts.isdecimal()):
            raise InvalidInput(f"--part {args.part}: expected I/N, such as 1/4")
        file = make_texts(
            args.target,
            args.out,
            instructions=args.instructions,
            questions=args.questions,
            seed=config.seed,
            part=(int(index), int(parts)),
            device=args.device,
        )
        print(file)
        return 0
    manifest = make_draft(
        args.target,
        config,
        args.out,
        args.artifact,
        instructions=args.instructions,
        questions=args.questions,
        command=" ".join(("worldpilot train language-draft", *sys.argv[3:])),
        device=args.device,
    )
    print(json.dumps(manifest["metrics"], indent=2))
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
