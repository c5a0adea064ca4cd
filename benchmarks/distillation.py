"""The planner as a reactive policy: how much of its return is left, and in how much less time?

    taskset -c 0 python benchmarks/distillation.py quadruped --rewards fast crouch_run --data data/quadruped \\
        --json docs/results/distillation.json

For each reward the planner is distilled (`worldpilot distil`), then planner, policy, the prior alone and a clone of the
recorded episodes drive from the same starts. Returns are the reward's own score of what was really done. Times are of a
whole tick (`Mpc.tick`, proposals included): the policy in the solver's place, behind the same gate and with the same
imagined step for the status, against sample-score-rank. Stopped and called again, it goes on with what is missing.
"""

import argparse
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.calibration.detection import share
from worldpilot.calibration.intervals import bootstrap_mean
from worldpilot.cli.main import main as worldpilot
from worldpilot.evaluation import asked
from worldpilot.evaluation.asked import Asked, Protocol
from worldpilot.evaluation.controllers import Planning
from worldpilot.evaluation.locomotion import plan_trials, run_trials, score
from worldpilot.history import HistoryBuffer
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.data.episodes import Episode
from worldpilot.models.policy.artifact import OnnxPolicy
from worldpilot.planners.gate import Gate
from worldpilot.planners.mpc import Mpc
from worldpilot.planners.rewards.registry import to_dict
from worldpilot.planners.solvers import make
from worldpilot.planners.solvers.policy import PolicySolver
from worldpilot.sim.tasks import task


def distilled(artifact: Artifact, reward: Asked, work: Path, options: list[str]) -> Path:
    """The folder of the reward's policy, distilled if it is not there yet."""
    folder, file = work / reward.name, work / f"{reward.name}.json"
    if not (folder / "policy.json").is_file():
        file.write_text(json.dumps(to_dict(reward.reward)))
        command = ["distil", artifact.spec.task, "--artifact", str(artifact.path), "--reward", str(file)]
        if worldpilot([*command, "--out", str(folder), *options]):
            raise SystemExit("the policy could not be distilled")
    return folder


def cloned(artifact: Artifact, data: Path, work: Path) -> Path:
    """The folder of a policy that imitates the recorded episodes."""
    folder = work / "clone"
    if not (folder / "policy.json").is_file():
        command = ["distil", artifact.spec.task, "--artifact", str(artifact.path), "--data", str(data)]
        if worldpilot([*command, "--out", str(folder), "--epochs", "5", "--no-search"]):
            raise SystemExit("the episodes could not be imitated")
    return folder


def tick_times(artifact: Artifact, reward: Asked, folder: Path, ticks: int = 200) -> dict[str, Any]:
    """Milliseconds of a tick, planner and policy in turn on the states of one episode: p50, p99, and their ratio."""
    spec, planning = artifact.spec, Planning.of(artifact.spec.task)
    policy = OnnxPolicy.load(folder, spec)
    pilots = {
        name: Mpc(artifact.world_model, solver, reward.reward, Gate(spec.action), seed=0, standing=planning.standing)
        for name, solver in {"mpc": make("ssr", **planning.solver), "policy": PolicySolver(policy)}.items()
    }
    count, rng = planning.proposals or int(artifact.manifest["proposals"]), np.random.default_rng(0)
    spent: dict[str, list[float]] = {name: [] for name in pilots}
    buffer = HistoryBuffer(spec.action, max(spec.history - 1, 1))
    control = np.zeros(spec.action.control_dim, np.float32)
    with closing(task(spec.task).world()) as world:
        world.reset(seed=0)
        for _ in range(ticks):
            latent = artifact.world_model.encode(world.observe().data[None])[0]
            buffer.push(latent, control)
            controls = {}
            for name, pilot in pilots.items():
                begin = time.perf_counter()
                history = buffer.history(spec.history)
                drawn = artifact.prior.propose(history, count, rng) if name == "mpc" else None
                controls[name] = pilot.tick(latent, control, drawn).control
                spent[name].append(1e3 * (time.perf_counter() - begin))
            control = controls["mpc"]
            world.drive(control)
    times = {name: np.percentile(values[10:], [50, 99]).tolist() for name, values in spent.items()}
    return {
        "ms": {name: {"p50": p50, "p99": p99} for name, (p50, p99) in times.items()},
        "ratio_p50": times["mpc"][0] / times["policy"][0],
    }


def compare(artifact: Artifact, protocol: Protocol, reward: Asked, episodes: list[Episode]) -> dict[str, Any]:
    """Returns of each policy, and what is left of the planner's; pairs are resampled."""
    returns: dict[str, dict[int, float]] = {}
    fallen: dict[str, list[bool]] = {}
    for episode in episodes:
        name, seed = episode.meta["behaviour"].partition("@")[0], episode.meta["seed"]
        name = "clone" if episode.meta["behaviour"].endswith("/clone") else name
        returns.setdefault(name, {})[seed] = score(reward.reward, episode, artifact, protocol.warm_up)
        fallen.setdefault(name, []).append(bool(episode.meta["fallen"]))
    seeds = sorted(returns["mpc"])
    values = {name: np.array([by_seed[seed] for seed in seeds]) for name, by_seed in returns.items()}
    result: dict[str, Any] = {
        name: {
            "return": {"mean": float(v.mean()), "ci": list(bootstrap_mean(v)), "n": len(v)},
            "falls": share(fallen[name]),
        }
        for name, v in values.items()
    }
    draws = np.random.default_rng(0).integers(len(seeds), size=(10_000, len(seeds)))
    planner, policy, prior = values["mpc"], values["reactive"], values["prior"]
    shares = {"of_return": (policy, planner), "of_gain_over_prior": (policy - prior, planner - prior)}
    for name, (part, whole) in shares.items():
        interval = np.quantile(part[draws].mean(1) / whole[draws].mean(1), [0.025, 0.975]).tolist()
        result[name] = {"value": float(part.mean() / whole.mean()), "ci": interval, "n": len(seeds)}
    return result


def main() -> None:
    """Distil, drive, time; the figures are written after each reward."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--rewards", nargs="+", required=True, help="of the protocol's file")
    parser.add_argument("--protocol", type=Path, default=asked.NOVEL, help="a file such as novel_rewards.json")
    parser.add_argument("--data", type=Path, help="episodes to be cloned; none: no clone")
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/distillation"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--distil", nargs=argparse.REMAINDER, default=[], help="options of `worldpilot distil`, last")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    artifact, protocol = Artifact.load(args.artifact or zoo_path(args.task)), asked.load(args.protocol)
    result = json.loads(args.json.read_text()) if args.json.is_file() else {}
    result |= {"task": args.task, "model_id": artifact.spec.model_id, "seeds": args.seeds}
    result.setdefault("rewards", {})
    clone = [f"reactive@{cloned(artifact, args.data, args.work)}"] if args.data else []
    for reward in protocol.select(tuple(args.rewards)):
        folder = distilled(artifact, reward, args.work, args.distil)
        trials = plan_trials(
            ["prior", "mpc", f"reactive@{folder}", *clone], [reward], range(args.seeds), artifact.spec.task
        )
        record = args.work / f"{reward.name}-trials"
        episodes = run_trials(artifact, protocol, trials, Planning.of(artifact.spec.task), record=record)
        figures = compare(artifact, protocol, reward, episodes)
        figures["tick"] = tick_times(artifact, reward, folder)
        figures["policy"] = json.loads((folder / "policy.json").read_text())["metrics"]
        result["rewards"][reward.name] = figures
        args.json.write_text(json.dumps(result, indent=1) + "\n")
        print(reward.name, json.dumps({k: figures[k] for k in ("of_return", "of_gain_over_prior", "tick")}), flush=True)


if __name__ == "__main__":
    main()
