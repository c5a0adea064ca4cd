"""A running graph takes another model by a lifecycle cycle: no process ends, the reward in force stays, errors undo."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from worldpilot_msgs.msg import PlannerStatus
from worldpilot_nodes.client import Client
from worldpilot_nodes.use_model import use_model

from tests.integration.graph.conftest import with_thresholds
from worldpilot.errors import ArtifactError, NotReady, RewardError
from worldpilot.models.artifact import Artifact

SLOW = {"name": "slow", "terms": [{"plugin": "expression", "params": {"expression": "-abs(forward_velocity - 0.2)"}}]}


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    """A tests/support/tiny_legged.py of one's own: its horizon is changed here."""
    path = Path(__file__).parents[2] / "support" / "tiny_legged.py"
    spec = importlib.util.spec_from_file_location("tiny_legged_of_use_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def another(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same robot."""
    folder = tmp_path_factory.mktemp("another")
    return with_thresholds(builder.build(folder / "bare", seed=1), folder / "quadruped")


@pytest.fixture(scope="module")
def running(start: Callable[..., Any], legged_artifact: Path) -> Any:
    settings = {"mpc": {"replan_every": 20}}
    run = start(
        artifact=legged_artifact,
        task="quadruped",
        without=["recorder"],
        settings={"*": {"artifact": str(legged_artifact)}, **settings},
    )
    run.probe.listen("planner_status", "latent", "ground_truth")
    run.supervisor.wait_for("active", timeout=60)
    moves(run)
    return run


@pytest.fixture
def client(domain: int) -> Iterator[Client]:
    with Client(domain_id=domain) as client:
        client.wait_ready(10.0)
        yield client


def moves(run: Any) -> None:
    run.probe.wait_for("planner_status", lambda s: s.state == PlannerStatus.RUNNING, timeout=10)


def processes(run: Any) -> dict[str, int | None]:
    return {name: status.pid for name, status in run.supervisor.status.items()}


def test_the_graph_takes_another_model_and_no_process_ends(running: Any, client: Client, another: Path) -> None:
    before, first = processes(running), running.probe.newest("latent").model_id
    reward = client.swap_reward(SLOW)
    assert reward.accepted
    artifact = use_model(client, another)
    assert artifact.spec.model_id != first
    running.probe.wait_for("latent", lambda m: m.model_id == artifact.spec.model_id, timeout=5)
    moves(running)
    assert running.probe.newest("planner_status").reward_id == reward.reward_id
    assert processes(running) == before
    assert all(status.starts == 1 for status in running.supervisor.status.values())


def test_the_command_line_does_so_too(running: Any, legged_artifact: Path, domain: int) -> None:
    before = processes(running)
    done = subprocess.run(
        [sys.executable, "-m", "worldpilot.cli.main", "models", "use", str(legged_artifact)],
        env={**os.environ, "ROS_DOMAIN_ID": str(domain), "_ROS_WHEELS_BOOTSTRAP_COMPLETE": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    expected = Artifact.load(legged_artifact).spec.model_id
    assert expected in done.stdout
    running.probe.wait_for("latent", lambda m: m.model_id == expected, timeout=5)
    moves(running)
    assert processes(running) == before


def test_what_must_not_be_used_is_refused_before_anything_stops(
    running: Any, client: Client, tiny_artifact: Path, tiny_legged: Path, another: Path
) -> None:
    ticks = running.probe.newest("planner_status").tick
    with pytest.raises(ArtifactError, match="push_t"):
        use_model(client, tiny_artifact)
    with pytest.raises(ArtifactError, match="calibrate monitor"):
        use_model(client, tiny_legged)
    client.set_parameter("mpc", "standing_reward", '{"terms": [{"plugin": "goal_latent"}]}')
    with pytest.raises(RewardError, match="goal"):
        use_model(client, another)
    client.set_parameter("mpc", "standing_reward", "")
    running.probe.wait_for("planner_status", lambda s: s.tick > ticks + 10, timeout=5)
    assert running.probe.newest("planner_status").state == PlannerStatus.RUNNING


def test_a_node_that_refuses_the_model_brings_all_back_to_theirs(
    running: Any, client: Client, builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "HORIZON", 4)  # of two control steps each: the planner is to follow a plan for 20
    short = with_thresholds(builder.build(tmp_path / "bare"), tmp_path / "quadruped")
    assert client.parameter("mpc", "replan_every") == 20
    first, reward = running.probe.newest("latent").model_id, running.probe.newest("planner_status").reward_id
    with pytest.raises(NotReady, match=r"mpc refused.*gone back"):
        use_model(client, short)
    assert any(node == "mpc" and "replan_every" in line for node, line in running.log)
    running.probe.wait_for("latent", lambda m: m.model_id == first, timeout=5)
    moves(running)
    assert running.probe.newest("planner_status").reward_id == reward
