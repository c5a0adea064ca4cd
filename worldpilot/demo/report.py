"""What a run leaves: `report.json` for programs, `report.html` for people, and what they show."""

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from worldpilot.demo.outcome import Event, Outcome
from worldpilot.demo.plots import alarms, plot_surprise
from worldpilot.demo.recording import Recording
from worldpilot.demo.shows import SHOWS, Show

RECORDING, VIDEO = "recording.mcap", "video.webm"
_RUNNING = 1  # PlannerStatus.RUNNING


def write(folder: Path, outcome: Outcome, facts: dict[str, Any], threshold: float | None) -> dict[str, Any]:
    """Read the recording in `folder`, write video, plots, report.json and report.html beside it; returns the report.

    Args:
        folder: the run's.
        outcome: what the story measured.
        facts: what only the caller knows: task, seed, model_id, version, started, duration_s, restarts, orphans.
        threshold: the monitor's, of the surprise; None if the model has none.

    Raises:
        InvalidInput: the recording can't be read.
    """
    recording, show = Recording.load(folder / RECORDING), SHOWS[facts["task"]]
    frames = show.write_video(folder / VIDEO, recording, outcome.events)
    plot_surprise(folder / "surprise.png", recording, threshold, outcome.events)
    for picture in show.pictures:
        picture.draw(folder / f"{picture.name}.png", recording, outcome.events)
    report = summarise(outcome, recording) | {"video": VIDEO, "video_frames": frames, "recording": RECORDING} | facts
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (folder / "report.html").write_text(render(report, folder, show, seen(recording, show)))
    return report


def summarise(outcome: Outcome, recording: Recording) -> dict[str, Any]:
    """The figures of a run. Swaps and alerts count as worked only if every one of them did."""
    swaps, faults = outcome.swaps, outcome.faults
    delays = [fault["delay_s"] for fault in faults if fault["raised"]]
    planned = [status for _, status in recording.status if status.state == _RUNNING]
    solve_ms = np.array([status.solve_ms for status in planned] or [np.nan])
    missed = [status.missed_ticks for _, status in recording.status]
    return {
        "goal_reached": outcome.goal["reached"],
        "goal": outcome.goal,
        "swap": {
            "accepted": all(swap["accepted"] for swap in swaps),
            "latency_ms": max(swap["latency_ms"] for swap in swaps),
            "missed_ticks": sum(swap["missed_ticks"] for swap in swaps),
            "swaps": swaps,
            "refused": outcome.refused,
        },
        "alert": {
            "raised": all(fault["raised"] for fault in faults),
            "delay_s": max(delays) if delays else None,
            "held": all(fault["held"] for fault in faults),
            "recovered": all(fault["recovered"] for fault in faults),
            "unprovoked": unprovoked(recording, outcome.events),
            "faults": faults,
        },
        "solve_ms": {
            "p50": round(float(np.percentile(solve_ms, 50)), 2),
            "p99": round(float(np.percentile(solve_ms, 99)), 2),
            "n": len(planned),
        },
        "missed_ticks": int(missed[-1] - missed[0]) if missed else 0,
        "topics": dict(sorted(recording.counts.items())),
    }


def unprovoked(recording: Recording, events: Sequence[Event]) -> int:
    """How often the monitor said hold while the story was told and before its first fault."""
    first = next((event.stamp for event in events if event.kind == "fault"), events[-1].stamp)
    return sum(events[0].stamp <= begin < first for begin, _ in alarms(recording))


def seen(recording: Recording, show: Show) -> str:
    """What the video shows."""
    if not recording.images:
        return show.seen
    imagined = "what the model had imagined for this moment, 0.5 s before"
    return f"{show.seen} Right: {imagined if recording.imagined else 'what was read from the latent'}."


def render(report: dict[str, Any], folder: Path, show: Show, seen: str) -> str:
    """The page: one file with its images in it; video and recording lie beside it."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("worldpilot.demo") / "report.html.j2").read_text("utf-8"))
    images = {name: _inline(folder / f"{name}.png") for name in ("surprise", *(p.name for p in show.pictures))}
    specs = json.dumps([swap["spec"] for swap in report["swap"]["swaps"]], indent=2)
    return template.render(report=report, images=images, show=show, seen=seen, specs=specs)


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
