"""What `monitor.py` measures on: recorded episodes that go well, and the same ones with one fault at a random time.

    python benchmarks/monitor_runs.py quadruped --shape 100 --calibration 500 --test 1005 --faulty 20
    python benchmarks/monitor_runs.py push_t --shape 50 --calibration 400 --test 1000 --faulty 40

A task's policies take turns and are the same in every part, in seeds that no training data have. An episode is kept as
latents and controls. What is there already is not run again; --minutes stops after a while, to go on later.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from worldpilot.errors import WorldpilotError
from worldpilot.evaluation import policies
from worldpilot.evaluation.cases import make_cases
from worldpilot.evaluation.controllers import Planning
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.data.episodes import DATASET_FILE, Episode, EpisodeStore, EpisodeWriter
from worldpilot.sim.tasks import task
from worldpilot.types import FloatArray

PARTS = {"shape": 4_000_000, "calibration": 4_100_000, "test": 4_200_000}  # their first seeds; training's count from 0

Control = Callable[[npt.NDArray[Any]], FloatArray]  # what is observed -> control


@dataclass(frozen=True)
class Course:
    """How a task's episodes are made."""

    policies: tuple[str, ...]  # take turns
    steps: int  # control steps of an episode
    window: int  # control steps after a fault in which it may be found


COURSES = {
    "push_t": Course(("random_push", "mpc"), 60, 25),
    "quadruped": Course(("run", "jump"), 150, 75),
    "walker": Course(("walk",), 150, 75),
}


@dataclass(frozen=True)
class Run:
    """Which episode is to be recorded."""

    part: str
    seed: int
    fault: str = ""  # none

    @property
    def key(self) -> tuple[str, int]:
        return self.fault, self.seed


def plan(counts: Mapping[str, int], faults: Mapping[str, Any], faulty: int) -> list[Run]:
    """The episodes that go well, part by part, and the first `faulty` of the test again with each fault."""
    good = [Run(part, PARTS[part] + i) for part, count in counts.items() for i in range(count)]
    return good + [Run("test", PARTS["test"] + i, fault) for fault in faults for i in range(faulty)]


def record(artifact: Artifact, runs: list[Run], out: Path, minutes: float) -> bool:
    """Record what is missing; False if the time was up before all was there."""
    spec, until = artifact.spec, time.monotonic() + 60 * minutes
    there = EpisodeStore(out) if (out / DATASET_FILE).is_file() else ()
    done = {(episode.meta["fault"], episode.meta["seed"]) for episode in there}
    missing = [run for run in runs if run.key not in done]
    meta = {"task": spec.task, "action": spec.action.to_dict(), "model_id": spec.model_id}
    with closing(task(spec.task).world()) as world, EpisodeWriter(out, meta) as writer:
        for run in tqdm(missing, unit="episode"):
            if time.monotonic() > until:
                return False
            writer.append(episode(artifact, world, run))
    return True


def episode(artifact: Artifact, world: Any, run: Run) -> Episode:
    """One episode; its latents stand for what was observed."""
    spec = artifact.spec
    course, rng = COURSES[spec.task], np.random.default_rng([run.seed, 0])
    policy = course.policies[run.seed % len(course.policies)]
    past = (spec.history - 1 + spec.horizon) * spec.action.block  # what an H-step prediction looks back on
    at = int(rng.integers(past, course.steps - course.window + 1))
    control, target = start(artifact, world, policy, run.seed)
    observed, applied, params = [world.observe().data], list[FloatArray](), dict[str, float]()
    for step in range(course.steps):
        if run.fault and step == at:
            params = draw(world, run.fault, rng)
            world.inject(run.fault, **params)
        applied.append(np.clip(control(observed[-1]), world.action.low, world.action.high).astype(np.float32))
        world.drive(applied[-1])
        observed.append(world.observe().data)
        if getattr(world, "ended", False):
            break
    meta = {"seed": run.seed, "behaviour": policy, "part": run.part, "fault": run.fault, "params": params, "at": at}
    meta |= {"target": dict(target), "fallen": bool(getattr(world, "ended", False))}
    latents = artifact.world_model.encode(np.stack(observed))
    return Episode(latents, np.stack(applied), {}, meta)


def start(artifact: Artifact, world: Any, policy: str, seed: int) -> tuple[Control, Mapping[str, float]]:
    """Bring the world to the start; the policy, and the signals that its reward wants at a value."""
    rng = np.random.default_rng([seed, 1])
    if policy not in policies.POLICIES:
        world.reset(seed=seed)
        made: Iterator[Any] = task(artifact.spec.task).behaviours[policy].make()(world, rng)
        return lambda observed: next(made), {}
    (case,) = make_cases(artifact.spec.task, "task", "trained", 1, seed)
    case.reset(world)
    planning = Planning.of(artifact.spec.task)
    how = {"correction": planning.correction, "escape": planning.escape}
    setting = policies.Setting(artifact, world, case, rng, replan=5, shrink=True, solver={}, **how)
    acting = policies.make(policy, setting)
    return acting.act, policies.target(artifact, case)


def draw(world: Any, fault: str, rng: np.random.Generator) -> dict[str, float]:
    """The fault's parameters: the table's, but any joint may break."""
    params: dict[str, float] = dict(world.faults.table[fault])
    if "joint" in params:
        params["joint"] = int(rng.integers(world.action.control_dim))
    return params


def load(out: Path, artifact: Artifact) -> list[Episode]:
    """What was recorded with this model."""
    store = EpisodeStore(out)
    if store.meta["model_id"] != artifact.spec.model_id:
        raise WorldpilotError(
            f"{out} was recorded with model {store.meta['model_id']}, this is {artifact.spec.model_id}"
        )
    return list(store)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(COURSES))
    parser.add_argument("--out", type=Path, help="default: build/monitor/TASK")
    parser.add_argument("--artifact", type=Path, help="default: the shipped one")
    for name in PARTS:
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help="episodes")
    parser.add_argument("--faulty", type=int, default=0, metavar="N", help="test episodes that are run again a fault")
    parser.add_argument("--minutes", type=float, default=14.0)
    args = parser.parse_args()
    model = Artifact.load(args.artifact or zoo_path(args.task))
    with closing(task(args.task).world()) as any_world:
        table = any_world.faults.table  # type: ignore[attr-defined]
    wanted = plan({part: getattr(args, part) for part in PARTS}, table, args.faulty)
    complete = record(model, wanted, args.out or Path("build/monitor") / args.task, args.minutes)
    print("complete" if complete else "time is up; run it again to go on")
