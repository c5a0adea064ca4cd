"""What is shown of a run, task by task: the video, the plots, and what a goal or a swap came to, in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldpilot.demo import gait_plots, gait_video, plots, video
from worldpilot.demo.outcome import REACHED, RUNS, Event
from worldpilot.demo.recording import Recording

Draw = Callable[[Path, Recording, Sequence[Event]], None]


@dataclass(frozen=True)
class Picture:
    """A plot of the report: written as `<name>.png`."""

    name: str
    title: str
    text: str
    draw: Draw


@dataclass(frozen=True)
class Show:
    """How a task's run is shown."""

    write_video: Callable[[Path, Recording, Sequence[Event]], int]
    seen: str  # what the video shows
    pictures: tuple[Picture, ...]
    goal: Callable[[Mapping[str, Any]], str]  # what became of the first goal
    reached: str  # when it counts as reached
    swap: Callable[[Mapping[str, Any]], str]  # what a swapped reward led to
    swap_heading: str


def _push_goal(goal: Mapping[str, Any]) -> str:
    return f"best overlap {goal['best_overlap']:.2f} in {goal['seconds']:.0f} s"


def _push_swap(swap: Mapping[str, Any]) -> str:
    return f"{swap['best_overlap']:.2f} in {swap['seconds']} s"


def _gait_goal(goal: Mapping[str, Any]) -> str:
    return f"{goal['forward_velocity']:.2f} m/s, {goal['falls']} falls in {goal['seconds']:.0f} s"


def _gait_swap(swap: Mapping[str, Any]) -> str:
    moved = (
        ""
        if swap["reached"] and swap["kept"]
        else ", NOT AS ASKED"
        if not swap["reached"]
        else ", NOT WITHIN ITS BOUNDS"
    )
    change = f"{swap['before']:.2f} to {swap['value']:.2f} {swap['unit']}"
    return f"{swap['quantity']} {change} ({swap['direction']} was asked{moved}), {swap['falls']} falls"


SHOWS = {
    "push_t": Show(
        write_video=video.write_video,
        seen="Left: the camera, with the goal's outline.",
        pictures=(Picture("overlap", "Overlap", "Share of the goal covered by the block.", plots.plot_overlap),),
        goal=_push_goal,
        reached=f"more than {REACHED} by the simulator's ground truth",
        swap=_push_swap,
        swap_heading="best overlap with its goal",
    ),
    "quadruped": Show(
        write_video=gait_video.write_video,
        seen="Left: the robot, drawn from the recorded states. Right: which feet were on the ground in the last 2 s, "
        "and how it moves.",
        pictures=(
            Picture("gait", "Gait diagram", "The last two seconds of each chapter.", gait_plots.plot_gaits),
            Picture("motion", "Motion", "By the simulator's ground truth.", gait_plots.plot_motion),
        ),
        goal=_gait_goal,
        reached=f"more than {RUNS} m/s without a fall, by the simulator's ground truth",
        swap=_gait_swap,
        swap_heading="what it asks for, before and after",
    ),
}
