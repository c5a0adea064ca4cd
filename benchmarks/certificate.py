"""How good are certificates? Each bound beside the loss on fresh episodes, for shipped models and for a changed robot.

    python benchmarks/certificate.py shipped push_t push_cube --json docs/results/certificate.json
    python benchmarks/certificate.py changed walker --json docs/results/certificate.json
    python benchmarks/certificate.py page --json docs/results/certificate.json --markdown docs/results/certificate.md \\
        --plot docs/results/certificate.png

`shipped` reads the certificate in a manifest, collects episodes of the same behaviours, in the same shares, in seeds
that neither training nor the certificate has, and measures on them what the certificate bounds. `changed` weakens one
joint of a robot: the shipped dynamics, which never saw that, are the prior of an update that is learnt from n episodes
of the changed robot, and certified by those same episodes. Results are added to the JSON as they come.
"""

import argparse
import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldpilot.calibration import bounds, certificate
from worldpilot.calibration.intervals import bootstrap_mean
from worldpilot.certification import PRIMARY, SCALE_SHARE, collect, of_seeds
from worldpilot.cli.collect import behave, record
from worldpilot.models.artifact import Artifact, zoo_path
from worldpilot.models.data.episodes import DATASET_FILE, EpisodeStore, EpisodeWriter
from worldpilot.models.recipe import subspace
from worldpilot.sim.tasks import store_meta
from worldpilot.sim.tasks import task as simulated

TEST_SEED, CHANGED_SEED, CHANGED_TEST_SEED = 4_500_000, 5_000_000, 5_500_000
DELTA = 0.05
FAULT = ("weak_joint", {"joint": 2, "fraction": 0.3})  # the walker's left ankle keeps 30 % of its torque


def mean_of(losses: Sequence[float]) -> dict[str, Any]:
    """A mean loss over seeds with its bootstrap interval."""
    return {"value": float(np.mean(losses)), "n": len(losses), "ci": list(bootstrap_mean(losses))}


def shipped(name: str, episodes: int, work: Path) -> dict[str, Any]:
    """The certificate of a shipped artifact beside losses on fresh episodes."""
    artifact = Artifact.load(zoo_path(name))
    content = artifact.manifest["certificate"]
    if content is None or certificate.check(artifact.manifest):
        raise SystemExit(f"{name} has no certificate that holds: worldpilot certify {name} --compression")
    whole, counts = sum(content["data"]["behaviours"].values()), content["data"]["behaviours"]
    fresh = {behaviour: max(1, round(episodes * count / whole)) for behaviour, count in counts.items()}
    folder = work / f"{name}_test"
    collect(name, fresh, TEST_SEED, folder)
    units, clip = list(certificate.measure(artifact.world_model, EpisodeStore(folder))), content["scale"]["clip"]
    result: dict[str, Any] = {"model_id": artifact.spec.model_id, "test_episodes": fresh, "held_out": {}}
    for loss, stated in content["held_out"].items():
        risk = mean_of([unit.loss(loss, clip[loss]) for unit in units])
        result["held_out"][loss] = {
            **{key: stated[key] for key in ("steps", "n", "delta", "risk", "bound", "copy_risk")},
            "test": risk,
            "ratio": stated["bound"] / risk["value"],
            "by_n": by_n(stated["losses"], None),
        }
    if (stated := content["compression"]) is not None:
        net, message = subspace.predictor(artifact), base64.b64decode(stated["message"])
        update = subspace.Update(stated["dims"], stated["levels"], stated["directions_seed"], message)
        moments = subspace.Moments.of(artifact.world_model, EpisodeStore(folder))
        risk = mean_of(subspace.unit_losses(net, subspace.updated(net, update), moments, clip[PRIMARY]).tolist())
        keys = ("n", "delta", "dims", "levels", "bits", "complexity", "searched", "risk", "risk_without", "bound")
        result["compression"] = {
            **{key: stated[key] for key in (*keys, "bound_sqrt")},
            "test": risk,
            "ratio": stated["bound"] / risk["value"],
            "by_n": by_n(stated["losses"], stated["complexity"]),
        }
        result["flatness"] = content["flatness"]
    return result


def by_n(losses: Sequence[float], complexity: float | None) -> list[list[float]]:
    """What the bound would be with fewer units of the same mean loss: pairs (n, bound)."""
    mean, rows = float(np.mean(losses)), []
    for n in np.unique(np.geomspace(10, len(losses), 25).round().astype(int)).tolist():
        bits = 0.0 if complexity is None else complexity
        rows.append([n, bounds.compression_bound(mean, n, bits, DELTA)])
    return rows


def weakened(name: str, episodes: int, seed: int, folder: Path) -> EpisodeStore:
    """Episodes of the task's first behaviour on a robot with the fault; those that are there are not made again."""
    if not (folder / DATASET_FILE).is_file() or len(EpisodeStore(folder)) != episodes:
        behaviour, source = next(iter(simulated(name).behaviours.items()))
        world, controls = simulated(name).world(), source.make()
        with EpisodeWriter(folder, store_meta(name)) as writer:
            for number in range(seed, seed + episodes):
                acting = behave(name, behaviour, controls, world, number)
                world.inject(FAULT[0], **FAULT[1])  # type: ignore[attr-defined]
                writer.append(record(world, acting, source.steps, {"seed": number, "behaviour": behaviour}))
        world.close()
    return EpisodeStore(folder)


def changed(name: str, episodes: int, test_episodes: int, amounts: Sequence[int], work: Path) -> dict[str, Any]:
    """Bounds of updates learnt from n episodes of a changed robot, beside losses on fresh episodes of it."""
    artifact = Artifact.load(zoo_path(name))
    store = weakened(name, episodes, CHANGED_SEED, work / f"{name}_changed")
    test_store = weakened(name, test_episodes, CHANGED_TEST_SEED, work / f"{name}_changed_test")
    units_at, scale_at = store.split(SCALE_SHARE)
    clip = certificate.scales(list(certificate.measure(artifact.world_model, store_of(store, scale_at))))[PRIMARY]
    seeds = [store.metas[i]["seed"] for i in units_at]
    net, config = subspace.predictor(artifact), subspace.SubspaceConfig()
    prior = {key: value.detach() for key, value in net.named_parameters()}
    everything = subspace.Moments.of(artifact.world_model, store_of(store, units_at))
    test = subspace.Moments.of(artifact.world_model, test_store)

    own = dict(zip(everything.seeds, subspace.unit_losses(net, prior, everything, clip), strict=True))
    risk = mean_of(subspace.unit_losses(net, prior, test, clip).tolist())
    bound = bounds.held_out_bound(float(np.mean(list(own.values()))), len(own), DELTA)
    copied = [unit.copied[PRIMARY] for unit in certificate.measure(artifact.world_model, test_store)]
    result: dict[str, Any] = {
        "model_id": artifact.spec.model_id,
        "fault": list(FAULT),
        "clip": clip,
        "copy_risk": float(np.mean([certificate.clipped_mean(errors, clip) for errors in copied])),
        "without_update": {"n": len(own), "held_out_bound": bound, "test": risk, "ratio": bound / risk["value"]},
        "updates": [],
    }
    for amount in amounts:
        moments = subspace.Moments.of(artifact.world_model, of_seeds(store, set(seeds[:amount])))
        n, tried = len(moments.seeds), []
        for update, loss in subspace.compress(net, moments, clip, config):
            bits = bounds.complexity(8 * len(update.message), len(config.codes))
            tried.append((bounds.compression_bound(loss, n, bits, DELTA), bits, update))
            print(n, update.dims, update.levels, 8 * len(update.message), f"{loss:.4f} {tried[-1][0]:.4f}", flush=True)
        _, bits, update = min(tried, key=lambda entry: entry[0])
        weights = subspace.updated(net, update)
        train = float(subspace.unit_losses(net, weights, moments, clip).mean())
        risk = mean_of(subspace.unit_losses(net, weights, test, clip).tolist())
        bound = bounds.compression_bound(train, n, bits, DELTA)
        row = {"n": n, "dims": update.dims, "levels": update.levels, "bits": 8 * len(update.message)}
        row |= {"complexity": bits, "risk": train, "bound": bound, "test": risk, "ratio": bound / risk["value"]}
        row["bound_sqrt"] = bounds.compression_bound_sqrt(train, n, bits, DELTA)
        if len(seeds) >= 2 * amount:  # as many again, that it did not learn from
            others = subspace.Moments.of(artifact.world_model, of_seeds(store, set(seeds[amount : 2 * amount])))
            unseen, held = float(subspace.unit_losses(net, weights, others, clip).mean()), len(others.seeds)
            row["held_out"] = {"n": held, "risk": unseen, "bound": bounds.held_out_bound(unseen, held, DELTA)}
            row["held_out"]["ratio"] = row["held_out"]["bound"] / risk["value"]
        result["updates"].append(row)
        print(json.dumps(row), flush=True)
    return result


def store_of(store: EpisodeStore, indices: Sequence[int]) -> EpisodeStore:
    return of_seeds(store, {store.metas[i]["seed"] for i in indices})


def figure(entry: Mapping[str, Any]) -> str:
    """A mean with its interval."""
    return f"{entry['value']:.4f} [{entry['ci'][0]:.4f}, {entry['ci'][1]:.4f}]"


def ratio(row: Mapping[str, Any]) -> str:
    """Bound to test loss, with what the test loss's interval makes of it."""
    low, high = row["test"]["ci"]
    return f"{row['ratio']:.2f} [{row['bound'] / high:.2f}, {row['bound'] / low:.2f}]"


def markdown(result: Mapping[str, Any]) -> str:
    """The figures as a page."""
    held = [(name, loss, row) for name, part in result["shipped"].items() for loss, row in part["held_out"].items()]
    small = [(name, part["compression"]) for name, part in result["shipped"].items() if "compression" in part]
    lines = [
        "# Certificates: how far from the truth",
        "",
        "Made by `benchmarks/certificate.py`, which says how. Losses are squared prediction errors in units of their",
        "scale (the 99 % quantile on other episodes), clipped at 1, means over the moments of an episode; n counts",
        f"episodes. Bounds hold with probability {1 - DELTA:g}, each by itself. *Test* is the mean loss on fresh",
        "episodes with a bootstrap interval (95 %); *no change* is the loss of predicting that nothing changes.",
        "",
        "## The shipped models: held out (primary)",
        "",
        "| task | model steps ahead | n | certified loss | bound | test | bound / test | no change |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {row['steps']} | {row['n']} | {row['risk']:.4f} | **{row['bound']:.4f}** | "
            f"{figure(row['test'])}, n = {row['test']['n']} | {ratio(row)} | {row['copy_risk']:.3f} |"
            for name, _, row in held
        ),
        "",
        f"Target: bound at most 1.5 × test. {verdict([row['ratio'] for _, _, row in held], 1.5)}",
        "",
        "## The shipped models: compression (secondary)",
        "",
        "The predictor with an update that was learnt from the certificate's own episodes and fits into a message. The",
        "prior is the shipped predictor, which knows these worlds already, so that the update has little to add: the",
        "bound says what a few bytes cost.",
        "",
        "| task | n | dims | message | loss before | with update | bound | by square root | test | bound / test |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {row['n']} | {row['dims']} | {row['bits']} bit | {row['risk_without']:.4f} | "
            f"{row['risk']:.4f} | **{row['bound']:.4f}** | {row['bound_sqrt']:.4f} | {figure(row['test'])} | "
            f"{ratio(row)} |"
            for name, row in small
        ),
        "",
        f"Target: at most 3 × test, below 1. {verdict([row['ratio'] for _, row in small], 3.0)}",
        "",
        "## Flatness",
        "",
        "By how much the loss changes when noise is added to the predictor's weights, of a share of each tensor's size",
        "(mean over draws, ± their standard deviation).",
        "",
        "| task | loss | " + " | ".join(f"{s:g}" for s in _sigmas(result)) + " |",
        "|---|---|" + "---|" * len(_sigmas(result)),
        *(
            f"| {name} | {part['flatness']['loss']:.4f} | "
            + " | ".join(
                f"{rise:+.4f} ± {std:.4f}"
                for rise, std in zip(part["flatness"]["rise"], part["flatness"]["std"], strict=True)
            )
            + " |"
            for name, part in result["shipped"].items()
            if part.get("flatness")
        ),
    ]
    for name, part in result.get("changed", {}).items():
        lines += _changed_page(name, part)
    return "\n".join(lines) + "\n"


def _changed_page(name: str, part: Mapping[str, Any]) -> list[str]:
    before, updates = part["without_update"], part["updates"]
    both = [row for row in updates if "held_out" in row]
    tighter = sum(row["held_out"]["bound"] < row["bound"] for row in both)
    fault, options = part["fault"]
    said = ", ".join(f"{key} {value}" for key, value in options.items())
    return [
        "",
        f"## A changed robot: {name}, {fault} ({said})",
        "",
        "The shipped dynamics, which never saw the fault, are the prior; an update in a few bytes is learnt from n",
        f"episodes of the changed robot. Without it: test {figure(before['test'])}, held-out bound "
        f"{before['held_out_bound']:.4f} (n = {before['n']}); predicting no change: {part['copy_risk']:.3f}.",
        "*Held out* is the bound of the same update from as many episodes again, that it did not learn from.",
        "",
        "| n | dimensions, levels | message | loss | compression bound | test | bound / test | held out | / test |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {row['n']} | {row['dims']}, {row['levels']} | {row['bits']} bit | {row['risk']:.4f} | "
            f"**{row['bound']:.4f}** | {figure(row['test'])} | {row['ratio']:.2f} | "
            + (f"{row['held_out']['bound']:.4f} | {row['held_out']['ratio']:.2f} |" if "held_out" in row else "– | – |")
            for row in updates
        ),
        "",
        f"Target: at most 3 × test, below 1. {verdict([row['ratio'] for row in updates], 3.0)} Where both are there, "
        f"the held-out bound is the tighter one {tighter} of {len(both)} times.",
    ]


def _sigmas(result: Mapping[str, Any]) -> list[float]:
    return next((part["flatness"]["sigma"] for part in result["shipped"].values() if part.get("flatness")), [])


def verdict(ratios: Sequence[float], limit: float) -> str:
    """Whether all ratios are within a limit."""
    met = sum(ratio <= limit for ratio in ratios)
    return f"**Met** by {met} of {len(ratios)}, the largest is {max(ratios):.2f}." if ratios else "Not measured."


def plot(result: Mapping[str, Any], file: Path) -> None:
    """Bounds beside test losses, and bounds against the number of episodes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figures, (left, right) = pyplot.subplots(1, 2, figsize=(10.5, 4.0), layout="constrained")
    rows = [(name, part) for name, part in result["shipped"].items()]
    for at, (_, part) in enumerate(rows):
        held = part["held_out"][PRIMARY]
        bars = [("test", held["test"]["value"], "0.55"), ("held-out bound", held["bound"], "tab:blue")]
        if "compression" in part:
            bars.append(("compression bound", part["compression"]["bound"], "tab:orange"))
        bars.append(("no change", held["copy_risk"], "0.85"))
        for offset, (label, value, colour) in enumerate(bars):
            place = at + 0.2 * (offset - 1.5)
            left.bar(place, value, 0.18, color=colour, label=label if at == 0 else None)
            left.text(place, value + 0.01, f"{value:.2f}", ha="center", fontsize=8)
    left.set_xticks(range(len(rows)), [name for name, _ in rows])
    left.set_ylabel("clipped loss, H steps ahead")
    left.set_ylim(0, 1.15)
    left.legend(loc="upper left", ncols=2, fontsize=8, frameon=False)
    name, part = rows[0]
    for label, key, colour in (("held out", "held_out", "tab:blue"), ("compression", "compression", "tab:orange")):
        if key in part:
            entry = part[key][PRIMARY] if key == "held_out" else part[key]
            right.plot(*zip(*entry["by_n"], strict=True), color=colour, label=label)
    low, high = part["held_out"][PRIMARY]["test"]["ci"]
    right.axhspan(low, high, color="0.55", alpha=0.4, label="test, 95 %", lw=0)
    right.axhline(part["held_out"][PRIMARY]["copy_risk"], color="0.6", ls=":", label="no change")
    right.set_xscale("log")
    right.set_ylim(0, 1.02)
    right.set_xlabel("episodes")
    right.set_ylabel("bound")
    right.set_title(f"{name}: what n episodes would certify", fontsize=10)
    right.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figures.savefig(file, dpi=110)


def main() -> None:
    """Measure, or make the page; the JSON keeps what other calls have measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["shipped", "changed", "page"])
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/certificate"), help="where episodes are kept")
    parser.add_argument("--episodes", type=int, default=600, help="of the changed robot")
    parser.add_argument("--test-episodes", type=int, default=100)
    parser.add_argument("--amounts", type=int, nargs="+", default=[230, 460], help="of them, to learn from")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    result: dict[str, Any] = {"delta": DELTA, "shipped": {}, "changed": {}}
    if args.json.is_file():
        result |= json.loads(args.json.read_text())
    for name in args.tasks:
        if args.part == "shipped":
            result["shipped"][name] = shipped(name, args.test_episodes, args.work)
        else:
            result["changed"][name] = changed(name, args.episodes, args.test_episodes, args.amounts, args.work)
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.markdown:
        args.markdown.write_text(markdown(result))
    if args.plot:
        plot(result, args.plot)


if __name__ == "__main__":
    main()
