"""How far the model's predictions can be trusted now."""

import json
import math
from collections import deque
from dataclasses import replace

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from worldpilot_msgs.msg import ActionProposals, PlannerStatus
from worldpilot_msgs.msg import PredictionError as PredictionErrorMsg
from worldpilot_msgs.srv import Recalibrate

from worldpilot.calibration.monitor import Monitor, proposal_spread
from worldpilot.calibration.thresholds import Thresholds, recalibrate
from worldpilot.errors import ArtifactError, InvalidInput, WorldpilotError
from worldpilot.planners.rewards import registry
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
    Thresholds hold for the rewards they were fitted under; under another one, alerts and diagnostics say so.
    """

    def __init__(self) -> None:
        super().__init__("uncertainty_monitor", params.UNCERTAINTY_MONITOR)

    def configure(self) -> None:
        artifact = load(self)
        self._spec = artifact.spec
        if artifact.thresholds is None:
            raise ArtifactError(f"{artifact.path} has no thresholds: run `worldpilot calibrate monitor` on it")
        self._monitor = Monitor(Thresholds.from_dict(artifact.thresholds), clear_s=self.params.clear_after)
        steps = round(self.params.memory / self._spec.action.control_dt)
        self._past: deque[tuple[PredictionError, str]] = deque(maxlen=steps)  # with the family of the reward in force
        self._reward_id, self._family = "", ""
        self._spread: tuple[float, float] | None = None  # of the proposals for the observation at a stamp [s]
        self._alert = Alert(0.0, AlertLevel.NOMINAL, "", 0.0, 0.0, 0.0, "nominal since start")
        self._alerts = self.publisher("alert")
        self._diagnostics = self.publisher("/diagnostics")
        self.subscription("prediction_error", self._judge)
        self.subscription("planner_status", self._hear_reward)
        if "spread" in self._monitor.thresholds.limits:
            self.subscription("proposals", self._hear_proposals)
        self.service(Recalibrate, "recalibrate", self._recalibrate)
        self.every(qos.PERIOD, self._beat)
        self.every(1.0, self._diagnose)

    def _judge(self, message: PredictionErrorMsg) -> None:
        error = self._with_spread(convert.prediction_error(message, self._spec))
        self._past.append((error, self._family))
        alert = self._monitor.update(error)
        if alert is not None:
            self._alert = replace(alert, message=alert.message + self._doubt())
            if alert.level == AlertLevel.NOMINAL:  # two calls: rclpy lets a call site log at one severity only
                self.get_logger().info(alert.message)
            else:
                self.get_logger().warning(alert.message)
            self._beat()
            self._diagnose()

    def _hear_reward(self, message: PlannerStatus) -> None:
        if message.reward_id != self._reward_id:
            self._reward_id, self._family = message.reward_id, ""
            try:
                self._family = registry.family(registry.parse_spec(message.reward_json)) if message.reward_json else ""
            except WorldpilotError as error:  # the planner's host may have plugins that this one lacks
                self._family = f"a reward that is not known here ({error})"

    def _doubt(self) -> str:
        """What is to be added to an alert if the thresholds were not fitted under the reward in force."""
        fitted = self._monitor.thresholds.rewards
        if not (self._family and fitted) or self._family in fitted:
            return ""
        return f"; the thresholds were not fitted under {self._family}, but under {' or '.join(fitted)}"

    def _hear_proposals(self, message: ActionProposals) -> None:
        spread = proposal_spread(convert.proposals(message, self._spec), self._spec.action)
        self._spread = convert.seconds(message.header.stamp), spread

    def _with_spread(self, error: PredictionError) -> PredictionError:
        """The error with the spread of the newest proposals, if they are at most a model step old."""
        longest = self._spec.action.control_dt * (self._spec.action.block + 0.5)
        if self._spread is None or not 0 <= error.stamp - self._spread[0] <= longest:
            return error
        return replace(error, spread=self._spread[1] / self._monitor.thresholds.scales["spread"])

    def _beat(self) -> None:
        self._alerts.publish(convert.alert_message(self._alert, self.now()))

    def _diagnose(self) -> None:
        limits, values = self._monitor.thresholds.limits, []
        for channel, score in self._monitor.scores.items():
            if math.isnan(score):  # a channel that nobody feeds
                continue
            limit = f" (threshold {limits[channel]:.4g})" if channel in limits else ""
            values.append(KeyValue(key=channel, value=f"{score:.4g}{limit}"))
        fitted, doubt = self._monitor.thresholds.rewards, self._doubt()
        values.append(KeyValue(key="reward in force", value=self._family))
        values.append(KeyValue(key="thresholds fitted under", value=", ".join(fitted) or "not recorded"))
        nominal = self._alert.level is AlertLevel.NOMINAL
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if nominal and doubt else _SEVERITY[self._alert.level],
            name=f"{self.get_name()}: prediction",
            message=self._alert.message if not nominal else self._alert.message + doubt,
            hardware_id=self._spec.model_id,
            values=values,
        )
        self._diagnostics.publish(DiagnosticArray(header=convert.header(self.now()), status=[status]))

    def _recalibrate(self, request: Recalibrate.Request, response: Recalibrate.Response) -> Recalibrate.Response:
        try:
            if not 0 < request.duration <= self.params.memory:
                raise InvalidInput(f"duration must be in (0, {self.params.memory}] s, got {request.duration}")
            since = self.now() - request.duration
            past = [entry for entry in self._past if entry[0].stamp >= since]
            families = sorted({family for _, family in past} - {""})
            thresholds = recalibrate([error for error, _ in past], self._monitor.thresholds, rewards=families)
            self._monitor = Monitor(thresholds, clear_s=self.params.clear_after)
            self._alert = Alert(self.now(), AlertLevel.NOMINAL, "", 0.0, 0.0, self.now(), "nominal since recalibration")
            response.success = True
            response.message = f"fitted to {len(past)} prediction errors of the last {request.duration:.0f} s"
        except WorldpilotError as refusal:
            response.message = str(refusal)
        response.thresholds_json = json.dumps(self._monitor.thresholds.to_dict())
        return response


def main() -> None:
    """Run the node."""
    run(UncertaintyMonitorNode)


if __name__ == "__main__":
    main()
