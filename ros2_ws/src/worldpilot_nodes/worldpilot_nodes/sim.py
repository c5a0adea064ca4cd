"""The simulated robot: sensors and motor driver of a task's world, at real time."""

import math
from pathlib import Path
from typing import Any

from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from worldpilot_msgs.msg import GroundTruth, State
from worldpilot_msgs.srv import InjectFault

from worldpilot.errors import WorldpilotError
from worldpilot.sim import tasks
from worldpilot.system import System
from worldpilot.types import FloatArray
from worldpilot_nodes import convert, params
from worldpilot_nodes.base import PilotNode, run


class SimNode(PilotNode):
    """Steps the world at the control rate under the newest command, and publishes what its sensors say.

    The step taken now covers the control period that just ended, so a command that answers the last observation within
    that period is applied without delay, or as late as the system file says. When the newest command is older than its
    lifespan, the robot stops by itself.
    """

    def __init__(self) -> None:
        super().__init__("sim", params.SIM)

    def configure(self) -> None:
        task = tasks.task(self.params.task)
        made = {"system": System.load(Path(self.params.system), self.params.task)} if self.params.system else {}
        self._world: Any = task.world(randomise=self.params.randomise, **made)
        self.at_cleanup(self._world.close)
        self._spec, self._state = task.action, list(task.state)
        self._seed, self._faults = self.params.seed, []
        self._world.reset(seed=self._seed)
        self._elapsed = 0.0  # [s] of simulated time
        self._ended = 0.0  # [s] since the robot has fallen
        self._observed = self.publisher("state" if self._state else "image")
        self._truth = self.publisher("ground_truth")
        self._time = self.publisher("/clock")
        self._driver = self.driver(self._spec)
        self.service(InjectFault, "inject_fault", self._inject)
        self.service(Trigger, "reset", self._reset)
        self._timer = self.every(self._spec.control_dt, self._step)

    def _step(self) -> None:
        self._elapsed += self._spec.control_dt
        stamp = self._stamp()
        control = self._driver(stamp)
        self._world.drive(control)
        if self.params.publish_clock:
            self._time.publish(Clock(clock=convert.time(stamp)))
        self._observed.publish(self._observation(stamp, control))
        self._truth.publish(
            GroundTruth(
                header=convert.header(stamp, self.params.command_frame),
                signals=convert.signals_message(self._world.signals(), {}),
                overlap=float(self._world.outcome().get("overlap", math.nan)),
                control=control.tolist(),
                faults=self._faults,
            )
        )
        self._ended = self._ended + self._spec.control_dt if self._world.ended else 0.0
        if 0 < self.params.reset_after <= self._ended:
            self._begin_episode()

    def _stamp(self) -> float:
        """Of the step just taken: when it was due, so that a busy machine's jitter is not in the stamps."""
        if self.params.publish_clock:
            return self._elapsed
        return self.now() - self._spec.control_dt + 1e-9 * self._timer.time_until_next_call()

    def _observation(self, stamp: float, control: FloatArray) -> Image | State:
        data = self._world.observe().data
        if self._state:
            return convert.state_message(data, self._state, stamp, self.params.command_frame, control)
        return convert.image_message(data, stamp, self.params.camera_frame)

    def _inject(self, request: InjectFault.Request, response: InjectFault.Response) -> InjectFault.Response:
        try:
            if request.name:
                self._world.inject(request.name, **convert.settings(request.params_json))
                self._faults.append(request.name)
            else:
                self._world.clear_faults()
                self._faults.clear()
            response.success, response.message = True, f"faults since the last reset: {self._faults}"
        except WorldpilotError as error:
            response.success, response.message = False, str(error)
        return response

    def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._begin_episode()
        response.success, response.message = True, f"episode with seed {self._seed}"
        return response

    def _begin_episode(self) -> None:
        self._seed += 1
        self._world.reset(seed=self._seed)
        self._faults.clear()
        self._ended = 0.0


def main() -> None:
    """Run the node."""
    run(SimNode)


if __name__ == "__main__":
    main()
