"""An action client that may ask from one thread while another one spins."""

import threading
from typing import Any

from rclpy.action.client import ActionClient as RclpyActionClient
from rclpy.task import Future


class ActionClient(RclpyActionClient):
    """rclpy's, for whom a request is sent and noted before an answer is taken.

    rclpy's own notes a request after it has sent it. An answer that the spinning thread takes in between is dropped
    ("Ignoring unexpected goal response"), and whoever waits for it waits for ever.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._asking = threading.RLock()
        super().__init__(*args, **kwargs)

    def send_goal_async(self, *args: Any, **kwargs: Any) -> Future:
        with self._asking:
            return super().send_goal_async(*args, **kwargs)

    def _cancel_goal_async(self, goal_handle: Any) -> Future:
        with self._asking:
            return super()._cancel_goal_async(goal_handle)

    def _get_result_async(self, goal_handle: Any) -> Future:
        with self._asking:
            return super()._get_result_async(goal_handle)

    def take_data(self) -> Any:
        with self._asking:
            return super().take_data()
