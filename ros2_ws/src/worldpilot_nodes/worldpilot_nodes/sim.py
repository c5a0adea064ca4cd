"""The simulated robot: camera and motor driver of a task's world, at real time."""

from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger
from worldpilot_msgs.msg import GroundTruth
from worldpilot_msgs.srv import InjectFault

from worldpilot import sim
from worldpilot.errors import WorldpilotError
from worldpilot_nodes import convert, params
from worldpilot_nodes.base import InForce, PilotNode, run


class SimNode(PilotNode):
    """Steps the world at the control rate under the newest command, and publishes what its camera sees.

    The step taken now covers the control period that just ended, so a command that answers the last image within that
    period is applied without delay. When the newest command is older than its lifespan, the robot stops by itself.
    """

    def __init__(self) -> None:
        super().__init__("sim", params.SIM)

    def configure(self) -> None:
        self._world = sim.make(self.params.task, randomise=self.params.randomise)
        self._spec = self._world.action
        self._seed, self._faults = self.params.seed, []
        self._world.reset(seed=self._seed)
        self.at_cleanup(self._world.close)
        self._driver = InForce(convert.check_command_fields(self.params.command_fields, self._spec.control_dim))
        self._elapsed = 0.0  # [s] of simulated time
        self._image = self.publisher("image")
        self._truth = self.publisher("ground_truth")
        self._time = self.publisher("/clock")
        self.subscription("command", self._driver.update)
        self.service(InjectFault, "inject_fault", self._inject)
        self.service(Trigger, "reset", self._reset)
        self.every(self._spec.control_dt, self._step)

    def _step(self) -> None:
        control = self._driver()
        self._world.drive(control)
        self._elapsed += self._spec.control_dt
        stamp = self._now()
        if self.params.publish_clock:
            self._time.publish(Clock(clock=convert.time(stamp)))
        image = self._world.observe().data
        self._image.publish(convert.image_message(image, stamp, self.params.camera_frame))
        self._truth.publish(
            GroundTruth(
                header=convert.header(stamp, self.params.command_frame),
                signals=convert.signals_message(self._world.signals(), {}),
                overlap=float(self._world.overlap()),
                control=control.tolist(),
                faults=self._faults,
            )
        )

    def _now(self) -> float:
        return self._elapsed if self.params.publish_clock else self.now()

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
        self._seed += 1
        self._world.reset(seed=self._seed)
        self._faults.clear()
        response.success, response.message = True, f"episode with seed {self._seed}"
        return response


def main() -> None:
    """Run the node."""
    run(SimNode)


if __name__ == "__main__":
    main()
