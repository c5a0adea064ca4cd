"""Another model for a graph that runs: its nodes are led through cleanup and configure, nothing is started again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from worldpilot_msgs.srv import ListRewards, SwapReward

from worldpilot.errors import ArtifactError, NotReady, RewardError, WorldpilotError
from worldpilot.models import signing
from worldpilot.models.artifact import Artifact
from worldpilot.planners.rewards import registry
from worldpilot.planners.rewards.base import RewardContext
from worldpilot_nodes.client import Client

NEEDED, OTHERS = ("world_model", "mpc"), ("action_prior", "uncertainty_monitor", "reasoning")
ORDER = ("world_model", *OTHERS, "mpc")  # in which they begin; they end the other way round, the planner first
CONFIGURE_WITHIN = 60.0  # [s]


@dataclass(frozen=True)
class _Node:
    """A node that has a model, as it was found."""

    name: str
    state: int  # lifecycle_msgs/State
    artifact: str  # its parameter


def use_model(client: Client, folder: Path) -> Artifact:
    """Give every node of the graph the model in `folder`; the reward in force stays in force.

    The robot is held meanwhile, and everything is checked before. If a node refuses the model, all go back to theirs.

    Raises:
        ArtifactError: the model is damaged, of another task, without thresholds for the monitor, or without the
            signature that the graph requires.
        RewardError, UnknownName: the reward in force, or a standing one, can't be built on it.
        NotReady: a node is missing, doesn't answer, or has refused the model.
    """
    artifact = Artifact.load(folder)
    if key := client.parameter("world_model", "public_key"):
        signing.require(folder, Path(key))
    present = [name for name in ORDER if client.has(ChangeState, f"{name}/change_state", 1.0) or name in NEEDED]
    nodes = [_find(client, name) for name in present]
    active = _check(client, artifact, nodes)
    _unload(client, nodes)
    try:
        for node in nodes:
            client.set_parameter(node.name, "artifact", str(folder.resolve()))
        _load(client, nodes, active)
    except WorldpilotError as error:
        _unload(client, nodes)
        for node in nodes:
            client.set_parameter(node.name, "artifact", node.artifact)
        _load(client, nodes, active)
        raise NotReady(f"{error}; the nodes have gone back to the model they had") from error
    return artifact


def _find(client: Client, name: str) -> _Node:
    state = client.call(GetState, f"{name}/get_state").current_state.id
    return _Node(name, state, client.parameter(name, "artifact"))


def _check(client: Client, artifact: Artifact, nodes: Sequence[_Node]) -> str:
    """Refuse what the nodes would refuse; returns the reward in force as JSON, empty if there is none."""
    task = client.parameter("mpc", "task")
    if artifact.spec.task != task:
        raise ArtifactError(f"{artifact.path} is for task {artifact.spec.task!r}, the graph runs {task!r}")
    if artifact.thresholds is None and any(node.name == "uncertainty_monitor" for node in nodes):
        raise ArtifactError(f"{artifact.path} has no thresholds: run `worldpilot calibrate monitor` on it")
    configured = any(node.name == "mpc" and node.state != State.PRIMARY_STATE_UNCONFIGURED for node in nodes)
    active = client.call(ListRewards, "mpc/list_rewards").active_json if configured else ""
    for spec in filter(None, (active, client.parameter("mpc", "standing_reward"))):
        registry.build(registry.parse_spec(spec), RewardContext(artifact.spec))
    return active


def _unload(client: Client, nodes: Sequence[_Node]) -> None:
    """Leave every node unconfigured, wherever in its life it is."""
    for node in reversed(nodes):
        state = client.call(GetState, f"{node.name}/get_state").current_state.id
        if state == State.PRIMARY_STATE_ACTIVE:
            _change(client, node.name, Transition.TRANSITION_DEACTIVATE)
        if state in (State.PRIMARY_STATE_ACTIVE, State.PRIMARY_STATE_INACTIVE):
            _change(client, node.name, Transition.TRANSITION_CLEANUP)


def _load(client: Client, nodes: Sequence[_Node], active: str) -> None:
    """Bring every node back to the state in which it was found, the planner with the reward that was in force."""
    for node in nodes:
        if node.state in (State.PRIMARY_STATE_ACTIVE, State.PRIMARY_STATE_INACTIVE):
            _change(client, node.name, Transition.TRANSITION_CONFIGURE)
    if active:
        answer = client.call(SwapReward, "mpc/swap_reward", spec_json=active)
        if not answer.accepted:
            raise RewardError(f"the reward in force: {answer.message}")
    for node in nodes:
        if node.state == State.PRIMARY_STATE_ACTIVE:
            _change(client, node.name, Transition.TRANSITION_ACTIVATE)


def _change(client: Client, name: str, transition: int) -> None:
    request = Transition(id=transition)
    if not client.call(ChangeState, f"{name}/change_state", timeout=CONFIGURE_WITHIN, transition=request).success:
        what = {Transition.TRANSITION_CONFIGURE: "be configured", Transition.TRANSITION_ACTIVATE: "be activated"}
        raise NotReady(f"{name} refused to {what.get(transition, 'let go of its model')}; its log says why")
