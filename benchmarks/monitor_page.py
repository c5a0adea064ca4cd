"""What `monitor.py` found, as a page and as a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NOMINAL = [0.02, 0.05, 0.1, 0.15, 0.2]  # shares of episodes with a false alarm
SCORES = {
    "surprise": "one-step error, mean square",
    "whitened": "one-step error, whitened",
    "drift": "e-process over p-values of surprise",
    "drift_whitened": "e-process over p-values of the whitened error",
    "h_step": "H-step error",
    "disagreement": "the ensemble's disagreement",
    "spread": "spread of the prior's proposals",
    "cusum": "CUSUM of the log error (baseline)",
    "rnd": "random-network distillation on latents (baseline)",
}
MONITORS = {"monitor": "surprise", "monitor_whitened": "whitened"}  # with the one-step error that they judge
TEXTS = SCORES | {
    "monitor_whitened": "**monitor**: surprise and drift together, errors whitened (the default)",
    "monitor": "monitor on plain errors",
    "pointwise": "pointwise threshold on surprise (baseline)",
}


def markdown(results: Sequence[Mapping[str, Any]], about: str) -> str:
    """The figures as a page."""
    command = f"python benchmarks/monitor.py {' '.join(r['task'] for r in results)} --seed {results[0]['seed']}"
    lines = ["# The monitor: false alarms, and which faults it finds", "", f"`{command}`", "", about, ""]
    for r in results:
        n, alarms, lost = r["episodes"], r["false_alarms"], sum(r["left_out_fallen"].values())
        policies, oracle = r["false_alarms_by_policy"], r["oracles"]
        lines += [
            f"## {r['task']}",
            "",
            f"Model {r['model_id']}. {' and '.join(r['policies'])} act, in calibration and test alike, for "
            f"{r['episode_s']:.0f} s an episode: {n['shape']} episodes give shapes, {n['calibration']} thresholds, "
            f"{n['test']} fresh ones are the test"
            + (f" ({lost} in which the robot fell are left out)" if lost else "")
            + ". "
            "Neighbouring errors are not independent: from one control step to the next the logarithm of surprise has "
            f"an autocorrelation of {r['lag_1_autocorrelation']:.2f}. `Monitor.update` takes {r['update_us']:.1f} µs. "
            f"The quantile of the episode maxima of surprise is {oracle['ours']:.6g}, by crepes "
            f"{oracle['crepes']:.6g}, by MAPIE {oracle['mapie']:.6g}.",
            "",
            f"| score | false alarms, whole episodes, at nominal {r['alpha']:.0%} | n |",
            "|---|---|---|",
            *(f"| {TEXTS[name]} | {_share(figure)} | {figure['n']} |" for name, figure in alarms.items()),
            *(
                f"| monitor on plain errors, {policy} only | {_share(figure)} | {figure['n']} |"
                for policy, figure in policies.items()
            ),
            "",
            f"AUROC of the largest score within {r['window_s']:.1f} s after the fault, against the same time of the "
            "same episode without it (paired bootstrap, 95 % intervals in the JSON file):",
            "",
            "| fault | n | " + " | ".join(SCORES) + " |",
            "|---" * (len(SCORES) + 2) + "|",
            *(
                f"| {fault} | {entry['n']} | "
                + " | ".join(f"{entry[name]['auroc']['value']:.3f}" for name in SCORES)
                + " |"
                for fault, entry in r["faults"].items()
            ),
            "",
            "Alarms within that time, and their median delay:",
            "",
            "| fault | " + " | ".join(alarms) + " |",
            "|---" * (len(alarms) + 1) + "|",
            *(
                f"| {fault} | " + " | ".join(_found(entry[name]) for name in alarms) + " |"
                for fault, entry in r["faults"].items()
            ),
            "",
            "Recall of the monitor with its interval: "
            + "; ".join(
                f"{fault} {_share(entry['monitor_whitened']['recall'])}" for fault, entry in r["faults"].items()
            )
            + ".",
            "",
            verdict(r),
            "",
        ]
    return "\n".join(lines)


def verdict(r: Mapping[str, Any]) -> str:
    """Whether the targets are met, and which one-step score detects better."""
    alarms, faults = r["false_alarms"]["monitor_whitened"], r["faults"].values()
    low, high = alarms["ci"]
    in_range = "met" if 0.03 <= alarms["value"] <= 0.07 else "not met"
    if in_range == "not met" and low <= 0.07 and high >= 0.03:
        in_range = "neither shown nor excluded by so few episodes"
    fast = "met" if r["update_us"] <= 20 else "not met"
    areas = {name: np.mean([entry[name]["auroc"]["value"] for entry in faults]) for name in SCORES}
    recalls = {name: np.mean([entry[name]["recall"]["value"] for entry in faults]) for name in r["false_alarms"]}
    return (
        f"**Targets.** False alarms of the monitor within 3 to 7 %: **{in_range}** ({_share(alarms)}). At most 20 µs a "
        f"step: **{fast}** ({r['update_us']:.1f} µs). Means over the faults: AUROC "
        + ", ".join(f"{name} {value:.3f}" for name, value in areas.items())
        + "; recall "
        + ", ".join(f"{name} {value:.0%}" for name, value in recalls.items())
        + "."
    )


def plot(path: Path, figures: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    """An episode with a fault in it; and how often alarms come for nothing, against what was asked for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
    example, limits, dt = kept["example"], kept["limits"], figures["control_dt_s"]
    times, at = dt * np.arange(len(example.steps["surprise"])), dt * example.meta["at"]
    for name, colour in (("surprise", "#333333"), ("whitened", "#2a7f4f"), ("drift", "#1f77b4")):
        left.semilogy(times, np.maximum(example.steps[name] / limits[name], 1e-3), lw=1.2, color=colour, label=name)
    left.axhline(1.0, color="#c0392b", ls="--", lw=1.2, label="threshold")
    left.axvline(at, color="#c0392b", lw=1.2)
    left.set(title=f"{figures['task']}: {example.meta['fault']} from {at:.1f} s on", xlabel="time [s]")
    left.set_ylabel("score / its threshold")
    left.legend(fontsize=8)
    for name, label, colour in (
        ("episode", "threshold on episode maxima", "#1f77b4"),
        ("pointwise", "threshold on single steps", "#c0392b"),
    ):
        right.plot(NOMINAL, kept["curves"][name], "o-", ms=3, lw=1.2, color=colour, label=label)
    right.plot([0, max(NOMINAL)], [0, max(NOMINAL)], color="#999999", lw=1, ls=":", label="as asked for")
    right.set(title=f"surprise in {figures['episodes']['test']} fresh episodes", ylabel="share that raised an alarm")
    right.set_xlabel("asked for: share of episodes with a false alarm")
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _found(entry: Mapping[str, Any]) -> str:
    delay = "" if entry["median_delay_s"] is None else f", {entry['median_delay_s']:.2f} s"
    return f"{100 * entry['recall']['value']:.0f} %{delay}"


def _share(figure: Mapping[str, Any]) -> str:
    low, high = figure["ci"]
    return f"{100 * figure['value']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
