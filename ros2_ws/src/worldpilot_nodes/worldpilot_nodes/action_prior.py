"""What a competent operator might do next."""

from dataclasses import dataclass

import numpy as np
from worldpilot_msgs.msg import Latent, PlannerStatus

from worldpilot.errors import WorldpilotError
from worldpilot.history import HistoryBuffer
from worldpilot.types import FloatArray, History
from worldpilot_nodes import convert, params
from worldpilot_nodes.base import PilotNode, run
from worldpilot_nodes.model import load


@dataclass(frozen=True)
class _Asked:
    stamp: float  # [s], of the newest observation
    history: History
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
        self._target: dict[str, float] = {}
        self._since = 0  # observations since proposals were asked for
        self._proposals = self.publisher("proposals")
        self._worker = self.worker(self._propose, self._tell, self._refuse)
        if self.params.every:
            self._driver = self.driver(self._spec.action, self.params.delay)
            self.subscription("latent", self._see)
            self.subscription("planner_status", self._aim)

    def _aim(self, message: PlannerStatus) -> None:
        self._target = convert.signal_values(message.target)

    def _see(self, message: Latent) -> None:
        stamp = convert.seconds(message.header.stamp)
        in_force = self._driver(stamp, convert.taken(message, self._spec))
        self._history.push(convert.latent(message, self._spec), in_force, stamp)
        self._since += 1
        if self._since >= self.params.every:
            self._since = 0
            self._worker.submit(_Asked(stamp, self._history.history(self._spec.history), self._target))

    def _propose(self, asked: _Asked) -> FloatArray:
        return self._prior.propose(asked.history, self._count, self._rng, asked.target)

    def _tell(self, asked: _Asked, actions: FloatArray) -> None:
        self._proposals.publish(convert.proposals_message(actions, self._spec, asked.stamp))

    def _refuse(self, _: _Asked, error: WorldpilotError) -> None:
        self.get_logger().warning(f"no proposals: {error}", throttle_duration_sec=1.0)


def main() -> None:
    """Run the node."""
    run(ActionPriorNode)


if __name__ == "__main__":
    main()
