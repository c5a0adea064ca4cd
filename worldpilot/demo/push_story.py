"""The story of Push-T: a goal, two live swaps and a refused one, two faults. Needs the ROS environment."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from worldpilot_nodes import convert
from worldpilot_nodes.client import Reaching

from worldpilot.demo.goals import BLOCK_COLOUR, ELSEWHERE, GOAL, SWAP_EXPRESSION, SWAP_POSE, SWAP_REFUSED, TURNED
from worldpilot.demo.outcome import REACHED, Outcome, Pose
from worldpilot.demo.story import Repair, Story, Timing
from worldpilot.sim import geometry

TIMING = Timing(goal=40.0, swap=25.0)


class PushStory(Story):
    """The block is brought to one goal after another, then moved and painted."""

    def tell(self) -> Outcome:
        self._push_to_goal()
        self._push_on("another pose", SWAP_POSE, ELSEWHERE)
        self._refused_swap(SWAP_REFUSED)
        self._push_on("turned by 90°", SWAP_EXPRESSION, TURNED)
        self._fault("teleport", "somebody moves the block")
        colour = dict(zip("rgb", BLOCK_COLOUR, strict=True))
        self._fault(
            "recolour", "somebody paints the block", Repair("the block gets its colour back", "recolour", colour)
        )
        self._mark("end", "end", "the story is told")
        return self._outcome

    def _push_to_goal(self) -> None:
        limit, x, y, yaw = self._timing.goal, *map(float, GOAL)
        self._mark("goal", "goal", f"goal: x {x:.2f} m, y {y:.2f} m, yaw {np.degrees(yaw):.0f}°", as_pose(GOAL))
        # Tolerances stricter than the overlap that ends the chapter; the swap that follows ends the action.
        reaching = self._client.reach_pose(x, y, yaw, tolerance=0.003, yaw_tolerance=0.03, timeout=limit + 10)
        best, took = self._watch(GOAL, limit, lambda: reaching.result is not None)
        self._outcome.goal = {
            "reached": best > REACHED,
            "best_overlap": round(best, 4),
            "seconds": round(took, 2),
            "by_the_model": self._by_the_model(reaching),
        }

    def _push_on(self, label: str, spec: dict[str, Any], goal: geometry.Pose) -> None:
        swap, asked = self._swap(label, spec, as_pose(goal))
        best, took = self._watch(goal, self._timing.swap - (time.monotonic() - asked))
        swap |= {"best_overlap": round(best, 4), "reached": best > REACHED, "seconds": round(took, 2)}

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
    signals = convert.signal_values(truth.signals)
    return np.array([signals["block_x"], signals["block_y"], signals["block_yaw"]])


def as_pose(goal: geometry.Pose) -> Pose:
    """A pose of shape (3,) as three numbers."""
    return float(goal[0]), float(goal[1]), float(goal[2])


STORY = PushStory
