"""Does a robot do what it never saw, if only the reward asks for it? Nine rewards against the action prior alone.

    python benchmarks/novel_rewards.py --data DATA [--episodes 20] [--baselines run:20,cem:5] [--record runs/novel]

Baselines of a cloned policy, reactive@runs/clone and single_step@runs/clone, need `worldpilot distil quadruped --data
DATA --epochs 5 --no-search --out runs/clone` before.

Trials are recorded as they are done and are not run again. Besides what each reward asks for (see
worldpilot/evaluation/novel_rewards.json): how far the motions are from those of the training data, and gait diagrams.
Writes novel_rewards.json, novel_rewards.md and novel_rewards.png into --results.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.calibration.intervals import bootstrap_mean
from worldpilot.evaluation import asked, locomotion, novelty
from worldpilot.evaluation.asked import Asked
from worldpilot.evaluation.controllers import Planning
from worldpilot.evaluation.locomotion import BASELINE
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.data.episodes import Episode, EpisodeStore
from worldpilot.types import FloatArray

FIRST_SEED = 2_000_000
WINDOW = 50  # control steps of a motion: 1 s
SHOWN = 100  # control steps of a gait diagram: 2 s
FEET = ("fl", "fr", "rl", "rr")
PLANNER = "mpc"
SIMULATOR = (
    "`simulator` is the planner with the true simulator as its model, half the proposals and half as many plans: what "
    "it does no better is limited by what is proposed, what it does better by the learnt model."
)
CLONED = (
    "`reactive` is an MLP cloned from the data's controllers, `single_step` the planner whose proposals are this clone "
    "rolled out in the dynamics, step by step and with noise, as in MBOP, instead of the prior's whole sequences."
)


def novelty_of(
    episodes: Sequence[Episode], data: EpisodeStore, protocol: asked.Protocol, rewards: Sequence[Asked]
) -> dict[str, Any]:
    """Share of the motions without a neighbour in the data: reward -> policy -> region and pattern, with intervals."""
    yardstick = novelty.Yardstick.of(novelty.Motions.of((e.signals for e in data), WINDOW))
    runs: dict[tuple[str, str], list[Mapping[str, FloatArray]]] = {}
    for episode in episodes:
        signals = locomotion.measured(episode, protocol.warm_up)
        if len(signals["fallen"]) > WINDOW:
            runs.setdefault((episode.meta["behaviour"], episode.meta["reward"]), []).append(signals)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key, signals in runs.items():
        motions = novelty.Motions.of(signals, WINDOW)
        found[key] = {"windows": len(motions.episodes)}
        for name, distances in {"region": yardstick.region(motions), "pattern": yardstick.pattern(motions)}.items():
            shares = novelty.beyond(distances, motions)
            interval = list(bootstrap_mean(shares)) if len(shares) >= 2 else None
            found[key][name] = {
                "median_distance": float(np.median(distances)),
                "beyond": float(shares.mean()),
                "ci": interval,
            }
    by_reward = {
        reward.name: {policy: figures for (policy, name), figures in found.items() if name in ("", reward.name)}
        for reward in rewards
    }
    data_share = 1 - novelty.FAR
    return {
        "window_steps": WINDOW,
        "unit": "the 99th percentile of the distances of the data's own windows to other episodes' windows",
        "data": {"episodes": len(data), "windows": len(yardstick.data.episodes), "beyond": data_share},
        "far_region": yardstick.far_region,
        "far_pattern": yardstick.far_pattern,
        "region_scale": dict(zip(novelty.REGION, yardstick.scale.tolist(), strict=True)),
        "rewards": by_reward,
    }


def table(result: Mapping[str, Any], command: str) -> str:
    """The results as Markdown."""
    rewards, novel, data = result["rewards"], result["novelty"]["rewards"], result["novelty"]["data"]
    counts = [figures["policies"][PLANNER] for figures in rewards.values() if PLANNER in figures["policies"]]
    moved, achieved = (sum(figures[key] for figures in counts) for key in ("moved", "achieved"))
    falls, n = sum(f["falls"]["count"] for f in counts), sum(f["n"] for f in counts)
    lines = [
        "# Rewards that the data never served",
        "",
        f"Written by `{command}`; model {result['model_id']}, seeds {result['seeds'][0]}–{result['seeds'][-1]}, "
        f"{result['steps']} control steps after a warm-up of {result['warm_up']} under the prior. What each reward "
        "asks for, and its bounds, were fixed before training ([novel_rewards.json]"
        "(../../worldpilot/evaluation/novel_rewards.json)). The planner is set as in "
        "[quadruped.yaml](../../launch/config/quadruped.yaml), which was tuned on other seeds "
        "([0006](../decisions/0006-planning-on-legs.md)). Differences are paired by seed, with 95 % bootstrap "
        "intervals.",
        "",
        f"**{moved} of {len(counts)} moved as asked, {achieved} achieved** (moved, all bounds kept, at most 10 % "
        f"falls); {falls} of {n} episodes fell.",
        "",
        "| reward | asked | prior alone | planner | difference | falls, prior | falls, planner | survival [s] | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in rewards.items():
        found, goal = figures["policies"], figures["asked"]
        if PLANNER not in found:
            continue
        planner = found[PLANNER]
        verdict = "achieved" if planner["achieved"] else "moved" if planner["moved"] else "not moved"
        lines.append(
            f"| {name} | {goal['quantity']} [{goal['unit']}] {goal['direction']} | {_mean(found[BASELINE]['asked'])} "
            f"| {_mean(planner['asked'])} | {_interval(planner['difference'])} "
            f"| {_falls(found[BASELINE])} | {_falls(planner)} | {planner['survival_s']:.2f} | {verdict} |"
        )
    lines += [
        "",
        "## How novel",
        "",
        f"Share of the motions (windows of 1 s) with no neighbour in the training data ({data['windows']} windows of "
        f"{data['episodes']} episodes): farther from it than 99 % of its own windows are from other episodes. So 1 % "
        "is what the data itself gives. Region: speed, height, yaw rate. Pattern: share of time of each combination of "
        "feet on the ground.",
        "",
        "| reward | region, prior | region, planner | pattern, prior | pattern, planner |",
        "|---|---|---|---|---|",
    ]
    for name, found in novel.items():
        if PLANNER in found and BASELINE in found:
            cells = [_share(found[policy][what]) for what in ("region", "pattern") for policy in (BASELINE, PLANNER)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    others = list(dict.fromkeys(p for figures in rewards.values() for p in figures["policies"]))
    remarks = [SIMULATOR] if "simulator" in others else []
    remarks += [CLONED] if any("@" in policy for policy in others) else []
    lines += [
        "",
        "![gait diagrams](novel_rewards.png)",
        "",
        "## Every policy",
        "",
        " ".join(["The quantity each reward asks for (falls / episodes).", *remarks]),
        "",
        f"| reward | {' | '.join(policy.partition('@')[0] for policy in others)} |",
        f"|---|{'---|' * len(others)}",
    ]
    for name, figures in rewards.items():
        cells = [_cell(figures["policies"].get(policy)) for policy in others]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(part: Mapping[str, Any]) -> str:
    return f"{part['mean']:+.3f}"


def _interval(part: Mapping[str, Any]) -> str:
    return f"{part['mean']:+.3f} [{part['ci'][0]:+.3f}, {part['ci'][1]:+.3f}]"


def _share(part: Mapping[str, Any]) -> str:
    interval = f" [{part['ci'][0]:.0%}, {part['ci'][1]:.0%}]" if part["ci"] else ""
    return f"{part['beyond']:.0%}{interval}"


def _falls(figures: Mapping[str, Any]) -> str:
    return f"{figures['falls']['count']} of {figures['n']}"


def _cell(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "–"
    return f"{figures['asked']['mean']:+.3f} ({figures['falls']['count']}/{figures['n']})"


def draw(episodes: Sequence[Episode], data: EpisodeStore, protocol: asked.Protocol, path: Path) -> None:
    """Gait diagrams of the data's behaviours, the prior, and the planner under each reward, all of the first seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels: dict[str, Mapping[str, FloatArray]] = {}
    for episode in data:
        panels.setdefault(f"data: {episode.meta['behaviour']}", locomotion.measured(episode, protocol.warm_up))
    first = min(episode.meta["seed"] for episode in episodes)
    for episode in episodes:
        if episode.meta["seed"] == first and episode.meta["behaviour"] in (BASELINE, PLANNER):
            name = episode.meta["reward"] or "prior alone"
            panels.setdefault(name, locomotion.measured(episode, protocol.warm_up))
    columns = 3
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(12, 1.5 * rows), sharex=True, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, signals) in zip(axes.flat, panels.items(), strict=False):
        for row, foot in enumerate(reversed(FEET)):
            for begin, length in _runs(signals[f"contact_{foot}"][:SHOWN] > 0.5):
                axis.broken_barh([(begin * 0.02, length * 0.02)], (row - 0.4, 0.8), color="black")
        speed, height, yaw_rate = (float(signals[key].mean()) for key in novelty.REGION)
        axis.set_title(f"{name}: {speed:+.2f} m/s, {height:.3f} m, {yaw_rate:+.2f} rad/s", fontsize=8)
        axis.set_yticks(range(4), labels=list(reversed(FEET)), fontsize=7)
        axis.set_xlim(0, SHOWN * 0.02)
        axis.tick_params(axis="x", labelsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("time [s]; black: foot on the ground", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _runs(touching: Any) -> list[tuple[int, int]]:
    """First index and length of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], touching, [False]]).astype(int)))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the training data, for novelty")
    parser.add_argument("--artifact", type=Path, default=zoo_path("quadruped_run_jump"))
    parser.add_argument("--policies", default=f"{BASELINE},{PLANNER}", help="run with all --episodes")
    parser.add_argument("--baselines", default="", help="others, with a number of episodes each: run:20,cem:5,…")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first world")
    parser.add_argument("--record", type=Path, default=Path("runs/novel_rewards"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    artifact, protocol, data = Artifact.load(args.artifact), asked.load(), EpisodeStore(args.data)
    planning = Planning.of(artifact.spec.task)
    trials = locomotion.plan_trials(
        args.policies.split(","), protocol.rewards, range(args.seed, args.seed + args.episodes), artifact.spec.task
    )
    for baseline in filter(None, args.baselines.split(",")):
        name, _, count = baseline.rpartition(":")
        seeds = range(args.seed, args.seed + int(count))
        trials += locomotion.plan_trials([name], protocol.rewards, seeds, artifact.spec.task)

    def progress(index: int, episode: Episode) -> None:
        meta = episode.meta
        print(
            f"{index + 1}/{len(trials)} {meta['behaviour']} {meta['reward']} {meta['seed']} {len(episode)}", flush=True
        )

    episodes = locomotion.run_trials(artifact, protocol, trials, planning, record=args.record, progress=progress)
    result = locomotion.summarise(episodes, artifact, protocol, protocol.rewards)
    result["planning"] = locomotion.settings(planning)
    result["novelty"] = novelty_of(episodes, data, protocol, protocol.rewards)
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "novel_rewards.json").write_text(json.dumps(result, indent=2) + "\n")
    command = f"python benchmarks/novel_rewards.py --data DATA --episodes {args.episodes}"
    command += f" --baselines {args.baselines}" if args.baselines else ""
    (args.results / "novel_rewards.md").write_text(table(result, command))
    draw(episodes, data, protocol, args.results / "novel_rewards.png")
    print((args.results / "novel_rewards.md").read_text(), file=sys.stderr)


if __name__ == "__main__":
    main()
