"""What the stories of all tasks are told with: marks, live swaps, a swap that must be refused, faults. Needs ROS.

A story talks to the running graph as any client would. Judgement is by the simulator's ground truth, which no
controller sees.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from worldpilot_nodes.client import Client

from worldpilot.demo.outcome import Event, Outcome, Pose

Say = Callable[[str], None]


@dataclass(frozen=True)
class Timing:
    """How long each chapter may take [s]."""

    goal: float
    swap: float  # each of them
    alert: float = 4.0  # from a fault to its alert
    recovery: float = 8.0  # from what ends a fault to a planner that goes on


@dataclass(frozen=True)
class Repair:
    """How a fault that lasts is ended: another fault, or none; and what that is called."""

    text: str
    fault: str = ""
    params: Mapping[str, float] | None = None


class Story:
    """Told once, to a graph that runs. Each task has its own, made of these chapters."""

    def __init__(self, client: Client, timing: Timing, say: Say) -> None:
        self._client, self._timing, self._say = client, timing, say
        self._outcome = Outcome()

    def tell(self) -> Outcome:
        """All chapters."""
        raise NotImplementedError

    def _swap(self, label: str, spec: dict[str, Any], goal: Pose | None = None) -> tuple[dict[str, Any], float]:
        """Swap the reward while the robot moves; returns what came of it, and when it was asked [s, monotonic]."""
        before, was_running = self._client.status, self._client.moves
        self._mark("swap", f"swap: {label}", f"live swap: {spec['name']}", goal)
        asked = time.monotonic()
        answer = self._client.swap_reward(spec)
        answered = time.monotonic()
        in_force = answer.accepted and self._client.wait_until(
            lambda: (
                self._client.status.reward_id == answer.reward_id and self._client.status.tick >= answer.in_force_tick
            ),
            2.0,
        )
        planned = time.monotonic()
        swap = {
            "name": spec["name"],
            "spec": spec,
            "accepted": bool(answer.accepted),
            "message": answer.message,
            "latency_ms": round(1e3 * (answered - asked), 2),
            "planner_latency_ms": round(answer.latency_ms, 2),
            "in_force_after_ms": round(1e3 * (planned - asked), 1) if in_force else None,
            "was_running": was_running,
        }
        if answer.accepted:
            self._say(f"  accepted in {swap['latency_ms']:.1f} ms, in force at tick {answer.in_force_tick}")
        else:
            self._say(f"  refused: {answer.message}")
        self._client.wait_until(lambda: self._client.status.tick >= before.tick + 10, 1.5)
        swap["missed_ticks"] = int(self._client.status.missed_ticks - before.missed_ticks)
        self._outcome.swaps.append(swap)
        return swap, asked

    def _refused_swap(self, spec: dict[str, Any]) -> None:
        self._mark("refused", "refused swap", f"a swap that must be refused: {spec['name']}")
        before = self._client.status.reward_id
        answer = self._client.swap_reward(spec)
        kept = answer.reward_id == before
        self._say(f"  refused: {answer.message}" if not answer.accepted else "  accepted, which it should not be")
        self._outcome.refused = {"refused": not answer.accepted, "message": answer.message, "old_reward_kept": kept}

    def _fault(self, name: str, text: str, repair: Repair | None = None, **params: float) -> None:
        """Inject; wait for the alert, for the hold, for the planner to go on. A fault that lasts is repaired."""
        quiet = self._client.wait_until(self._goes_on, self._timing.recovery)
        self._mark("fault", name, f"{name}: {text}")
        injected = time.monotonic()
        self._client.inject_fault(name, **params)
        raised = quiet and self._client.wait_until(lambda: self._client.alarmed, self._timing.alert)
        delay, alert = time.monotonic() - injected, self._client.alert
        held = raised and self._client.wait_until(lambda: self._client.held, 1.0)
        self._say(f"  alert after {delay:.2f} s: {alert.message}" if raised else "  no alert")
        if held:
            self._say(f"  planner holds: {self._client.status.reason}")
        wait = self._timing.alert if repair else self._timing.recovery
        recovered = held and self._client.wait_until(self._goes_on, wait)
        repaired = repair is not None and not recovered
        if repair is not None and repaired:
            self._mark("repair", "repaired", repair.text)
            self._client.inject_fault(repair.fault, **(repair.params or {}))
            recovered = held and self._client.wait_until(self._goes_on, self._timing.recovery)
        after = time.monotonic() - injected
        if held:
            self._say(f"  planner goes on {after:.1f} s after the fault" if recovered else "  planner is still held")
        self._client.wait_until(lambda: False, 1.0)  # so that the recording shows what came after
        self._outcome.faults.append(
            {
                "fault": name,
                "was_running": quiet,
                "raised": raised,
                "delay_s": round(delay, 3) if raised else None,
                "message": alert.message if raised else "",
                "held": held,
                "recovered": recovered,
                "repaired": repaired,
                "recovered_after_s": round(after, 2) if recovered else None,
            }
        )

    def _goes_on(self) -> bool:
        """Whether the planner runs, the monitor has nothing against it, and predictions are being compared."""
        return self._client.moves and not self._client.alarmed and self._client.age("prediction_error") < 0.2

    def _mark(self, kind: str, label: str, text: str, goal: Pose | None = None) -> None:
        self._outcome.events.append(Event(time.time(), kind, label, text, goal))
        self._say(text)
