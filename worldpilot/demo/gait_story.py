"""The story of the quadruped: it runs, rewards nobody trained for are swapped in, a joint grows weak. Needs ROS."""

import time
from typing import Any

import numpy as np
from worldpilot_nodes import convert

from worldpilot.demo.outcome import RUNS, Outcome
from worldpilot.demo.story import Repair, Story, Timing
from worldpilot.evaluation import asked
from worldpilot.planners.rewards.registry import to_dict
from worldpilot.sim.quadruped import ACTION, ROBOT
from worldpilot.types import FloatArray

TIMING = Timing(goal=8.0, swap=7.0, alert=6.0)
SWAPS = ("slow", "turn_left", "crouch_run", "stop")  # of the novel rewards, in this order
REFUSED: dict[str, Any] = {
    "name": "a signal that the model does not have",
    "terms": [{"plugin": "expression", "params": {"expression": "-abs(battery - 1)"}}],
}
WEAK = {"joint": ACTION.names.index("rl_knee"), "fraction": 0.05}
_SETTLE = 1.0  # [s] of a chapter that is not measured: the robot is on its way from one motion to the next

Signals = dict[str, FloatArray]


class GaitStory(Story):
    """Each chapter is judged by the quantity that its reward asks for, beside what it was in the first."""

    _first = ""  # the reward that the graph began with, JSON

    def tell(self) -> Outcome:
        rewards = asked.load().select(SWAPS)
        run = self._run()
        for i, reward in enumerate(rewards):
            self._move(reward, run)
            if i == 0:
                self._refused_swap(REFUSED)
        self._run_again()
        text = f"the joint {ACTION.names[WEAK['joint']]} is left {WEAK['fraction']:.0%} of its torque"
        self._fault("weak_joint", text, Repair("the joint is repaired"), **WEAK)
        self._mark("end", "end", "the story is told")
        return self._outcome

    def _run(self) -> Signals:
        """Run forward, as the graph's parameters say; returns what was measured."""
        self._client.wait_until(self._goes_on, self._timing.recovery)
        self._mark("goal", "run", "run forward")
        self._first = self._client.status.reward_json
        signals, falls = self._watch(self._timing.goal)
        speed = _mean("forward_velocity", signals)
        self._say(f"  {speed:.2f} m/s, {falls} falls")
        self._outcome.goal = {
            "reached": speed > RUNS and falls == 0,
            "forward_velocity": round(speed, 3),
            "falls": falls,
            "seconds": round(self._timing.goal, 2),
        }
        return signals

    def _move(self, wanted: asked.Asked, run: Signals) -> None:
        """Swap a reward in, and see whether the quantity that it asks for moves as asked, from what it was before."""
        self._client.wait_until(self._goes_on, self._timing.recovery)
        swap, begun = self._swap(wanted.name.replace("_", " "), to_dict(wanted.reward))
        signals, falls = self._watch(self._timing.swap - (time.monotonic() - begun))
        before, value = _mean(wanted.quantity, run), _mean(wanted.quantity, signals)
        swap |= {
            "quantity": wanted.quantity,
            "unit": wanted.unit,
            "direction": wanted.direction,
            "before": round(before, 3),
            "value": round(value, 3),
            "reached": bool(value > before if wanted.direction == "higher" else value < before),
            "kept": all(keep.holds(_mean(keep.quantity, signals)) for keep in wanted.keeps),
            "falls": falls,
            "seconds": round(time.monotonic() - begun, 2),
        }
        moved = "moves as asked" if swap["reached"] else "DOES NOT MOVE AS ASKED"
        self._say(f"  {moved}: {wanted.quantity} {before:.2f} -> {value:.2f} {wanted.unit}, {falls} falls")

    def _run_again(self) -> None:
        self._mark("goal", "run", "run forward again")
        self._client.swap_reward(self._first)
        self._client.wait_until(lambda: self._speed() > RUNS, 10.0)

    def _watch(self, seconds: float) -> tuple[Signals, int]:
        """What the world did, name -> (T,), without the first second and the time on the ground; and the falls."""
        start, rows, falls, down, next_line = time.monotonic(), [], 0, False, 2.0
        while (took := time.monotonic() - start) < seconds:
            seen = self._client.truth
            row = convert.signal_values(seen.signals)
            falls += row["fallen"] > 0 and not down
            down = row["fallen"] > 0
            if took > _SETTLE and not down:
                rows.append(row)
            if took >= next_line:
                self._progress(took, row)
                next_line += 2.0
            self._client.wait_until(lambda seen=seen: self._client.truth is not seen, seconds - took)
        return {name: np.array([row[name] for row in rows], np.float32) for name in ROBOT.signals}, falls

    def _speed(self) -> float:
        """Forwards, now [m/s]."""
        return convert.signal_values(self._client.truth.signals)["forward_velocity"]

    def _progress(self, took: float, row: dict[str, float]) -> None:
        status = self._client.status
        state = "" if self._client.moves else f"  stands: {status.reason}"
        motion = f"{row['forward_velocity']:5.2f} m/s  height {row['height']:.2f} m  turns {row['yaw_rate']:5.2f} rad/s"
        self._say(f"  {took:5.1f} s  {motion}  solve {status.solve_ms:5.1f} ms{state}")


def _mean(quantity: str, signals: Signals) -> float:
    """NaN if the robot was never on its feet."""
    return asked.mean(quantity, signals, ROBOT.signals) if len(signals["height"]) else float("nan")


STORY = GaitStory
