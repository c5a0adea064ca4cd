"""`worldpilot distil`: a planner, or recorded episodes, as a reactive policy for small computers."""

import argparse
import logging
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldpilot.cli.arguments import json_object
from worldpilot.errors import InvalidInput

if TYPE_CHECKING:
    from worldpilot.models.artifact import Artifact
    from worldpilot.models.policy.networks import Policy
    from worldpilot.models.policy.train import Examples, PolicyTrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from worldpilot.distillation import DaggerConfig
    from worldpilot.models.policy.train import PolicyTrainConfig

    parser.add_argument("task", help="whose artifact acts: push_t, quadruped …")
    parser.add_argument("--artifact", type=Path, help="folder of the artifact; default: the shipped one of the task")
    parser.add_argument("--out", type=Path, required=True, help="folder of the policy")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--reward", type=Path, help="specification (JSON): the planner under this reward is imitated")
    source.add_argument("--data", type=Path, help="folder of episodes: what was done in them is imitated")
    parser.add_argument("--behaviours", help="which of the episodes, comma separated; default: all")
    parser.add_argument("--solver", type=json_object, default={}, help="the planner's settings as JSON, see `evaluate`")
    for config in (DaggerConfig, PolicyTrainConfig):
        for field in fields(config):
            if field.name not in ("seed", "search"):
                name = f"--{field.name.replace('_', '-')}"
                parser.add_argument(name, type=type(field.default), default=field.default, help="default: %(default)s")
    parser.add_argument(
        "--search", action=argparse.BooleanOptionalAction, default=True, help="search for the weight decay"
    )
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    from worldpilot.models.artifact import Artifact, zoo_path
    from worldpilot.models.policy.export import export_policy
    from worldpilot.models.policy.train import PolicyTrainConfig, train_policy

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("worldpilot").setLevel(logging.INFO)
    artifact = Artifact.load(args.artifact or zoo_path(args.task))
    config = PolicyTrainConfig(**{field.name: getattr(args, field.name) for field in fields(PolicyTrainConfig)})
    if args.reward:
        (policy, metrics), about = _from_planner(args, artifact, config)
    else:
        examples, about = _from_episodes(args, artifact)
        policy, metrics = train_policy(examples, artifact.spec.action, config)
    about["provenance"] |= {"commands": [" ".join(("worldpilot", *sys.argv[1:]))], "seed": args.seed}
    export_policy(policy, artifact.spec, args.out, {**about, "metrics": metrics})
    print(
        f"{args.out}: R² {metrics['r2']:.3f} on {metrics['held_out_episodes']} held-out episodes, "
        f"{metrics['examples']} examples, weight decay {metrics['weight_decay']:g}"
    )
    return 0


def _from_planner(
    args: argparse.Namespace, artifact: "Artifact", config: "PolicyTrainConfig"
) -> tuple[tuple["Policy", dict[str, Any]], dict[str, Any]]:
    """The best policy of what the planner does under a reward, with its figures, and where it comes from."""
    import torch

    from worldpilot.distillation import Act, DaggerConfig, best, dagger
    from worldpilot.evaluation.controllers import Planning
    from worldpilot.models.policy.train import Examples, train_policy
    from worldpilot.planners.rewards.registry import parse_spec, to_dict
    from worldpilot.planners.solvers.policy import policy_reward_id

    if not args.reward.is_file():
        raise InvalidInput(f"{args.reward} is missing; give a file with a reward specification")
    reward, spec = parse_spec(args.reward.read_bytes()), artifact.spec.action
    planning = Planning.of(artifact.spec.task)
    planning = replace(planning, solver={**planning.solver, **args.solver})
    low, high = torch.from_numpy(spec.action_low), torch.from_numpy(spec.action_high)

    def fit(examples: Examples) -> tuple[tuple["Policy", dict[str, Any]], Act]:
        policy, metrics = train_policy(examples, spec, config)

        def act(latents: Any) -> Any:
            with torch.no_grad():
                done = policy(torch.from_numpy(latents)[None])[0]
            return (low + (done + 1) / 2 * (high - low)).numpy()

        return (policy, metrics), act

    dagger_config = DaggerConfig(**{field.name: getattr(args, field.name) for field in fields(DaggerConfig)})
    candidates = dagger(artifact, reward, planning, dagger_config, fit)
    chosen = best(candidates)
    policy, metrics = chosen.policy
    driven = [
        {"examples": c.examples, "score": c.score, "falls": c.falls, "episodes": c.episodes, "chosen": c is chosen}
        for c in candidates
    ]
    standing = None if planning.standing is None else to_dict(planning.standing)
    about = {"reward": to_dict(reward), "reward_id": policy_reward_id(reward)}
    about["provenance"] = {"teacher": "ssr", "solver": args.solver, "standing": standing}
    return (policy, {**metrics, "driven": driven}), about


def _from_episodes(args: argparse.Namespace, artifact: "Artifact") -> tuple["Examples", dict[str, Any]]:
    """Examples of recorded episodes, and where they come from."""
    from worldpilot.models.data.episodes import EpisodeStore
    from worldpilot.models.policy.train import Examples, recorded

    store, spec = EpisodeStore(args.data), artifact.spec
    if args.behaviours:
        store = store.select(behaviour=tuple(args.behaviours.split(",")))
    encode = artifact.world_model.encode
    parts = [recorded(episode, encode, spec.action, spec.history) for episode in store]
    about = {"reward": None, "reward_id": ""}
    return Examples.join(parts), {**about, "provenance": {"teacher": "episodes", "data_sha256": store.sha256()}}
