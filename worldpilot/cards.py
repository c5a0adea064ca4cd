"""Model cards: a page for each shipped artifact, all of it from its manifest, so that no page says what is not so."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldpilot.calibration import certificate
from worldpilot.models import artifact
from worldpilot.models.language.weights import SHIPPED, verify_weights

INDEX = "README.md"
_LANGUAGE = {folder.name: folder for folder in SHIPPED.values()}


def names() -> list[str]:
    """Of all that is shipped."""
    return artifact.zoo_names() + sorted(name for name, folder in _LANGUAGE.items() if folder.is_dir())


def card(name: str) -> str:
    """The page of a shipped artifact or of shipped language weights.

    Raises:
        ArtifactError: it is not there, or is not what its manifest says.
    """
    if name in _LANGUAGE:
        return _language_card(name, verify_weights(_LANGUAGE[name]))
    return artifact_card(name, artifact.verify(artifact.zoo_path(name)))


def index(folder: Path) -> str:
    """The page that lists the cards in a folder."""
    cards = sorted(path for path in folder.glob("*.md") if path.name != INDEX)
    rows = [f"- [{path.stem}]({path.name})" for path in cards]
    return _page(
        "# Model cards",
        "One page a shipped artifact, made from its manifest by `worldpilot models card`, and again whenever the\n"
        "manifest changes; a test compares them.",
        "\n".join(rows),
    )


def artifact_card(name: str, manifest: Mapping[str, Any]) -> str:
    """The page of a manifest; the artifact that a task uses is named as the task."""
    task, observation, action = manifest["task"], manifest["observation"], manifest["action"]
    shape = " × ".join(map(str, observation["shape"]))
    step = action["control_dt"] * action["block"]
    facts = {
        "model": f"`{manifest['model_id']}`, exported {manifest['created']}",
        "observes": f"{observation['kind']}, {shape} {observation['dtype']}, {observation['encoding']}",
        "controls": f"{len(action['names'])} every {action['control_dt']:g} s",
        "model step": f"{action['block']} controls, {step:g} s",
        "latent": f"{manifest['latent_dim']} numbers; history of {manifest['history']} steps",
        "horizon": f"{manifest['horizon']} model steps, {manifest['horizon'] * step:g} s",
        "ensemble": f"{manifest['members']} {'samples' if manifest.get('sampled') else 'members'}",
        "proposals": f"{manifest['proposals']}{', towards a goal' if manifest.get('goal_conditioned') else ''}",
    }
    sections = [
        f"# {name}",
        manifest.get("description") or f"A world model and an action prior for the task `{task}`.",
        _table(("", ""), facts.items()),
        "## Controls",
        _table(
            ("name", "unit", "low", "high", "largest change a second"),
            zip(*(action[part] for part in ("names", "units", "low", "high", "max_rate")), strict=True),
        ),
        "## Signals",
        "What can be read from a latent, with R² on held-out episodes: a reward over a signal is as good as that.",
        _table(
            ("name", "unit", "R²", ""),
            ((s["name"], s["unit"], f"{s['r2']:.4f}", s.get("description", "")) for s in manifest["signals"]),
        ),
        "## Training",
        _provenance(manifest["provenance"]),
        "## Figures",
        _table(("", "value", "n", "interval"), _figures(manifest["metrics"])),
        "## Monitor",
        _monitor(manifest["thresholds"]),
        "## Certificate",
        _certificate(name, task, manifest["certificate"]),
        "## Files",
        _table(
            ("graph", "size", "SHA-256"),
            ((g["file"], f"{g['bytes'] / 1e6:.2f} MB", f"`{g['sha256']}`") for g in manifest["graphs"].values()),
        ),
        "## What it is not for",
        "It was trained and measured in simulation, and on nothing else. Figures, thresholds and certificate hold for\n"
        "the worlds and behaviours named above. It is a research model; no part of it is a certified safety function.",
    ]
    return _page(*sections)


def _language_card(name: str, manifest: Mapping[str, Any]) -> str:
    known = ("format", "kind", "file", "sha256", "command", "seed", "metrics", "libraries", "data")
    facts = {
        "kind": manifest["kind"],
        "file": f"{manifest['file']}, SHA-256 `{manifest['sha256']}`",
        **{
            key: ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
            for key, value in manifest.items()
            if key not in known
        },
    }
    return _page(
        f"# {name}",
        "Weights of the reasoning service ([how it is used](../tutorials/instructions.md),\n"
        "[how often it is right](../results/language.md)).",
        _table(("", ""), facts.items()),
        "## Training",
        _provenance({**manifest, "commands": [manifest["command"]]}),
        "## Figures",
        _table(("", "value"), _flat(manifest.get("metrics", {}))),
        "## What it is not for",
        "It turns instructions into rewards, which are checked as any other reward is. It is no general assistant,\n"
        "and what it says of itself or of the world is not to be relied on.",
    )


def _provenance(about: Mapping[str, Any]) -> str:
    data = about.get("data", "")
    rows = {
        "data": ", ".join(f"{v} {k}" for k, v in data.items()) if isinstance(data, Mapping) else data,
        "data's SHA-256": f"`{about['data_sha256']}`" if "data_sha256" in about else "",
        "seed": about["seed"],
        "made by": "<br>".join(f"`{command}`" for command in about["commands"]),
        "adapted from": f"`{about['adapted_from']['model_id']}`" if "adapted_from" in about else "",
        "with": ", ".join(f"{library} {version}" for library, version in about.get("libraries", {}).items()),
    }
    return _table(("", ""), ((name, value) for name, value in rows.items() if value != ""))


def _figures(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for name, figure in metrics.items():
        low_high = " to ".join(f"{end:.4g}" for end in figure["ci"]) if "ci" in figure else ""
        yield name, f"{figure['value']:.4g}", str(figure["n"]), low_high


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield prefix + name, f"{value:.4g}" if isinstance(value, float) else str(value)


def _monitor(thresholds: Mapping[str, Any] | None) -> str:
    if thresholds is None:
        return "It has no thresholds: calibrate it before the monitor is used."
    limits = ", ".join(f"{channel} {limit:.4g}" for channel, limit in thresholds["limits"].items())
    return (
        f"Thresholds from {thresholds['episodes']} good episodes of {', '.join(thresholds['behaviours'])}: at most\n"
        f"{thresholds['alpha']:.0%} of such episodes raise a false alarm. Limits, in medians of good steps: {limits}."
    )


def _certificate(name: str, task: str, content: Mapping[str, Any] | None) -> str:
    command = f"worldpilot certify {task}" + ("" if name == task else f" --artifact models/zoo/{name}")
    if content is None:
        return f"There is none; `{command}` makes one."
    behaviours = ", ".join(f"{count} of {behaviour}" for behaviour, count in content["data"]["behaviours"].items())
    lines = "\n".join(f"- {line}" for line in certificate.describe(content))
    return (
        "Of the prediction error in units of its scale, clipped at 1, for a new episode of the same behaviours\n"
        f"({behaviours}). `{command} --check` checks it;\n"
        "[what it means](../tutorials/certificates.md).\n\n"
        f"{lines}"
    )


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [" | ".join(str(cell).replace("|", "\\|") for cell in row) for row in rows]
    if not lines:
        return "None."
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {line} |" for line in lines)])


def _page(*sections: str) -> str:
    return "\n\n".join(sections) + "\n"
