"""Run policies on the cases of a protocol and count."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.calibration.intervals import wilson
from worldpilot.errors import UnknownName
from worldpilot.evaluation import policies
from worldpilot.evaluation.cases import Case, made, make_cases
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode, EpisodeWriter
from worldpilot.planners.rewards.registry import family
from worldpilot.planners.stall import EscapeConfig
from worldpilot.sim.bullet import BulletWorld
from worldpilot.sim.tasks import World, store_meta, task
from worldpilot.system import System
from worldpilot.types import FloatArray


@dataclass
class Tally:
    """What one policy achieved."""

    successes: list[bool] = field(default_factory=list)
    moved: list[bool] = field(default_factory=list)  # the object had to move
    progress: list[float] = field(default_factory=list)  # best of each episode
    solve_s: list[float] = field(default_factory=list)  # one a plan
    plan_s: list[float] = field(default_factory=list)  # one an episode

    def to_dict(self) -> dict[str, Any]:
        solves = np.asarray(self.solve_s or [0.0]) * 1e3
        return {
            **_rate(self.successes),
            "object_moves": _rate([s for s, moved in zip(self.successes, self.moved, strict=True) if moved]),
            "progress_mean": float(np.mean(self.progress)),
            "solve_ms": {"p50": float(np.percentile(solves, 50)), "p99": float(np.percentile(solves, 99))},
            "plan_s_per_episode": float(np.mean(self.plan_s)),
        }


def _rate(successes: Sequence[bool]) -> dict[str, Any]:
    n = len(successes)
    return {"success": sum(successes) / n if n else None, "n": n, "ci": list(wilson(sum(successes), n)) if n else None}


def evaluate(
    artifact: Artifact,
    names: Sequence[str],
    episodes: int,
    seed: int,
    *,
    protocol: str = "task",
    goals: str = "novel",
    replan: int = 1,
    shrink: bool = False,
    solver: Mapping[str, Any] | None = None,
    record: Path | None = None,
    system: System | None = None,
    delay: float | None = None,
    proposals: int | None = None,
    correction: float = 0.0,
    escape: EscapeConfig | None = None,
    progress: Callable[[str, int, Tally], None] = lambda name, episode, tally: None,
) -> dict[str, Any]:
    """Success of each policy within the protocol's budget, on the same starts and goals.

    Args:
        replan: control steps between plans of mpc, cem and mppi.
        shrink: their horizon shrinks (see `Mpc`).
        solver: settings that replace their solvers' defaults.
        record: folder of a store to which the episodes are added, the policy's name as their behaviour.
        system: what the world is made like; its delays begin with the episode.
        delay: that mpc, cem and mppi are told of [s]; None: the system's.
        proposals: samples of the prior for each plan of mpc; None: the artifact's.
        correction: of mpc, cem and mppi (see `Mpc`).
        escape: from stalls, of mpc (see `Mpc`).
    """
    for name in names:
        if name not in policies.POLICIES:
            raise UnknownName("policy", name, policies.POLICIES)
    entry = task(artifact.spec.task)
    cases = make_cases(artifact.spec.task, protocol, goals, episodes, seed, system)
    world, tallies = entry.world(**made(system)), {name: Tally() for name in names}
    told = delay if delay is not None else system.delay if system else 0.0
    late = {} if system is None and delay is None else {"delay": told}
    for name in names:
        for index, case in enumerate(cases):
            rng = np.random.default_rng([seed, index, 1])
            setting = policies.Setting(
                artifact, world, case, rng, replan, shrink, solver or {}, told, proposals, correction, escape
            )
            kept = _run(world, case, name, setting, tallies[name], record, system)
            if record is not None and kept is not None:
                meta = store_meta(artifact.spec.task)
                with EpisodeWriter(record, {**meta, "action": artifact.spec.action.to_dict()}) as writer:
                    writer.append(kept)
            progress(name, index, tallies[name])
    world.close()
    return {
        "task": artifact.spec.task,
        "protocol": protocol,
        "goals": goals if protocol == "task" else "25 control steps ahead in a fresh episode",
        "seed": seed,
        "planner": {
            "replan": replan,
            "shrink": shrink,
            "solver": dict(solver or {}),
            "proposals": proposals or artifact.manifest["proposals"],
            "correction": correction,
            "escape": None if escape is None else asdict(escape),
            **late,
        },
        **({} if system is None else {"system": system.described}),
        "model_id": artifact.spec.model_id,
        "policies": {name: tally.to_dict() for name, tally in tallies.items()},
    }


def _run(
    world: World,
    case: Case,
    name: str,
    setting: policies.Setting,
    tally: Tally,
    record: Path | None,
    system: System | None,
) -> Episode | None:
    """Run one episode and count it; returned as data if it is to be kept."""
    case.reset(world)
    if isinstance(world, BulletWorld) and system is not None:
        world.inject("delay", seconds=system.control_delay)
        world.inject("delay_observation", seconds=system.camera_delay)
    policy = policies.make(name, setting)
    looks = policy.sees or record is not None
    images, signals, applied = [], [world.signals()], list[FloatArray]()
    spent, best, success = 0.0, case.progress(world), False
    for _ in range(case.budget):
        image = world.observe().data if looks else None
        begin = time.perf_counter()
        control = policy.act(image)
        spent += time.perf_counter() - begin
        images.append(image)
        applied.append(np.clip(control, world.action.low, world.action.high).astype(np.float32))
        world.drive(applied[-1])
        signals.append(world.signals())
        best, success = max(best, case.progress(world)), case.reached(world)
        if success:
            break
    tally.successes.append(success)
    tally.moved.append(case.object_moves)
    tally.progress.append(best)
    tally.solve_s += policy.solves
    tally.plan_s.append(spent)
    if record is None:
        return None
    images.append(world.observe().data)
    meta = {"seed": case.seed, "behaviour": name, **world.outcome()}
    if policy.sees:  # it has a model, and was asked for something
        asked = {"reward_family": family(case.reward), "target": dict(policies.target(setting.artifact, case))}
        meta |= {"model_id": setting.artifact.spec.model_id, **asked}
    return Episode.stack(images, applied, signals, meta)
