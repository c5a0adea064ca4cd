"""Success rates of policies on a simulated task, side by side on the same starts and goals."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worldpilot.calibration.intervals import wilson
from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.history import HistoryBuffer
from worldpilot.models.artifact import Artifact
from worldpilot.models.data.episodes import Episode, EpisodeWriter
from worldpilot.planners.gate import Gate
from worldpilot.planners.mpc import Mpc
from worldpilot.planners.solvers import make as make_solver
from worldpilot.sim.experts import Expert
from worldpilot.sim.push_t import BLOCK_RANGE, GOAL, PushT
from worldpilot.types import FloatArray, RewardSpec, RewardTerm

POLICIES = ("noop", "random", "prior", "mpc", "cem", "mppi", "expert")
GOALS = ("novel", "trained")


@dataclass
class Tally:
    """What one policy achieved."""

    successes: list[bool] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)  # best of each episode
    solve_s: list[float] = field(default_factory=list)  # one a solve
    plan_s: list[float] = field(default_factory=list)  # one an episode

    def to_dict(self) -> dict[str, Any]:
        n = len(self.successes)
        solves = np.asarray(self.solve_s or [0.0]) * 1e3
        return {
            "success": float(np.mean(self.successes)),
            "n": n,
            "ci": list(wilson(int(np.sum(self.successes)), n)),
            "overlap_mean": float(np.mean(self.overlaps)),
            "solve_ms": {"p50": float(np.percentile(solves, 50)), "p99": float(np.percentile(solves, 99))},
            "plan_s_per_episode": float(np.mean(self.plan_s)),
        }


def evaluate(
    artifact: Artifact,
    policies: list[str],
    episodes: int,
    seed: int,
    goals: str = "novel",
    record: Path | None = None,
    progress: Callable[[str, int, Tally], None] = lambda name, episode, tally: None,
) -> dict[str, Any]:
    """Random start, overlap above 90 % within the episode's budget. Same starts and goals for every policy.

    Args:
        goals: "novel" draws a goal pose for each episode; "trained" is the canonical goal of the behaviour data.
        record: folder of a store to which the episodes are added, the policy's name as their behaviour.
    """
    for name in policies:
        if name not in POLICIES:
            raise UnknownName("policy", name, POLICIES)
    if goals not in GOALS:
        raise UnknownName("goals", goals, GOALS)
    if episodes < 1:
        raise InvalidInput(f"evaluate: episodes must be at least 1, got {episodes}")
    world, tallies = PushT(), {name: Tally() for name in policies}
    for name in policies:
        for episode in range(episodes):
            kept = _run(world, artifact, name, goals, seed, episode, tallies[name], record is not None)
            if record is not None and kept is not None:
                with EpisodeWriter(record, {"task": "push_t"}) as writer:
                    writer.append(kept)
            progress(name, episode, tallies[name])
    world.close()
    return {
        "task": "push_t",
        "protocol": "task",
        "goals": goals,
        "seed": seed,
        "model_id": artifact.spec.model_id,
        "policies": {name: tally.to_dict() for name, tally in tallies.items()},
    }


def _run(
    world: PushT, artifact: Artifact, name: str, goals: str, seed: int, episode: int, tally: Tally, keep: bool
) -> Episode | None:
    """Run one episode and count it; returned as data if it is to be kept."""
    draw = np.random.default_rng([seed, episode])
    start, goal = int(draw.integers(2**31)), GOAL
    if goals == "novel":
        goal = draw.uniform([-BLOCK_RANGE, -BLOCK_RANGE, -np.pi], [BLOCK_RANGE, BLOCK_RANGE, np.pi]) * [0.8, 0.8, 1]
    world.reset(seed=start, options={"goal": goal})
    if world.overlap() > 0.9:  # solved before it began: no policy should be credited with it
        world.reset(seed=start + 1, options={"goal": goal})
    rng, spent, best = np.random.default_rng([seed, episode, 1]), 0.0, 0.0
    applied: list[FloatArray] = []
    images, signals = ([world.observe().data] if keep else []), [world.signals()]
    controls = _controls(world, artifact, name, rng, tally)
    for _ in range(world.budget):
        begin = time.perf_counter()
        control = next(controls)
        spent += time.perf_counter() - begin
        applied.append(np.clip(control, world.action.low, world.action.high).astype(np.float32))
        world.drive(applied[-1])
        signals.append(world.signals())
        if keep:
            images.append(world.observe().data)
        best = max(best, world.overlap())
        if best > 0.9:
            break
    tally.successes.append(best > 0.9)
    tally.overlaps.append(best)
    tally.plan_s.append(spent)
    if not keep:
        return None
    columns = {key: np.array([s[key] for s in signals], np.float32) for key in signals[0]}
    meta = {"seed": start, "behaviour": name, "goal": [float(x) for x in goal], "overlap": best}
    return Episode(np.stack(images), np.stack(applied), columns, meta)


def _controls(
    world: PushT, artifact: Artifact, name: str, rng: np.random.Generator, tally: Tally
) -> Iterator[npt.NDArray[Any]]:
    if name == "noop":
        while True:
            yield np.zeros(2)
    elif name == "random":
        while True:
            control = rng.uniform(world.action.low, world.action.high)
            for _ in range(world.action.block):
                yield control
    elif name == "expert":
        yield from Expert().controls(world, rng)
    elif name == "prior":
        yield from _prior(world, artifact, rng)
    else:
        yield from _mpc(world, artifact, name, rng, tally)


def _prior(world: PushT, artifact: Artifact, rng: np.random.Generator) -> Iterator[FloatArray]:
    """One sample of the prior after another, each executed to its end: no model, no reward."""
    spec = artifact.spec
    buffer, previous = HistoryBuffer(spec.action, spec.history), np.zeros(2, np.float32)
    plan: list[FloatArray] = []
    while True:
        buffer.push(artifact.world_model.encode(world.observe().data[None])[0], previous)
        if not plan:
            proposal = artifact.prior.propose(buffer.history(spec.history), 1, rng)[0]
            plan = list(spec.action.controls(proposal))
        previous = plan.pop(0)
        yield previous


def _mpc(world: PushT, artifact: Artifact, name: str, rng: np.random.Generator, tally: Tally) -> Iterator[FloatArray]:
    """Receding horizon with the artifact's model. "mpc" is as shipped; "cem" and "mppi" plan without the prior."""
    spec, (x, y, yaw) = artifact.spec, (float(value) for value in world.goal)
    reward = RewardSpec((RewardTerm("goal_pose", params={"x": x, "y": y, "yaw": yaw, "approach": 0.05}),))
    solver = "ssr" if name == "mpc" else name
    mpc = Mpc(artifact.world_model, make_solver(solver), reward, Gate(spec.action), seed=int(rng.integers(2**31)))
    buffer, previous = HistoryBuffer(spec.action, spec.history), np.zeros(spec.action.control_dim, np.float32)
    while True:
        latent = artifact.world_model.encode(world.observe().data[None])[0]
        begin = time.perf_counter()
        proposals = None
        if name == "mpc":
            buffer.push(latent, previous)
            proposals = artifact.prior.propose(buffer.history(spec.history), int(artifact.manifest["proposals"]), rng)
        tick = mpc.tick(latent, previous, proposals)
        tally.solve_s.append(time.perf_counter() - begin)
        previous = tick.control
        yield previous
