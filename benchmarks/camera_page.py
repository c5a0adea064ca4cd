"""The page of `benchmarks/camera.py`."""

from collections.abc import Mapping
from typing import Any

SETUPS = ("eye-in-hand", "eye-to-hand")
HELD_OUT, PLACE, TURN = 0.06, 0.15, 0.02  # [px], [mm], [degrees]: what is aimed at


def markdown(groups: Mapping[str, Any], command: str) -> str:
    """The page."""
    lines = [
        "# Cameras and hand-eye calibration on rendered images",
        "",
        f"`{command}`",
        "",
        "Images of 1280 × 720 px, a pixel of 9 rays through the inverse of the lens; blur .4 to 1 px, noise 1 to 3 "
        "grey levels, uneven light. 24 views to calibrate on (model `auto`), 8 fresh views to judge by: the target's "
        "pose is fitted to a fresh view, the intrinsics are not. Errors are root mean square distances over corners; "
        "intervals are 95 % bootstraps over seeds (Wilson's of shares). *Field* is the distance between where the true "
        "and the found camera see the same ray, over the whole image with its corners, after the best turn.",
        "",
        "| lens, target | n | model found | fresh views [px] | worst seed | own estimate (5 folds) [px] | field [px] | "
        "OpenCV, fresh [px] |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, g in groups.items():
        theirs = _figure(g["opencv"]["fresh_px"]) if "opencv" in g else "–"
        lines.append(
            f"| {name} | {g['n']} | {g['model_found']['value']:.0%} | {_figure(g['fresh_px'])} | "
            f"{g['fresh_px_worst']:.3f} | {_figure(g['held_out_px'])} | {_figure(g['field_px'])} | {theirs} |"
        )
    lines += [
        "",
        "OpenCV: `calibrateCamera` on our corners, none left out. A rational lens' coefficients trade with one another "
        "(any of many sets tells the same field), so they have no errors of their own here.",
        "",
        "| lens, target | fx, fy, cx, cy: mean absolute error [px] | distortion | within 2 standard deviations |",
        "|---|---|---|---|",
    ]
    for name, g in groups.items():
        if "absolute_errors" in g:
            errors = {n: e["value"] for n, e in g["absolute_errors"].items()}
            linear = ", ".join(f"{errors[n]:.3f}" for n in ("fx", "fy", "cx", "cy"))
            bent = ", ".join(f"{n} {value:.1e}" for n, value in errors.items() if n[0] in "kp")
            lines.append(f"| {name} | {linear} | {bent} | {_percent(g['within_2_std'])} |")
    lines += [
        "",
        "## Hand-eye",
        "",
        "20 poses, noise of 0.1 mm and 0.02° (standard deviation of each coordinate), intrinsics as calibrated above, "
        "target poses from rendered images. Mean error of the camera's pose. OpenCV's methods have the same poses.",
        "",
    ]
    with_arm = {name: g for name, g in groups.items() if SETUPS[0] in g}
    columns = [(name, setup) for name in with_arm for setup in SETUPS]
    lines += [
        "| method | " + " | ".join(f"{name.split()[-1]}, {setup}" for name, setup in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    methods = [m for m in next(iter(with_arm.values()))[SETUPS[0]] if m != "within_2_std"] if with_arm else []
    for method in methods:
        cells = []
        for name, setup in columns:
            figures = with_arm[name][setup][method]
            cells.append(f"{_figure(figures['mm'])} mm, {_figure(figures['degrees'])}°")
        lines.append(f"| {'**ours**' if method == 'ours' else f'OpenCV {method}'} | {' | '.join(cells)} |")
    inside = " | ".join(_percent(with_arm[name][setup]["within_2_std"]) for name, setup in columns)
    lines += [f"| ours, place within 2 standard deviations | {inside} |", ""]
    lines += ["**Aims.** " + " ".join(_aims(groups)), ""]
    return "\n".join(lines)


def _aims(groups: Mapping[str, Any]) -> list[str]:
    words = []
    for name, g in groups.items():
        met = _met(g["fresh_px"], HELD_OUT)
        words.append(f"{name}: fresh views ≤ {HELD_OUT} px {met} ({_percent(g['below_aim'])} of seeds).")
        for setup in SETUPS:
            if setup in g:
                ours = g[setup]["ours"]
                words.append(
                    f"{setup}: ≤ {PLACE} mm {_met(ours['mm'], PLACE)}, ≤ {TURN}° {_met(ours['degrees'], TURN)}."
                )
    return words


def _met(figure: Mapping[str, Any], aim: float) -> str:
    if figure["ci"][1] <= aim:
        return "met"
    return "met by the mean, not by its whole interval" if figure["value"] <= aim else "not met"


def _figure(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.3f} [{figure['ci'][0]:.3f}, {figure['ci'][1]:.3f}]"


def _percent(figure: Mapping[str, Any]) -> str:
    low, high = figure["ci"]
    return f"{100 * figure['value']:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
