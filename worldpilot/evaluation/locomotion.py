"""Run policies on a legged robot under rewards, on the same starts, and compare each with the action prior alone.

Every trial is an episode of data; whatever is reported is computed from trials, so that a run can be stopped and go on,
and a table can be made again from what was recorded.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.calibration.intervals import bootstrap_mean, wilson
from worldpilot.errors import InvalidInput
from worldpilot.evaluation import asked as asking
from worldpilot.evaluation.asked import Asked, Protocol
from worldpilot.evaluation.controllers import Driven, Kind, Planning, PriorAlone, Setting, kind
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import DATASET_FILE, Episode, EpisodeStore, EpisodeWriter
from worldpilot.planners.rewards.base import RewardContext
from worldpilot.planners.rewards.registry import build, family, reward_id, to_dict
from worldpilot.sim.legged import LeggedWorld
from worldpilot.sim.tasks import task
from worldpilot.system import System
from worldpilot.types import FloatArray, RewardSpec, Rollouts

BASELINE = "prior"
FALLS_ALLOWED = 0.1  # share of the episodes


@dataclass(frozen=True)
class Trial:
    """Which policy is to be tried under which reward, from which seed of the world."""

    kind: Kind
    asked: Asked | None  # None: the policy takes no reward
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.kind.name, self.asked.name if self.asked else "", self.seed


def plan_trials(policies: Sequence[str], rewards: Sequence[Asked], seeds: Iterable[int], task_name: str) -> list[Trial]:
    """Every policy under every reward from every seed; one that takes no reward, once from every seed.

    Raises:
        UnknownName: there is no such policy.
    """
    kinds = [kind(name, task_name) for name in policies]
    return [
        Trial(kind, asked, seed) for seed in seeds for kind in kinds for asked in (rewards if kind.plans else (None,))
    ]


def run_trials(
    artifact: Artifact,
    protocol: Protocol,
    trials: Sequence[Trial],
    planning: Planning,
    *,
    record: Path | None = None,
    system: System | None = None,
    progress: Callable[[int, Episode], None] = lambda index, episode: None,
) -> list[Episode]:
    """The episodes of the trials, in their order.

    Args:
        record: folder of a store to which each is added at once. Trials that it holds are not run again.
        system: what the world is made like.

    Raises:
        InvalidInput: the task is not legged, or the store was recorded with another model or other settings.
    """
    made = {} if system is None else {"system": system}
    with closing(task(artifact.spec.task).world(**made)) as world:
        if not isinstance(world, LeggedWorld):
            raise InvalidInput(f"evaluate: {artifact.spec.task} has no legged robot; use another --protocol")
        meta = _meta(artifact, protocol, planning, world)
        if system is not None:
            meta["system"] = system.described
        done = {} if record is None else _recorded(record, meta)
        for index, trial in enumerate(trials):
            if trial.key not in done:
                done[trial.key] = run_trial(artifact, world, protocol, trial, planning)
                if record is not None:
                    with EpisodeWriter(record, meta) as writer:
                        writer.append(done[trial.key])
            progress(index, done[trial.key])
    return [done[trial.key] for trial in trials]


def run_trial(artifact: Artifact, world: LeggedWorld, protocol: Protocol, trial: Trial, planning: Planning) -> Episode:
    """One episode: held, then the prior's warm-up, then the policy, until time is up or the robot has fallen.

    What comes before the policy depends on the seed alone, so that all policies of a seed are given the same robot.
    """
    world.reset(seed=trial.seed)
    reward = trial.asked.reward if trial.asked else protocol.rewards[0].reward  # a policy that takes none ignores it
    setting = Setting(artifact, world, reward, planning, trial.seed)
    policy, warm_up = trial.kind.make(setting), PriorAlone(setting)
    driven = Driven(world)
    held = int(np.random.default_rng([trial.seed, 9]).integers(protocol.held + 1)) if trial.kind.warms else 0
    for step in range(-held, protocol.warm_up + protocol.steps):
        if step < 0:
            policy.watch(driven.state, driven.previous)
            warm_up.watch(driven.state, driven.previous)
            control = np.zeros_like(driven.previous)
        elif step < protocol.warm_up and trial.kind.warms:
            policy.watch(driven.state, driven.previous)
            control = warm_up.act(driven.state, driven.previous)
        else:
            control = policy.act(driven.state, driven.previous)
        driven.drive(control)
        if world.ended:
            break
    meta = {
        "seed": trial.seed,
        "behaviour": trial.kind.name,
        "reward": trial.asked.name if trial.asked else "",
        "reward_family": family(trial.asked.reward) if trial.asked else "",
        "held": held,
        "solve_ms": [round(1e3 * seconds, 3) for seconds in policy.solves],
    }
    return driven.episode(meta)


def summarise(
    episodes: Sequence[Episode], artifact: Artifact, protocol: Protocol, rewards: Sequence[Asked]
) -> dict[str, Any]:
    """Figures of each policy under each reward, which is judged against the policy `prior` of the same seeds.

    Returns:
        {"task", "model_id", "protocol": "rewards", "warm_up", "steps", "seeds", "rewards": {reward: {"asked", "reward",
        "policies": {policy: {"n", "asked": {"mean", "ci"}, "difference", "moved", "achieved", "falls", ...}}}}}.
    """
    units = task_units(artifact.spec.task)
    by_key = {(e.meta["behaviour"], e.meta["reward"], e.meta["seed"]): e for e in episodes}
    policies = list(dict.fromkeys(e.meta["behaviour"] for e in episodes))
    result: dict[str, Any] = {}
    for asked in rewards:
        runs = {
            policy: {
                seed: episode
                for (behaviour, reward, seed), episode in by_key.items()
                if behaviour == policy and reward in ("", asked.name)
            }
            for policy in policies
        }
        result[asked.name] = {
            "asked": {"quantity": asked.quantity, "unit": asked.unit, "direction": asked.direction},
            "reward": to_dict(asked.reward),
            "policies": {
                policy: _figures(asked, by_seed, runs.get(BASELINE, {}), artifact, protocol, units)
                for policy, by_seed in runs.items()
                if by_seed
            },
        }
    return {
        "task": artifact.spec.task,
        "protocol": "rewards",
        "model_id": artifact.spec.model_id,
        "warm_up": protocol.warm_up,
        "steps": protocol.steps,
        "seeds": sorted({episode.meta["seed"] for episode in episodes}),
        "rewards": result,
    }


def task_units(task_name: str) -> dict[str, str]:
    """Units of a legged task's signals, by name."""
    with closing(task(task_name).world()) as world:
        assert isinstance(world, LeggedWorld)
        return dict(world.robot.signals)


def measured(episode: Episode, warm_up: int) -> dict[str, FloatArray]:
    """The signals after the hold and the warm-up; of an episode that ended before, the last ones."""
    first = min(episode.meta.get("held", 0) + warm_up + 1, len(episode))
    return {name: values[first:] for name, values in episode.signals.items()}


def score(reward: RewardSpec, episode: Episode, artifact: Artifact, warm_up: int) -> float:
    """A reward's own score of what was really done after the hold and the warm-up, at the model steps."""
    spec, block = artifact.spec, artifact.spec.action.block
    first = min(episode.meta.get("held", 0) + warm_up, len(episode) - block)
    steps = max((len(episode) - first) // block, 1)
    at = first + block * np.arange(1, steps + 1)
    latents = artifact.world_model.encode(episode.observations[at])
    rollouts = Rollouts(
        latents=latents[None],
        actions=spec.action.actions(episode.controls[first : first + steps * block])[None],
        signals={name: values[at][None] for name, values in episode.signals.items()},
        disagreement=np.zeros((1, steps), np.float32),
        action_spec=spec.action,
        previous_control=episode.controls[max(first - 1, 0)],
    )
    scores = np.asarray(build(reward, RewardContext(spec)).score(rollouts))
    return float(scores.mean())


def settings(planning: Planning) -> dict[str, Any]:
    """How the planners plan, as JSON values."""
    standing = None if planning.standing is None else to_dict(planning.standing)
    values = {**asdict(planning), "standing": standing}
    if not planning.delay:
        values.pop("delay")  # as in stores from before there was one
    return values


def _figures(
    asked: Asked,
    by_seed: Mapping[int, Episode],
    baseline: Mapping[int, Episode],
    artifact: Artifact,
    protocol: Protocol,
    units: Mapping[str, str],
) -> dict[str, Any]:
    """What one policy did under one reward."""

    def means(quantity: str, runs: Mapping[int, Episode], seeds: Sequence[int]) -> Any:
        return np.array([asking.mean(quantity, measured(runs[s], protocol.warm_up), units) for s in seeds])

    seeds, dt = sorted(by_seed), artifact.spec.action.control_dt
    episodes = [by_seed[seed] for seed in seeds]
    values = means(asked.quantity, by_seed, seeds)
    fallen = [bool(episode.meta["fallen"]) for episode in episodes]
    solves = np.concatenate([np.asarray(e.meta["solve_ms"]) for e in episodes] + [np.zeros(0)])
    figures: dict[str, Any] = {
        "n": len(seeds),
        "asked": _interval(values),
        "return": _interval(np.array([score(asked.reward, e, artifact, protocol.warm_up) for e in episodes])),
        "falls": {"count": sum(fallen), "share": sum(fallen) / len(seeds), "ci": list(wilson(sum(fallen), len(seeds)))},
        "survival_s": float(np.mean([len(e) * dt for e in episodes])),
        "signals": {
            name: float(np.mean([measured(e, protocol.warm_up)[name].mean() for e in episodes])) for name in units
        },
    }
    if len(solves):
        figures["solve_ms"] = {"p50": float(np.percentile(solves, 50)), "p99": float(np.percentile(solves, 99))}
    paired = sorted(set(seeds) & set(baseline))
    if len(paired) >= 2 and episodes[0].meta["behaviour"] != BASELINE:
        difference = means(asked.quantity, by_seed, paired) - means(asked.quantity, baseline, paired)
        figures["difference"] = _interval(difference)
        low, high = figures["difference"]["ci"]
        keeps = {k.quantity: float(means(k.quantity, by_seed, seeds).mean()) for k in asked.keeps}
        kept = all(keep.holds(keeps[keep.quantity]) for keep in asked.keeps)
        figures["moved"] = asked.moved(low, high)
        figures["keeps"] = keeps
        figures["achieved"] = figures["moved"] and kept and figures["falls"]["share"] <= FALLS_ALLOWED
    return figures


def _interval(values: Any) -> dict[str, Any]:
    """The mean with its 95 % bootstrap interval."""
    return {"mean": float(values.mean()), "ci": list(bootstrap_mean(values)) if len(values) >= 2 else None}


def _meta(artifact: Artifact, protocol: Protocol, planning: Planning, world: LeggedWorld) -> dict[str, Any]:
    """What holds for every trial of a store."""
    return {
        "task": artifact.spec.task,
        "action": artifact.spec.action.to_dict(),
        "state": {"names": list(world.state_names), "units": list(world.state_units)},
        "units": dict(world.robot.signals),
        "model_id": artifact.spec.model_id,
        "planning": settings(planning),
        "warm_up": protocol.warm_up,
        **({"held": protocol.held} if protocol.held else {}),
        "steps": protocol.steps,
        "rewards": {asked.name: reward_id(asked.reward) for asked in protocol.rewards},
    }


def _recorded(folder: Path, meta: Mapping[str, Any]) -> dict[tuple[str, str, int], Episode]:
    """The trials that a store holds.

    Raises:
        InvalidInput: they were run with another model or other settings.
    """
    if not (folder / DATASET_FILE).is_file():
        return {}
    store = EpisodeStore(folder)
    wanted = json.loads(json.dumps(meta))
    if store.meta != wanted:
        differ = [name for name in wanted if store.meta.get(name) != wanted[name]]
        raise InvalidInput(f"{folder} holds trials with another {', '.join(differ)}; choose another folder")
    return {(e.meta["behaviour"], e.meta["reward"], e.meta["seed"]): e for e in store}
