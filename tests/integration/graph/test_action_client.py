"""Asking an action from one thread while another one spins."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import rclpy
from rclpy.action.server import ActionServer
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from worldpilot_msgs.action import Reason
from worldpilot_nodes.actions import ActionClient

from tests.support.futures import answered
from worldpilot.demo.host import free_domain


class Slow:
    """A client's handle that is slow to return from sending: the answer is there before the request is noted."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __getattr__(self, name: str) -> Any:
        called = getattr(self._handle, name)
        if not name.startswith("send_"):
            return called

        def send(*args: Any) -> Any:
            sent = called(*args)
            time.sleep(0.3)
            return sent

        return send


@pytest.fixture
def node() -> Iterator[Any]:
    """A node with an action, spun in another thread."""
    context = Context()
    rclpy.init(context=context, domain_id=free_domain())
    node = rclpy.create_node("both", context=context)

    def answer(goal: Any) -> Any:
        goal.succeed()
        return Reason.Result(message="done")

    server = ActionServer(node, Reason, "reason", answer)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin, daemon=True)
    spinning.start()
    yield node
    executor.shutdown()
    spinning.join(5.0)
    server.destroy()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_an_answer_that_is_there_before_its_request_is_noted_is_not_lost(node: Any) -> None:
    client = ActionClient(node, Reason, "reason")
    assert client.wait_for_server(5.0)
    client._client_handle = Slow(client._client_handle)
    goal = answered(client.send_goal_async(Reason.Goal(instruction="stop")), 5.0, "the action server")
    assert goal.accepted
    assert answered(goal.get_result_async(), 5.0, "the action server").result.message == "done"
