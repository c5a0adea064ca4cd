"""What a competent operator might do next."""

from dataclasses import dataclass

import numpy as np
from worldpilot_msgs.msg import Latent, PlannerStatus

from worldpilot.errors import WorldpilotError
from worldpilot.history import HistoryBuffer
from worldpilot.types import FloatArray
from worldpilot_nodes import convert, params
from worldpilot_nodes.base import InForce, PilotNode, run
from worldpilot_nodes.model import load


@dataclass(frozen=True)
class _Seen:
    stamp: float  # [s]
    latent: FloatArray  # (D,)
    previous_control: FloatArray  # (U,)
    target: dict[str, float]  # signals that the reward in force wants at a value


class ActionPriorNode(PilotNode):
    """`Latent` and the planner's target in, `ActionProposals` out."""

    def __init__(self) -> None:
        super().__init__("action_prior", params.ACTION_PRIOR)

    def configure(self) -> None:
        artifact = load(self)
        self._prior, self._spec = artifact.prior, artifact.spec
        self._count = self.params.count or artifact.manifest["proposals"]
        self._rng = np.random.default_rng(self.params.seed)
        self._history = HistoryBuffer(self._spec.action, depth=max(self._spec.history - 1, 1))
        self._driver = InForce(convert.check_command_fields(self.params.command_fields, self._spec.action.control_dim))
        self._target: dict[str, float] = {}
        self._proposals = self.publisher("proposals")
        self._worker = self.worker(self._propose, self._tell, self._refuse)
        self.subscription("latent", self._see)
        self.subscription("command", self._driver.update)
        self.subscription("planner_status", self._aim)

    def _aim(self, message: PlannerStatus) -> None:
        self._target = {signal.name: signal.value for signal in message.target}

    def _see(self, message: Latent) -> None:
        latent = convert.latent(message, self._spec)
        self._worker.submit(_Seen(convert.seconds(message.header.stamp), latent, self._driver(), self._target))

    def _propose(self, seen: _Seen) -> FloatArray:
        self._history.push(seen.latent, seen.previous_control, seen.stamp)
        return self._prior.propose(self._history.history(self._spec.history), self._count, self._rng, seen.target)

    def _tell(self, seen: _Seen, actions: FloatArray) -> None:
        self._proposals.publish(convert.proposals_message(actions, self._spec, seen.stamp))

    def _refuse(self, _: _Seen, error: WorldpilotError) -> None:
        self.get_logger().warning(f"no proposals: {error}", throttle_duration_sec=1.0)


def main() -> None:
    """Run the node."""
    run(ActionPriorNode)


if __name__ == "__main__":
    main()
