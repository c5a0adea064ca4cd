"""How far the model's predictions can be trusted now."""

import json
from collections import deque

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from worldpilot_msgs.msg import PredictionError as PredictionErrorMsg
from worldpilot_msgs.srv import Recalibrate

from worldpilot.calibration.monitor import Monitor
from worldpilot.calibration.thresholds import Thresholds, recalibrate
from worldpilot.errors import ArtifactError, InvalidInput, WorldpilotError
from worldpilot.types import Alert, AlertLevel, PredictionError
from worldpilot_nodes import convert, params, qos
from worldpilot_nodes.base import PilotNode, run
from worldpilot_nodes.model import load

_SEVERITY = {
    AlertLevel.NOMINAL: DiagnosticStatus.OK,
    AlertLevel.CAUTION: DiagnosticStatus.WARN,
    AlertLevel.HOLD: DiagnosticStatus.ERROR,
}


class UncertaintyMonitorNode(PilotNode):
    """`PredictionError` in, `Alert` and /diagnostics out.

    The alert in force is repeated each control period: it is the monitor's heartbeat, and the planner holds without it.
    """

    def __init__(self) -> None:
        super().__init__("uncertainty_monitor", params.UNCERTAINTY_MONITOR)

    def configure(self) -> None:
        artifact = load(self)
        self._spec = artifact.spec
        if artifact.thresholds is None:
            raise ArtifactError(f"{artifact.path} has no thresholds: run `worldpilot calibrate monitor` on it")
        self._monitor = Monitor(Thresholds.from_dict(artifact.thresholds), clear_s=self.params.clear_after)
        self._past: deque[PredictionError] = deque(maxlen=round(self.params.memory / self._spec.action.control_dt))
        self._alert = Alert(0.0, AlertLevel.NOMINAL, "", 0.0, 0.0, 0.0, "nominal since start")
        self._alerts = self.publisher("alert")
        self._diagnostics = self.publisher("/diagnostics")
        self.subscription("prediction_error", self._judge)
        self.service(Recalibrate, "recalibrate", self._recalibrate)
        self.every(qos.PERIOD, self._beat)
        self.every(1.0, self._diagnose)

    def _judge(self, message: PredictionErrorMsg) -> None:
        error = convert.prediction_error(message, self._spec)
        self._past.append(error)
        alert = self._monitor.update(error)
        if alert is not None:
            self._alert = alert
            if alert.level == AlertLevel.NOMINAL:  # two calls: rclpy lets a call site log at one severity only
                self.get_logger().info(alert.message)
            else:
                self.get_logger().warning(alert.message)
            self._beat()
            self._diagnose()

    def _beat(self) -> None:
        self._alerts.publish(convert.alert_message(self._alert, self.now()))

    def _diagnose(self) -> None:
        limits, values = self._monitor.thresholds.limits, []
        for channel, score in self._monitor.scores.items():
            limit = f" (threshold {limits[channel]:.4g})" if channel in limits else ""
            values.append(KeyValue(key=channel, value=f"{score:.4g}{limit}"))
        status = DiagnosticStatus(
            level=_SEVERITY[self._alert.level],
            name=f"{self.get_name()}: prediction",
            message=self._alert.message,
            hardware_id=self._spec.model_id,
            values=values,
        )
        self._diagnostics.publish(DiagnosticArray(header=convert.header(self.now()), status=[status]))

    def _recalibrate(self, request: Recalibrate.Request, response: Recalibrate.Response) -> Recalibrate.Response:
        try:
            if not 0 < request.duration <= self.params.memory:
                raise InvalidInput(f"duration must be in (0, {self.params.memory}] s, got {request.duration}")
            since = self.now() - request.duration
            recent = [error for error in self._past if error.stamp >= since]
            thresholds = recalibrate(recent, self._monitor.thresholds)
            self._monitor = Monitor(thresholds, clear_s=self.params.clear_after)
            self._alert = Alert(self.now(), AlertLevel.NOMINAL, "", 0.0, 0.0, self.now(), "nominal since recalibration")
            response.success = True
            response.message = f"fitted to {len(recent)} prediction errors of the last {request.duration:.0f} s"
        except WorldpilotError as refusal:
            response.message = str(refusal)
        response.thresholds_json = json.dumps(self._monitor.thresholds.to_dict())
        return response


def main() -> None:
    """Run the node."""
    run(UncertaintyMonitorNode)


if __name__ == "__main__":
    main()
