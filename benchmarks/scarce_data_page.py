"""The figures of `scarce_data.py`: from what it computed to a page and its plots."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from worldpilot.calibration.detection import share
from worldpilot.calibration.intervals import bootstrap_mean
from worldpilot.models.recipe.distil import kept as share_kept
from worldpilot.models.recipe.ensemble import identity
from worldpilot.models.recipe.scaling import efficiencies, fit_law, mean_efficiency

mpl.use("Agg")

METHODS = ("standard", "tuned", "ensemble", "distilled", "self-distilled")
HORIZONS = (1, 4, 8, 16)  # model steps at which losses are measured
JUDGED = (1,)  # of them, at which data efficiency is: further ahead some members diverge, and a mean says little

Kept = Mapping[int, Mapping[str, Any]]  # what was computed of each amount of data


def figures(setting: Mapping[str, Any], found: Kept, judged: Kept, steered: Kept) -> dict[str, Any]:
    """Figures of the settings that were found, the losses, and the control, as far as they are there."""
    judged = {amount: kept for amount, kept in judged.items() if set(kept["methods"]) == set(METHODS)}
    result: dict[str, Any] = {
        "setting": dict(setting),
        "found": {str(amount): kept for amount, kept in found.items()},
        "ratios": next((kept["ratios"] for kept in judged.values()), None),
        "losses": {str(amount): _losses(kept) for amount, kept in judged.items()},
        "student_keeps": {str(amount): _keeps(kept) for amount, kept in judged.items()},
    }
    if len(judged) >= 4:
        result["horizons"] = {str(h): _worth(judged, HORIZONS.index(h)) for h in JUDGED}
    if steered:
        result["control"] = _control(steered)
    return result


def _losses(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Means over the data seeds, with intervals; and what the ensemble's loss over K says."""
    by_method = {}
    for method, model in kept["methods"].items():
        values = np.array(model["losses"])
        by_method[method] = {
            str(h): {"mean": float(values[:, i].mean()), "ci": list(bootstrap_mean(values[:, i])), "n": len(values)}
            for i, h in enumerate(HORIZONS)
        }
    by_k = np.array(kept["methods"]["ensemble"]["by_k"])
    bias, variance = identity(by_k.tolist())
    off = float(np.abs((bias + variance / np.arange(1, len(by_k) + 1)) / by_k - 1).max())
    shape = {"by_k": by_k.tolist(), "bias": bias, "variance": variance, "largest_relative_error": off}
    settings_ = {name: kept["settings"][name] for name in METHODS}
    return {"transitions": kept["transitions"], "settings": settings_, "methods": by_method, "ensemble": shape}


def _keeps(kept: Mapping[str, Any], resamples: int = 2000) -> dict[str, Any]:
    """Share of the ensemble's gain over the tuned single model that each student keeps, one step ahead."""
    losses = {method: np.array(model["losses"])[:, 0] for method, model in kept["methods"].items()}
    n = len(losses["tuned"])
    drawn = np.random.default_rng(0).integers(n, size=(resamples, n))
    result = {}
    for method in ("distilled", "self-distilled"):
        three = [losses[name] for name in ("tuned", "ensemble", method)]
        shares = [share_kept(*(values[rows].mean() for values in three)) for rows in drawn]
        value = share_kept(*(values.mean() for values in three))
        result[method] = {"value": float(value), "ci": np.quantile(shares, [0.025, 0.975]).tolist(), "n": n}
    return result


def _worth(judged: Mapping[int, Any], horizon: int) -> dict[str, Any]:
    """The standard recipe's law at one horizon, and the methods' data efficiencies."""
    data = [kept["transitions"] for kept in judged.values()]
    losses = {
        method: np.array([np.array(kept["methods"][method]["losses"])[:, horizon] for kept in judged.values()])
        for method in METHODS
    }
    base = losses["standard"]
    law = fit_law(data, base.mean(1))
    off = float(np.abs(law.loss(data) / base.mean(1) - 1).max())
    worth = {
        method: {"by_amount": efficiencies(data, base, of), "mean": mean_efficiency(data, base, of)}
        for method, of in losses.items()
        if method != "standard"
    }
    return {"law": {**asdict(law), "largest_relative_error": off}, "efficiency": worth}


def _control(steered: Mapping[int, Any]) -> dict[str, Any]:
    """Returns and falls of the planner, over data seeds and episodes. Intervals are over episodes."""

    def of(runs: list[dict[str, Any]]) -> dict[str, Any]:
        returns = [run["return"] for run in runs]
        interval = list(bootstrap_mean(returns))
        return {
            "return": {"mean": float(np.mean(returns)), "ci": interval, "n": len(returns)},
            "falls": share([run["fallen"] for run in runs]),
        }

    result: dict[str, Any] = {"model_id": next(iter(steered.values()))["model_id"], "amounts": {}}
    for amount, kept in steered.items():
        by_name = {name: [run for runs in kept[name].values() for run in runs] for name in kept if name != "model_id"}
        done = {name: of(runs) for name, runs in by_name.items() if len(runs) > 1}
        result["amounts"][str(amount)] = done
    return result


def page(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    setting = result["setting"]
    parts = [
        "# Scarce data",
        "Made by `benchmarks/scarce_data.py`, which says how. The walker's dynamics, model steps of 0.04 s from state "
        f"and action; {setting['net']['layers']} hidden layers of {setting['net']['hidden']}; means over "
        f"{setting['data_seeds']} data seeds with 95 % bootstrap intervals over them; {setting['test_episodes']} test "
        "episodes.",
        "![losses, data efficiency, ensembles, control](scarce_data.png)",
        "## Loss one step ahead",
        _loss_table(result, "1"),
        "## Loss 4 steps ahead",
        _loss_table(result, "4"),
        "## Loss 16 steps ahead, open loop, of models that were trained on single steps",
        _loss_table(result, "16"),
        *(text for h, worth in result.get("horizons", {}).items() for text in _efficiency(h, worth)),
        "## What a student keeps of the ensemble's gain over the tuned single model, and what K members are worth",
        _ensemble_table(result),
        f"L(K) = bias² + variance / K holds for K = 1 to {setting['members']} within {_identity_error(result):.2%}.",
        "## Settings found",
        _settings_table(result),
    ]
    if result["ratios"]:
        told = (
            f"{n}: weight decay × {r['weight_decay']:g}, steps × {r['steps']:g}" for n, r in result["ratios"].items()
        )
        parts.append(f"In multiples of the tuned ones, found at {setting['ratios_at']} transitions: {'; '.join(told)}.")
    if "control" in result:
        how = setting["control"]
        parts += [
            "## Control",
            f"Return of the planner [m/s], asked to walk, in {how['steps']} control steps, of which the data's "
            f"gait drives the first {how['begins']}, with each method's models of {how['data_seeds']} data seeds, "
            f"{how['episodes']} episodes each; intervals over episodes. `shipped`: the own predictor of the artifact "
            f"{result['control']['model_id']}, of 600 episodes.",
            _control_table(result),
        ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _loss_table(result: Mapping[str, Any], horizon: str) -> str:
    rows = [
        [f"{entry['transitions']:.0f}", *(_cell(entry["methods"][method][horizon]) for method in METHODS)]
        for entry in result["losses"].values()
    ]
    return _table(["transitions", *METHODS], rows)


def _efficiency(horizon: str, worth: Mapping[str, Any]) -> list[str]:
    law = worth["law"]
    amounts = [f"{x['data']:.0f}" for x in worth["efficiency"]["tuned"]["by_amount"]]
    rows = []
    for method, of in worth["efficiency"].items():
        mean = of["mean"]
        cells = [_factor(x["value"], x["ci"]) for x in of["by_amount"]]
        rows.append([method, *cells, _factor(mean["value"], mean["ci"]) if mean else "–"])
    return [
        f"## Data efficiency, {horizon} model step{'s' if horizon != '1' else ''} ahead",
        f"Of the standard recipe: L = {law['a']:.3g} / D^{law['b']:.3f} + {law['c']:.3g}, from {law['least']:.0f} to "
        f"{law['most']:.0f} transitions, off by {law['largest_relative_error']:.0%} at most. A dash: this, or this end "
        "of the interval, is outside the fitted amounts. The mean is geometric, over the amounts that have a figure.",
        _table(["method", *amounts, "mean"], rows),
    ]


def _ensemble_table(result: Mapping[str, Any]) -> str:
    rows = []
    for amount, entry in result["losses"].items():
        keeps, shape = result["student_keeps"][amount], entry["ensemble"]
        cells = [_part(keeps[method]) for method in ("distilled", "self-distilled")]
        cells += [f"{shape['bias']:.4f}", f"{shape['variance']:.4f}", f"{shape['bias'] / shape['by_k'][0]:.2f}"]
        rows.append([f"{entry['transitions']:.0f}", *cells])
    return _table(["transitions", "distilled", "self-distilled", "bias²", "variance", "L(∞) / L(1)"], rows)


def _identity_error(result: Mapping[str, Any]) -> float:
    return max((entry["ensemble"]["largest_relative_error"] for entry in result["losses"].values()), default=0.0)


def _settings_table(result: Mapping[str, Any]) -> str:
    rows = []
    for amount, entry in result["found"].items():
        for method, of in entry.items():
            hyper, limit = of["settings"], ", ".join(of["at_limit"])
            values = [f"{hyper['learning_rate']:g}", f"{hyper['weight_decay']:g}", hyper["steps"], of["trials"]]
            rows.append([amount, method, *values, limit or "–"])
    return _table(["transitions", "method", "learning rate", "weight decay", "steps", "trials", "at its limit"], rows)


def _control_table(result: Mapping[str, Any]) -> str:
    rows = []
    for amount, by_name in result["control"]["amounts"].items():
        for name, of in by_name.items():
            rows.append([amount, name, _cell(of["return"]), f"{of['falls']['value']:.0%}", of["return"]["n"]])
    return _table(["transitions", "method", "return", "falls", "episodes"], rows)


def _cell(figure: Mapping[str, Any]) -> str:
    low, high = figure["ci"]
    return f"{figure['mean']:.3g} [{low:.3g}, {high:.3g}]"


def _factor(value: float | None, ci: Sequence[float | None]) -> str:
    low, high = (f"{end:.2f}" if end is not None else "–" for end in ci)
    return f"{value:.2f} [{low}, {high}]" if value is not None else "–"


def _part(figure: Mapping[str, Any]) -> str:
    low, high = figure["ci"]
    return f"{figure['value']:.0%} [{low:.0%}, {high:.0%}]"


def draw(result: Mapping[str, Any], file: Path) -> None:
    """Losses, data efficiency, the ensembles' loss over K, and control."""
    figure, ((losses, worth), (members, steering)) = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    data = [entry["transitions"] for entry in result["losses"].values()]
    for i, method in enumerate(METHODS):
        of = [entry["methods"][method]["1"] for entry in result["losses"].values()]
        _line(losses, data, [x["mean"] for x in of], [x["ci"] for x in of], f"C{i}", method)
    if "horizons" in result:
        first = result["horizons"]["1"]
        law, grid = first["law"], np.geomspace(min(data), max(data), 60)
        losses.plot(grid, law["a"] / grid ** law["b"] + law["c"], "k:", lw=1, label="law of the standard recipe")
        for i, method in enumerate(METHODS[1:], 1):
            there = [x for x in first["efficiency"][method]["by_amount"] if x["value"] is not None]
            ends = [[x["value"] if e is None else e for e in x["ci"]] for x in there]
            _line(worth, [x["data"] for x in there], [x["value"] for x in there], ends, f"C{i}", method)
    worth.axhline(1, color="k", lw=0.8)
    for i, (entry, amount) in enumerate(zip(result["losses"].values(), data, strict=True)):
        shape = entry["ensemble"]
        k = np.arange(1, len(shape["by_k"]) + 1)
        members.plot(1 / k, np.array(shape["by_k"]), "o", color=f"C{i}", ms=4, label=f"{amount:.0f} transitions")
        at = np.array([0.0, 1.0])
        members.plot(at, shape["bias"] + shape["variance"] * at, color=f"C{i}", lw=1)
    steered = {int(amount): of for amount, of in result.get("control", {}).get("amounts", {}).items()}
    for i, method in enumerate(METHODS):
        returns = {amount: of[method]["return"] for amount, of in steered.items() if method in of}
        means, ends = ([x[part] for x in returns.values()] for part in ("mean", "ci"))
        if returns:
            _line(steering, list(returns), means, ends, f"C{i}", method)
    own = [of["shipped"]["return"]["mean"] for of in steered.values() if "shipped" in of]
    if own:
        steering.axhline(float(np.mean(own)), color="k", ls=":", lw=1, label="shipped model")
    losses.set(xscale="log", yscale="log", xlabel="transitions", ylabel="test loss, one step ahead")
    worth.set(xscale="log", xlabel="transitions", ylabel="data efficiency, one step ahead")
    members.set(xlabel="1 / K", ylabel="test loss of K members", yscale="log")
    steering.set(xscale="log", xlabel="transitions", ylabel="return [m/s]")
    for axes in (losses, worth, steering):
        axes.set_xticks(data, [f"{amount:.0f}" for amount in data], fontsize=8)
        axes.minorticks_off()
    for axes in (losses, worth, members, steering):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
        else:
            axes.set_visible(False)  # not measured
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=90)
    plt.close(figure)


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], ci: Sequence[Any], colour: str, label: str) -> None:
    low, high = np.array(ci).reshape(-1, 2).T
    off = np.abs(np.stack([np.asarray(y) - low, high - np.asarray(y)]))
    axes.errorbar(x, y, off, color=colour, marker="o", ms=4, lw=1.2, capsize=2, label=label)
