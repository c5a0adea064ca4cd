"""What happens in the demo, in order: a goal, two live swaps and a refused one, two faults. Needs the ROS environment.

The story talks to the running graph as any client would. Judgement is by the simulator's ground truth, which no
controller sees.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from worldpilot_nodes.client import Client, Reaching

from worldpilot.demo.goals import BLOCK_COLOUR, ELSEWHERE, GOAL, SWAP_EXPRESSION, SWAP_POSE, SWAP_REFUSED, TURNED
from worldpilot.demo.outcome import REACHED, Event, Outcome
from worldpilot.sim import geometry

Say = Callable[[str], None]


@dataclass(frozen=True)
class Timing:
    """How long each chapter may take [s]."""

    goal: float = 40.0
    swap: float = 25.0  # each of the two
    alert: float = 4.0  # from a fault to its alert
    recovery: float = 8.0  # from what ends a fault to a planner that goes on


class Story:
    """Tells the story to a graph that runs, once."""

    def __init__(self, client: Client, timing: Timing, say: Say) -> None:
        self._client, self._timing, self._say = client, timing, say
        self._outcome = Outcome()

    def tell(self) -> Outcome:
        """All chapters."""
        self._push_to_goal()
        self._swap("another pose", SWAP_POSE, ELSEWHERE)
        self._refused_swap()
        self._swap("turned by 90°", SWAP_EXPRESSION, TURNED)
        self._fault("teleport", "somebody moves the block")
        self._fault("recolour", "somebody paints the block", repair="the block gets its colour back")
        self._mark("end", "end", "the story is told")
        return self._outcome

    def _push_to_goal(self) -> None:
        limit, x, y, yaw = self._timing.goal, *map(float, GOAL)
        self._mark("goal", "goal", f"goal: x {x:.2f} m, y {y:.2f} m, yaw {np.degrees(yaw):.0f}°", GOAL)
        # Tolerances stricter than the overlap that ends the chapter; the swap that follows ends the action.
        reaching = self._client.reach_pose(x, y, yaw, tolerance=0.003, yaw_tolerance=0.03, timeout=limit + 10)
        best, took = self._watch(GOAL, limit, lambda: reaching.result is not None)
        self._outcome.goal = {
            "reached": best > REACHED,
            "best_overlap": round(best, 4),
            "seconds": round(took, 2),
            "by_the_model": self._by_the_model(reaching),
        }

    def _swap(self, label: str, spec: dict[str, Any], goal: geometry.Pose) -> None:
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
        best, took = self._watch(goal, self._timing.swap - (time.monotonic() - asked))
        swap |= {"best_overlap": round(best, 4), "reached": best > REACHED, "seconds": round(took, 2)}
        self._outcome.swaps.append(swap)

    def _refused_swap(self) -> None:
        self._mark("refused", "refused swap", f"a swap that must be refused: {SWAP_REFUSED['name']}")
        before = self._client.status.reward_id
        answer = self._client.swap_reward(SWAP_REFUSED)
        kept = answer.reward_id == before
        self._say(f"  refused: {answer.message}" if not answer.accepted else "  accepted, which it should not be")
        self._outcome.refused = {"refused": not answer.accepted, "message": answer.message, "old_reward_kept": kept}

    def _fault(self, name: str, text: str, repair: str = "") -> None:
        """Inject; wait for the alert, for the hold, for the planner to go on. A fault that lasts is repaired."""
        quiet = self._client.wait_until(self._goes_on, self._timing.recovery)
        self._mark("fault", name, f"{name}: {text}")
        injected = time.monotonic()
        self._client.inject_fault(name)
        raised = quiet and self._client.wait_until(lambda: self._client.alarmed, self._timing.alert)
        delay, alert = time.monotonic() - injected, self._client.alert
        held = raised and self._client.wait_until(lambda: self._client.held, 1.0)
        self._say(f"  alert after {delay:.2f} s: {alert.message}" if raised else "  no alert")
        if held:
            self._say(f"  planner holds: {self._client.status.reason}")
        wait = self._timing.alert if repair else self._timing.recovery
        recovered = held and self._client.wait_until(self._goes_on, wait)
        repaired = bool(repair) and not recovered
        if repaired:
            self._mark("repair", "repaired", repair)
            self._client.inject_fault("recolour", **dict(zip("rgb", BLOCK_COLOUR, strict=True)))
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

    def _watch(
        self, goal: geometry.Pose, seconds: float, over: Callable[[], bool] = lambda: False
    ) -> tuple[float, float]:
        """Print progress until the goal is covered, `over`, or time is up; returns best overlap and seconds taken."""
        start, best, next_line = time.monotonic(), 0.0, 0.0
        while True:
            seen = self._client.truth
            overlap, took = geometry.overlap(pose(seen), goal), time.monotonic() - start
            best = max(best, overlap)
            finished = best > REACHED or over() or took >= seconds
            if finished or took >= next_line:
                self._progress(took, overlap)
                next_line += 2.0
            if finished:
                break
            self._client.wait_until(lambda seen=seen: self._client.truth is not seen or over(), seconds - took)
        self._say(f"  {'covered' if best > REACHED else 'not covered'}: best overlap {best:.2f} in {took:.1f} s")
        return best, took

    def _progress(self, took: float, overlap: float) -> None:
        status = self._client.status
        state = "" if self._client.moves else f"  stands still: {status.reason}"
        numbers = f"overlap {overlap:.2f}  score {status.score:9.5f}  solve {status.solve_ms:5.1f} ms"
        self._say(f"  {took:5.1f} s  {numbers}{state}")

    def _goes_on(self) -> bool:
        """Whether the planner runs, the monitor has nothing against it, and predictions are being compared."""
        return self._client.moves and not self._client.alarmed and self._client.age("prediction_error") < 0.2

    def _mark(self, kind: str, label: str, text: str, goal: geometry.Pose | None = None) -> None:
        target = None if goal is None else (float(goal[0]), float(goal[1]), float(goal[2]))
        self._outcome.events.append(Event(time.time(), kind, label, text, target))
        self._say(text)

    def _by_the_model(self, reaching: Reaching) -> dict[str, Any]:
        """What ReachGoal itself made of it, from the latents alone."""
        newest = reaching.result or reaching.feedback
        if newest is None:
            return {"reached": False}
        return {
            "reached": reaching.result is not None and reaching.result.reached,
            "position_error_m": round(newest.position_error, 4),
            "yaw_error_rad": round(newest.yaw_error, 4),
        }


def pose(truth: Any) -> geometry.Pose:
    """The block's pose in a GroundTruth message, of shape (3,) [m, m, rad]."""
    signals = {signal.name: signal.value for signal in truth.signals}
    return np.array([signals["block_x"], signals["block_y"], signals["block_yaw"]])
